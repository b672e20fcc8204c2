package engine

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

// query is a prepared query whose errors have kinds and whose panics are errors.
type query struct {
	promql.Query
	engine *Engine
	window window
	memory *memory.Working // while it runs, and until its result is let go of
}

// Exec runs the query. It must be called once.
func (q *query) Exec(ctx context.Context) (res *promql.Result) {
	var broken error
	defer func() {
		if broken != nil {
			res = &promql.Result{Err: broken}
		}
	}()
	defer q.engine.rescue(q.String(), &broken)
	ctx, done := q.engine.activity.Begin(ctx, "evaluation", q.described)
	defer done()
	ctx, q.memory = q.engine.bound.begin(ctx)
	ctx, early := q.engine.cfg.early(ctx)
	defer early()
	ctx, turn, end := q.engine.turns.Begin(ctx)
	defer end()
	before := turn.Computed()
	res = q.Query.Exec(ctx)
	if res.Err = classify(res.Err); res.Err != nil {
		res.Err = q.engine.cfg.judge(res.Err, turn.Computed()-before)
		if err := q.memory.Evicted(); err != nil {
			res.Err = err // what it was at then tells nothing
		}
		q.memory.End()
	}
	return res
}

// described is what is said of q while it runs.
func (q *query) described() string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	return "start=" + at(q.window.start) + " end=" + at(q.window.end) + " step=" + q.window.step.String() + " query=" + q.String()
}

// Close lets go of the result.
func (q *query) Close() {
	q.Query.Close()
	q.memory.End()
}

// classifyPrepare gives an error of preparing a query its kind. What was parsed before and is
// refused now is of the wrong type for the kind of query.
func classifyPrepare(err error) error {
	if errs.KindOf(err) != errs.Internal {
		return err
	}
	return errs.Wrap(errs.Invalid, err)
}

// classify gives an error of evaluation its kind.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := errors.AsType[promql.ErrStorage](err); ok {
		if k := errs.KindOf(s.Err); k != errs.Internal {
			return errs.Wrap(k, err)
		}
		return errs.Wrap(errs.Internal, err)
	}
	switch {
	case is[promql.ErrTooManySamples](err):
		return errs.Wrap(errs.TooLarge, err)
	case is[promql.ErrQueryTimeout](err):
		return errs.Wrap(errs.Timeout, err)
	case is[promql.ErrQueryCanceled](err):
		return errs.Wrap(errs.Canceled, err)
	case errs.KindOf(err) != errs.Internal:
		return err
	case is[runtime.Error](err):
		return errs.Wrap(errs.Internal, err)
	}
	return errs.Wrap(errs.Unprocessable, err)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// verdictTime is how long before its end a query is stopped whose timeout is judged: the verdict has to
// arrive before those who asked give up.
const verdictTime = 250 * time.Millisecond

// early returns ctx with an end that leaves time for a verdict.
func (c *Config) early(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !c.JudgeTimeouts || !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, end.Add(-min(verdictTime, c.Timeout/20)))
}

// judge says of a query that reached its timeout whose fault that is, by how long it computed.
func (c *Config) judge(err error, computed time.Duration) error {
	if !c.JudgeTimeouts || errs.KindOf(err) != errs.Timeout || computed < c.Timeout/2 {
		return err
	}
	return errs.WithID(errs.Unprocessable, "query-timeout", "Ask for fewer series or less time, or precompute parts of it with recording rules.",
		"the query reached its timeout after it computed for %s, and would again: %w", computed.Round(time.Millisecond), err)
}

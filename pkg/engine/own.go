package engine

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/engine/stream"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

// own is a query that our operators evaluate, and stock if they meet what they do not cover.
type own struct {
	engine *Engine
	text   string
	stmt   *parser.EvalStmt
	data   storage.Queryable
	plan   *stream.Plan
	stock  func() (promql.Query, error)

	timers  *stats.QueryTimers
	samples *stats.QuerySamples
	cancel  context.CancelFunc

	fallback promql.Query // once it is used
}

// plan returns the query as our operators evaluate it, nil if they do not cover it.
func (e *Engine) plan(q storage.Queryable, opts promql.QueryOpts, qs string, expr parser.Expr, w window) *own {
	if e.own == nil {
		return nil
	}
	if opts == nil {
		opts = promql.NewPrometheusQueryOpts(false, 0)
	}
	lookback := opts.LookbackDelta()
	if lookback <= 0 {
		lookback = e.cfg.LookbackDelta
	}
	plan, err := e.own.Plan(stream.Query{
		Expr: expr, Start: w.start.UnixMilli(), End: w.end.UnixMilli(), Step: w.step.Milliseconds(), Lookback: lookback,
	})
	if err != nil {
		return nil
	}
	return &own{
		engine: e, text: qs, data: q, plan: plan,
		stmt:    &parser.EvalStmt{Expr: expr, Start: w.start, End: w.end, Interval: w.step, LookbackDelta: lookback},
		timers:  stats.NewQueryTimers(),
		samples: stats.NewQuerySamples(opts.EnablePerStepStats()),
		cancel:  func() {},
	}
}

// Exec is part of promql.Query.
func (q *own) Exec(ctx context.Context) *promql.Result {
	ctx, q.cancel = context.WithTimeout(ctx, q.engine.cfg.Timeout)
	defer q.cancel()
	v, warnings, err := q.run(ctx)
	if !errors.Is(err, stream.ErrUnsupported) {
		return &promql.Result{Value: v, Warnings: warnings, Err: err}
	}
	q.release()
	q.engine.metrics.queries.WithLabelValues(enginePrometheus).Inc()
	if q.fallback, err = q.stock(); err != nil {
		return &promql.Result{Err: classifyPrepare(err)}
	}
	return q.fallback.Exec(ctx)
}

func (q *own) run(ctx context.Context) (parser.Value, annotations.Annotations, error) {
	total, ctx := q.timers.GetSpanTimer(ctx, stats.ExecTotalTime)
	defer total.Finish()
	queued, _ := q.timers.GetSpanTimer(ctx, stats.ExecQueueTime)
	_, err := q.engine.slots.Insert(ctx, q.text)
	queued.Finish()
	if err != nil {
		return nil, nil, err
	}
	defer q.engine.slots.Delete(0)
	q.engine.metrics.queries.WithLabelValues(engineAmphora).Inc()
	eval, ctx := q.timers.GetSpanTimer(ctx, stats.EvalTotalTime)
	defer eval.Finish()
	if err := stream.Interrupted(ctx); err != nil {
		return nil, nil, err
	}
	mint, maxt := promql.FindMinMaxTime(q.stmt)
	data, err := q.data.Querier(mint, maxt)
	if err != nil {
		return nil, nil, err
	}
	defer data.Close()
	inner, ctx := q.timers.GetSpanTimer(ctx, stats.InnerEvalTime)
	defer inner.Finish()
	return q.plan.Run(memory.Counting(ctx), data, q.samples, memory.WorkingOf(ctx))
}

// release gives back what the query holds.
func (q *own) release() {
	q.plan.Close()
}

// Close is part of promql.Query.
func (q *own) Close() {
	if q.fallback != nil {
		q.fallback.Close()
		return
	}
	q.release()
}

// Statement is part of promql.Query.
func (q *own) Statement() parser.Statement { return q.stmt }

// Stats is part of promql.Query.
func (q *own) Stats() *stats.Statistics {
	if q.fallback != nil {
		return q.fallback.Stats()
	}
	return &stats.Statistics{Timers: q.timers, Samples: q.samples}
}

// Cancel is part of promql.Query.
func (q *own) Cancel() { q.cancel() }

// String is part of promql.Query.
func (q *own) String() string { return q.text }

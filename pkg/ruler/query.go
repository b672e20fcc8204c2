package ruler

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// query evaluates an expression of the group's rules.
func (r *runner) query(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
	m, user := r.w.r.metrics, string(r.w.id)
	m.queries.WithLabelValues(user).Inc()
	began := time.Now()
	v, err := r.w.r.evaluate(work.WithClass(r.wanted.Load().context(ctx), work.Rule), text, at)
	took := time.Since(began)
	m.querySeconds.WithLabelValues(user).Add(took.Seconds())
	if r.w.r.cfg.QueryStats {
		r.w.r.log.Info("query of a rule", "tenant", user, "namespace", r.key.namespace, "group", r.key.name, "query", text, "time", at, "took", took, "series", len(v), "err", err)
	}
	if err != nil {
		reason := blame(err)
		m.queriesFailed.WithLabelValues(user, reason).Inc()
		return nil, blamed(err, reason)
	}
	return v, nil
}

// operatorError is an error that an operator can do something about. Whatever else goes wrong with a rule is
// for its user: a limit of the tenant, or the rule itself.
type operatorError struct{ error }

// Unwrap returns the error without blame.
func (e *operatorError) Unwrap() error { return e.error }

// blamed returns err so that the evaluation that it ends is counted under reason.
func blamed(err error, reason string) error {
	if reason == byOperator {
		return &operatorError{err}
	}
	return err
}

// evaluate runs an instant query.
func (r *Ruler) evaluate(ctx context.Context, text string, at time.Time) (promql.Vector, error) {
	if r.deps.Evaluate != nil {
		return r.deps.Evaluate(ctx, text, at)
	}
	q, err := r.deps.Engine.NewInstantQuery(ctx, r.deps.Storage, nil, text, at)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, res.Err
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		return v, nil
	case promql.Scalar:
		return promql.Vector{promql.Sample{T: v.T, F: v.V, Metric: labels.EmptyLabels()}}, nil
	}
	return nil, errors.New("rule result is not a vector or scalar")
}

// The values of the label reason: who can do something about a failure.
const (
	byOperator = "operator"
	byUser     = "user"
)

// blame says who can do something about err.
func blame(err error) string {
	switch errs.KindOf(err) {
	case errs.Internal, errs.Unavailable, errs.Timeout, errs.Canceled, errs.Unimplemented:
		return byOperator
	}
	return byUser
}

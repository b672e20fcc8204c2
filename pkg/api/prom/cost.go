package prom

import (
	"context"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// maxPoints is Prometheus's bound on the points of one series in an answer.
const maxPoints = 11_000

// checkSize refuses a query text that is longer than the tenants may send.
func (a *API) checkSize(ctx context.Context, qs string) error {
	a.metrics.expressionBytes.Observe(float64(len(qs)))
	most := smallest(ctx, a, limits.MaxQueryExpressionSize)
	if most == 0 || len(qs) <= most {
		return nil
	}
	row := limits.MaxQueryExpressionSize.Row()
	return errs.Limit(errs.Invalid, "max-query-expression-size-bytes", row.Flag, row.Name,
		"the query expression size exceeds the limit (query size: %d bytes, limit: %d bytes)", len(qs), most)
}

// checkLength refuses a query that reaches over more time than the tenants may ask for. What its
// selectors reach back counts, because it is read; the lookback that every query has does not.
func (a *API) checkLength(ctx context.Context, q promql.Query) error {
	most := smallest(ctx, a, limits.MaxTotalQueryLength)
	prepared, ok := q.Statement().(*parser.EvalStmt)
	if most == 0 || !ok {
		return nil
	}
	stmt := *prepared
	stmt.LookbackDelta = 0
	length := stmt.End.Sub(stmt.Start)
	from, to := promql.FindMinMaxTime(&stmt)
	if from != 0 || to != 0 {
		length = max(length, timestamp.Time(to).Sub(timestamp.Time(from)))
	}
	return a.checkSpan(ctx, length)
}

// checkSpan refuses to read more time than the tenants may ask for.
func (a *API) checkSpan(ctx context.Context, length time.Duration) error {
	most := smallest(ctx, a, limits.MaxTotalQueryLength)
	if most == 0 || length <= most {
		return nil
	}
	row := limits.MaxTotalQueryLength.Row()
	return errs.Limit(errs.Invalid, "max-total-query-length", row.Flag, row.Name,
		"the total query time range exceeds the limit (query length: %s, limit: %s)", length, most)
}

// checkSelector refuses to read series by a selector that an operator blocked as a query for one of the tenants.
// It goes by the texts that the selector may have.
func (a *API) checkSelector(ctx context.Context, ms []*labels.Matcher) error {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return nil //nolint:nilerr // Nobody in particular, as for other limits.
	}
	for _, id := range ids {
		list := limits.BlockedQueries.Of(a.b.Limits(id)).List()
		if len(list) == 0 {
			continue
		}
		named := parser.VectorSelector{LabelMatchers: ms}
		for _, m := range ms {
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
				named.Name = m.Value
			}
		}
		texts := []string{named.String(), (&parser.VectorSelector{LabelMatchers: ms}).String()}
		for i := range list {
			if list[i].Matches(texts...) {
				return list[i].Refusal()
			}
		}
	}
	return nil
}

package ruler

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// TestAnEvaluationThatFailsSaysWhyAndWhoCanMendIt: a limit of the tenant is the user's, whether it refuses the
// query, what it gave, or what is to be stored; servers that are away are the operator's.
func TestAnEvaluationThatFailsSaysWhyAndWhoCanMendIt(t *testing.T) {
	limit := errs.Limit(errs.TooLarge, "max-series-per-query", "querier.max-fetched-series-per-query", "max_fetched_series_per_query", "the query has over 3 series")
	rate := errs.Limit(errs.RateLimited, "tenant-max-ingestion-rate", "distributor.ingestion-rate-limit", "ingestion_rate", "too fast")
	away := errs.New(errs.Unavailable, "nobody is there")
	for name, x := range map[string]struct {
		query, push error
		group       string
		want        string
		operator    bool
	}{
		"the query is limited":        {query: limit, want: "(err-amphora-max-series-per-query)"},
		"what is stored is limited":   {push: rate, want: "(err-amphora-tenant-max-ingestion-rate)"},
		"the group is limited":        {group: "limit: 1, ", want: "exceeded limit of 1"},
		"queriers are away":           {query: away, want: "nobody is there", operator: true},
		"ingesters are away":          {push: away, want: "nobody is there", operator: true},
		"the query fails unexplained": {query: context.DeadlineExceeded, want: "deadline", operator: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.store.refuse = x.push
				r := w.ruler(t, "a", nil)
				r.deps.Evaluate = func(context.Context, string, time.Time) (promql.Vector, error) {
					if x.query != nil {
						return nil, x.query
					}
					return promql.Vector{{Metric: labels.FromStrings("a", "1")}, {Metric: labels.FromStrings("a", "2")}}, nil
				}
				defer start(t, r)()
				put(t, r, "{name: g, "+x.group+"interval: 10s, query_offset: 0s, rules: [{record: r, expr: vector(1)}]}")
				time.Sleep(35 * time.Second)
				groups, err := r.List(tenant.Inject(t.Context(), "t"), "t", &rulerpb.GroupsRequest{})
				if err != nil || len(groups) != 1 || len(groups[0].Rules) != 1 {
					t.Fatalf("%v, %v", groups, err)
				}
				if rule := groups[0].Rules[0]; rule.Health != "err" || !strings.Contains(rule.LastError, x.want) {
					t.Errorf("health %s: %s", rule.Health, rule.LastError)
				}
				count := func(reason string) float64 {
					return testutil.ToFloat64(r.metrics.evaluationsFailed.WithLabelValues("t", "ns;g", reason))
				}
				user, operator := count(byUser), count(byOperator)
				if x.operator {
					user, operator = operator, user
				}
				if user < 2 || operator != 0 {
					t.Errorf("%g failures have the right reason, %g have not", user, operator)
				}
			})
		})
	}
}

package frontend

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// spinning are queries with parts that are asked for by themselves.
func (a asking) spinning() string {
	over := a.pick("sum_over_time", "count_over_time", "min_over_time", "max_over_time", "avg_over_time", "present_over_time", "quantile_over_time", "last_over_time")
	length := a.pick("[30h]", "[20h]", "[2d]", "[7h] offset 5h", "[90m]")
	sel := a.pick("temperature", "requests_total", `requests_total{job="j1"}`, "native", "latency_bucket", `{__name__=~"requests_total|temperature"}`)
	call := over + "(" + sel + length + ")"
	if over == "quantile_over_time" {
		call = over + "(0.9, " + sel + length + ")"
	}
	sub := a.pick("max_over_time", "sum_over_time", "rate", "deriv", "last_over_time", "absent_over_time", "count_over_time") + "((" + a.grouped() + ")" +
		a.pick("[6h:10m]", "[1d:7m]", "[3h:]", "[40m:5m]", "[5h:10m] offset 3h", "[5h:10m] @ 180000", "[5h:11m] offset -1h") + ")"
	switch a.rng.IntN(9) {
	case 0:
		return call
	case 1:
		return a.pick("sum", "min", "max", "count", "avg") + " by (job) (" + call + ")"
	case 2:
		return sub
	case 3:
		return a.pick("topk(2, ", "sum(", "abs(", "-(", "sort(", "scalar(") + sub + ")"
	case 4:
		return sub + a.pick(" / ", " or ", " - on (job) group_right () ", " unless ") + a.grouped()
	case 5:
		return call + a.pick(" > ", " + on (job, instance, le) ", " and ") + "(" + call + ")"
	case 6:
		return "quantile_over_time(scalar(max(temperature)) / 100, (" + a.grouped() + ")[6h:10m])"
	case 7:
		return "max_over_time((" + sub + ")[2h:10m])"
	}
	return call + " * 2 + time()"
}

// TestPartsOfInstantQueriesAnswerAsTheWhole compares queries of which parts are asked for by themselves,
// sharded and kept, with the stock engine, each twice so that what is kept is used.
func TestPartsOfInstantQueriesAnswerAsTheWhole(t *testing.T) {
	n := 1200
	if testing.Short() {
		n = 200
	}
	db, engine := filled(t), stock(t)
	view := limits.SplitInstantQueriesByInterval.With(limits.SubquerySpinOffEnabled.With(limits.View{}, true), 6*time.Hour)
	c := &changing{now: 20 * 86_400_000}
	f, q := caching(t, c, Config{SplitInterval: 24 * time.Hour}, view)
	q.db = db
	sharded, q := caching(t, c, Config{SplitInterval: 24 * time.Hour, Shard: true}, limits.QueryShardingTotalShards.With(view, 3))
	q.db = db
	a := asking{rand.New(rand.NewPCG(5, 6))}
	ctx := tenant.Inject(t.Context(), "a")
	spun := 0
	for range n {
		qs := a.spinning()
		at := timestamp.Time(30*3_600_000 + int64(a.rng.IntN(42*3_600))*1000)
		want := instantAt(t, engine, db, qs, at)
		for name, f := range map[string]*Frontend{"plain": f, "sharded": sharded, "again": f} {
			p, err := f.NewInstantQuery(ctx, nil, nil, qs, at)
			if err != nil {
				if want.Err == nil {
					t.Fatalf("%s: %v", qs, err)
				}
				continue
			}
			got := p.Exec(ctx)
			if p.(*query).spun > 0 {
				spun++
			}
			if diff := difference(qs, got, want); diff != "" {
				t.Fatalf("%s: %s at %s:\n%s", name, qs, at.UTC(), diff)
			}
			p.Close()
		}
	}
	if spun < n {
		t.Errorf("of %d queries only %d had parts of their own", 3*n, spun)
	}
}

func instantAt(t *testing.T, e promql.QueryEngine, db storage.Queryable, qs string, at time.Time) *promql.Result {
	t.Helper()
	q, err := e.NewInstantQuery(t.Context(), db, nil, qs, at)
	if err != nil {
		return &promql.Result{Err: err}
	}
	return q.Exec(t.Context())
}

package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestASettingChoosesTheEngine asks a process of each engine the same about the same samples.
func TestASettingChoosesTheEngine(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	end := time.Now().Add(-time.Minute).Truncate(time.Second)
	if day := end.UTC().Truncate(24 * time.Hour); end.Sub(day) < 6*time.Minute {
		end = day.Add(-time.Second) // a range that reaches over midnight is asked for in two queries
	}
	var series []prompb.TimeSeries
	for i := range 6 {
		s := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "hits_total"}, {Name: "host", Value: fmt.Sprint("h", i)}, {Name: "zone", Value: fmt.Sprint(i % 2)}}}
		for k := range 40 {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: end.Add(time.Duration(k-39) * 15 * time.Second).UnixMilli(), Value: float64(k*k*(i+1)) / 7})
		}
		series = append(series, s)
	}
	own, stock := everything(ctx, t), everything(ctx, t, "-querier.query-engine=prometheus")
	for _, n := range []*harness.Node{own, stock} {
		stored(t, pushV1(ctx, t, n.URL(""), "both", series...))
	}
	params := url.Values{"start": {seconds(end.Add(-5 * time.Minute).UnixMilli())}, "end": {seconds(end.UnixMilli())}, "step": {"7"}}
	for _, q := range []string{`sum by (zone) (rate(hits_total[2m]))`, `topk(2, hits_total)`, `avg(max_over_time(hits_total[1m])) / 3`, `hits_total > 100`, `count_values("v", hits_total > 200)`} {
		params.Set("query", q)
		var bodies [2]string
		for i, n := range []*harness.Node{own, stock} {
			r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query_range?")+params.Encode(), nil, "X-Scope-OrgID", "both")
			if bodies[i] = r.body; r.status != http.StatusOK || !strings.Contains(r.body, `"values"`) {
				t.Fatalf("%s: %s", q, r)
			}
		}
		if bodies[0] != bodies[1] {
			t.Errorf("%s:\n%s\n%s", q, bodies[0], bodies[1])
		}
	}
	for n, want := range map[*harness.Node][2]string{own: {"4", "1"}, stock: {"", "5"}} {
		if got := [2]string{queriesBy(ctx, t, n, "amphora"), queriesBy(ctx, t, n, "prometheus")}; got != want {
			t.Errorf("queries by our operators and by the Prometheus engine are %q, want %q", got, want)
		}
	}
}

// queriesBy returns how many queries an engine evaluated, as the metric has it.
func queriesBy(ctx context.Context, t *testing.T, n *harness.Node, engine string) string {
	t.Helper()
	name := fmt.Sprintf(`amphora_engine_queries_total{engine=%q} `, engine)
	for line := range strings.Lines(call(ctx, t, http.MethodGet, n.URL("/metrics"), nil).body) {
		if v, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

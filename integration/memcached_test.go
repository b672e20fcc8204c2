package integration

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAnswersAreRightWhateverTheCacheServerDoes keeps answers of queries and of label calls in memcached, and
// asks again and again while the server damages items, talks nonsense, does not answer, and is killed.
func TestAnswersAreRightWhateverTheCacheServerDoes(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	m := startMemcached(t)
	at := "-frontend.results-cache."
	n := everything(ctx, t, "-ingester.out-of-order-time-window=6h", at+"backend=memcached", at+"memcached.addresses="+m.Addr().String(), at+"memcached.timeout=500ms",
		"-query-frontend.results-cache-ttl-for-labels-query=10m", "-query-frontend.results-cache-ttl-for-cardinality-query=10m", "-querier.cardinality-analysis-enabled", "-query-frontend.cache-errors")
	end := time.Now().Truncate(time.Minute).Add(-30 * time.Minute)
	var series []prompb.TimeSeries
	for _, room := range []string{"a", "b", "c"} {
		s := prompb.TimeSeries{Labels: pairs("__name__", "shelves", "room", room)}
		for i := range 121 {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: end.Add(time.Duration(i-120) * time.Minute).UnixMilli(), Value: float64(i * len(series))})
		}
		series = append(series, s)
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", series...))
	start, stop := seconds(end.Add(-2*time.Hour).UnixMilli()), seconds(end.UnixMilli())
	calls := []string{
		"query_range?" + url.Values{"query": {"sum by (room) (rate(shelves[5m]))"}, "start": {start}, "end": {stop}, "step": {"60"}}.Encode(),
		"query?" + url.Values{"query": {"sum(shelves)"}, "time": {stop}}.Encode(),
		"labels?" + url.Values{"start": {start}, "end": {stop}}.Encode(),
		"label/room/values?" + url.Values{"start": {start}, "end": {stop}}.Encode(),
		"series?" + url.Values{"match[]": {"shelves"}, "start": {start}, "end": {stop}}.Encode(),
		"cardinality/label_names",
	}
	ask := func(path string, header ...string) (reply, error) {
		return try(ctx, http.MethodGet, n.URL("/prometheus/api/v1/"+path), nil, append(header, "X-Scope-OrgID", "team-a")...)
	}
	truth := map[string]string{}
	for _, path := range calls {
		r, err := ask(path, "Cache-Control", "no-store")
		must(t, err)
		if truth[path] = r.body; r.status != 200 || strings.Contains(r.body, "[]") {
			t.Fatalf("%s: %s", path, r)
		}
	}
	// until asks everything until a metric of the process is larger than it was.
	until := func(what, pattern string) {
		t.Helper()
		read := func() int { return metric(t, call(ctx, t, http.MethodGet, n.URL("/metrics"), nil).body, pattern) }
		before := read()
		harness.Need(t, harness.Poll(ctx, func(context.Context) error {
			for _, path := range calls {
				r, err := ask(path)
				if err != nil || r.status != 200 || r.body != truth[path] {
					t.Fatalf("%s: %s: %s, %v\nwant %s", what, path, r, err, truth[path])
				}
			}
			if read() <= before {
				return errors.New(pattern + " does not rise")
			}
			return nil
		}))
	}
	be := func(alter func(command, answer string) string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.alter = alter
	}
	const (
		hits    = `amphora_frontend_query_result_cache_hits_total\{[^}]*\}`
		damaged = `amphora_bucket_store_shared_cache_damaged_items_total\{cache="results-cache"\}`
		failed  = `amphora_bucket_store_shared_cache_failures_total\{cache="results-cache"\}`
	)
	until("well", hits)
	be(func(command, answer string) string { // a bit of the item, which is all but the first and the last lines
		if at := len(answer) - 12; command == "get" || command == "gets" {
			if strings.HasPrefix(answer, "VALUE ") && at > 0 {
				return answer[:at] + string([]byte{answer[at] ^ 1}) + answer[at+1:]
			}
		}
		return answer
	})
	until("damaging", damaged)
	be(func(string, string) string { return "VALUE x 0 -7\r\nSTORED\r\n" })
	until("babbling", failed)
	be(func(string, string) string { return "" })
	until("hanging", failed)
	be(nil)
	until("well again", hits)
	m.stop()
	until("killed", failed)
}

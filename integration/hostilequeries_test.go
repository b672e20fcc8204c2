package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// hostileSeries have samples over an hour.
const hostileSeries = 2000

// hostileData are series whose values differ, and classic histograms without an end, with bounds that are none, and with
// buckets that are not monotonous.
func hostileData(end time.Time) []prompb.TimeSeries {
	var out []prompb.TimeSeries
	add := func(v float64, kv ...string) {
		s := prompb.TimeSeries{Labels: pairs(kv...)}
		for at := end.Add(-time.Hour); !at.After(end); at = at.Add(4 * time.Minute) {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: at.UnixMilli(), Value: v})
		}
		out = append(out, s)
	}
	for i := range hostileSeries {
		add(float64(i)+0.5, "__name__", "m", "i", fmt.Sprint(i), "long", strings.Repeat("x", 500))
	}
	for i, le := range []string{"1", "NaN", "odd", "", "-Inf", "5", "5", "+Inf"} {
		add(float64(100-i), "__name__", "broken_bucket", "le", le, "n", fmt.Sprint(i/6))
		add(float64(100-i), "__name__", "endless_bucket", "le", fmt.Sprint(i))
	}
	return out
}

// TestCostlyQueriesNeverTakeMoreThanTheirPart asks what is allowed by its shape for as much as it can get: each is answered
// or refused with a 4xx, or for want of memory, in bounded time and memory.
func TestCostlyQueriesNeverTakeMoreThanTheirPart(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 6*time.Minute)
	n := everything(ctx, t, "-memory.limit=1073741824", "-querier.timeout=20s", "-distributor.ingestion-rate-limit=0", "-query-frontend.enabled-promql-experimental-functions=all", "-querier.max-fetched-series-per-query=0")
	end := time.Now().Truncate(time.Second)
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", hostileData(end)...))
	pid, peak := n.PID(), peakMemory(t, n)
	wide := url.Values{"start": {seconds(end.Add(-11_000 * 300 * time.Millisecond).UnixMilli())}, "end": {seconds(end.UnixMilli())}, "step": {"0.3"}}
	fine := url.Values{"start": {seconds(end.Add(-11 * time.Second).UnixMilli())}, "end": {seconds(end.UnixMilli())}, "step": {"0.001"}}
	once := url.Values{"time": {seconds(end.UnixMilli())}}
	joined := `label_join(m, "l", "", ` + strings.TrimSuffix(strings.Repeat(`"long",`, 256), ",") + ")"
	deep := "m"
	for range 200 {
		deep = "(" + deep + ") + m"
	}
	tree := "m"
	for range 7 {
		tree = "(" + tree + ") * (" + tree + ")"
	}
	ask := func(t *testing.T, query string, at url.Values) reply {
		form := url.Values{"query": {query}}
		for k, v := range at {
			form[k] = v
		}
		path := "query_range"
		if at.Get("time") != "" {
			path = "query"
		}
		r, err := try(ctx, http.MethodPost, n.URL("/prometheus/api/v1/"+path), []byte(form.Encode()), "X-Scope-OrgID", "team-a", "Content-Type", "application/x-www-form-urlencoded")
		must(t, err)
		return r
	}
	for _, c := range []struct {
		name, query string
		at          url.Values
	}{
		{"millions of values become labels", `count_values("v", m * time())`, wide},
		{"millions of values within groups", `count_values by (i, long) ("v", m * time())`, wide},
		{"a million series of values", `count_values by (i, long) ("v", m{i=~"1?.?."} * time())`, wide},
		{"values beside labels of megabytes", `count_values by (l) ("v", ` + strings.Replace(joined, "(m,", `(m{i=~"."},`, 1) + ` * time())`, wide},
		{"labels of megabytes", joined, once},
		{"labels of megabytes at every step", joined, wide},
		{"a billion of the highest", `topk(1e9, m)`, wide},
		{"as many as there are numbers", `topk(9e18, m)`, once},
		{"a ratio of all", `limit_ratio(1, m)`, wide},
		{"quantiles of broken histograms", `histogram_quantile(0.9, broken_bucket) or histogram_quantile(0.9, endless_bucket)`, wide},
		{"quantiles that are none", `histogram_quantile(time(), {__name__=~".*_bucket"})`, wide},
		{"a step of a millisecond", `m`, fine},
		{"windows at steps of a millisecond", `stddev_over_time(m[1h])`, fine},
		{"a subquery at steps of a millisecond", `max_over_time(m[10s:1ms])`, once},
		{"a long chain of vectors", deep, wide},
		{"a deep tree of vectors", tree, wide},
		{"everything beside everything", `m * on () group_left () m`, wide},
		{"everything in one group", `m + on (i) group_left () (m or label_replace(m, "i", "0", "", ""))`, wide},
		{"a regular expression that repeats itself", `m{i=~"(1+)+(2+)+(.*)*x"}`, wide},
		{"a regular expression of many states", `m{long=~"(.{1,30}){1,30}y"}`, once},
		{"labels replaced by a regular expression", `label_replace(m, "l", "$1$2", "long", "(x+)+(x*)*y?")`, once},
		{"quantiles of everything", `quantile(0.5, m)`, wide},
		{"sorted by labels", `sort_by_label(m, "long", "i")`, wide},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			r := ask(t, c.query, c.at)
			took := time.Since(begin)
			if r.status != 200 && r.status/100 != 4 && r.status != 503 {
				t.Errorf("answered %s", r)
			}
			if took > 40*time.Second {
				t.Errorf("answered after %s", took)
			}
			if n.PID() != pid {
				t.Fatal("the process died")
			}
			now := peakMemory(t, n)
			t.Logf("%d after %s, the peak is %d MiB: %.150s", r.status, took.Round(time.Millisecond), now>>20, r.body[:min(150, len(r.body))])
			if now > max(peak, 1<<30)+256<<20 {
				t.Errorf("the process had %d MiB, it may have 1 GiB", now>>20)
			}
		})
	}
	must(t, n.WaitReady(ctx))
	recovers(ctx, t, n)
}

// recovers waits until queries are answered again: what a refused one had may have to be collected first.
func recovers(ctx context.Context, t *testing.T, n *harness.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		_, err := matrix(ctx, n.URL(""), "team-a", "m[49h]", time.Now().UnixMilli())
		return err
	}))
	has(ctx, t, n.URL(""), "team-a", "m", hostileSeries)
}

// TestAThousandClientsAtOnceAreAnswered asks the same heavy query a thousand times at once.
func TestAThousandClientsAtOnceAreAnswered(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 5*time.Minute)
	n := everything(ctx, t, "-memory.limit=1073741824", "-distributor.ingestion-rate-limit=0")
	end := time.Now().Truncate(time.Second)
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", hostileData(end)...))
	form := url.Values{"query": {"m"}, "start": {seconds(end.Add(-time.Hour).UnixMilli())}, "end": {seconds(end.UnixMilli())}, "step": {"1"}, "limit": {"10"}}
	var statuses [6]atomic.Int64
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			r, err := try(ctx, http.MethodPost, n.URL("/prometheus/api/v1/query_range"), []byte(form.Encode()), "X-Scope-OrgID", "team-a", "Content-Type", "application/x-www-form-urlencoded")
			if err != nil {
				t.Error(err)
				return
			}
			statuses[r.status/100].Add(1)
			if r.status != 200 && r.status != 422 && r.status != 429 && r.status != 503 {
				t.Errorf("answered %s", r)
			}
		})
	}
	wg.Wait()
	peak := peakMemory(t, n)
	t.Logf("%d were answered, %d refused and %d told to come again; the peak was %d MiB", statuses[2].Load(), statuses[4].Load(), statuses[5].Load(), peak>>20)
	if peak > 1<<30+256<<20 {
		t.Errorf("the process had %d MiB, it may have 1 GiB", peak>>20)
	}
	recovers(ctx, t, n)
}

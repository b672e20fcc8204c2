package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// worst are queries as heavy as the limits let them be, over all series of a tenant.
func worst(now time.Time) []url.Values {
	at := seconds(now.UnixMilli())
	start := seconds(now.Add(-time.Hour).UnixMilli())
	return []url.Values{
		{"query": {`sum by (shelf) (rate({__name__=~"noise.*"}[1h]))`}, "start": {start}, "end": {at}, "step": {"5"}},
		{"query": {`quantile_over_time(0.99, {__name__=~".+"}[30m])`}, "start": {start}, "end": {at}, "step": {"15"}},
		{"query": {`max_over_time(sum by (room) (rate(noise[10m]))[1h:10s])`}, "start": {start}, "end": {at}, "step": {"60"}},
		{"query": {`label_replace(label_join(noise, "x", "-", "room", "shelf"), "y", "$1", "x", "(.*)-.*")`}, "start": {start}, "end": {at}, "step": {"30"}},
	}
}

// quantile returns the p-quantile of took, which it sorts.
func quantile(took []time.Duration, p float64) time.Duration {
	slices.Sort(took)
	return took[min(len(took)-1, int(p*float64(len(took))))]
}

// latency is how long queries took: for who asked, and of that in the server, by its own clock. The
// difference is the way there and back, on machines where clients and servers share processors mostly
// waiting for one of these.
type latency struct{ client, server []time.Duration }

func (l *latency) add(client, server time.Duration) {
	l.client, l.server = append(l.client, client), append(l.server, server)
}

func (l *latency) String() string {
	return fmt.Sprintf("p50 %s p99 %s (in the server %s, %s)", quantile(l.client, .5), quantile(l.client, .99), quantile(l.server, .5), quantile(l.server, .99))
}

// isolation asks light queries of one tenant, pace after each answer, in turns with and without another
// tenant that asks the worst in a loop.
func isolation(ctx context.Context, t *testing.T, n *harness.Node, rounds, each int, pace time.Duration) (alone, beside latency) {
	t.Helper()
	now := time.Now().Truncate(time.Minute)
	series := func(name string, count int) (out []prompb.TimeSeries) {
		for i := range count {
			s := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: name}, {Name: "room", Value: strconv.Itoa(i % 50)}, {Name: "shelf", Value: strconv.Itoa(i)}}}
			for k := 60; k >= 0; k-- {
				s.Samples = append(s.Samples, prompb.Sample{Timestamp: now.Add(-time.Duration(k) * time.Minute).UnixMilli(), Value: float64(i + 60 - k)})
			}
			out = append(out, s)
		}
		return out
	}
	for part := range slices.Chunk(series("noise", 4000), 500) {
		stored(t, pushV1(ctx, t, n.URL(""), "loud", part...))
	}
	stored(t, pushV1(ctx, t, n.URL(""), "calm", series("shelves", 100)...))
	// The clients are in nobody's way: they have connections of their own, and what is large is not read.
	calm, loud := &http.Client{Transport: &http.Transport{}}, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer calm.CloseIdleConnections()
	defer loud.CloseIdleConnections()
	get := func(ctx context.Context, c *http.Client, id, path string, form url.Values) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), http.NoBody)
		if err != nil {
			return nil, err
		}
		req.Header = http.Header{"X-Scope-Orgid": {id}, "Cache-Control": {"no-store"}, "Accept-Encoding": {"gzip"}}
		if id == "calm" {
			req.Header.Set("X-Dashboard-Uid", "d")
			req.Header.Set("X-Amphora-Response-Query-Stats", "true")
		}
		res, err := c.Do(req)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res, err
	}
	measure := func(l *latency) {
		for i := range each {
			pause(ctx, t, pace)
			begin := time.Now()
			path, form := "query_range", url.Values{"query": {"sum by (room) (rate(shelves[5m]))"}, "start": {seconds(now.Add(-time.Hour).UnixMilli())}, "end": {seconds(now.UnixMilli())}, "step": {"60"}}
			if i%2 == 0 { // as an alert does
				path, form = "query", url.Values{"query": {"sum(rate(shelves[5m])) > 0"}, "time": {seconds(now.UnixMilli())}}
			}
			res, err := get(ctx, calm, "calm", path, form)
			took := time.Since(begin)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatal(res, err)
			}
			l.add(took, responseTime(t, res.Header.Get("Server-Timing")))
		}
	}
	measure(new(latency))
	heavy := worst(now)
	for range rounds {
		measure(&alone)
		noise, stop := context.WithCancel(ctx)
		var crowd, begun sync.WaitGroup
		begun.Add(8)
		for i := range 8 {
			crowd.Go(func() {
				begun.Done()
				for k := i; noise.Err() == nil; k++ {
					_, _ = get(noise, loud, "loud", "query_range", heavy[k%len(heavy)]) // it may be refused
				}
			})
		}
		begun.Wait()
		measure(&beside)
		stop()
		crowd.Wait()
	}
	return alone, beside
}

// responseTime reads what a query took from the header Server-Timing.
func responseTime(t *testing.T, timing string) time.Duration {
	t.Helper()
	first, _, _ := strings.Cut(timing, ",")
	ms, err := strconv.ParseFloat(strings.TrimPrefix(first, "response_time;dur="), 64)
	if err != nil {
		t.Fatalf("Server-Timing: %q", timing)
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// TestTheWorstQueriesOfOneTenantDoNotStarveAnother bounds what they cost others on machines that do much
// else; with AMPHORA_ISOLATION=measure it runs longer, as often as rules and dashboards ask, and prints
// what it found, for quiet machines.
func TestTheWorstQueriesOfOneTenantDoNotStarveAnother(t *testing.T) {
	measure := os.Getenv("AMPHORA_ISOLATION") == "measure"
	if !measure {
		t.Parallel()
	}
	ctx := bounded(t, 10*time.Minute)
	n := everything(ctx, t, "-ingester.out-of-order-time-window=2h", "-distributor.ingestion-rate-limit=0", "-query-frontend.query-stats-enabled=false")
	rounds, each, pace := 2, 20, time.Duration(0)
	if measure {
		rounds, each, pace = 6, 300, 10*time.Millisecond
	}
	alone, beside := isolation(ctx, t, n, rounds, each, pace)
	report := fmt.Sprintf("alone %s; beside the worst queries %s", &alone, &beside)
	t.Log(report)
	// What a query waits for a processor is bounded, whatever others ask.
	if floor := 500 * time.Millisecond; quantile(beside.client, .5) > max(5*quantile(alone.client, .5), floor) {
		t.Error(report)
	}
}

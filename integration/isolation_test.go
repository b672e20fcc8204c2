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

// isolation asks light queries of one tenant in turns with and without another tenant that asks the worst
// in a loop, and returns how long they took.
func isolation(ctx context.Context, t *testing.T, n *harness.Node, rounds, each int) (quiet, noisy []time.Duration) {
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
	get := func(ctx context.Context, c *http.Client, id, path string, form url.Values) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), http.NoBody)
		if err != nil {
			return 0, err
		}
		req.Header = http.Header{"X-Scope-Orgid": {id}, "Cache-Control": {"no-store"}, "Accept-Encoding": {"gzip"}}
		if id == "calm" {
			req.Header.Set("X-Dashboard-Uid", "d")
		}
		res, err := c.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, err
	}
	measure := func() (took []time.Duration) {
		for i := range each {
			begin := time.Now()
			path, form := "query_range", url.Values{"query": {"sum by (room) (rate(shelves[5m]))"}, "start": {seconds(now.Add(-time.Hour).UnixMilli())}, "end": {seconds(now.UnixMilli())}, "step": {"60"}}
			if i%2 == 0 { // as an alert does
				path, form = "query", url.Values{"query": {"sum(rate(shelves[5m])) > 0"}, "time": {seconds(now.UnixMilli())}}
			}
			if status, err := get(ctx, calm, "calm", path, form); err != nil || status != 200 {
				t.Fatalf("%d, %v", status, err)
			}
			took = append(took, time.Since(begin))
		}
		return took
	}
	measure()
	heavy := worst(now)
	for range rounds {
		quiet = append(quiet, measure()...)
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
		noisy = append(noisy, measure()...)
		stop()
		crowd.Wait()
	}
	return quiet, noisy
}

// TestTheWorstQueriesOfOneTenantDoNotStarveAnother bounds what they cost others on machines that do much
// else; with AMPHORA_ISOLATION=measure it runs longer and prints what it found, for quiet machines.
func TestTheWorstQueriesOfOneTenantDoNotStarveAnother(t *testing.T) {
	measure := os.Getenv("AMPHORA_ISOLATION") == "measure"
	if !measure {
		t.Parallel()
	}
	ctx := bounded(t, 10*time.Minute)
	n := everything(ctx, t, "-ingester.out-of-order-time-window=2h", "-distributor.ingestion-rate-limit=0", "-query-frontend.query-stats-enabled=false")
	rounds, each := 2, 20
	if measure {
		rounds, each = 6, 100
	}
	quiet, noisy := isolation(ctx, t, n, rounds, each)
	q50, q99, n50, n99 := quantile(quiet, .5), quantile(quiet, .99), quantile(noisy, .5), quantile(noisy, .99)
	report := fmt.Sprintf("alone p50 %s p99 %s; beside the worst queries p50 %s p99 %s", q50, q99, n50, n99)
	t.Log(report)
	// What a query waits for a processor is bounded, whatever others ask.
	if floor := 500 * time.Millisecond; n50 > max(5*q50, floor) {
		t.Error(report)
	}
}

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
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
	return quantiles(l.client) + ", in the server " + quantiles(l.server)
}

// quantiles shows what took has in milliseconds.
func quantiles(took []time.Duration) string {
	if len(took) == 0 {
		return "not measured"
	}
	var out []string
	for _, p := range []float64{.5, .9, .95, .99} {
		out = append(out, fmt.Sprintf("p%.0f %.2f", 100*p, float64(quantile(took, p))/1e6))
	}
	return strings.Join(out, " ") + " ms"
}

// neighbours are two tenants of one process: loud asks the worst, calm looks at its dashboards and has
// rules.
type neighbours struct {
	*harness.Node
	now        time.Time
	calm, loud *http.Client
}

// newNeighbours stores what the two ask for.
func newNeighbours(ctx context.Context, t *testing.T, n *harness.Node) *neighbours {
	t.Helper()
	// The clients are in nobody's way: they have connections of their own, and what is large is not read.
	b := &neighbours{n, time.Now().Truncate(time.Minute), &http.Client{Transport: &http.Transport{}}, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	t.Cleanup(b.calm.CloseIdleConnections)
	t.Cleanup(b.loud.CloseIdleConnections)
	series := func(name string, count, ahead int) (out []prompb.TimeSeries) {
		for i := range count {
			s := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: name}, {Name: "room", Value: strconv.Itoa(i % 50)}, {Name: "shelf", Value: strconv.Itoa(i)}}}
			for k := -60; k <= ahead; k++ {
				s.Samples = append(s.Samples, prompb.Sample{Timestamp: b.now.Add(time.Duration(k) * time.Minute).UnixMilli(), Value: float64(i + 60 + k)})
			}
			out = append(out, s)
		}
		return out
	}
	for part := range slices.Chunk(series("noise", 4000, 0), 500) {
		stored(t, pushV1(ctx, t, n.URL(""), "loud", part...))
	}
	// Rules ask for what is now, as long as the test runs.
	stored(t, pushV1(ctx, t, n.URL(""), "calm", series("shelves", 100, 9)...))
	return b
}

func (b *neighbours) get(ctx context.Context, c *http.Client, id, path string, form url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), http.NoBody)
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

// beside calls f while loud asks the worst.
func (b *neighbours) beside(ctx context.Context, f func()) {
	noise, stop := context.WithCancel(ctx)
	var crowd, begun sync.WaitGroup
	begun.Add(8)
	heavy := worst(b.now)
	for i := range 8 {
		crowd.Go(func() {
			begun.Done()
			for k := i; noise.Err() == nil; k++ {
				_, _ = b.get(noise, b.loud, "loud", "query_range", heavy[k%len(heavy)]) // it may be refused
			}
		})
	}
	begun.Wait()
	defer crowd.Wait()
	defer stop()
	f()
}

// burning calls f while another program takes one processor: what that changes is the machine's doing.
func burning(ctx context.Context, t *testing.T, f func()) {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	loop := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
	if err := loop.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = loop.Wait() }() // it was killed
	defer stop()
	f()
}

// dashboards adds what light queries of calm take, each asked pace after the answer to the one before.
func (b *neighbours) dashboards(ctx context.Context, t *testing.T, l *latency, count int, pace time.Duration) {
	t.Helper()
	for i := range count {
		pause(ctx, t, pace)
		begin := time.Now()
		path, form := "query_range", url.Values{"query": {"sum by (room) (rate(shelves[5m]))"}, "start": {seconds(b.now.Add(-time.Hour).UnixMilli())}, "end": {seconds(b.now.UnixMilli())}, "step": {"60"}}
		if i%2 == 0 { // as an alert does
			path, form = "query", url.Values{"query": {"sum(rate(shelves[5m])) > 0"}, "time": {seconds(b.now.UnixMilli())}}
		}
		res, err := b.get(ctx, b.calm, "calm", path, form)
		took := time.Since(begin)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(res, err)
		}
		l.add(took, responseTime(t, res.Header.Get("Server-Timing")))
	}
}

// setRules gives calm groups of rules that are evaluated every second.
func (b *neighbours) setRules(ctx context.Context, t *testing.T, groups int) {
	t.Helper()
	for i := range groups {
		setGroup(ctx, t, b.URL(""), "calm", "ns", fmt.Sprintf(`name: g%d
interval: 1s
rules:
- record: room:shelves:rate5m
  expr: sum by (room) (rate(shelves[5m]))
  labels: {g: "%[1]d"}
- alert: Busy
  expr: sum(rate(shelves[5m])) > 1e9
- alert: Empty
  expr: min by (room) (shelves) < 0
- record: room:shelves:max5m
  expr: max by (room) (max_over_time(shelves[5m]))
  labels: {g: "%[1]d"}
`, i))
	}
}

// rules returns what evaluations of calm's groups take that begin within d, by the server's clock.
func (b *neighbours) rules(ctx context.Context, t *testing.T, d time.Duration) []time.Duration {
	t.Helper()
	seen := map[string]time.Duration{}
	for begin := time.Now(); ; {
		var answer struct {
			Data struct {
				Groups []struct {
					Name           string
					EvaluationTime float64
					LastEvaluation time.Time
					Rules          []struct{ Health, LastError string }
				}
			}
		}
		r := call(ctx, t, "GET", b.URL("/prometheus/api/v1/rules"), nil, "X-Scope-OrgID", "calm")
		if err := json.Unmarshal([]byte(r.body), &answer); err != nil || r.status != http.StatusOK {
			t.Fatal(err, r)
		}
		for _, g := range answer.Data.Groups {
			for _, rule := range g.Rules {
				if rule.LastError != "" {
					t.Fatalf("a rule of %s fails: %s", g.Name, rule.LastError)
				}
			}
			if g.LastEvaluation.After(begin) {
				seen[g.Name+g.LastEvaluation.String()] = time.Duration(g.EvaluationTime * float64(time.Second))
			}
		}
		if time.Since(begin) > d && len(seen) > 0 {
			return slices.Collect(maps.Values(seen))
		}
		pause(ctx, t, 300*time.Millisecond)
	}
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

// asking is how often light queries are asked: each so long after the answer to the one before.
type asking struct {
	pace          time.Duration
	count, rounds int
}

// TestTheWorstQueriesOfOneTenantDoNotStarveAnother bounds what they cost others on machines that do much
// else. With AMPHORA_ISOLATION=measure it runs longer, as often as rules and dashboards ask, and prints
// what it found, for quiet machines; with AMPHORA_ISOLATION=apart the clients have a processor of their
// own meanwhile and the server the others, as they are on different machines in life. Both compare with a machine of
// which another program takes a processor.
func TestTheWorstQueriesOfOneTenantDoNotStarveAnother(t *testing.T) {
	mode := os.Getenv("AMPHORA_ISOLATION")
	phases, groups, evaluations, rounds := []asking{{0, 20, 2}}, 2, time.Second, 1
	if mode == "" {
		t.Parallel()
	} else {
		phases, groups, evaluations, rounds = []asking{{10 * time.Millisecond, 500, 3}, {250 * time.Millisecond, 100, 4}}, 20, 10*time.Second, 2
	}
	ctx := bounded(t, 10*time.Minute)
	var n *harness.Node
	start := func() {
		n = everything(ctx, t, "-ingester.out-of-order-time-window=2h", "-distributor.ingestion-rate-limit=0", "-query-frontend.query-stats-enabled=false", "-ruler.evaluation-delay-duration=0s")
	}
	if mode == "apart" {
		join, err := harness.Apart(start)
		harness.Need(t, err)
		defer join()
	} else {
		start()
	}
	b := newNeighbours(ctx, t, n)
	b.dashboards(ctx, t, new(latency), phases[0].count, phases[0].pace)
	for _, p := range phases {
		var alone, burnt, beside latency
		for range p.rounds {
			b.dashboards(ctx, t, &alone, p.count, p.pace)
			if mode != "" {
				burning(ctx, t, func() { b.dashboards(ctx, t, &burnt, p.count, p.pace) })
			}
			b.beside(ctx, func() { b.dashboards(ctx, t, &beside, p.count, p.pace) })
		}
		report := fmt.Sprintf("queries, each %s after the answer to the one before:\n  alone %s\n  beside a busy loop of another program %s\n  beside the worst %s", p.pace, &alone, &burnt, &beside)
		t.Log(report)
		// What a query waits for a processor is bounded, whatever others ask.
		if floor := 500 * time.Millisecond; quantile(beside.client, .5) > max(5*quantile(alone.client, .5), floor) {
			t.Error(report)
		}
	}
	b.setRules(ctx, t, groups)
	var alone, burnt, beside []time.Duration
	for range rounds {
		alone = append(alone, b.rules(ctx, t, evaluations)...)
		if mode != "" {
			burning(ctx, t, func() { burnt = append(burnt, b.rules(ctx, t, evaluations)...) })
		}
		b.beside(ctx, func() { beside = append(beside, b.rules(ctx, t, evaluations)...) })
	}
	report := fmt.Sprintf("%d and %d evaluations of groups of four rules:\n  alone %s\n  beside a busy loop of another program %s\n  beside the worst %s", len(alone), len(beside), quantiles(alone), quantiles(burnt), quantiles(beside))
	t.Log(report)
	if floor := 2 * time.Second; quantile(beside, .5) > max(5*quantile(alone, .5), floor) {
		t.Error(report)
	}
}

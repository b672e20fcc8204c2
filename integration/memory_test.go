package integration

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

const (
	// memoryLimit is what the process of this test may use.
	memoryLimit = 120_000_000
	// floodSeries is the series of one request of the flood.
	floodSeries = 1000
)

// anon returns the anonymous memory of a process, in bytes: what it has beside mapped files, which
// the kernel can drop.
func anon(t *testing.T, n *harness.Node) int64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.PID()), "status"))
	if err != nil {
		t.Skipf("this system does not tell the memory of a process: %v", err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			must(t, err)
			return kb << 10
		}
	}
	t.Skip("this system does not tell the anonymous memory of a process")
	return 0
}

// crowd is a process under more load than its memory can hold.
type crowd struct {
	t    *testing.T
	n    *harness.Node
	now  time.Time
	next atomic.Int64 // requests of the flood

	mu    sync.Mutex // guards what follows
	acked []int      // requests of the flood that were answered 200
	reads map[int]int
	peak  int64
}

func (c *crowd) push(ctx context.Context, tenant string, series []prompb.TimeSeries) (reply, error) {
	body, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	if err != nil {
		return reply{}, err
	}
	return try(ctx, http.MethodPost, c.n.URL("/api/v1/push"), snappy.Encode(nil, body), "X-Scope-OrgID", tenant, "Content-Type", typeV1)
}

// flood pushes new series from several senders until ctx ends or each was refused often.
func (c *crowd) flood(ctx context.Context, senders, refusals int) {
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for refused := 0; refused < refusals && ctx.Err() == nil; {
				r := int(c.next.Add(1))
				series := make([]prompb.TimeSeries, floodSeries)
				for i := range series {
					series[i] = floats(c.now, float64(i), "__name__", "flood", "r", fmt.Sprint(r), "i", fmt.Sprint(i),
						"namespace", "a-namespace-of-some-length", "pod", fmt.Sprintf("deployment-7c9d8b6f5c-%05d", i), "container", "the-container-of-it")
				}
				re, err := c.push(ctx, "crowd", series)
				switch {
				case err != nil:
					if ctx.Err() == nil {
						c.t.Errorf("push: %v", err)
					}
					return
				case re.status == http.StatusOK:
					c.mu.Lock()
					c.acked = append(c.acked, r)
					c.mu.Unlock()
				case re.status != http.StatusServiceUnavailable || re.header.Get("Retry-After") == "" || !strings.Contains(re.body, "err-amphora-memory-limit"):
					c.t.Errorf("a push was answered %s", re)
					return
				default:
					refused++
				}
			}
		})
	}
	wg.Wait()
}

// query asks for many points of many series from several clients until ctx ends.
func (c *crowd) query(ctx context.Context, clients int) {
	var wg sync.WaitGroup
	for k := range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				q := url.Values{"query": {fmt.Sprintf(`sum(rate(flood{i=~"[0-9]*[%d-9]"}[5m]))`, k%5)}, "start": {seconds(c.now.UnixMilli() - 600_000)},
					"end": {seconds(c.now.UnixMilli() + 600_000)}, "step": {"0.25"}}
				re, err := try(ctx, http.MethodGet, c.n.URL("/prometheus/api/v1/query_range?"+q.Encode()), nil, "X-Scope-OrgID", "crowd")
				if err != nil {
					if ctx.Err() == nil {
						c.t.Errorf("query: %v", err)
					}
					return
				}
				if re.status == http.StatusServiceUnavailable && (re.header.Get("Retry-After") == "" || !strings.Contains(re.body, "err-amphora-memory-limit")) {
					c.t.Errorf("a query was answered %s", re)
				}
				c.mu.Lock()
				c.reads[re.status]++
				c.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// readsRefused is how many queries were refused so far.
func (c *crowd) readsRefused() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads[http.StatusServiceUnavailable]
}

// watch keeps the peak of the process's memory until stop.
func (c *crowd) watch() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if c.n.PID() != 0 {
					c.peak = max(c.peak, anon(c.t, c.n))
				}
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// known is a scrape of series that were there before the flood.
func (c *crowd) known(at time.Time) []prompb.TimeSeries {
	series := make([]prompb.TimeSeries, 500)
	for i := range series {
		series[i] = floats(at, float64(at.Second()), "__name__", "known", "i", fmt.Sprint(i))
	}
	return series
}

func (c *crowd) refused(ctx context.Context, account string) float64 {
	return scrape(ctx, c.t, c.n.URL("/metrics"), "amphora_memory_refused_total", "account", account)
}

// count asks how many series of a metric there are, until it is told.
func (c *crowd) count(ctx context.Context, selector string) (n int) {
	eventually(ctx, c.t, "count "+selector, func() error {
		re, err := try(ctx, http.MethodGet, c.n.URL("/prometheus/api/v1/query?"+url.Values{"query": {"count(" + selector + ")"}, "time": {seconds(c.now.UnixMilli() + 60_000)}}.Encode()),
			nil, "X-Scope-OrgID", "crowd")
		if err != nil {
			return err
		}
		if re.status != http.StatusOK {
			return fmt.Errorf("answered %s", re)
		}
		if _, err := fmt.Sscanf(re.body[strings.LastIndex(re.body, `,"`)+2:], "%d", &n); err != nil {
			return fmt.Errorf("read %s: %w", re.body, err)
		}
		return nil
	})
	return n
}

// TestNoLoadTakesMoreMemoryThanTheLimit floods a process of 120 MB with new series and large queries.
// It must refuse in the documented order, stay alive within its limit, lose nothing that it
// acknowledged, and take everything again when the load is over.
func TestNoLoadTakesMoreMemoryThanTheLimit(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	n := everything(ctx, t, fmt.Sprintf("-memory.limit=%d", memoryLimit), "-distributor.ingestion-rate-limit=0", "-distributor.ingestion-burst-size=100000000",
		"-ingester.max-global-series-per-user=0", "-distributor.remote-timeout=20s")
	c := &crowd{t: t, n: n, now: time.Now().Truncate(time.Second), reads: map[int]int{}}
	stop := c.watch()
	re, err := c.push(ctx, "crowd", c.known(c.now))
	must(t, err)
	stored(t, re)

	// New series are refused first; everything else goes on.
	c.flood(ctx, 4, 20)
	if c.refused(ctx, "head_series") == 0 {
		t.Error("no new series were refused")
	}
	if reads, writes := c.refused(ctx, "queries"), c.refused(ctx, "push_bodies")+c.refused(ctx, "frames"); writes > 0 {
		t.Errorf("%g reads and %g writes were refused while new series could be", reads, writes)
	}
	re, err = c.push(ctx, "crowd", c.known(c.now.Add(time.Second)))
	must(t, err)
	stored(t, re)
	if got := c.count(ctx, "known"); got != 500 {
		t.Errorf("%d known series", got)
	}

	// Then reads; what was known before is still written.
	// A machine with much else to do answers no query for a while.
	busy, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	begin := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { c.query(busy, 12) })
	wg.Go(func() { c.flood(busy, 4, math.MaxInt) })
	good := 0
	for k := 2; busy.Err() == nil; k++ {
		re, err := c.push(ctx, "crowd", c.known(c.now.Add(time.Duration(k)*time.Second)))
		must(t, err)
		if re.status == http.StatusOK {
			good++
		} else {
			t.Logf("a push of known series was answered %s", re)
		}
		if good > 0 && c.readsRefused() > 0 && time.Since(begin) > 5*time.Second {
			cancel()
		}
		pause(ctx, t, 100*time.Millisecond)
	}
	wg.Wait()
	stop()
	if good == 0 {
		t.Error("no push of known series was stored under load")
	}
	if c.readsRefused() == 0 {
		t.Error("no query was refused")
	}
	t.Logf("%d requests of %d new series stored, %d pushes of known ones; queries by status: %v; refused: series %g, reads %g, bodies %g, frames %g",
		len(c.acked), floodSeries, good, c.reads, c.refused(ctx, "head_series"), c.refused(ctx, "queries"), c.refused(ctx, "push_bodies"), c.refused(ctx, "frames"))
	t.Logf("peak of anonymous memory %.1f MB, of all memory with mapped files %.1f MB, limit %.0f MB", float64(c.peak)/1e6, float64(peakMemory(t, n))/1e6, memoryLimit/1e6)
	if c.peak > memoryLimit {
		t.Errorf("the process took %d bytes of %d", c.peak, memoryLimit)
	}
	if n.Starts() != 1 || n.PID() == 0 {
		t.Fatal("the process died")
	}
	c.calm(ctx)
}

// calm checks what holds after the load, and after a crash.
func (c *crowd) calm(ctx context.Context) {
	t := c.t
	check := func() {
		t.Helper()
		for k, r := range c.acked { // all at once would be refused
			selector, want := fmt.Sprintf(`flood{r="%d",i=~"[0-9]|99."}`, r), 20
			if k%16 == 0 {
				selector, want = fmt.Sprintf(`flood{r="%d"}`, r), floodSeries
			}
			if got := c.count(ctx, selector); got != want {
				t.Errorf("request %d was acknowledged, and of %s %d series are there, want %d", r, selector, got, want)
			}
		}
	}
	check()
	must(t, c.n.Kill())
	must(t, c.n.Start())
	must(t, c.n.WaitReady(ctx))
	check()
	// What leaves memory makes room for new series.
	if r := call(ctx, t, http.MethodPost, c.n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush: %s", r)
	}
	eventually(ctx, t, "take new series again", func() error {
		re, err := c.push(ctx, "crowd", []prompb.TimeSeries{floats(c.now, 1, "__name__", "fresh")})
		if err == nil && re.status != http.StatusOK {
			err = fmt.Errorf("answered %s", re)
		}
		return err
	})
	check()
	text, err := os.ReadFile(c.n.LogFile)
	must(t, err)
	for _, want := range []string{"short of memory", "new series are refused", "no longer short of memory"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

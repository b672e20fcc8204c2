package integration

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// loadVariable says how much a soak writes: samples a second, or, with a percent sign, the part of what
// the cluster takes when it is measured at the beginning. `make soak` sets it.
const loadVariable = "AMPHORA_TEST_LOAD"

// Those who press on a cluster are a few that send much at a time, as agents do.
const (
	pressers      = 8
	pressedSeries = 250 // of each
)

// pressed makes of j, which does not write yet, one that writes as loadVariable says, by as many writers
// as are returned, and is read less often. Without the variable it writes little. What was written to
// measure is in another journal.
func pressed(ctx context.Context, t *testing.T, j *journal, measureFor time.Duration) (writers int, measured *journal) {
	t.Helper()
	measured = newJournal("measured", rememberedFor(200*time.Millisecond, j.urls))
	text := os.Getenv(loadVariable)
	if text == "" {
		return 2, measured
	}
	number, part := strings.CutSuffix(text, "%")
	rate, err := strconv.ParseFloat(number, 64)
	if err != nil || rate <= 0 {
		t.Fatalf("%s=%s is neither a number of samples a second nor a part in percent", loadVariable, text)
	}
	j.urls, j.series, j.rest = measured.urls, pressedSeries, 500*time.Millisecond
	if part {
		most := measured.capacity(ctx, measureFor)
		t.Logf("capacity: %.0f samples/s acknowledged in %s, pushes %s", most, measureFor, &measured.took)
		rate *= most / 100
	}
	j.step = time.Duration(max(1, math.Round(pressers*pressedSeries*1000/rate))) * time.Millisecond
	t.Logf("load: %.0f samples/s", pressers*pressedSeries/j.step.Seconds())
	return pressers, measured
}

// capacity is how many samples a second are acknowledged when the next push is sent as soon as the one
// before is answered.
func (j *journal) capacity(ctx context.Context, d time.Duration) float64 {
	j.series, j.step = pressedSeries, time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	begin := time.Now()
	j.run(ctx, pressers)
	acked, _ := j.count()
	return float64(acked) / time.Since(begin).Seconds()
}

// rememberedFor asks urls at most once in each d.
func rememberedFor(d time.Duration, urls func() []string) func() []string {
	var mu sync.Mutex
	var last []string
	var at time.Time
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(at) > d {
			last, at = urls(), time.Now()
		}
		return last
	}
}

// latencies is how often something took how long, to about a tenth.
type latencies struct {
	counts [200]int
	n      int
	most   time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.n++
	l.most = max(l.most, d)
	l.counts[min(len(l.counts)-1, int(math.Log(max(1, float64(d.Microseconds())))/math.Log(1.1)))]++
}

// quantile returns what a share of p did not exceed.
func (l *latencies) quantile(p float64) time.Duration {
	left := int(math.Ceil(p * float64(l.n)))
	for i, n := range l.counts {
		if left -= n; left <= 0 {
			return time.Duration(math.Pow(1.1, float64(i+1))) * time.Microsecond
		}
	}
	return l.most
}

func (l *latencies) String() string {
	return fmt.Sprintf("p50 %s, p99 %s, the slowest %s", l.quantile(.5), l.quantile(.99), l.most.Round(time.Millisecond))
}

// watch is how much memory and how many files processes have, over time.
type watch struct {
	begin time.Time

	mu     sync.Mutex // guards what follows
	memory [4]map[string]int64
	files  map[string]int
}

// watched looks at the processes of c every few seconds until the returned function is called, over a
// time of about length.
func watched(ctx context.Context, c *harness.Cluster, length time.Duration) func() *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{begin: time.Now(), files: map[string]int{}}
	for i := range w.memory {
		w.memory[i] = map[string]int64{}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			quarter := min(len(w.memory)-1, int(time.Since(w.begin)*time.Duration(len(w.memory))/length))
			for _, n := range c.Nodes() {
				w.look(quarter, n)
			}
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	})
	return func() *watch { cancel(); wg.Wait(); return w }
}

func (w *watch) look(quarter int, n *harness.Node) {
	proc := filepath.Join("/proc", strconv.Itoa(n.PID()))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return // it does not run just now
	}
	files, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[n.Spec.Name] = max(w.files[n.Spec.Name], len(files))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			if kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
				w.memory[quarter][n.Spec.Name] = max(w.memory[quarter][n.Spec.Name], kb<<10)
			}
		}
	}
}

// bounded fails t if a process had much more memory in the last quarter of the time than in the second.
func (w *watch) bounded(t *testing.T) {
	t.Helper()
	for name, last := range w.memory[3] {
		if second := w.memory[1][name]; last > 2*second+128<<20 {
			t.Errorf("%s had %d MiB in the second quarter and %d in the last", name, second>>20, last>>20)
		}
	}
}

// report says the most that each process had, and in each quarter of the time.
func (w *watch) report(t *testing.T) {
	t.Helper()
	for name, files := range w.files {
		var mib []int64
		for _, m := range w.memory {
			mib = append(mib, m[name]>>20)
		}
		t.Logf("%s: %v MiB in the quarters of the time, at most %d files", name, mib, files)
	}
}

package integration

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// cluster starts the three-zone cluster of the built binary, and waits until everybody knows all ingesters.
func cluster(ctx context.Context, t *testing.T) *harness.Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Flags: []string{
		"-ingester.ring.min-ready-duration=0s", "-ingester.ring.heartbeat-period=1s",
		"-distributor.ingestion-rate-limit=0", "-querier.timeout=30s",
	}})
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	return c
}

var built struct {
	sync.Once
	path string
	err  error
}

// TestMain removes what binary built.
func TestMain(m *testing.M) {
	code := m.Run()
	if built.path != "" {
		_ = os.RemoveAll(filepath.Dir(built.path))
	}
	os.Exit(code)
}

// raceVariable has the product built with the race detector; `make race-integration` sets it. A race
// that a process meets then fails the test that stops it.
const raceVariable = "AMPHORA_TEST_RACE"

// binary builds the product once for all tests of the package.
func binary(ctx context.Context, t *testing.T) string {
	t.Helper()
	built.Do(func() {
		dir, err := os.MkdirTemp("", "amphora-integration-")
		if err != nil {
			built.err = err
			return
		}
		// Not within the time of the test that happens to be the first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
		defer cancel()
		built.path, built.err = harness.Build(ctx, dir, os.Getenv(raceVariable) != "")
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// bases are the URLs of the nodes that run target.
func bases(c *harness.Cluster, target string) func() []string {
	return func() []string {
		var out []string
		for _, n := range c.Of(target) {
			out = append(out, n.URL(""))
		}
		return out
	}
}

func TestClusterLosesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	c := cluster(ctx, t)
	j := newJournal("team-a", bases(c, "distributor"))
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { j.run(load, 4) })
	defer func() { stop(); wg.Wait() }()
	querier := c.Of("querier")[0].URL("")
	for (func() bool { n, _ := j.count(); return n < 4000 })() {
		pause(ctx, t, 100*time.Millisecond)
	}

	t.Run("one ingester killed under load", func(t *testing.T) {
		reads := watchReads(ctx, querier)
		j.resetGap()
		must(t, c.Node("ingester-b").Kill())
		pause(ctx, t, 15*time.Second)
		if gap := j.gap(); gap > 10*time.Second {
			t.Errorf("no acknowledgement for %s while one of three ingesters was dead", gap)
		}
		must(t, c.Node("ingester-b").Start())
		must(t, c.Node("ingester-b").WaitReady(ctx))
		good, bad, last := reads()
		if bad > 0 {
			t.Errorf("%d of %d reads failed, the last with %v", bad, good+bad, last)
		}
		acked, given := j.count()
		t.Logf("%d samples acknowledged, %d given up, longest gap %s, %d reads", acked, given, j.gap(), good)
		j.verify(ctx, t, querier)
	})

	t.Run("everything killed", func(t *testing.T) {
		for _, n := range c.Nodes() {
			must(t, n.Kill())
		}
		start := time.Now()
		for _, n := range c.Nodes() {
			must(t, n.Start())
		}
		must(t, c.WaitReady(ctx))
		t.Logf("ready again after %s", time.Since(start).Round(time.Millisecond))
		pause(ctx, t, 3*time.Second)
		acked, given := j.count()
		t.Logf("%d samples acknowledged, %d given up", acked, given)
		j.verify(ctx, t, querier)
	})

	t.Run("an ingester's disk lost", func(t *testing.T) {
		n := c.Node("ingester-c")
		must(t, n.Kill())
		must(t, os.RemoveAll(n.DataDir))
		must(t, n.Start())
		must(t, n.WaitReady(ctx))
		pause(ctx, t, 3*time.Second)
		stop()
		wg.Wait()
		acked, given := j.count()
		t.Logf("%d samples acknowledged, %d given up", acked, given)
		j.verify(ctx, t, querier)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pause lets real time pass in which processes work.
func pause(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-ctx.Done():
		t.Fatal(context.Cause(ctx))
	case <-time.After(d):
	}
}

// watchReads asks for the newest journal samples all the time until the returned function is
// called, which says how many reads were complete and how many failed.
func watchReads(ctx context.Context, querier string) func() (good, bad int, last error) {
	ctx, cancel := context.WithCancel(ctx)
	var good, bad int
	var last error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			now := time.Now().UnixMilli()
			_, err := raw(ctx, querier, "team-a", `journal{writer="0"}`, now-10_000, now)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				bad, last = bad+1, err
			} else {
				good++
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() (int, int, error) { cancel(); <-done; return good, bad, last }
}

func (j *journal) resetGap() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.longest, j.lastAck = 0, time.Now()
}

func (j *journal) gap() time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return max(j.longest, time.Since(j.lastAck))
}

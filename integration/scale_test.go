package integration

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// scaled starts a cluster of three zones, with writers and readers that never rest. The returned
// function ends them and tells how it went.
func scaled(ctx context.Context, t *testing.T, flags ...string) (*harness.Cluster, *journal, func() *audit) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Flags: append(busyFlags(), flags...)})
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	j, end := busy(ctx, frontDoor(ctx, c, "distributor"), frontDoor(ctx, c, "querier"))
	return c, j, end
}

// busyFlags are for clusters that things are done to: everybody notices soon, and who stops is still
// there while others look away.
func busyFlags() []string {
	return []string{"-ingester.ring.heartbeat-period=1s", "-distributor.ingestion-rate-limit=0", "-querier.timeout=30s", "-shutdown-delay=1s"}
}

// busy has writers and readers work until the returned function is called.
func busy(ctx context.Context, push, query func() []string) (*journal, func() *audit) {
	j := newJournal("team-a", push)
	return j, j.busy(ctx, 2, query)
}

// busy has so many writers, and a reader, work until the returned function is called.
func (j *journal) busy(ctx context.Context, writers int, query func() []string) func() *audit {
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { j.run(load, writers) })
	audited := j.audited(ctx, query)
	return func() *audit {
		stop()
		wg.Wait()
		return audited()
	}
}

// TestIngestersComeAndGoUnderLoad doubles the ingesters and takes the older half away again. Nobody
// helps, and neither writers nor readers notice.
func TestIngestersComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	c, j, end := scaled(ctx, t)
	pause(ctx, t, 3*time.Second)
	j.resetGap()

	begin := time.Now()
	older := c.Of("ingester")
	var newer []*harness.Node
	for _, zone := range []string{"a", "b", "c"} {
		n, err := c.Add(harness.Spec{Name: "ingester-" + zone + "2", Target: "ingester", Zone: zone})
		must(t, err)
		newer = append(newer, n)
	}
	must(t, c.WaitReady(ctx))
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c", "ingester-a2", "ingester-b2", "ingester-c2")
	t.Logf("six ingesters after %s", time.Since(begin).Round(time.Millisecond))
	for _, n := range newer {
		eventually(ctx, t, n.Spec.Name+" to hold a share of the series", func() error {
			return between(scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_memory_series"), 60, 140)
		})
	}
	pause(ctx, t, 2*time.Second)

	begin = time.Now()
	var wg sync.WaitGroup
	for _, n := range older {
		wg.Go(func() {
			if r, err := try(ctx, http.MethodPost, n.URL("/ingester/shutdown"), nil); err != nil || r.status != 204 {
				t.Errorf("%s was told to shut down: %v, %v", n.Spec.Name, r, err)
			}
		})
	}
	wg.Wait()
	t.Logf("three ingesters left after %s", time.Since(begin).Round(time.Millisecond))
	for _, n := range older {
		must(t, n.Process.Stop())
		must(t, os.RemoveAll(n.DataDir)) // the machine is gone
	}
	rest := c.Running()
	settled(ctx, t, rest, "ingester-a2", "ingester-b2", "ingester-c2")
	pause(ctx, t, 3*time.Second)
	gap := j.gap()
	end().good(t)
	if gap > 10*time.Second {
		t.Errorf("no push was acknowledged for %s", gap)
	}
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, gap)
	j.verify(ctx, t, c.Of("querier")[0].URL(""))
	j.verify(ctx, t, c.Of("querier")[1].URL(""))
}

// TestAShardChangesUnderLoad changes how many ingesters a tenant's series are spread over, up, down and
// up again, and starts a querier that has not seen it.
func TestAShardChangesUnderLoad(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	size := func(n int) {
		text := fmt.Sprintf("overrides:\n  team-a: {ingestion_tenant_shard_size: %d}\n", n)
		must(t, os.WriteFile(file+".new", []byte(text), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	size(3)
	c, j, end := scaled(ctx, t, "-runtime-config.file="+file, "-runtime-config.reload-period=1s")
	for _, zone := range []string{"a", "b", "c"} {
		_, err := c.Add(harness.Spec{Name: "ingester-" + zone + "2", Target: "ingester", Zone: zone})
		must(t, err)
	}
	must(t, c.WaitReady(ctx))
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c", "ingester-a2", "ingester-b2", "ingester-c2")
	// taken is what each ingester was ever pushed. Who is in the shard may change when others come: those that were hold series
	// of it for long.
	taken := func() (all []float64) {
		for _, node := range c.Of("ingester") {
			all = append(all, scrape(ctx, t, node.URL("/metrics"), "amphora_ingester_ingested_samples_total"))
		}
		return all
	}
	used := func(want int) func() error {
		return func() error {
			before := taken()
			pause(ctx, t, time.Second)
			n := 0
			for i, now := range taken() {
				if now > before[i] {
					n++
				}
			}
			if n != want {
				return fmt.Errorf("%d ingesters are pushed to", n)
			}
			return nil
		}
	}
	eventually(ctx, t, "the three of the shard to be pushed to alone", used(3))
	size(6)
	eventually(ctx, t, "the larger shard to be used", used(6))
	pause(ctx, t, time.Second)
	size(3)
	pause(ctx, t, 3*time.Second)
	must(t, c.Node("querier-1").Restart()) // it has not seen that the shard was larger
	must(t, c.Node("querier-1").WaitReady(ctx))
	pause(ctx, t, 2*time.Second)
	size(0)
	pause(ctx, t, 9*time.Second)
	end().good(t)
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, j.gap())
	j.verify(ctx, t, c.Of("querier")[0].URL(""))
	j.verify(ctx, t, c.Of("querier")[1].URL(""))
}

func between(got, low, high float64) error {
	if got < low || got > high {
		return fmt.Errorf("%g is not between %g and %g", got, low, high)
	}
	return nil
}

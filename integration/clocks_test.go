package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// clocksVariable says that there is time to build the product with clocks that can be set.
const clocksVariable = "AMPHORA_TEST_CLOCKS"

// clocked is a cluster of which every process has a clock of its own, under load.
type clocked struct {
	*harness.Cluster
	clocks map[string]*harness.Clock
	j      *journal
	end    func() *audit
}

func newClocked(ctx context.Context, t *testing.T, binary string) *clocked {
	t.Helper()
	c := &clocked{clocks: map[string]*harness.Clock{}}
	dir := t.TempDir()
	nodes := harness.ThreeZones()
	for i := range nodes {
		clock, err := harness.NewClock(filepath.Join(dir, nodes[i].Name+".clock"))
		must(t, err)
		nodes[i].Env = clock.Env()
		c.clocks[nodes[i].Name] = clock
	}
	c.Cluster = harness.Start(ctx, t, harness.Options{Dir: dir, Binary: binary, Nodes: nodes, Flags: busyFlags()})
	c.all(ctx, t)
	c.j, c.end = busy(ctx, frontDoor(ctx, c.Cluster, "distributor"), frontDoor(ctx, c.Cluster, "querier"))
	pause(ctx, t, 3*time.Second)
	c.j.resetGap()
	return c
}

// all waits until everybody sees all ingesters at work.
func (c *clocked) all(ctx context.Context, t *testing.T) {
	t.Helper()
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
}

// wrong sets the clocks of nodes for a while, and right again.
func (c *clocked) wrong(ctx context.Context, t *testing.T, by time.Duration, names ...string) {
	t.Helper()
	for _, name := range names {
		must(t, c.clocks[name].Set(by))
	}
	pause(ctx, t, 15*time.Second)
	for _, name := range names {
		must(t, c.clocks[name].Set(0))
	}
	pause(ctx, t, 5*time.Second)
}

// done stops the load, and finds every acknowledged sample.
func (c *clocked) done(ctx context.Context, t *testing.T, longest time.Duration) {
	t.Helper()
	gap := c.j.gap()
	c.end().good(t)
	acked, given := c.j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, gap)
	if given > 0 || gap > longest {
		t.Errorf("%d samples were given up, and none was taken for %s", given, gap)
	}
	for _, q := range c.Of("querier") {
		c.j.verify(ctx, t, q.URL(""))
	}
}

// TestClocksJump sets the clocks of processes of a cluster that is written to and read. It builds the
// product anew with everything it stands on, for the clock of a process of Go cannot be set from outside.
func TestClocksJump(t *testing.T) {
	if os.Getenv(clocksVariable) == "" {
		t.Skip("builds for minutes; set " + clocksVariable)
	}
	ctx := bounded(t, 30*time.Minute)
	built, err := harness.BuildWithClock(ctx, t.TempDir())
	must(t, err)
	for _, by := range []time.Duration{time.Hour, -time.Hour, 5 * time.Second} {
		t.Run(fmt.Sprintf("an ingester is %s off and comes back", by), func(t *testing.T) {
			c := newClocked(ctx, t, built)
			c.wrong(ctx, t, by, "ingester-b")
			c.all(ctx, t)
			// The one whose clock was wrong is no less alive: the death of another is survived, and its own.
			for _, name := range []string{"ingester-c", "ingester-b"} {
				must(t, c.Node(name).Kill())
				pause(ctx, t, 5*time.Second)
				must(t, c.Node(name).Start())
				must(t, c.Node(name).WaitReady(ctx))
				c.all(ctx, t)
				pause(ctx, t, auditWindow+2*time.Second) // two in one window are more than is survived
			}
			c.done(ctx, t, 5*time.Second)
		})
	}
	t.Run("a distributor and a querier are an hour ahead", func(t *testing.T) {
		c := newClocked(ctx, t, built)
		c.wrong(ctx, t, time.Hour, "distributor-1", "querier-1")
		gap := c.j.gap()
		a := c.end()
		acked, given := c.j.count()
		t.Logf("%d samples acknowledged, %d given up, longest gap %s; of %d reads %d were refused, the first: %s", acked, given, gap, a.reads, a.failed, a.first)
		// To them all ingesters are silent since an hour: they refuse, and clients ask the others.
		if a.missing+a.wrong+given > 0 || gap > 5*time.Second {
			t.Errorf("%d samples were given up, none was taken for %s, %d were missing in answers and %d wrong", given, gap, a.missing, a.wrong)
		}
		if a.failed == 0 || !strings.Contains(a.first, "too many unhealthy instances in the ring") {
			t.Errorf("reads of a querier to which every ingester is silent: %d failed, the first: %s", a.failed, a.first)
		}
		for _, q := range c.Of("querier") {
			c.j.verify(ctx, t, q.URL(""))
		}
	})
	t.Run("all clocks are set back by five minutes", func(t *testing.T) {
		c := newClocked(ctx, t, built)
		var names []string
		for name := range c.clocks {
			names = append(names, name)
		}
		c.wrong(ctx, t, -5*time.Minute, names...)
		must(t, c.Node("ingester-a").Restart())
		must(t, c.Node("ingester-a").WaitReady(ctx))
		c.all(ctx, t)
		c.done(ctx, t, 5*time.Second)
	})
}

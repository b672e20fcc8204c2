package distributor

import (
	"testing"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

// used pushes and returns how many ingesters got something.
func (c *cluster) used() (n int) {
	c.t.Helper()
	before := map[string]int{}
	for addr, g := range c.ingesters {
		g.set(func(g *ingester) { before[addr] = g.frames })
	}
	req := &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(remotewritetest.Series(300), 1, c.clock.Load())}
	if _, err := c.push(req); err != nil {
		c.t.Fatal(err)
	}
	for addr, g := range c.ingesters {
		g.set(func(g *ingester) {
			if g.frames > before[addr] {
				n++
			}
		})
	}
	return n
}

func TestALargerShardIsUsedOnceReadersKnowIt(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 6})
	c.Distributor.deps.ShardGrowDelay = 25 * time.Second
	shard := func(size int) {
		c.limit(func(v limits.View) limits.View { return limits.IngestionTenantShardSize.With(v, size) })
	}
	shard(2)
	for _, step := range []struct {
		name  string
		size  int
		after time.Duration
		want  int
	}{
		{"the first size holds at once", 2, 0, 2},
		{"a larger one waits", 4, 0, 2},
		{"and waits", 4, 24 * time.Second, 2},
		{"and comes", 4, time.Second, 4},
		{"a smaller one comes at once", 3, 0, 3},
		{"all ingesters are the largest", 0, 0, 3},
		{"taken back", 3, time.Second, 3},
		{"a larger one waits anew", 5, 24 * time.Second, 3},
		{"another one from when it was asked for", 0, 24 * time.Second, 3},
		{"it comes, too", 0, 25 * time.Second, 6},
	} {
		shard(step.size)
		if step.after > 0 {
			c.used()
			c.advance(step.after)
		}
		if n := c.used(); n != step.want {
			t.Errorf("%s: %d ingesters used, want %d", step.name, n, step.want)
		}
	}
}

func TestSeriesOfASilentIngesterMoveWhenItIsRelieved(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 6, zones: true})
	copies := func() int {
		t.Helper()
		before := 0
		for _, g := range c.ingesters {
			_, stored := g.read()
			for _, s := range stored {
				before += len(s)
			}
		}
		c.used()
		after := 0
		for _, g := range c.ingesters {
			_, stored := g.read()
			for _, s := range stored {
				after += len(s)
			}
		}
		return after - before
	}
	if n := copies(); n != 900 {
		t.Fatalf("%d copies of 300 samples, want 900", n)
	}
	edit := func(f func(*ring.InstanceDesc)) func(*ring.Desc) {
		return func(d *ring.Desc) {
			i := d.Ingesters["ingester-0"]
			f(&i)
			d.Ingesters["ingester-0"] = i
		}
	}
	c.change(edit(func(i *ring.InstanceDesc) { i.Timestamp = time.Now().Add(-2 * time.Hour).Unix() }), func() bool {
		set, err := c.ring.GetAllHealthy(ring.Reporting)
		return err == nil && len(set.Instances) == 5
	})
	c.clock.Add(1)
	if n := copies(); n >= 900 {
		t.Errorf("one is silent: %d copies of 300 samples", n)
	}
	c.change(edit(func(i *ring.InstanceDesc) {
		i.ReadOnly, i.ReadOnlyUpdatedTimestamp = true, i.Timestamp
		i.Timestamp++
	}), func() bool { return c.ring.WritableInstancesWithTokensCount() == 5 })
	c.clock.Add(1)
	if n := copies(); n != 900 {
		t.Errorf("it was relieved: %d copies of 300 samples, want 900", n)
	}
}

// TestARaisedLimitAllowsAtOnceWhatItAllows: what was taken before counts, and a push that the new limit allows is
// not refused because the old one had little left.
func TestARaisedLimitAllowsAtOnceWhatItAllows(t *testing.T) {
	now := time.Unix(1000, 0)
	tenant := &tenantState{}
	tenant.setRates(&tenantLimits{ingestionRate: 1, ingestionBurst: 2}, 1, now)
	if !tenant.rates.ingestion.AllowN(now, 2) {
		t.Fatal("the first burst is refused")
	}
	raised := &tenantLimits{ingestionRate: 100, ingestionBurst: 1000}
	tenant.setRates(raised, 1, now)
	if tenant.rates.ingestion.AllowN(now, 999) {
		t.Error("what was taken before the limit was raised is forgotten")
	}
	if !tenant.rates.ingestion.AllowN(now, 998) {
		t.Error("a push within the raised burst is refused")
	}
	tenant.setRates(raised, 2, now) // a distributor more: nothing is given again
	if tenant.rates.ingestion.AllowN(now, 1) || !tenant.rates.ingestion.AllowN(now.Add(time.Second), 50) || tenant.rates.ingestion.AllowN(now.Add(time.Second), 1) {
		t.Error("the rate is not half of the limit")
	}
	tenant.setRates(&tenantLimits{ingestionRate: 0}, 1, now)
	tenant.setRates(&tenantLimits{ingestionRate: 10, ingestionBurst: 500}, 1, now)
	if !tenant.rates.ingestion.AllowN(now, 500) || tenant.rates.ingestion.AllowN(now, 1) {
		t.Error("what a limit allows is not there after there was none")
	}
}

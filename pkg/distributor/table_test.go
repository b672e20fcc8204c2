package distributor

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// TestTableFindsExactlyWhatItHolds compares the table with a map under random insertion and
// removal, with hashes that crowd a few home positions.
func TestTableFindsExactlyWhatItHolds(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	tab := newTable(&budget{limit: 1 << 20}, 7)
	topo := newTopology(1, nil)
	topo.intern([]string{"a"}, 1)
	held := map[remotewrite.Hash]frame.Ref{}
	var keys []remotewrite.Hash
	for range 20_000 {
		h := remotewrite.Hash{Hi: uint64(r.Intn(300)) << 55, Lo: uint64(r.Intn(2000))}
		if _, ok := held[h]; ok {
			tab.drop(tab.find(h) - 1)
			delete(held, h)
			continue
		}
		var f found
		if transient, ok := tab.remember(placement{hash: h}, topo, 1, &f); !ok || transient {
			t.Fatal("no room")
		}
		held[h] = f.ref
		keys = append(keys, h)
	}
	out := make([]found, len(keys))
	tab.lookup(keys, out, 1)
	for i, h := range keys {
		ref, ok := held[h]
		if (out[i].number != 0) != ok || ok && out[i].ref != ref {
			t.Fatalf("lookup of %v = %+v, want %v %t", h, out[i], ref, ok)
		}
	}
	if n, _ := tab.size(); n != len(held) || tab.budget.used.Load() != int64(n) {
		t.Errorf("%d series, %d used, want %d", n, tab.budget.used.Load(), len(held))
	}
}

func TestIdleSeriesAreForgottenAndTheirReferencesChange(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	g := c.ingesters["ingester-0"]
	c.mustPush(c.series("idle"), c.series("busy"))
	sweep := func(d time.Duration) {
		for range d / time.Second {
			c.advance(time.Second)
			now := time.UnixMilli(c.clock.Load())
			c.tenants.sweep(c.tick(now))
			if c.clock.Load()/1000%30 == 0 {
				c.mustPush(c.series("busy"))
			}
		}
	}
	sweep(seriesIdle + 2*time.Minute)
	if n := c.budget.used.Load(); n != 1 {
		t.Fatalf("%d series remembered, want the busy one", n)
	}
	if n := c.metric("amphora_distributor_series_cache_evictions_total"); n != 1 {
		t.Errorf("evictions = %g, want 1", n)
	}
	if defs := c.mustPush(c.series("new")); defs != 1 {
		t.Errorf("%d definitions, want 1", defs)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	index := map[uint32][]frame.Ref{}
	for r := range g.bound["t1"] {
		index[r.Index()] = append(index[r.Index()], r)
	}
	if len(index) != 2 {
		t.Errorf("references = %v, want the index of the forgotten series used again", g.bound)
	}
}

func TestIdleTenantsAreForgotten(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.mustPush(c.series("up"))
	c.advance(tenantIdle + time.Second)
	c.tenants.sweep(c.tick(time.UnixMilli(c.clock.Load())))
	if len(c.tenants.byID) != 0 || c.budget.used.Load() != 0 || c.metric("amphora_distributor_received_samples_total") != 0 {
		t.Errorf("%d tenants, %d series left", len(c.tenants.byID), c.budget.used.Load())
	}
	if defs := c.mustPush(c.series("up")); defs != 1 {
		t.Errorf("%d definitions, want 1", defs)
	}
}

func TestAFullTablePassesSeriesThrough(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3, cacheBytes: 10 * entryBytes})
	series := remotewritetest.Series(30)
	req := func() *remotewrite.Request {
		return &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series, 1, c.clock.Load())}
	}
	for round, want := range []int{90, 60, 60} {
		if _, err := c.push(req()); err != nil {
			t.Fatal(err)
		}
		if defs := c.defs(); defs != want {
			t.Errorf("round %d: %d definitions, want %d", round, defs, want)
		}
	}
	for _, ls := range series {
		for _, g := range c.ingesters {
			if _, stored := g.read(); len(stored["t1 "+ls.String()]) != 3 {
				t.Fatalf("%s was not stored every time", ls)
			}
		}
	}
	tab := c.tenants.byID["t1"].table
	if n, _ := tab.size(); n != 10 || int(tab.next)-len(tab.free) != 10 {
		t.Errorf("%d series and %d entries held, want 10", n, int(tab.next)-len(tab.free))
	}
	// Once the first are idle their places are taken.
	c.advance((pressureIdleTicks + 1) * time.Second)
	if _, err := c.push(&remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series[20:], 1, c.clock.Load())}); err != nil {
		t.Fatal(err)
	}
	c.defs()
	if _, err := c.push(&remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series[20:], 1, c.clock.Load())}); err != nil {
		t.Fatal(err)
	}
	if defs := c.defs(); defs != 0 {
		t.Errorf("%d definitions after idle series made room, want 0", defs)
	}
}

func TestTopologiesKeepBindingsOverChanges(t *testing.T) {
	topo := newTopology(1, nil)
	e := &entry{epoch: 1, set: topo.intern([]string{"a", "b", "c"}, 2), bound: [boundSlots]uint32{1, 2, 3}}
	for i := range keptTopologies - 1 {
		topo = newTopology(uint32(i)+2, topo)
	}
	set := topo.intern([]string{"b", "c", "d"}, 2)
	if got := topo.carry(e, set); got != [boundSlots]uint32{2, 3, 0} {
		t.Errorf("carried = %v, want [2 3 0]", got)
	}
	for i := range 5 {
		topo = newTopology(topo.epoch+1, topo)
		topo.intern([]string{fmt.Sprint(i)}, 1)
	}
	if got := topo.carry(e, topo.intern([]string{"b"}, 1)); got != [boundSlots]uint32{} {
		t.Errorf("carried = %v over too many changes, want nothing", got)
	}
	n := 0
	for p := topo; p != nil; p = p.prev.Load() {
		n++
	}
	if n > keptTopologies+2 {
		t.Errorf("%d topologies kept", n)
	}
}

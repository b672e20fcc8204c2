package distributor

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func TestWhatIsRememberedOfADestinationIsTrue(t *testing.T) {
	l := newBudget()
	d := newDestinations(&budget{memory: l.Account(memory.Table)})
	r := rand.New(rand.NewPCG(1, 2))
	hash := func(i uint64) remotewrite.Hash { // many share their low bits, and so their set
		return remotewrite.Hash{Hi: i, Lo: i % 5000}
	}
	want := func(i uint64) target { return target{tenant.ID(fmt.Sprint("t", i%70)), uint8(i % 2)} }
	found, looked := 0, 0
	for range 2000 {
		hashes, keys := make([]remotewrite.Hash, 100), make([]uint64, 100)
		from := r.Uint64N(50_000)
		for k := range hashes {
			keys[k] = from + uint64(k)
			hashes[k] = hash(keys[k])
		}
		out := make([]uint32, len(hashes))
		targets := d.look(hashes, out)
		for k, n := range out {
			looked++
			if n == 0 {
				d.remember(hashes[k], want(keys[k]))
				continue
			}
			if found++; targets[n-1] != want(keys[k]) {
				t.Fatalf("series %d goes to %v, want %v", keys[k], targets[n-1], want(keys[k]))
			}
		}
	}
	if found < looked/4 {
		t.Errorf("%d of %d found", found, looked)
	}
	if held, want := l.Account(memory.Table).Held(), int64(len(d.sets))*setBytes; held != want || held == 0 {
		t.Errorf("%d bytes are accounted for, %d are held", held, want)
	}
	d.finish()
	d.remember(hash(1), want(1))
	if held := l.Account(memory.Table).Held(); held != 0 {
		t.Errorf("%d bytes stay accounted for", held)
	}
}

func TestTooManyTargetsAreNotRemembered(t *testing.T) {
	l := newBudget()
	d := newDestinations(&budget{memory: l.Account(memory.Table)})
	for i := range keptTargets + 5 {
		n := d.remember(remotewrite.Hash{Hi: uint64(i), Lo: uint64(i)}, target{tenant: tenant.ID(fmt.Sprint("t", i))})
		if (n == 0) != (i >= keptTargets) {
			t.Fatalf("target %d has number %d", i, n)
		}
	}
}

// A series that was split before follows the rules of today, and the memory of the old ones comes
// back.
func TestRememberedDestinationsFollowTheLimits(t *testing.T) {
	l := newBudget()
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1, memory: l})
	series := []prompb.TimeSeries{c.series("up,team=team-a,env=team-x"), c.series("up,team=team-b,env=team-y")}
	v := *c.view.Load()
	for _, step := range []struct {
		rules, allowed []string
		want           map[string]float64
	}{
		{[]string{"team"}, []string{"team-*"}, map[string]float64{"team-a": 2, "team-b": 2}},
		{[]string{"env"}, []string{"team-*"}, map[string]float64{"team-a": 2, "team-b": 2, "team-x": 2, "team-y": 2}},
		{nil, nil, map[string]float64{"t1": 2 * 2, "team-x": 2}},
		{[]string{"team"}, []string{"team-a", "team-b"}, map[string]float64{"team-a": 4, "team-b": 4, "team-x": 2}},
	} {
		v = limits.TenantFromLabelRules.With(limits.TenantFromLabelAllowed.With(v, step.allowed), step.rules)
		c.views = map[tenant.ID]limits.View{"t1": v}
		for range 2 {
			if _, err := c.push(c.v1(series...)); err != nil {
				t.Fatal(err)
			}
		}
		for user, n := range step.want {
			if got := c.metric("amphora_distributor_received_samples_total", user); got != n {
				t.Errorf("rules %q: %s received %g samples, want %g", step.rules, user, got, n)
			}
		}
	}
	c.advance(tenantIdle + time.Minute)
	for tick := range uint32(2 * sweepPeriod) {
		c.tenants.sweep(c.tick(c.deps.Now()) + tick)
	}
	if held := l.Account(memory.Table).Held(); held != 0 {
		t.Errorf("%d bytes are held by tenants that are gone", held)
	}
}

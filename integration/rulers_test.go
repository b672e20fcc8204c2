package integration

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// gaps returns the times between the samples of a series of one group that are not its interval.
func gaps(ctx context.Context, base, tenant, name string, interval time.Duration) (samples int, wrong []time.Duration, err error) {
	a, err := ask(ctx, base+"/prometheus", tenant, "query", url.Values{"query": {name + "[10m]"}})
	if err != nil {
		return 0, nil, err
	}
	if len(a.Data.Result) != 1 {
		return 0, nil, fmt.Errorf("%s has %d series", name, len(a.Data.Result))
	}
	last := 0.0
	for _, v := range a.Data.Result[0].Values {
		at, ok := v[0].(float64)
		if !ok {
			return 0, nil, fmt.Errorf("%v is no time", v[0])
		}
		if d := at - last; last > 0 && math.Abs(d-interval.Seconds()) > 0.002 {
			wrong = append(wrong, time.Duration(d*1e9).Round(time.Millisecond))
		}
		last = at
	}
	return len(a.Data.Result[0].Values), wrong, nil
}

func TestKilledRulersLeaveNoGapInWhatIsRecorded(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	// A ruler makes up for what was missed for as long as an interval: a short one is over before that on a slow machine.
	const groups, interval = 12, 2 * time.Second
	ctx := bounded(t, 3*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1,
		Nodes: []harness.Spec{{Name: "core", Target: "ingester,distributor,querier,store-gateway"}, {Name: "ruler-1", Target: "ruler"}, {Name: "ruler-2", Target: "ruler"}},
		Flags: []string{"-ruler.ring.heartbeat-period=500ms", "-ruler.ring.heartbeat-timeout=3s", "-ruler.evaluation-delay-duration=0s"}})
	base := c.Node("core").URL("")
	for i := range groups {
		setGroup(ctx, t, c.Node("ruler-"+strconv.Itoa(i%2+1)).URL(""), "shop", "ns", fmt.Sprintf("name: g%d\ninterval: 2s\nrules:\n- record: value%d\n  expr: vector(%d)\n- alert: A%d\n  expr: vector(1)\n", i, i, i, i))
	}
	all := func(want int) {
		t.Helper()
		for i := range groups {
			harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
				n, wrong, err := gaps(ctx, base, "shop", "value"+strconv.Itoa(i), interval)
				if err == nil && (n < want || len(wrong) > 0) {
					err = fmt.Errorf("group %d: %d samples, want %d; gaps %v", i, n, want, wrong)
				}
				return err
			}))
		}
	}
	all(3)
	eventually(ctx, t, "both rulers to evaluate groups", func() error { // the first to start may have had all
		shared := map[string]bool{}
		for _, n := range c.Of("ruler") {
			for i := range groups {
				if scrapeHas(ctx, t, n.URL("/metrics"), fmt.Sprintf(`amphora_prometheus_rule_group_rules{rule_group="ns;g%d",user="shop"} 2`, i)) {
					shared[n.Spec.Name] = true
				}
			}
		}
		if len(shared) != 2 {
			return fmt.Errorf("groups are evaluated by %v alone", shared)
		}
		return nil
	})
	want := 3
	for _, name := range []string{"ruler-1", "ruler-2"} {
		harness.Need(t, c.Node(name).Kill())
		want += 6 // all groups, of the other ruler, and what was missed
		all(want)
		harness.Need(t, c.Node(name).Restart())
		harness.Need(t, c.Node(name).WaitReady(ctx))
		want += 2
		all(want)
	}
	// Both tell of all groups.
	for _, n := range c.Of("ruler") {
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			r, err := try(ctx, "GET", n.URL("/prometheus/api/v1/rules"), nil, "X-Scope-OrgID", "shop")
			if err != nil {
				return err
			}
			if got := countOf(r.body, `"health":"ok"`); got != 2*groups {
				return fmt.Errorf("%d rules are well, want %d: %s", got, 2*groups, r)
			}
			return nil
		}))
	}
}

package integration

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAClusterIsPartedAndHeals cuts one ingester, distributor and querier off from the others, as a
// broken switch does. The larger side goes on, the smaller one refuses, and afterwards all is well
// by itself.
func TestAClusterIsPartedAndHeals(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	nodes := harness.ThreeZones()
	wire, err := harness.NewNetwork(len(nodes))
	t.Cleanup(func() {
		if err := wire.Close(); err != nil {
			t.Error(err)
		}
	})
	harness.Need(t, err)
	for i := range nodes {
		nodes[i].Machine = wire.Machine(i)
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Files: true, Flags: append(busyFlags(),
		"-ingester.ring.heartbeat-timeout=10s")})
	ingesters := []string{"ingester-a", "ingester-b", "ingester-c"}
	settled(ctx, t, c.Nodes(), ingesters...)
	one := func(name string) func() []string { return func() []string { return []string{c.Node(name).URL("")} } }
	j, end := busy(ctx, one("distributor-1"), one("querier-1"))
	pause(ctx, t, 3*time.Second)
	stored(t, pushV1(ctx, t, c.Node("distributor-2").URL(""), "team-b", floats(time.Now(), 1, "__name__", "before")))
	j.resetGap()

	away := []string{"ingester-c", "distributor-2", "querier-2"}
	var machines []*harness.Machine
	for _, n := range c.Nodes() {
		if slices.Contains(away, n.Spec.Name) {
			machines = append(machines, n.Machine)
		}
	}
	must(t, wire.Part(machines...))
	query := c.Node("querier-2").URL("/prometheus/api/v1/query?") + url.Values{"query": {"before"}}.Encode()
	for begin := time.Now(); time.Since(begin) < 13*time.Second; {
		if r := pushV1(ctx, t, c.Node("distributor-2").URL(""), "team-b", floats(time.Now(), 1, "__name__", "during")); r.status != 503 {
			t.Errorf("the smaller side stored: %s", r)
		}
		if r := call(ctx, t, http.MethodGet, query, nil, "X-Scope-OrgID", "team-b"); r.status != 503 && !strings.Contains(r.body, `"before"`) {
			t.Errorf("the smaller side answered a part: %s", r)
		}
		pause(ctx, t, 200*time.Millisecond)
	}
	t.Logf("parted: longest gap %s", j.gap())

	must(t, wire.Heal())
	begin := time.Now()
	settled(ctx, t, c.Nodes(), ingesters...)
	healed := time.Since(begin)
	t.Logf("healed after %s", healed.Round(time.Millisecond))
	if healed > 20*time.Second {
		t.Errorf("healed only after %s", healed)
	}
	eventually(ctx, t, "the other distributor to work", func() error {
		r := pushV1(ctx, t, c.Node("distributor-2").URL(""), "team-b", floats(time.Now(), 1, "__name__", "after"))
		if r.status != 200 {
			return errors.New(r.String())
		}
		return nil
	})
	pause(ctx, t, 2*time.Second)
	gap := j.gap()
	end().good(t)
	if gap > 10*time.Second {
		t.Errorf("no push was acknowledged for %s", gap)
	}
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, gap)
	for _, q := range c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}

package integration

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestRingsAndElectionsInEtcd has a cluster without gossip lose an ingester and its etcd, and get
// one ingester more.
func TestRingsAndElectionsInEtcd(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	etcd, err := harness.StartEtcd(ctx, harness.TestLog(t), t.TempDir())
	harness.Need(t, err)
	t.Cleanup(func() { _ = etcd.Kill() })
	flags := append(slices.Clone(pairFlags), "-kvstore.store=etcd", "-kvstore.etcd.endpoints="+etcd.Endpoint, "-distributor.ha-tracker.store=etcd",
		"-distributor.ha-tracker.failover-timeout=1m", "-ingester.ring.heartbeat-period=1s")
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Flags: flags, Nodes: []harness.Spec{
		{Name: "ingester-a", Target: "ingester", Zone: "a"}, {Name: "ingester-b", Target: "ingester", Zone: "b"}, {Name: "ingester-c", Target: "ingester", Zone: "c"},
		{Name: "front-1", Target: "distributor,querier,store-gateway", Zone: "a"}, {Name: "front-2", Target: "distributor,querier,store-gateway", Zone: "b"},
	}})
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	front := c.Of("distributor")
	sent := 0
	push := func(n *harness.Node) {
		t.Helper()
		sent++
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "m", "n", fmt.Sprint(sent))))
	}
	for k := range 20 {
		push(front[k%2])
	}
	of := func(replica string) prompb.TimeSeries {
		return floats(time.Now(), 1, "__name__", "up", "__replica__", replica, "cluster", "eu")
	}
	stored(t, pushV1(ctx, t, front[0].URL(""), "pair", of("a")))
	eventually(ctx, t, "both distributors to know who is elected", func() error {
		if who, err := elected(ctx, front...); err != nil || who != "a" {
			return fmt.Errorf("%s is elected: %w", who, err)
		}
		return nil
	})
	if r := pushV1(ctx, t, front[1].URL(""), "pair", of("b")); r.status != http.StatusAccepted {
		t.Errorf("of the other replica: %s", r)
	}

	must(t, etcd.Kill())
	for k := range 20 {
		push(front[k%2])
	}
	has(ctx, t, front[0].URL(""), "team-a", "m", sent)
	must(t, etcd.Start())
	must(t, etcd.WaitReady(ctx))

	must(t, c.Node("ingester-b").Kill())
	for k := range 20 {
		push(front[k%2])
	}
	has(ctx, t, front[1].URL(""), "team-a", "m", sent)
	must(t, c.Node("ingester-b").Start())
	must(t, c.Node("ingester-b").WaitReady(ctx))
	_, err = c.Add(harness.Spec{Name: "ingester-a2", Target: "ingester", Zone: "a"})
	must(t, err)
	must(t, c.Node("ingester-a2").Start())
	must(t, c.Node("ingester-a2").WaitReady(ctx))
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-a2", "ingester-b", "ingester-c")
	eventually(ctx, t, "the new ingester to be written to", func() error {
		push(front[sent%2])
		if scrape(ctx, t, c.Node("ingester-a2").URL("/metrics"), "amphora_ingester_memory_series") == 0 {
			return errors.New("it has no series")
		}
		return nil
	})
	has(ctx, t, front[0].URL(""), "team-a", "m", sent)
}

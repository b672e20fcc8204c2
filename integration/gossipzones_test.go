package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// Members that gossip within their zone learn by the bridges what is in the other one, and how long that took is measured.
func TestGossipGoesBetweenZonesByBridges(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	bridge := []string{"-memberlist.zone-aware-routing.role=bridge"}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 2, Nodes: []harness.Spec{
		{Name: "ingester-a", Target: "ingester", Zone: "a", Flags: bridge},
		{Name: "ingester-b", Target: "ingester", Zone: "b", Flags: bridge},
		{Name: "rest", Target: "distributor,query-frontend,query-scheduler,querier,store-gateway", Zone: "a"},
	}, Flags: []string{"-memberlist.zone-aware-routing.enabled", "-memberlist.propagation-delay-tracker.enabled", "-memberlist.propagation-delay-tracker.beacon-interval=1s"}})
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b")
	rest := c.Node("rest")
	at := time.Now()
	stored(t, pushV1(ctx, t, rest.URL(""), "team", floats(at, 1, "__name__", "x")))
	hasValue(ctx, t, rest.URL(""), "team", "x", "1")
	for _, n := range c.Nodes() {
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			body, err := harness.Get(ctx, n.URL("/metrics"))
			if err != nil {
				return err
			}
			for _, want := range []string{"memberlist_client_zone_aware_routing_select_nodes_total", "memberlist_propagation_tracker_beacons_received_total",
				"memberlist_client_cluster_members_count", "memberlist_tcp_transport_packets_sent_total"} {
				if !risen(string(body), want) {
					return fmt.Errorf("%s: %s is not above 0", n.Spec.Name, want)
				}
			}
			return nil
		}))
	}
}

// risen says whether a metric without labels is above 0.
func risen(metrics, name string) bool {
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok && strings.TrimSpace(rest) != "0" {
			return true
		}
	}
	return false
}

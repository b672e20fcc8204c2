package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestQueriesGoAroundAnIngesterThatIsTooBusy has one of three ingesters, then all, refuse queries.
func TestQueriesGoAroundAnIngesterThatIsTooBusy(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	busy := "-ingester.read-path-memory-utilization-limit=1"
	nodes := []harness.Spec{{Name: "front", Target: "distributor,querier"}, {Name: "busy", Target: "ingester", Flags: []string{busy}},
		{Name: "idle-1", Target: "ingester"}, {Name: "idle-2", Target: "ingester"}}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Files: true})
	front := c.Node("front")
	settled(ctx, t, []*harness.Node{front}, "busy", "idle-1", "idle-2") // it pushes to those that it knows, and two are enough
	stored(t, pushV1(ctx, t, front.URL(""), "team-a", floats(time.Now(), 1, "__name__", "good")))
	shed := func() float64 {
		return scrape(ctx, t, c.Node("busy").URL("/metrics"), "amphora_ingester_utilization_limited_read_requests_total", "reason", "memory")
	}
	eventually(ctx, t, "a query that the busy ingester refuses", func() error {
		has(ctx, t, front.URL(""), "team-a", "good", 1)
		if shed() == 0 {
			return fmt.Errorf("it refused none")
		}
		return nil
	})
	eventually(ctx, t, "the busy ingester to store the sample", func() error {
		return between(scrape(ctx, t, c.Node("busy").URL("/metrics"), "amphora_ingester_ingested_samples_total"), 1, 1)
	})
	must(t, c.Node("idle-1").Kill())
	query := front.URL("/prometheus/api/v1/query?" + url.Values{"query": {"good"}}.Encode())
	eventually(ctx, t, "a query that has too few ingesters to answer it", func() error {
		r := call(ctx, t, http.MethodGet, query, nil, "X-Scope-OrgID", "team-a")
		if r.status != http.StatusServiceUnavailable {
			return fmt.Errorf("answered %s", r)
		}
		return nil
	})
}

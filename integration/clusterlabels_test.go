package integration

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestProcessesOfAnotherClusterAreRefused has two distributors of different clusters know one ingester:
// samples of its own are stored, and what the other brings is refused, not mixed with them.
func TestProcessesOfAnotherClusterAreRefused(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	named := func(label string) []string { return []string{"-common.client-cluster-validation.label=" + label} }
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Replicas: 1, Files: true, Nodes: []harness.Spec{
		{Name: "ingester", Target: "ingester", Zone: "a", Flags: []string{"-server.cluster-validation.label=ours", "-server.cluster-validation.grpc.enabled=true", "-server.cluster-validation.http.enabled=true"}},
		{Name: "ours", Target: "distributor", Zone: "a", Flags: named("ours")},
		{Name: "theirs", Target: "distributor", Zone: "a", Flags: named("theirs")},
	}})
	in, ours, theirs := c.Node("ingester"), c.Node("ours"), c.Node("theirs")
	settled(ctx, t, []*harness.Node{ours, theirs}, "ingester")
	stored(t, pushV1(ctx, t, ours.URL(""), "team-a", floats(time.Now(), 1, "__name__", "ours")))
	if r := pushV1(ctx, t, theirs.URL(""), "team-a", floats(time.Now(), 1, "__name__", "theirs")); r.status/100 != 5 {
		t.Errorf("a push through another cluster is answered %s", r)
	}
	const atServer, atClient = "amphora_server_invalid_cluster_validation_label_requests_total", "amphora_client_invalid_cluster_validation_label_requests_total"
	within(ctx, t, "both sides count the refusal", func() error {
		at := scrape(ctx, t, in.URL("/metrics"), atServer, "protocol", "grpc", "cluster_validation_label", "ours", "request_cluster_validation_label", "theirs")
		by := scrape(ctx, t, theirs.URL("/metrics"), atClient, "client", "ingester-streams")
		if at == 0 || by == 0 {
			return fmt.Errorf("%g calls are counted by the ingester, %g by the distributor", at, by)
		}
		return nil
	})
	if n := scrape(ctx, t, in.URL("/metrics"), atServer, "request_cluster_validation_label", "ours"); n != 0 {
		t.Errorf("the ingester counts %g calls of its own cluster", n)
	}
	page := in.URL("/ingester/tenants")
	if r := call(ctx, t, http.MethodGet, page, nil); r.status != http.StatusNetworkAuthenticationRequired {
		t.Errorf("a request without a cluster is answered %s", r)
	}
	if r := call(ctx, t, http.MethodGet, page, nil, "X-Cluster", "ours"); r.status != http.StatusOK {
		t.Errorf("a request of the cluster is answered %s", r)
	}
}

package integration

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/amp"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAGatewayPassesRequestsOn has a gateway in a process of its own, one that serves everything and a second
// distributor.
func TestAGatewayPassesRequestsOn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1, Flags: busyFlags(), Nodes: []harness.Spec{
		{Name: "services", Target: "ingester,store-gateway,distributor,querier,compactor,ruler,control"}, {Name: "distributor-2", Target: "distributor"},
	}})
	file := filepath.Join(t.TempDir(), "identities.yaml")
	must(t, os.WriteFile(file, []byte(heldIdentities), 0o600))
	services, second := c.Node("services"), c.Node("distributor-2")
	settled(ctx, t, c.Nodes(), "services")
	up := []string{"distributor=" + second.URL("")}
	for _, name := range []string{"distributor", "querier", "ruler", "control", "compactor"} {
		up = append(up, name+"="+services.URL(""))
	}
	g, err := c.Add(harness.Spec{Name: "gateway", Target: "gateway", Flags: []string{"-auth.enabled", "-auth.identity-file=" + file, "-auth.workspace-api-rate=0", "-gateway.upstreams=" + strings.Join(up, ",")}})
	must(t, err)
	must(t, g.WaitReady(ctx))
	id := workspaceOf(ctx, t, g, "a")
	now := time.Now()
	for range 4 { // by both distributors
		pushSigned(ctx, t, g, id, floats(now, 1, "__name__", "shown", "team", "a"), floats(now, 1, "__name__", hidden, "team", "b"))
	}
	if by := scrape(ctx, t, second.URL("/metrics"), "amphora_distributor_requests_in_total"); by < 1 || by > 3 {
		t.Errorf("the second distributor got %g of 4 pushes", by)
	}
	all := g.URL("/workspaces/" + id + "/api/v1/query?query=%7Bteam%3D~%22.%2B%22%7D")
	if r := signedCall(ctx, t, keyOf("FREE"), "GET", all, ""); !r.shows(hidden) {
		t.Errorf("who may read all: %s", r)
	}
	// Connection names the headers that hold the caller to some series.
	smuggled := []string{"Connection", "keep-alive, X-Amphora-Policy, X-Prom-Label-Policy, X-Scope-OrgID, X-Amphora-Caller, X-Amphora-Label-Policy"}
	for _, header := range [][]string{nil, smuggled} {
		if r := signedCall(ctx, t, keyOf("HELD"), "GET", all, "", header...); r.status != 200 || r.shows(hidden) || !r.shows("shown") {
			t.Errorf("who may read some, with %q: %s", header, r)
		}
	}
	if out, err := owner(g).DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: &id}); err != nil || *out.Workspace.WorkspaceId != id {
		t.Errorf("described: %v %v", out, err)
	}
	must(t, second.Kill())
	for n := range 20 {
		pushSigned(ctx, t, g, id, floats(now.Add(time.Duration(n+1)*time.Millisecond), 1, "__name__", "shown", "team", "a"))
	}
	becomes(ctx, t, "pages of the gateway itself", 403, signedBy(g.URL("/config"), keyOf("FREE")))
	must(t, services.Stop())
	if r := signedCall(ctx, t, keyOf("FREE"), "GET", all, ""); r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("nobody is there: %s", r)
	}
	must(t, services.Start())
	must(t, services.WaitReady(ctx))
	becomes(ctx, t, "the querier is back", 200, signedBy(all, keyOf("FREE")))
}

// TestAllowancesHold is about too many calls, and too many wrong passwords.
func TestAllowancesHold(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := guarded(ctx, t, heldIdentities, "-auth.workspace-api-rate=2", "-auth.alertmanager-api-rate=2", "-auth.write-api-rate=2", "-auth.read-api-rate=2", "-auth.failed-logins-per-minute=5")
	made, err := owner(n).CreateWorkspace(ctx, &amp.CreateWorkspaceInput{})
	must(t, err)
	base := n.URL("/workspaces/" + *made.WorkspaceId)
	for name, c := range map[string]struct{ method, url string }{
		"workspaces": {"GET", base}, "alertmanager": {"GET", base + "/alertmanager/definition"}, "writes": {"POST", base + "/api/v1/remote_write"}, "reads": {"GET", base + "/api/v1/query?query=1"},
	} {
		must(t, harness.Poll(ctx, func(ctx context.Context) error {
			began, throttled := time.Now(), 0
			for range 40 {
				r := signedCall(ctx, t, keyOf("OWNER"), c.method, c.url, "")
				if r.status == http.StatusTooManyRequests {
					throttled++
					if r.header.Get("X-Amzn-Errortype") != "ThrottlingException" || r.header.Get("Retry-After") == "" {
						t.Errorf("%s: %v %s", name, r.header, r)
					}
				}
			}
			if allowed := 2 + 2*time.Since(began).Seconds(); float64(40-throttled) > allowed+1 {
				return fmt.Errorf("%s: %d of 40 calls were throttled in %s", name, throttled, time.Since(began))
			}
			return nil
		}))
	}
	wrong := "Basic " + base64.StdEncoding.EncodeToString([]byte("AKIDFREE0001:wrong"))
	right := "Basic " + base64.StdEncoding.EncodeToString([]byte("AKIDFREE0001:free-secret-free"))
	native := n.URL("/prometheus/api/v1/status/tsdb")
	last := reply{}
	for range 40 {
		if last = call(ctx, t, "GET", native, nil, "Authorization", wrong, "X-Scope-OrgID", "x"); last.status == http.StatusTooManyRequests {
			break
		}
	}
	if last.status != http.StatusTooManyRequests {
		t.Errorf("forty wrong passwords: %s", last)
	}
	if r := call(ctx, t, "GET", native, nil, "Authorization", right, "X-Scope-OrgID", "x"); r.status != http.StatusTooManyRequests {
		t.Errorf("the right one after them: %s", r)
	}
	if r := signedCall(ctx, t, keyOf("HELD"), "GET", n.URL("/config"), ""); r.status == http.StatusTooManyRequests {
		t.Errorf("another id from the same address: %s", r)
	}
}

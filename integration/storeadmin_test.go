package integration

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestOperatorsSeeWhoServesAndCompactsBlocks looks at the pages of store-gateways and compactors of two
// processes, and prepares one of them, which keeps its place in the ring over stops, to leave for good. That
// outlives a kill, and can be taken back.
func TestOperatorsSeeWhoServesAndCompactsBlocks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 5*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Replicas: 1, Files: true, Nodes: []harness.Spec{
		{Name: "base", Target: "ingester,distributor,store-gateway,compactor"},
		{Name: "second", Target: "store-gateway,compactor"},
	}, Flags: []string{"-store-gateway.sharding-ring.unregister-on-shutdown=false", "-store-gateway.sharding-ring.auto-forget-unhealthy-periods=0",
		"-compactor.cleanup-interval=1s"}})
	base, second := c.Node("base"), c.Node("second")
	eventually(ctx, t, "a sample to be stored", func() error {
		if r := pushV1(ctx, t, base.URL(""), "team-a", floats(time.Now(), 7, "__name__", "shelves")); r.status != http.StatusOK {
			return fmt.Errorf("push answered %s", r)
		}
		return nil
	})
	if r := call(ctx, t, http.MethodPost, base.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	page := func(n *harness.Node, path, accept string, want ...string) error {
		r, err := try(ctx, http.MethodGet, n.URL(path), nil, "Accept", accept)
		if err != nil {
			return err
		}
		if r.status != http.StatusOK || slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(r.body, w) }) {
			return fmt.Errorf("%s answered %s, want %q", path, r, want)
		}
		return nil
	}
	for _, n := range []*harness.Node{base, second} {
		for _, path := range []string{"/store-gateway/ring", "/compactor/ring"} {
			for _, accept := range []string{"application/json", "text/html"} {
				eventually(ctx, t, path+" of both", func() error { return page(n, path, accept, "base", "second", "ACTIVE") })
			}
		}
		for _, path := range []string{"/store-gateway/tenants", "/compactor/tenants"} {
			eventually(ctx, t, path, func() error { return page(n, path, "application/json", `"team-a"`) })
			eventually(ctx, t, path, func() error { return page(n, path, "text/html", "team-a/") })
		}
		for _, path := range []string{"/store-gateway/tenant/team-a/blocks", "/compactor/tenant/team-a/blocks"} {
			eventually(ctx, t, path, func() error { return page(n, path, "application/json", `"level":1`, `"minTime"`, `"maxTime"`) })
		}
		eventually(ctx, t, "planned jobs", func() error {
			return page(n, "/compactor/tenant/team-a/planned_jobs", "application/json", `"jobs":[]`)
		})
	}

	const prepare = "/store-gateway/prepare-shutdown"
	is := func(want string) {
		t.Helper()
		if r := call(ctx, t, http.MethodGet, second.URL(prepare), nil); r.status != http.StatusOK || r.body != want+"\n" {
			t.Errorf("%s answered %s, want %s", prepare, r, want)
		}
	}
	ask := func(method, want string) {
		t.Helper()
		if r := call(ctx, t, method, second.URL(prepare), nil); r.status != http.StatusNoContent {
			t.Errorf("%s of %s answered %s", method, prepare, r)
		}
		is(want)
	}
	again := func() {
		t.Helper()
		must(t, second.Start())
		must(t, second.WaitReady(ctx))
	}
	is("unset")
	ask(http.MethodPost, "set")
	ask(http.MethodDelete, "unset")
	must(t, second.Process.Stop())
	if err := page(base, "/store-gateway/ring", "application/json", "second"); err != nil {
		t.Errorf("a store-gateway that keeps its place: %v", err)
	}
	again()
	ask(http.MethodPost, "set")
	must(t, second.Process.Kill())
	again()
	is("set")
	must(t, second.Process.Stop())
	eventually(ctx, t, "the prepared store-gateway to leave the ring", func() error {
		if err := page(base, "/store-gateway/ring", "application/json", "second"); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
	again()
	is("unset")
}

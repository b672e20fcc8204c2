package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// gossiping starts a cluster whose calls between processes show certificates.
func gossiping(ctx context.Context, t *testing.T, ca *authority, flags ...string) (*harness.Cluster, *shownFiles) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	dir := t.TempDir()
	files := &shownFiles{t: t, pair: filepath.Join(dir, "pair.pem"), root: filepath.Join(dir, "root.pem")}
	files.believe(ca)
	files.show(ca, 2, time.Now().Add(time.Hour))
	return harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 2, Nodes: []harness.Spec{
		{Name: "ingester-a", Target: "ingester"}, {Name: "ingester-b", Target: "ingester"},
		{Name: "rest", Target: "distributor,query-frontend,query-scheduler,querier,store-gateway"},
	}, Flags: slices.Concat(busyFlags(), files.flags(), flags)}), files
}

// TestStrangersDoNotJoinGossipWithTLS: a cluster forms by certificates alone, goes on with those that replace them,
// and neither takes nor tells anything to processes that have none, or those of others.
func TestStrangersDoNotJoinGossipWithTLS(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 5*time.Minute)
	ca := newAuthority(t)
	c, files := gossiping(ctx, t, ca, "-memberlist.tls-enabled")
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b")
	members := c.Nodes()
	rest := c.Node("rest")
	at := time.Now()
	stored(t, pushV1(ctx, t, rest.URL(""), "team", floats(at, 1, "__name__", "x")))
	hasValue(ctx, t, rest.URL(""), "team", "x", "1")

	other := newAuthority(t)
	theirs := &shownFiles{t: t, pair: filepath.Join(t.TempDir(), "pair.pem"), root: files.root}
	theirs.show(other, 2, time.Now().Add(time.Hour))
	strangers := map[string][]string{
		"without-tls":   {"-memberlist.tls-enabled=false"},
		"other-issuer":  {"-memberlist.tls-cert-path=" + theirs.pair, "-memberlist.tls-key-path=" + theirs.pair, "-memberlist.tls-ca-path=" + files.root},
		"believes-them": {"-memberlist.tls-cert-path=" + theirs.pair, "-memberlist.tls-key-path=" + theirs.pair, "-memberlist.tls-ca-path=" + filepath.Join(other.dir, "ca.pem")},
	}
	var outside []*harness.Node
	for name, flags := range strangers {
		n, err := c.Add(harness.Spec{Name: name, Target: "ingester", Flags: flags})
		must(t, err)
		outside = append(outside, n)
	}
	for _, n := range outside {
		must(t, n.WaitReady(ctx))
		settled(ctx, t, []*harness.Node{n}, n.Spec.Name) // it sees itself alone
	}
	within(ctx, t, "members refuse those who call", func() error {
		sum := 0.0
		for _, n := range members {
			sum += scrape(ctx, t, n.URL("/metrics"), "amphora_gossip_connections_refused_total", "reason", "handshake") +
				scrape(ctx, t, n.URL("/metrics"), "amphora_gossip_connections_refused_total", "reason", "plain")
		}
		if sum < 6 {
			return fmt.Errorf("%g connections were refused", sum)
		}
		return nil
	})
	settled(ctx, t, members, "ingester-a", "ingester-b")
	for _, n := range outside {
		settled(ctx, t, []*harness.Node{n}, n.Spec.Name)
		must(t, n.Process.Stop())
	}
	// One that comes back has a new certificate, which the others take.
	b := c.Node("ingester-b")
	must(t, b.Process.Stop())
	files.show(ca, 3, time.Now().Add(time.Hour))
	must(t, b.Start())
	must(t, b.WaitReady(ctx))
	settled(ctx, t, members, "ingester-a", "ingester-b")
}

// TestGossipChangesToTLSWithoutParting: in three rolling restarts a cluster is moved to TLS, and all members know each
// other after each of them.
func TestGossipChangesToTLSWithoutParting(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 6*time.Minute)
	c, _ := gossiping(ctx, t, newAuthority(t))
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b")
	for step, flags := range [][]string{
		{"-memberlist.tls-transition"},
		{"-memberlist.tls-enabled", "-memberlist.tls-transition"},
		{"-memberlist.tls-enabled"},
	} {
		for _, n := range c.Nodes() {
			c.SetFlags(n, flags...)
			if err := n.Restart(); err != nil {
				t.Fatalf("step %d, %s: %v", step+1, n.Spec.Name, err)
			}
			must(t, n.WaitReady(ctx))
			settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b")
		}
		stored(t, pushV1(ctx, t, c.Node("rest").URL(""), "team", floats(time.Now(), float64(step), "__name__", "x")))
		for _, n := range c.Nodes() {
			plain := scrape(ctx, t, n.URL("/metrics"), "amphora_gossip_connections_total", "protocol", "plain")
			if step == 2 && plain > 0 {
				t.Errorf("%s took %g connections without TLS", n.Spec.Name, plain)
			}
		}
	}
	within(ctx, t, "members call each other by TLS", func() error {
		for _, n := range c.Nodes() {
			if scrape(ctx, t, n.URL("/metrics"), "amphora_gossip_connections_total", "protocol", "tls") == 0 {
				return fmt.Errorf("nobody calls %s", n.Spec.Name)
			}
		}
		return nil
	})
}

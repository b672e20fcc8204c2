package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestRingsMoveFromConsulToEtcdWhileEverythingRuns has a cluster without gossip keep its rings and
// elected replicas in Consul, then in both, and lose Consul after etcd was made to count.
func TestRingsMoveFromConsulToEtcdWhileEverythingRuns(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	etcd, err := harness.StartEtcd(ctx, harness.TestLog(t), t.TempDir())
	harness.Need(t, err)
	t.Cleanup(func() { _ = etcd.Kill() })
	consul := harness.StartConsul()
	t.Cleanup(consul.Stop)
	runtime := filepath.Join(t.TempDir(), "runtime.yaml")
	say := func(text string) {
		t.Helper()
		next := runtime + ".next"
		must(t, os.WriteFile(next, []byte(text), 0o600))
		must(t, os.Rename(next, runtime))
	}
	say("multi_kv_config: {mirror_enabled: false}\n")
	flags := append([]string{"-kvstore.store=multi", "-kvstore.multi.primary=consul", "-kvstore.multi.secondary=etcd", "-kvstore.multi.mirror-enabled=true",
		"-kvstore.consul.hostname=" + consul.Host(), "-kvstore.consul.watch-rate-limit=0", "-kvstore.consul.cas-retry-delay=100ms", "-kvstore.etcd.endpoints=" + etcd.Endpoint,
		"-distributor.ha-tracker.store=multi", "-runtime-config.file=" + runtime, "-runtime-config.reload-period=1s",
		"-ingester.ring.heartbeat-period=1s"}, pairFlags...)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1, Flags: flags, Nodes: []harness.Spec{
		{Name: "ingester-a", Target: "ingester"}, {Name: "front", Target: "distributor,querier,store-gateway"},
	}})
	settled(ctx, t, c.Nodes(), "ingester-a")
	front := c.Node("front")
	sent := 0
	push := func() {
		t.Helper()
		sent++
		stored(t, pushV1(ctx, t, front.URL(""), "team-a", floats(time.Now(), 1, "__name__", "m", "n", fmt.Sprint(sent))))
	}
	push()
	stored(t, pushV1(ctx, t, front.URL(""), "pair", floats(time.Now(), 1, "__name__", "up", "__replica__", "a", "cluster", "eu")))
	if consul.Keys() == 0 {
		t.Error("nothing is in Consul")
	}

	// Changes go to both, then etcd counts, then Consul is gone.
	all := func(what, name string, want float64, labels ...string) {
		t.Helper()
		patiently(ctx, t, what, func() error { return storesSay(ctx, t, c, name, want, labels...) })
	}
	all("changes to go to Consul alone", "amphora_multikv_mirror_enabled", 0)
	say("multi_kv_config: {mirror_enabled: true}\n")
	all("changes to go to both", "amphora_multikv_mirror_enabled", 1)
	before := mirrored(ctx, t, c)
	patiently(ctx, t, "heartbeats to be in both", func() error {
		if mirrored(ctx, t, c) < before+6 {
			return errors.New("too few changes went to both")
		}
		return nil
	})
	say("multi_kv_config: {mirror_enabled: true, primary: etcd}\n")
	all("etcd to count", "amphora_multikv_primary_store", 1, "store", "etcd")
	say("multi_kv_config: {mirror_enabled: false, primary: etcd}\n")
	all("changes to go to etcd alone", "amphora_multikv_mirror_enabled", 0)
	consul.Stop()
	push()

	_, err = c.Add(harness.Spec{Name: "ingester-b", Target: "ingester", Flags: []string{"-kvstore.store=etcd"}})
	must(t, err)
	must(t, c.Node("ingester-b").Start())
	must(t, c.Node("ingester-b").WaitReady(ctx))
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b")
	patiently(ctx, t, "the new ingester to be written to", func() error {
		push()
		if scrape(ctx, t, c.Node("ingester-b").URL("/metrics"), "amphora_ingester_memory_series") == 0 {
			return errors.New("it has no series")
		}
		return nil
	})
	has(ctx, t, front.URL(""), "team-a", "m", sent)
	has(ctx, t, front.URL(""), "pair", "up", 1)
}

// TestRingsMoveFromGossipToEtcdUnderLoad has the rings of a cluster of three zones leave gossip, while
// writers and readers never rest.
func TestRingsMoveFromGossipToEtcdUnderLoad(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	etcd, err := harness.StartEtcd(ctx, harness.TestLog(t), t.TempDir())
	harness.Need(t, err)
	t.Cleanup(func() { _ = etcd.Kill() })
	runtime := filepath.Join(t.TempDir(), "runtime.yaml")
	say := func(text string) {
		t.Helper()
		must(t, os.WriteFile(runtime+".next", []byte(text), 0o600))
		must(t, os.Rename(runtime+".next", runtime))
	}
	say("multi_kv_config: {mirror_enabled: true}\n")
	c, j, end := scaled(ctx, t, "-kvstore.store=multi", "-kvstore.multi.primary=memberlist", "-kvstore.multi.secondary=etcd",
		"-kvstore.multi.mirror-enabled=true", "-kvstore.etcd.endpoints="+etcd.Endpoint, "-runtime-config.file="+runtime, "-runtime-config.reload-period=1s")
	every := func(what, name string, want float64, labels ...string) {
		t.Helper()
		patiently(ctx, t, what, func() error { return storesSay(ctx, t, c, name, want, labels...) })
	}
	every("gossip to count", "amphora_multikv_primary_store", 1, "store", "memberlist")
	before := mirrored(ctx, t, c)
	patiently(ctx, t, "heartbeats to be in both", func() error {
		if mirrored(ctx, t, c) < before+9 { // three of each ingester
			return errors.New("too few changes went to both")
		}
		return nil
	})
	j.resetGap()
	say("multi_kv_config: {mirror_enabled: true, primary: etcd}\n")
	every("etcd to count", "amphora_multikv_primary_store", 1, "store", "etcd")
	say("multi_kv_config: {mirror_enabled: false, primary: etcd}\n")
	every("changes to go to etcd alone", "amphora_multikv_mirror_enabled", 0)
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
	begin := time.Now()
	for _, zone := range []string{"a", "b", "c"} { // nobody gossips any more
		for _, n := range inZone(c, zone) {
			c.SetFlags(n, "-kvstore.store=etcd")
		}
		all(t, inZone(c, zone), func(n *harness.Node) error { return errors.Join(n.Restart(), n.WaitReady(ctx)) })
		settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c")
		t.Logf("zone %s done after %s", zone, time.Since(begin).Round(time.Millisecond))
	}
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

// patiently is eventually for what depends on periods of several processes.
func patiently(ctx context.Context, t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := harness.Poll(ctx, func(context.Context) error { return ok() }); err != nil {
		t.Fatalf("wait for %s: %v", what, err)
	}
}

// storesSay compares a metric of each process with what each of its stores should say.
func storesSay(ctx context.Context, t *testing.T, c *harness.Cluster, name string, want float64, labels ...string) error {
	t.Helper()
	for _, n := range c.Nodes() {
		clients := 0.0 // each has one that counts
		for _, store := range []string{"etcd", "consul", "memberlist"} {
			clients += scrape(ctx, t, n.URL("/metrics"), "amphora_multikv_primary_store", "store", store)
		}
		if got := scrape(ctx, t, n.URL("/metrics"), name, labels...); clients == 0 || got != want*clients {
			return fmt.Errorf("%s of %s is %g, with %g clients", name, n.Spec.Name, got, clients)
		}
	}
	return nil
}

// mirrored is how many changes went to both stores.
func mirrored(ctx context.Context, t *testing.T, c *harness.Cluster) (sum float64) {
	t.Helper()
	for _, n := range c.Nodes() {
		url := n.URL("/metrics")
		sum += scrape(ctx, t, url, "amphora_multikv_mirror_writes_total") - scrape(ctx, t, url, "amphora_multikv_mirror_write_errors_total")
	}
	return sum
}

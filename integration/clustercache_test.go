package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/grafana/dskit/user"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/cachepb"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// sharers are three store-gateways that are a cache for each other, the blocks of a tenant, and one process
// before them.
type sharers struct {
	shelves
	dir    string
	stores []*harness.Node
	names  [][]byte // of the blocks
}

// sharer is a store-gateway. A busy machine is not what is tested.
func (s *sharers) sharer(name string) harness.Spec {
	const at = "-blocks-storage.bucket-store."
	return harness.Spec{Name: name, Target: "store-gateway", Flags: []string{at + "sync-dir=" + s.disk(name), at + "cluster-cache.timeout=1m",
		at + "index-cache.backend=cluster", at + "chunks-cache.backend=cluster", at + "metadata-cache.backend=cluster"}}
}

// newSharers waits until all know each other. All processes have the flags.
func newSharers(ctx context.Context, t *testing.T, flags ...string) *sharers {
	t.Helper()
	s := &sharers{shelves: shelves{blocks: 20}, dir: t.TempDir()}
	s.start = time.Now().Add(-time.Duration(s.blocks+24) * 2 * time.Hour).Truncate(2 * time.Hour)
	s.end = s.start.Add(time.Duration(s.blocks) * 2 * time.Hour)
	smallBlocks(ctx, t, filepath.Join(s.dir, "blocks"), wideTenant, s.start, s.blocks)
	nodes := []harness.Spec{{Name: "base", Target: "ingester,distributor,querier,compactor"}, s.sharer("store-1"), s.sharer("store-2"), s.sharer("store-3")}
	s.Cluster = harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Dir: s.dir, Replicas: 1, Files: true, Nodes: nodes, Flags: append([]string{
		"-compactor.first-level-compaction-wait-period=100000h", "-compactor.cleanup-interval=1s", "-querier.timeout=2m",
	}, flags...)})
	s.base = s.Node("base")
	s.stores = []*harness.Node{s.Node("store-1"), s.Node("store-2"), s.Node("store-3")}
	bkt, err := bucket.NewFilesystem(filepath.Join(s.dir, "blocks"))
	must(t, err)
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		idx, err := block.ReadBucketIndex(ctx, objstore.NewPrefixedBucket(bkt, wideTenant))
		if err == nil && len(idx.Blocks) != s.blocks {
			err = fmt.Errorf("%d blocks are known, want %d", len(idx.Blocks), s.blocks)
		}
		if err != nil {
			return err
		}
		s.names = nil
		for _, b := range idx.Blocks {
			s.names = append(s.names, b.ID.Bytes())
		}
		return nil
	}))
	s.know(ctx, t)
	return s
}

// know waits until everybody knows of the store-gateways that there are, and of no others.
func (s *sharers) know(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, n := range s.Running() {
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			if got := s.metric(ctx, t, `amphora_ring_members\{name="store-gateway",state="ACTIVE"\}`, n); got != len(s.stores) {
				return fmt.Errorf("%s knows of %d store-gateways, want %d", n.Spec.Name, got, len(s.stores))
			}
			return nil
		}))
	}
}

// disk is where a store-gateway keeps what it read.
func (s *sharers) disk(name string) string { return filepath.Join(s.dir, name+"-pages") }

// metric sums what processes say.
func (s *sharers) metric(ctx context.Context, t *testing.T, pattern string, of ...*harness.Node) (sum int) {
	t.Helper()
	for _, n := range of {
		sum += metric(t, call(ctx, t, http.MethodGet, n.URL("/metrics"), nil).body, pattern)
	}
	return sum
}

// fetched is how often store-gateways read from blocks in the bucket.
func (s *sharers) fetched(ctx context.Context, t *testing.T, of ...*harness.Node) int {
	t.Helper()
	return s.metric(ctx, t, `amphora_objstore_requests_total\{[^}]*cause="query"[^}]*operation="get_range"\}`, of...)
}

// failed is how many items were not kept, and how many calls failed.
func (s *sharers) failed(ctx context.Context, t *testing.T) int {
	t.Helper()
	return s.metric(ctx, t, `amphora_bucket_store_cluster_cache_(?:dropped|peer_failures)_total`, s.stores...)
}

// all has one store-gateway read all blocks, and returns how many series and chunks it found.
func (s *sharers) all(ctx context.Context, t *testing.T, clients *transport.Stores, n *harness.Node) (series, chunks int) {
	t.Helper()
	c, err := clients.For(net.JoinHostPort("127.0.0.1", strconv.Itoa(n.GRPC)))
	must(t, err)
	stream, err := c.Series(user.InjectOrgID(ctx, wideTenant), &storepb.SeriesRequest{MinTime: s.start.UnixMilli(), MaxTime: s.end.UnixMilli(), Blocks: s.names,
		Matchers: []*ingesterpb.Matcher{{Name: "__name__", Value: "small"}}})
	must(t, err)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return series, chunks
		}
		must(t, err)
		series += len(m.Series)
		for _, x := range m.Series {
			chunks += len(x.Chunks)
		}
	}
}

// held is how many items store-gateways hold.
func (s *sharers) held(ctx context.Context, t *testing.T, of ...*harness.Node) int {
	t.Helper()
	return s.metric(ctx, t, `amphora_bucket_store_cluster_cache_items`, of...)
}

// given waits until what a store-gateway read is with its owners, who held so many items before: items are
// given away in the background.
func (s *sharers) given(ctx context.Context, t *testing.T, before int, reader *harness.Node) {
	t.Helper()
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		held, missed := s.held(ctx, t, s.stores...), s.metric(ctx, t, `amphora_bucket_store_shared_cache_misses_total\{[^}]*\}`, reader)
		if failed := s.failed(ctx, t); held-before+failed < missed || held == 0 {
			return fmt.Errorf("%d items are held of the %d that were read, and %d were dropped", held-before, missed, failed)
		}
		return nil
	}))
}

// storeClients call store-gateways.
func storeClients(ctx context.Context, t *testing.T, cfg transport.ClientConfig) *transport.Stores {
	t.Helper()
	clients, err := transport.NewStores(cfg, transport.ClientDeps{Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, services.StartAndAwaitRunning(ctx, clients))
	t.Cleanup(func() { must(t, services.StopAndAwaitTerminated(context.WithoutCancel(ctx), clients)) })
	return clients
}

// TestTheCacheOfAClusterIsItsOwnAndMovesWithIt has strangers try to reach it, who lack a certificate or the name
// of the cluster, and store-gateways come and go.
func TestTheCacheOfAClusterIsItsOwnAndMovesWithIt(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 5*time.Minute)
	dir := t.TempDir()
	ours, theirs := newAuthority(t), newAuthority(t)
	files := &shownFiles{t: t, pair: filepath.Join(dir, "pair.pem"), root: filepath.Join(dir, "root.pem")}
	files.believe(ours)
	files.show(ours, 2, time.Now().Add(time.Hour))
	s := newSharers(ctx, t, append(files.flags(), "-server.cluster-validation.label=ours", "-server.cluster-validation.grpc.enabled=true", "-common.client-cluster-validation.label=ours")...)
	member := transport.ClientConfig{TLSEnabled: true, TLSCert: files.pair, TLSKey: files.pair, TLSCA: files.root, Cluster: transport.ClusterClient{Label: "ours"}}
	clients := storeClients(ctx, t, member)

	first, items := s.stores[0], 0
	read := func(n *harness.Node) int {
		t.Helper()
		if series, chunks := s.all(ctx, t, clients, n); series != 3 || chunks != 3*s.blocks {
			t.Fatalf("%s has %d series and %d chunks, want 3 and %d", n.Spec.Name, series, chunks, 3*s.blocks)
		}
		s.given(ctx, t, items, n)
		items = s.held(ctx, t, s.stores...)
		return s.fetched(ctx, t, n)
	}
	all := read(first)
	if reads := read(s.stores[1]); all == 0 || reads != 0 && s.failed(ctx, t) == 0 {
		t.Fatalf("the first to be asked read the bucket %d times, the second %d times; want that of the first alone", all, reads)
	}
	s.strangers(ctx, t, member, theirs)
	items = s.held(ctx, t, s.stores...)

	// Who comes owns a part, of which nothing is there yet; the rest is where it was.
	join := func(name string) *harness.Node {
		t.Helper()
		n, err := s.Add(s.sharer(name))
		must(t, err)
		must(t, n.WaitReady(ctx))
		s.stores = append(s.stores, n)
		s.know(ctx, t)
		return n
	}
	fourth := join("store-4")
	reads, owned := read(fourth), s.held(ctx, t, fourth)
	if failed := s.failed(ctx, t); owned == 0 || failed == 0 && (reads > owned || reads >= all) {
		t.Errorf("who came read the bucket %d times and owns %d of %d items; want no more reads than that", reads, owned, items)
	}
	// What belonged to who leaves is read again, and no more.
	left := s.stores[2]
	lost := s.held(ctx, t, left)
	must(t, left.Process.Stop())
	s.stores = append(s.stores[:2:2], fourth)
	s.know(ctx, t)
	items = s.held(ctx, t, s.stores...)
	fifth := join("store-5")
	reads, owned = read(fifth), s.held(ctx, t, fifth)
	if failed := s.failed(ctx, t); lost == 0 || failed == 0 && (reads > owned+lost || reads >= all) {
		t.Errorf("after one left with %d items, who came read the bucket %d times and owns %d", lost, reads, owned)
	}
	s.whole(ctx, t, wideTenant)
}

// strangers try to read and to write what the first store-gateway holds.
func (s *sharers) strangers(ctx context.Context, t *testing.T, member transport.ClientConfig, other *authority) {
	t.Helper()
	n := s.stores[0]
	call := func(cfg transport.ClientConfig, key string) (found int, reading, writing error) {
		t.Helper()
		clients, err := transport.NewCaches(cfg, transport.ClientDeps{Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
		must(t, err)
		must(t, services.StartAndAwaitRunning(ctx, clients))
		defer func() { must(t, services.StopAndAwaitTerminated(context.WithoutCancel(ctx), clients)) }()
		c, err := clients.For(net.JoinHostPort("127.0.0.1", strconv.Itoa(n.GRPC)))
		must(t, err)
		_, writing = c.SetMulti(ctx, &cachepb.SetMultiRequest{Items: []*cachepb.Item{{Key: key, Data: []byte("x"), TtlMs: 600_000}}})
		answer, reading := c.GetMulti(ctx, &cachepb.GetMultiRequest{Keys: []string{"of a member", key}})
		return len(answer.GetFound()), reading, writing
	}
	if found, reading, writing := call(member, "of a member"); found == 0 || reading != nil || writing != nil {
		t.Fatalf("a member finds %d items, %v, %v", found, reading, writing)
	}
	plain, bare, foreign, elsewhere, nameless := transport.ClientConfig{Cluster: member.Cluster}, member, member, member, member
	bare.TLSCert, bare.TLSKey = "", ""
	foreign.TLSCert, foreign.TLSKey = other.issue("stranger", "amphora", 9)
	elsewhere.Cluster.Label, nameless.Cluster.Label = "theirs", ""
	held := s.held(ctx, t, n)
	for what, cfg := range map[string]transport.ClientConfig{"without TLS": plain, "without a certificate": bare, "with a certificate of another authority": foreign,
		"of another cluster": elsewhere, "of no cluster": nameless} {
		if found, reading, writing := call(cfg, "of a stranger"); found != 0 || reading == nil || writing == nil {
			t.Errorf("one %s finds %d items, %v, %v; want to be refused", what, found, reading, writing)
		}
	}
	if now := s.held(ctx, t, n); now != held {
		t.Errorf("%d items are held after strangers called, were %d", now, held)
	}
}

// TestStoreGatewaysAreACacheForEachOther reads all blocks through one store-gateway, which reads the bucket, then
// through the others, which do not. Then one dies while queries go on, and comes back with an empty disk: every
// answer is the same.
func TestStoreGatewaysAreACacheForEachOther(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 5*time.Minute)
	s := newSharers(ctx, t)
	clients := storeClients(ctx, t, transport.ClientConfig{})
	for i, n := range s.stores {
		if series, chunks := s.all(ctx, t, clients, n); series != 3 || chunks != 3*s.blocks {
			t.Fatalf("%s has %d series and %d chunks, want 3 and %d", n.Spec.Name, series, chunks, 3*s.blocks)
		}
		// Should the machine stand still for long, calls between the processes fail, and so cost reads.
		if reads, failed := s.fetched(ctx, t, n), s.failed(ctx, t); i == 0 && reads == 0 || i > 0 && reads != 0 && failed == 0 {
			t.Errorf("number %d to be asked read the bucket %d times; want that of the first alone", i+1, reads)
		}
		if i > 0 {
			continue
		}
		s.given(ctx, t, 0, n)
		for _, other := range s.stores {
			if s.metric(ctx, t, `amphora_bucket_store_cluster_cache_items`, other) == 0 && s.failed(ctx, t) == 0 {
				t.Errorf("%s holds nothing", other.Spec.Name)
			}
		}
	}

	answers, end := s.watched(ctx, map[string]string{wideTenant: s.whole(ctx, t, wideTenant)})
	dead := s.stores[0]
	must(t, dead.Kill())
	must(t, os.RemoveAll(s.disk(dead.Spec.Name)))
	more := func(when string) {
		from := answers.Load()
		harness.Need(t, harness.Poll(ctx, func(context.Context) error {
			if got := answers.Load() - from; got < 10 {
				return fmt.Errorf("%d answers %s", got, when)
			}
			return nil
		}))
	}
	more("while one is dead")
	must(t, dead.Start())
	must(t, dead.WaitReady(ctx))
	more("since it is back")
	end(t)
	s.whole(ctx, t, wideTenant)
	t.Logf("%d answers while a store-gateway died and came back", answers.Load())
}

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

// newSharers waits until all know each other.
func newSharers(ctx context.Context, t *testing.T) *sharers {
	t.Helper()
	s := &sharers{shelves: shelves{blocks: 20}, dir: t.TempDir()}
	s.start = time.Now().Add(-time.Duration(s.blocks+24) * 2 * time.Hour).Truncate(2 * time.Hour)
	s.end = s.start.Add(time.Duration(s.blocks) * 2 * time.Hour)
	smallBlocks(ctx, t, filepath.Join(s.dir, "blocks"), wideTenant, s.start, s.blocks)
	nodes := []harness.Spec{{Name: "base", Target: "ingester,distributor,querier,compactor"}}
	const at = "-blocks-storage.bucket-store."
	for _, name := range []string{"store-1", "store-2", "store-3"} {
		nodes = append(nodes, harness.Spec{Name: name, Target: "store-gateway", Flags: []string{
			at + "sync-dir=" + s.disk(name), at + "cluster-cache.timeout=1m", // a busy machine is not what is tested
			at + "index-cache.backend=cluster", at + "chunks-cache.backend=cluster", at + "metadata-cache.backend=cluster",
		}})
	}
	s.Cluster = harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Dir: s.dir, Replicas: 1, Files: true, Nodes: nodes, Flags: []string{
		"-compactor.first-level-compaction-wait-period=100000h", "-compactor.cleanup-interval=1s", "-querier.timeout=2m",
	}})
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
	for _, n := range s.Nodes() {
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			if got := s.metric(ctx, t, `amphora_ring_members\{name="store-gateway",state="ACTIVE"\}`, n); got != len(s.stores) {
				return fmt.Errorf("%s knows of %d store-gateways", n.Spec.Name, got)
			}
			return nil
		}))
	}
	return s
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
	var cfg transport.ClientConfig
	clients, err := transport.NewStores(cfg, transport.ClientDeps{Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, services.StartAndAwaitRunning(ctx, clients))
	defer func() { must(t, services.StopAndAwaitTerminated(context.WithoutCancel(ctx), clients)) }()
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
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error { // items are given away in the background
			held, missed := s.metric(ctx, t, `amphora_bucket_store_cluster_cache_items`, s.stores...), s.metric(ctx, t, `amphora_bucket_store_shared_cache_misses_total\{[^}]*\}`, n)
			if failed := s.failed(ctx, t); held+failed < missed || held == 0 {
				return fmt.Errorf("%d items are held of the %d that were read, and %d were dropped", held, missed, failed)
			}
			return nil
		}))
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

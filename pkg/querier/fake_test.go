package querier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/packed"
)

var quiet = slog.New(slog.DiscardHandler)

// node is an ingester of one tenant over a real TSDB.
type node struct {
	ingesterpb.IngesterQueryClient // what a test does not use
	db                             *tsdb.DB
	zone                           string

	mu    sync.Mutex
	err   error // instead of any answer
	hang  bool  // answers end with their context
	old   bool  // it does not know of packed answers
	calls int
	since int64 // answers say that they are complete since then
	holds []string
	late  *ingesterpb.TenantStatsResponse
}

func newNode(t testing.TB, zone string) *node {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.OutOfOrderTimeWindow = time.Hour.Milliseconds()
	opts.RetentionDuration = 0
	db, err := tsdb.Open(t.TempDir(), quiet, nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.DisableCompactions()
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &node{db: db, zone: zone}
}

// meet says how a call goes.
func (n *node) meet(ctx context.Context) error {
	n.mu.Lock()
	n.calls++
	err, hang := n.err, n.hang
	n.mu.Unlock()
	if hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return err
}

func (n *node) fail(err error) { n.mu.Lock(); n.err = err; n.mu.Unlock() }

type stream[M any] struct {
	grpc.ClientStream
	messages []*M
	ctx      context.Context
}

func (s *stream[M]) Recv() (*M, error) {
	if s.ctx.Err() != nil {
		return nil, context.Cause(s.ctx)
	}
	if len(s.messages) == 0 {
		return nil, io.EOF
	}
	m := s.messages[0]
	s.messages = s.messages[1:]
	return m, nil
}

func (n *node) matchers(ms []*ingesterpb.Matcher) []*labels.Matcher {
	var out []*labels.Matcher
	for _, m := range ms {
		out = append(out, labels.MustNewMatcher(labels.MatchType(m.Type), m.Name, m.Value))
	}
	return out
}

func pairs(l labels.Labels) (out []string) {
	l.Range(func(l labels.Label) { out = append(out, l.Name, l.Value) })
	return out
}

func (n *node) Query(ctx context.Context, in *ingesterpb.QueryRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[ingesterpb.QueryResponse], error) {
	if err := n.meet(ctx); err != nil {
		return nil, err
	}
	q, err := n.db.ChunkQuerier(in.MinTime, in.MaxTime)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	out := &stream[ingesterpb.QueryResponse]{ctx: ctx}
	hints := &storage.SelectHints{Start: in.MinTime, End: in.MaxTime, DisableTrimming: true, ShardCount: uint64(in.ShardCount), ShardIndex: uint64(in.ShardIndex)}
	set := q.Select(ctx, !in.AnyOrder, hints, n.matchers(in.Matchers)...)
	msg := &ingesterpb.QueryResponse{CompleteSince: n.since}
	for set.Next() {
		s := &ingesterpb.Series{Labels: pairs(set.At().Labels())}
		it := set.At().Iterator(nil)
		for it.Next() {
			m := it.At()
			s.Chunks = append(s.Chunks, &ingesterpb.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Encoding: uint32(m.Chunk.Encoding()), Data: append([]byte(nil), m.Chunk.Bytes()...)})
		}
		if it.Err() != nil {
			return nil, it.Err()
		}
		if in.Packed && !n.old {
			packInto(msg, set.At().Labels(), s.Chunks)
		} else {
			msg.Series = append(msg.Series, s)
		}
		if len(msg.Series) == 100 || msg.PackedSeries == 100 {
			out.messages = append(out.messages, msg)
			msg = &ingesterpb.QueryResponse{}
		}
	}
	out.messages = append(out.messages, msg)
	return out, set.Err()
}

// packInto adds a series to a message.
func packInto(m *ingesterpb.QueryResponse, ls labels.Labels, cs []*ingesterpb.Chunk) {
	m.Packed = packed.AppendLabels(m.Packed, ls)
	for _, c := range cs {
		m.Packed = packed.AppendChunk(m.Packed, packed.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: chunkenc.Encoding(c.Encoding), Data: c.Data})
		m.PackedChunks++
	}
	m.Packed = packed.EndChunks(m.Packed)
	m.PackedSeries++
}

func (n *node) Series(ctx context.Context, in *ingesterpb.SeriesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[ingesterpb.SeriesResponse], error) {
	if err := n.meet(ctx); err != nil {
		return nil, err
	}
	q, err := n.db.Querier(in.MinTime, in.MaxTime)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	msg := &ingesterpb.SeriesResponse{CompleteSince: n.since}
	set := q.Select(ctx, false, &storage.SelectHints{Func: "series", Start: in.MinTime, End: in.MaxTime}, n.matchers(in.Matchers[0].Matchers)...)
	for set.Next() {
		msg.Series = append(msg.Series, &ingesterpb.SeriesLabels{Labels: pairs(set.At().Labels())})
	}
	return &stream[ingesterpb.SeriesResponse]{ctx: ctx, messages: []*ingesterpb.SeriesResponse{msg}}, set.Err()
}

func (n *node) ActiveSeries(ctx context.Context, in *ingesterpb.ActiveSeriesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[ingesterpb.ActiveSeriesResponse], error) {
	of, err := n.Series(ctx, &ingesterpb.SeriesRequest{MaxTime: 1 << 40, Matchers: []*ingesterpb.Matchers{{Matchers: in.Matchers}}})
	if err != nil {
		return nil, err
	}
	m, err := of.Recv()
	if err != nil {
		return nil, err
	}
	return &stream[ingesterpb.ActiveSeriesResponse]{ctx: ctx, messages: []*ingesterpb.ActiveSeriesResponse{{Series: m.Series}}}, nil
}

func (n *node) LabelNames(ctx context.Context, in *ingesterpb.LabelNamesRequest, _ ...grpc.CallOption) (*ingesterpb.LabelNamesResponse, error) {
	if err := n.meet(ctx); err != nil {
		return nil, err
	}
	q, err := n.db.Querier(in.MinTime, in.MaxTime)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	names, _, err := q.LabelNames(ctx, nil, n.matchers(in.Matchers)...)
	return &ingesterpb.LabelNamesResponse{Names: names, CompleteSince: n.since}, err
}

func (n *node) LabelValues(ctx context.Context, in *ingesterpb.LabelValuesRequest, _ ...grpc.CallOption) (*ingesterpb.LabelValuesResponse, error) {
	if err := n.meet(ctx); err != nil {
		return nil, err
	}
	q, err := n.db.Querier(in.MinTime, in.MaxTime)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	values, _, err := q.LabelValues(ctx, in.Name, nil, n.matchers(in.Matchers)...)
	return &ingesterpb.LabelValuesResponse{Values: values, CompleteSince: n.since}, err
}

func (n *node) Exemplars(ctx context.Context, in *ingesterpb.ExemplarsRequest, _ ...grpc.CallOption) (*ingesterpb.ExemplarsResponse, error) {
	return &ingesterpb.ExemplarsResponse{Series: []*ingesterpb.SeriesExemplars{{
		Labels: []string{"__name__", "m"},
		Exemplars: []*ingesterpb.Exemplar{
			{Labels: []string{"trace", "a"}, Value: 1, Time: 1000}, {Labels: []string{"trace", n.zone}, Value: 2, Time: 2000},
		},
	}}}, n.meet(ctx)
}

func (n *node) Metadata(ctx context.Context, _ *ingesterpb.MetadataRequest, _ ...grpc.CallOption) (*ingesterpb.MetadataResponse, error) {
	return &ingesterpb.MetadataResponse{Metadata: []*ingesterpb.Metadata{
		{Name: "m", Type: "counter", Help: "all know this"}, {Name: "m", Type: "counter", Help: "of " + n.zone}, {Name: "z" + n.zone, Type: "gauge"},
	}}, n.meet(ctx)
}

func (n *node) AllTenantStats(ctx context.Context, _ *ingesterpb.TenantStatsRequest, _ ...grpc.CallOption) (*ingesterpb.AllTenantStatsResponse, error) {
	out := &ingesterpb.AllTenantStatsResponse{}
	for _, id := range n.holds {
		out.Tenants = append(out.Tenants, &ingesterpb.TenantIDStats{Tenant: id})
	}
	return out, n.meet(ctx)
}

func (n *node) TenantStats(ctx context.Context, req *ingesterpb.TenantStatsRequest, _ ...grpc.CallOption) (*ingesterpb.TenantStatsResponse, error) {
	if req.LateOnly {
		return n.late, n.meet(ctx)
	}
	return &ingesterpb.TenantStatsResponse{Series: 100, IngestionRate: 30, ApiIngestionRate: 20, RuleIngestionRate: 10}, n.meet(ctx)
}

// fakeRing is a ring of which every node is a replica of everything.
type fakeRing struct {
	ring.ReadRing
	set ring.ReplicationSet
	err error

	silent int // members of the ring that are not in set

	mu      sync.Mutex // guards sharded
	sharded []int
}

func (r *fakeRing) GetAllHealthy(ring.Operation) (ring.ReplicationSet, error) { return r.set, r.err }
func (r *fakeRing) InstancesCount() int                                       { return len(r.set.Instances) + r.silent }

// HasInstance says that the shard last asked for is the first nodes.
func (r *fakeRing) HasInstance(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := strconv.Atoi(id)
	return err == nil && n < r.sharded[len(r.sharded)-1]
}

func (r *fakeRing) ShuffleShardWithLookback(_ string, size int, _ time.Duration, _ time.Time) ring.ReadRing {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sharded = append(r.sharded, size)
	return r
}

func (r *fakeRing) GetReplicationSetForOperation(ring.Operation) (ring.ReplicationSet, error) {
	return r.set, r.err
}

func (r *fakeRing) ReplicationFactor() int { return 3 }
func (r *fakeRing) ZonesCount() int        { return r.set.ZoneCount() }

// cluster is a querier over nodes and, if bkt is given, blocks.
type cluster struct {
	nodes  []*node
	ring   *fakeRing
	q      *Querier
	limits limits.View
	memory *memory.Ledger
	now    time.Time
}

func newCluster(t testing.TB, nodes []*node, blocks *stores) *cluster {
	t.Helper()
	// Beside so large a budget the memory of the test itself does not count.
	c := &cluster{nodes: nodes, ring: &fakeRing{}, memory: memory.New(memory.Limits{Process: 1 << 50, Go: 1 << 50}, memory.Deps{}),
		now: time.UnixMilli(10 * time.Hour.Milliseconds())}
	for i, n := range nodes {
		c.ring.set.Instances = append(c.ring.set.Instances, ring.InstanceDesc{Addr: fmt.Sprint(i), Id: fmt.Sprint(i), Zone: n.zone})
	}
	c.ring.set.MaxErrors = len(nodes) / 2
	var gateways *Stores
	if blocks != nil {
		gateways = blocks.Stores
	}
	q, err := New(Config{QueryIngestersWithin: 13 * time.Hour, MinimizeIngesterRequests: true, ShuffleSharding: true}, Deps{
		Logger: quiet, Reg: prometheus.NewRegistry(), Ingesters: c.ring, Stores: gateways,
		Client: func(addr string) (ingesterpb.IngesterQueryClient, error) {
			var i int
			_, err := fmt.Sscan(addr, &i)
			return nodes[i], err
		},
		Limits: func(tenant.ID) limits.View { return c.limits }, Memory: c.memory,
		Now: func() time.Time { return c.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	c.q = q
	return c
}

// zones makes the ring zone-aware.
func (c *cluster) zones() {
	c.ring.set.MaxErrors, c.ring.set.MaxUnavailableZones, c.ring.set.ZoneAwarenessEnabled = 0, 1, true
}

func asTenant(t testing.TB) context.Context { return tenant.Inject(t.Context(), "t1") }

var errDown = errors.New("connection refused")

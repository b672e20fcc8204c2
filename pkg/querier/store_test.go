package querier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// store is a store-gateway of one tenant.
type store struct {
	storepb.StoreGatewayClient // what a test does not use
	blocks                     *block.Store
	old                        bool // it does not pack series

	mu    sync.Mutex
	err   error // instead of any answer
	calls int
}

func (s *store) meet() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	return s.err
}

func (s *store) fail(err error) { s.mu.Lock(); s.err = err; s.mu.Unlock() }

// each opens those of the named blocks that are there.
func (s *store) each(ctx context.Context, names [][]byte, f func(*block.Block) error) (served [][]byte, err error) {
	if err := s.meet(); err != nil {
		return nil, err
	}
	for _, name := range names {
		b, err := s.blocks.Open(ctx, "t1", ulid.ULID(name))
		if errs.KindOf(err) == errs.NotFound && err != nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f(b), b.Close()); err != nil {
			return nil, err
		}
		served = append(served, name)
	}
	return served, nil
}

func (s *store) matchers(ms []*ingesterpb.Matcher) []*labels.Matcher { return (&node{}).matchers(ms) }

func (s *store) Series(ctx context.Context, in *storepb.SeriesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[storepb.SeriesResponse], error) {
	byLabels := map[string]*ingesterpb.Series{}
	served, err := s.each(ctx, in.Blocks, func(b *block.Block) error {
		set, err := b.Select(ctx, block.Selection{MinTime: in.MinTime, MaxTime: in.MaxTime, Matchers: s.matchers(in.Matchers), LabelsOnly: in.SkipChunks})
		if err != nil {
			return err
		}
		for set.Next() {
			at := set.At()
			out := byLabels[at.Labels.String()]
			if out == nil {
				out = &ingesterpb.Series{Labels: pairs(at.Labels.Copy())}
				byLabels[at.Labels.String()] = out
			}
			for _, c := range at.Chunks {
				out.Chunks = append(out.Chunks, &ingesterpb.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: uint32(c.Encoding), Data: slices.Clone(c.Data)})
			}
		}
		return errors.Join(set.Err(), set.Close())
	})
	if err != nil {
		return nil, err
	}
	msg := &storepb.SeriesResponse{Blocks: served}
	for _, series := range byLabels {
		slices.SortFunc(series.Chunks, func(a, b *ingesterpb.Chunk) int { return cmp.Compare(a.MinTime, b.MinTime) })
		msg.Series = append(msg.Series, series)
	}
	slices.SortFunc(msg.Series, func(a, b *ingesterpb.Series) int {
		return labels.Compare(labels.FromStrings(a.Labels...), labels.FromStrings(b.Labels...))
	})
	if in.Packed && !s.old {
		var p ingesterpb.QueryResponse
		for _, one := range msg.Series {
			packInto(&p, labels.FromStrings(one.Labels...), one.Chunks)
		}
		msg = &storepb.SeriesResponse{Blocks: served, Packed: p.Packed, PackedSeries: p.PackedSeries, PackedChunks: p.PackedChunks}
	}
	return &stream[storepb.SeriesResponse]{ctx: ctx, messages: []*storepb.SeriesResponse{msg}}, nil
}

func (s *store) LabelNames(ctx context.Context, in *storepb.LabelNamesRequest, _ ...grpc.CallOption) (*storepb.LabelNamesResponse, error) {
	out := &storepb.LabelNamesResponse{}
	var err error
	out.Blocks, err = s.each(ctx, in.Blocks, func(b *block.Block) error {
		names, err := b.LabelNames(ctx, s.matchers(in.Matchers))
		out.Names = append(out.Names, names...)
		return err
	})
	return out, err
}

func (s *store) LabelValues(ctx context.Context, in *storepb.LabelValuesRequest, _ ...grpc.CallOption) (*storepb.LabelValuesResponse, error) {
	out := &storepb.LabelValuesResponse{}
	var err error
	out.Blocks, err = s.each(ctx, in.Blocks, func(b *block.Block) error {
		values, err := b.LabelValues(ctx, in.Name, s.matchers(in.Matchers))
		out.Values = append(out.Values, values...)
		return err
	})
	return out, err
}

// storeRing is a ring of store-gateways "0", "1", ... in this order for every block.
type storeRing struct {
	ring.ReadRing
	n     int
	zones []string // of "0", "1", ...
}

func (r storeRing) Get(uint32, ring.Operation, []ring.InstanceDesc, []string, []string) (ring.ReplicationSet, error) {
	var set ring.ReplicationSet
	for i := range r.n {
		d := ring.InstanceDesc{Addr: fmt.Sprint(i)}
		if i < len(r.zones) {
			d.Zone = r.zones[i]
		}
		set.Instances = append(set.Instances, d)
	}
	return set, nil
}

// stores is blocks in a bucket and the store-gateways that read them.
type stores struct {
	*Stores
	bkt      objstore.Bucket
	gateways []*store
}

// withBlocks returns two store-gateways over blocks cut from each of dbs.
func withBlocks(t testing.TB, dbs ...*node) *stores {
	t.Helper()
	bkt, err := bucket.NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &stores{bkt: bkt}
	for _, n := range dbs {
		s.cut(t, n)
	}
	blocks, err := block.NewStore(block.StoreDeps{Logger: quiet, Bucket: bkt, LocalBytes: 1 << 30, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, blocks) })
	s.gateways = []*store{{blocks: blocks}, {blocks: blocks}}
	s.Stores = &Stores{
		Ring: storeRing{n: len(s.gateways)},
		Client: func(addr string) (storepb.StoreGatewayClient, error) {
			var i int
			_, err := fmt.Sscan(addr, &i)
			return s.gateways[i], err
		},
		Indexes: block.NewIndexes(block.IndexesDeps{Logger: quiet, Bucket: bkt}),
	}
	return s
}

// cut writes what n has in memory as blocks into the bucket.
func (s *stores) cut(t testing.TB, n *node) {
	t.Helper()
	dir := t.TempDir()
	head := n.db.Head()
	comp, err := tsdb.NewLeveledCompactor(t.Context(), nil, quiet, []int64{tsdb.DefaultBlockDuration}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := comp.Write(dir, head, head.MinTime(), head.MaxTime()+1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := block.Upload(t.Context(), quiet, objstore.NewPrefixedBucket(s.bkt, "t1"), filepath.Join(dir, id.String()), block.Tags{}); err != nil {
			t.Fatal(err)
		}
	}
}

// old is a cluster of blocks alone that are older than what ingesters keep.
func (s *stores) old(t testing.TB) *cluster {
	c := newCluster(t, nil, s)
	c.now = time.UnixMilli(100 * time.Hour.Milliseconds())
	return c
}

func TestAnotherStoreGatewayAnswersForOneThatFails(t *testing.T) {
	n := newNode(t, "")
	add(t, n, reference(5, 50))
	s := withBlocks(t, n)
	c := s.old(t)
	want := single(t, n, 0, 1<<40)
	same(t, "both well", c.read(t, 0, 1<<40), want)
	if s.gateways[1].calls != 0 {
		t.Errorf("the second replica was asked %d times although the first one is well", s.gateways[1].calls)
	}
	s.gateways[0].fail(errDown)
	same(t, "the first one down", c.read(t, 0, 1<<40), want)
	s.gateways[1].fail(errDown)
	if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("both down: %v, want Unavailable", err)
	}
	s.gateways[0].fail(errs.New(errs.TooLarge, "too much"))
	if err := c.tryRead(asTenant(t), t); errs.KindOf(err) != errs.TooLarge {
		t.Errorf("a limit reached: %v, want TooLarge", err)
	}
}

func TestAStoreGatewayThatDoesNotPackIsUnderstood(t *testing.T) {
	n := newNode(t, "")
	add(t, n, reference(5, 50))
	s := withBlocks(t, n)
	c := s.old(t)
	want := single(t, n, 0, 1<<40)
	for _, old := range []bool{false, true} {
		s.gateways[0].old = old
		same(t, fmt.Sprintf("old: %t", old), c.read(t, 0, 1<<40), want)
	}
}

func TestBlocksThatWereCompactedMeanwhileAreFoundInANewerIndex(t *testing.T) {
	a, b := newNode(t, ""), newNode(t, "")
	add(t, a, reference(5, 50))
	add(t, b, reference(5, 50))
	s := withBlocks(t, a)
	c := s.old(t)
	tb := objstore.NewPrefixedBucket(s.bkt, "t1")
	scan, err := block.ScanBlocks(t.Context(), tb, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Indexes.At(t.Context(), "t1", nil); err != nil { // the querier knows the old blocks
		t.Fatal(err)
	}
	s.cut(t, b)
	for _, old := range scan.Index.Blocks {
		if err := tb.Delete(t.Context(), old.ID.String()+"/"+block.MetaFile); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "after the compaction", c.read(t, 0, 1<<40), single(t, b, 0, 1<<40))
}

// What the stores that have a block answered before another one turned out to be gone is read again, and not charged
// twice.
func TestWhatIsReadAgainIsChargedOnce(t *testing.T) {
	stays, gone := newNode(t, ""), newNode(t, "")
	add(t, stays, reference(5, 50))
	later := reference(5, 50)
	for i := range later {
		later[i].t += 4 * time.Hour.Milliseconds()
	}
	add(t, gone, later)
	s := withBlocks(t, stays)
	tb := objstore.NewPrefixedBucket(s.bkt, "t1")
	before, err := block.ScanBlocks(t.Context(), tb, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.cut(t, gone)
	c := s.old(t)
	if _, err := s.Indexes.At(t.Context(), "t1", nil); err != nil { // the querier knows both blocks
		t.Fatal(err)
	}
	s.cut(t, gone)
	all, err := block.ScanBlocks(t.Context(), tb, nil, time.Now())
	if err != nil || len(before.Index.Blocks) != 1 || len(all.Index.Blocks) != 3 {
		t.Fatalf("%d blocks, and %d, %v", len(before.Index.Blocks), len(all.Index.Blocks), err)
	}
	idx, err := s.Indexes.At(t.Context(), "t1", nil)
	if err != nil || len(idx.Blocks) != 2 {
		t.Fatalf("the querier knows %d blocks, %v", len(idx.Blocks), err)
	}
	for _, b := range idx.Blocks {
		if b.ID != before.Index.Blocks[0].ID {
			if err := tb.Delete(t.Context(), b.ID.String()+"/"+block.MetaFile); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.limits = limits.MaxFetchedChunksPerQuery.With(limits.View{}, 10) // 5 series in each block
	workings := memory.New(memory.Limits{Process: 1 << 50, Go: 1 << 50}, memory.Deps{}).Workings()
	var peaks [2]int64
	for i := range peaks {
		ctx, working := workings.Begin(asTenant(t), 0, nil)
		if err := c.tryRead(ctx, t); err != nil {
			t.Errorf("read %d, of 10 chunks: %v", i, err)
		}
		peaks[i] = working.Peak()
		working.End()
	}
	if peaks[0] != peaks[1] || peaks[0] == 0 {
		t.Errorf("it held %d bytes at most, and %d when no block was gone", peaks[0], peaks[1])
	}
	if n := testutil.ToFloat64(c.q.metrics.refetched); n != 1 {
		t.Errorf("read again %v times, want once", n)
	}
}

func TestBlocksThatStayMissingFailTheQuery(t *testing.T) {
	n := newNode(t, "")
	add(t, n, reference(5, 50))
	s := withBlocks(t, n)
	tb := objstore.NewPrefixedBucket(s.bkt, "t1")
	scan, err := block.ScanBlocks(t.Context(), tb, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := block.WriteBucketIndex(t.Context(), tb, scan.Index); err != nil {
		t.Fatal(err)
	}
	if err := tb.Delete(t.Context(), scan.Index.Blocks[0].ID.String()+"/"+block.MetaFile); err != nil {
		t.Fatal(err)
	}
	err = s.old(t).tryRead(asTenant(t), t)
	if err == nil || !strings.Contains(err.Error(), "err-amphora-store-consistency-check-failed") || !strings.Contains(err.Error(), scan.Index.Blocks[0].ID.String()) {
		t.Errorf("error %v does not say which block is missing", err)
	}
}

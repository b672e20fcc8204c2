package querier

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// someChunk is a chunk of one sample.
func someChunk(t testing.TB, encoding chunkenc.Encoding) *ingesterpb.Chunk {
	t.Helper()
	c, err := chunkenc.NewEmptyChunk(encoding)
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	a.Append(0, 5, 7)
	return &ingesterpb.Chunk{MinTime: 5, MaxTime: 5, Encoding: uint32(encoding), Data: c.Bytes()}
}

func TestWhatAReplicaPackedIsChecked(t *testing.T) {
	c := newCluster(t, []*node{newNode(t, "a")}, nil)
	a, b := labels.FromStrings("n", "a"), labels.FromStrings("n", "b")
	one := []*ingesterpb.Chunk{someChunk(t, chunkenc.EncXOR), someChunk(t, chunkenc.EncXOR2), someChunk(t, chunkenc.EncXOR)}
	take := func(m *ingesterpb.QueryResponse, anyOrder bool) (*fetched, error) {
		out := &fetched{anyOrder: anyOrder}
		return out, c.q.takePacked(out, pack{m.Packed, m.PackedSeries, m.PackedChunks}, fromIngesters, newBudget(t.Context(), c.q, limits.View{}))
	}
	good := &ingesterpb.QueryResponse{}
	packInto(good, a, one)
	packInto(good, b, one[:1])
	for name, claimed := range map[string]uint32{"what it says of itself": 2, "less": 0, "more": math.MaxUint32} {
		m := &ingesterpb.QueryResponse{Packed: good.Packed, PackedSeries: claimed, PackedChunks: claimed}
		out, err := take(m, false)
		if err != nil || len(out.series) != 2 || len(out.series[0].metas) != 3 || len(out.series[1].metas) != 1 || !labels.Equal(out.series[1].lset, b) {
			t.Fatalf("%s: %v, %v", name, out, err)
		}
		for _, s := range out.series {
			for _, meta := range s.metas {
				it := meta.Chunk.Iterator(nil)
				if it.Next() != chunkenc.ValFloat || it.AtT() != 5 || it.Next() != chunkenc.ValNone {
					t.Errorf("%s: a chunk of %s is read in another way", name, meta.Chunk.Encoding())
				}
			}
		}
	}
	unsorted := &ingesterpb.QueryResponse{}
	packInto(unsorted, b, one)
	packInto(unsorted, a, one)
	if _, err := take(unsorted, false); errs.KindOf(err) != errs.Internal {
		t.Errorf("series in another order: %v", err)
	}
	if _, err := take(unsorted, true); err != nil {
		t.Errorf("in any order: %v", err)
	}
	for name, bad := range map[string]*ingesterpb.Chunk{
		"encoding": {Encoding: 99, Data: []byte("abc")}, "empty": {Encoding: uint32(chunkenc.EncXOR), Data: []byte{0}},
	} {
		m := &ingesterpb.QueryResponse{}
		packInto(m, a, []*ingesterpb.Chunk{bad})
		if _, err := take(m, false); errs.KindOf(err) != errs.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := 1; n < len(good.Packed)-1; n++ {
		out, err := take(&ingesterpb.QueryResponse{Packed: good.Packed[:n:n]}, false)
		if err != nil && errs.KindOf(err) != errs.Internal || err == nil && len(out.series) != 1 {
			t.Errorf("%d of %d bytes: %d series, %v", n, len(good.Packed), len(out.series), err)
		}
	}
}

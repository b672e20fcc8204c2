package querier

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// What was fetched of a series is let go of when the reader goes on, so that a result can take its place in
// memory: of one source, of several in any order, and of several that are sorted.
func TestSeriesThatWereReadAreLetGoOf(t *testing.T) {
	c := newCluster(t, []*node{newNode(t, "a")}, nil)
	answer := func(from, n int) *fetched {
		out := &fetched{}
		for i := range n {
			x := chunkenc.NewXORChunk()
			a, err := x.Appender()
			if err != nil {
				t.Fatal(err)
			}
			a.Append(0, int64(from), float64(i))
			lset := labels.FromStrings("i", fmt.Sprintf("%03d", from+i))
			out.series = append(out.series, fetchedSeries{lset, []chunks.Meta{{Chunk: x, MinTime: int64(from), MaxTime: int64(from)}}})
		}
		return out
	}
	for name, anyOrder := range map[string]bool{"any order": true, "sorted": false} {
		for _, of := range [][]*fetched{{answer(0, 20)}, {answer(0, 20), answer(10, 20)}} {
			sources := make([]source, len(of))
			for i, f := range of {
				sources[i] = f
			}
			m := newMerger(sources, c.q.metrics)
			m.anyOrder = anyOrder
			n := 0
			for ; m.next(); n++ {
				if m.lset.Get("i") != fmt.Sprintf("%03d", n) || len(m.metas) == 0 || m.metas[0].Chunk.NumSamples() != 1 {
					t.Fatalf("%s, %d sources: series %d is %s with %d chunks", name, len(of), n, m.lset, len(m.metas))
				}
			}
			if want := 20 + 10*(len(of)-1); m.failure != nil || n != want {
				t.Errorf("%s: %d series, %v; want %d", name, n, m.failure, want)
			}
			for _, f := range of {
				for i, s := range f.series {
					if s.metas != nil || !s.lset.IsEmpty() {
						t.Errorf("%s, %d sources: series %d is still held", name, len(of), i)
					}
				}
			}
			if m.pile != nil {
				for i, s := range m.pile.series {
					if s.metas != nil {
						t.Errorf("%s, %d sources: series %d is still held by the pile", name, len(of), i)
					}
				}
			}
		}
	}
}

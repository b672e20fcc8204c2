package storegateway

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

func TestPackedSeriesAreThoseThatAreNot(t *testing.T) {
	w := newWorld(t, nil)
	a, b, c := w.block(0, 0, 300), w.block(0, 200, 300), w.block(7_200_000, 100, 150)
	for name, change := range map[string]func(*storepb.SeriesRequest){
		"all":            func(*storepb.SeriesRequest) {},
		"a shard":        func(r *storepb.SeriesRequest) { r.ShardIndex, r.ShardCount = 1, 3 },
		"a limit":        func(r *storepb.SeriesRequest) { r.Limit = 7 },
		"without chunks": func(r *storepb.SeriesRequest) { r.SkipChunks = true },
		"nothing":        func(r *storepb.SeriesRequest) { r.MinTime, r.MaxTime = 100_000, 200_000 },
	} {
		plain, err := w.ask(func(r *storepb.SeriesRequest) { change(r); r.Packed = false }, a, b, c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.ask(change, a, b, c)
		if err != nil || len(got.series) != len(plain.series) || len(got.blocks) != 3 || got.work.Series != plain.work.Series {
			t.Fatalf("%s: %d series of %d blocks, %+v, %v; want %d, 3, %+v", name, len(got.series), len(got.blocks), got.work, err, len(plain.series), plain.work)
		}
		for i := range got.series {
			if !proto.Equal(got.series[i], plain.series[i]) {
				t.Fatalf("%s: packed %v, want %v", name, got.series[i], plain.series[i])
			}
		}
		n, chunks := 0, 0
		for _, m := range got.messages {
			if len(m.Series) > 0 {
				t.Errorf("%s: %d series are not packed", name, len(m.Series))
			}
			n, chunks = n+int(m.PackedSeries), chunks+int(m.PackedChunks)
		}
		for _, s := range got.series {
			chunks -= len(s.Chunks)
		}
		if n != len(got.series) || chunks != 0 {
			t.Errorf("%s: counted as %d series of %d, with %d chunks too many", name, n, len(got.series), chunks)
		}
	}
}

func TestPackedMessagesAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	r, err := w.ask(nil, w.block(0, 0, 6000))
	if err != nil || len(r.series) != 6000 || len(r.messages) < 2 {
		t.Fatalf("%d series in %d messages, %v", len(r.series), len(r.messages), err)
	}
	for _, m := range r.messages {
		if len(m.Packed) > packedBytes+1024 {
			t.Errorf("a message of %d bytes", len(m.Packed))
		}
	}
}

// TestWhatIsSentStays reads series when the blocks they came from are closed and their memory went to other calls.
func TestWhatIsSentStays(t *testing.T) {
	for _, packs := range []bool{true, false} {
		w := newWorld(t, nil)
		a, b := w.block(0, 0, 50), w.block(0, 500, 50)
		r, err := w.ask(func(r *storepb.SeriesRequest) { r.Packed = packs }, a)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := w.ask(nil, b); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.g.deps.Store.Close(); err != nil { // which unmaps all files
			t.Fatal(err)
		}
		for i, s := range r.series {
			c, err := chunkenc.FromData(chunkenc.Encoding(s.Chunks[0].Encoding), s.Chunks[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			it, n := c.Iterator(nil), 0
			for ; it.Next() != chunkenc.ValNone; n++ {
				if at, v := it.At(); at != int64(n)*1000 || v != float64(i*100+n) {
					t.Fatalf("packed %t: sample %d of series %d is %v at %d", packs, n, i, v, at)
				}
			}
			if want := fmt.Sprintf("%03d", i); s.Labels[3] != want || n != 10 {
				t.Fatalf("packed %t: series %v with %d samples, want %s with 10", packs, s.Labels, n, want)
			}
		}
	}
}

// Blocks of several batches are read side by side on a machine with processors to spare, and one after the
// other on any other; a set that others overtake reads on by itself.
func TestBatchesOfSeveralBlocksAreReadAsOfOne(t *testing.T) {
	if n := runtime.GOMAXPROCS(0); n < 4 {
		runtime.GOMAXPROCS(4)
		t.Cleanup(func() { runtime.GOMAXPROCS(n) })
	}
	w := newWorld(t, nil)
	blocks := [][]byte{w.block(0, 100_000, 5000), w.block(7_200_000, 100_000, 5000), w.block(14_400_000, 101_000, 4500), w.block(21_600_000, 100_000, 2048)}
	for _, places := range []int{1, 2, 4} {
		g := turns.New(places, func(context.Context) (string, turns.Class) { return "t1", 0 }, prometheus.NewRegistry())
		w.g.deps.Turns = g
		for range 3 {
			r, err := w.ask(nil, blocks...)
			if err != nil || len(r.series) != 5500 || !slices.IsSorted(r.names()) || r.work.Series != 5000+5000+4500+2048 {
				t.Fatalf("%d places: %d series, %+v, %v", places, len(r.series), r.work, err)
			}
			for _, s := range r.series {
				i, err := strconv.Atoi(s.Labels[3])
				if err != nil {
					t.Fatal(err)
				}
				want := 0
				for _, of := range [][2]int{{100_000, 105_000}, {100_000, 105_000}, {101_000, 105_500}, {100_000, 102_048}} {
					if i >= of[0] && i < of[1] {
						want++
					}
				}
				if len(s.Chunks) != want {
					t.Fatalf("%d places: series %d has %d chunks, want %d", places, i, len(s.Chunks), want)
				}
			}
			_, turn, end := g.Begin(t.Context())
			ends := []func(){end}
			for range places - 1 {
				_, leave, ok := turn.Second()
				if !ok {
					t.Fatalf("of %d places one was not given back", places)
				}
				ends = append(ends, leave)
			}
			for _, end := range ends {
				end()
			}
		}
	}
}

// isBelow says whether a function calls who calls this, however far up.
func isBelow(name string) bool {
	calls := make([]uintptr, 64)
	frames := runtime.CallersFrames(calls[:runtime.Callers(1, calls)])
	for f, more := frames.Next(); more; f, more = frames.Next() {
		if strings.HasSuffix(f.Function, name) {
			return true
		}
	}
	return false
}

// The sets are closed after a panic, and their memory goes to others: nobody may read into it by then.
func TestNobodyReadsAfterAPanic(t *testing.T) {
	if n := runtime.GOMAXPROCS(0); n < 2 {
		runtime.GOMAXPROCS(2)
		t.Cleanup(func() { runtime.GOMAXPROCS(n) })
	}
	w := newWorld(t, nil)
	o, err := w.g.open(tenant.Inject(t.Context(), "t1"), [][]byte{w.block(0, 0, 10), w.block(7_200_000, 0, 10)})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	both, panics := make(chan struct{}), make(chan struct{})
	var inside, ended atomic.Int32
	var sets []*block.SeriesSet
	for _, b := range o.blocks {
		begun := false
		s, err := b.Select(t.Context(), block.Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}, Memory: func(n int64) error {
			if n <= 0 || !begun {
				begun = true
				return nil
			}
			if inside.Add(1) == 2 {
				close(both)
			}
			<-both
			if isBelow("TestNobodyReadsAfterAPanic") {
				close(panics)
				panic("no more memory")
			}
			<-panics
			for range 1000 {
				runtime.Gosched()
			}
			ended.Add(1)
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sets = append(sets, s)
	}
	defer func() {
		if p := recover(); p != "no more memory" {
			t.Errorf("panicked with %v", p)
		}
		if ended.Load() != 1 {
			t.Error("a helper reads on")
		}
	}()
	t.Errorf("no panic, another series %t", merge(sets).next())
}

// BenchmarkSeries reads blocks of the same series that follow each other in time, all pages being here.
func BenchmarkSeries(b *testing.B) {
	w := newWorld(b, nil)
	var blocks [][]byte
	for i := range 12 {
		blocks = append(blocks, w.block(int64(i)*7_200_000, 0, 5000))
	}
	for _, packs := range []bool{false, true} {
		b.Run(fmt.Sprintf("blocks=12/series=5k/packed=%t", packs), func(b *testing.B) {
			req := &storepb.SeriesRequest{MaxTime: 1 << 40, Packed: packs, Blocks: blocks, Matchers: []*ingesterpb.Matcher{{Name: "__name__", Value: "m"}}}
			b.ReportAllocs()
			for b.Loop() {
				if err := w.g.Series(req, &drain{reply{ctx: tenant.Inject(b.Context(), "t1")}}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/5000, "ns/series")
		})
	}
}

// drain forgets what is sent.
type drain struct{ reply }

func (*drain) Send(*storepb.SeriesResponse) error { return nil }

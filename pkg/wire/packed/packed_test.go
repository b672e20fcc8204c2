package packed

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func sets() []labels.Labels {
	return []labels.Labels{labels.EmptyLabels(), labels.FromStrings("__name__", "up", "job", "é"), labels.FromStrings("a", strings.Repeat("v", 254), "b", strings.Repeat("w", 255), "c", strings.Repeat("x", 70_000))}
}

type chunked struct {
	lset   labels.Labels
	chunks []Chunk
}

// readChunked reads all series of chunks.
func readChunked(b []byte) (out []chunked, err error) {
	r := Read(b)
	for {
		ls, ok := r.Next()
		if !ok {
			return out, r.Err()
		}
		one := chunked{lset: ls}
		for c, ok := r.Chunk(); ok; c, ok = r.Chunk() {
			one.chunks = append(one.chunks, c)
		}
		out = append(out, one)
	}
}

func TestChunksArriveAsTheyWere(t *testing.T) {
	var b []byte
	var want []chunked
	for i, ls := range sets() {
		one := chunked{lset: ls}
		b = AppendLabels(b, ls)
		for k := range i {
			c := Chunk{MinTime: int64(k) - 5, MaxTime: math.MaxInt64 - 9, Encoding: chunkenc.Encoding(1 + 200*k), Data: []byte(strings.Repeat("d", k*200))}
			if k == 1 {
				c.MinTime, c.MaxTime = math.MinInt64, math.MaxInt64
			}
			b = AppendChunk(b, c)
			one.chunks = append(one.chunks, c)
		}
		b = EndChunks(b)
		want = append(want, one)
	}
	got, err := readChunked(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, arrived as %v, want %v", err, got, want)
	}
	for n := range b {
		if got, err := readChunked(b[:n]); err == nil && len(got) == len(want) || err != nil && errs.KindOf(err) != errs.Internal {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
}

type pointed struct {
	lset   labels.Labels
	points []promql.FPoint
}

func readPointed(b []byte) (out []pointed, err error) {
	r := Read(b)
	for {
		ls, ok := r.Next()
		if !ok {
			return out, r.Err()
		}
		ps, ok := r.Points(nil)
		if !ok {
			return out, r.Err()
		}
		out = append(out, pointed{ls, ps})
	}
}

func TestPointsArriveAsTheyWere(t *testing.T) {
	var b []byte
	var want []pointed
	for i, ps := range [][]promql.FPoint{
		nil, {{T: -7, F: math.Inf(1)}}, {{T: 1, F: 2}, {T: 5, F: 3}}, {{T: 10, F: 1}, {T: 20, F: 2}, {T: 30, F: math.Copysign(0, -1)}}, {{T: -10, F: 1}, {T: 20, F: 2}, {T: 31, F: 5}, {T: 32, F: 9}},
	} {
		ls := sets()[i%3]
		b = AppendPoints(AppendLabels(b, ls), ps)
		want = append(want, pointed{ls, ps})
		if len(ps) == 1 {
			b = AppendPoint(AppendLabels(b, ls), ps[0].T, ps[0].F)
			want = append(want, pointed{ls, ps})
		}
	}
	got, err := readPointed(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, arrived as %v, want %v", err, got, want)
	}
	for n := range b {
		if got, err := readPointed(b[:n]); err == nil && len(got) == len(want) || err != nil && errs.KindOf(err) != errs.Internal {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if many := AppendPoints(nil, want[4].points); many[0]&1 != 1 || len(many) > 3+8*3 {
		t.Errorf("regular times take %d bytes", len(many))
	}
}

// FuzzRead reads whatever another process may send.
func FuzzRead(f *testing.F) {
	ls := sets()[1]
	f.Add(EndChunks(AppendChunk(AppendLabels(nil, ls), Chunk{MinTime: 1, MaxTime: 2, Encoding: 1, Data: []byte("abc")})))
	f.Add(AppendPoints(AppendLabels(nil, ls), []promql.FPoint{{T: 1, F: 2}, {T: 3, F: 4}, {T: 6, F: 4}}))
	f.Add([]byte{3, 255, 255, 255})
	f.Fuzz(func(_ *testing.T, b []byte) {
		chunked, _ := readChunked(b)
		for _, s := range chunked {
			_ = s.lset.String()
		}
		pointed, _ := readPointed(b)
		for _, s := range pointed {
			_ = s.lset.String()
		}
	})
}

func BenchmarkRead(b *testing.B) {
	ls := labels.FromStrings("__name__", "http_requests_total", "namespace", "team-01-prod", "pod", "web-5d8f9c7b6-x2x4k", "job", "web", "instance", "10.0.0.1:8080")
	var buf []byte
	for range 1000 {
		buf = EndChunks(AppendChunk(AppendLabels(buf, ls), Chunk{MinTime: 1_700_000_000_000, MaxTime: 1_700_001_000_000, Encoding: 1, Data: make([]byte, 150)}))
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		r := Read(buf)
		for _, ok := r.Next(); ok; _, ok = r.Next() {
			for _, ok := r.Chunk(); ok; _, ok = r.Chunk() {
				continue
			}
		}
		if r.Err() != nil {
			b.Fatal(r.Err())
		}
	}
}

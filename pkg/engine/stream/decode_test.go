package stream

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// reference reads a chunk by Prometheus's own iterator.
func reference(data []byte) (ts []int64, vs []uint64, err error) {
	c, err := chunkenc.FromData(chunkenc.EncXOR, data)
	if err != nil {
		return nil, nil, err
	}
	it := c.Iterator(nil)
	for it.Next() == chunkenc.ValFloat {
		t, v := it.At()
		ts, vs = append(ts, t), append(vs, math.Float64bits(v))
	}
	return ts, vs, it.Err()
}

func decoded(data []byte) (*samples, error) {
	c, err := chunkenc.FromData(chunkenc.EncXOR, data)
	if err != nil {
		return nil, err
	}
	s := &samples{}
	return s, s.appendXOR(&chunks.Meta{Chunk: c})
}

// same compares the two readers on a chunk that may be broken: then either may say so, and not at
// the same sample.
func same(t *testing.T, data []byte) {
	t.Helper()
	ts, vs, err := reference(data)
	got, ownErr := decoded(data)
	if err != nil || ownErr != nil {
		return
	}
	if len(got.ts) != len(ts) {
		t.Fatalf("%x: %d samples, want %d", data, len(got.ts), len(ts))
	}
	for i := range ts {
		if got.ts[i] != ts[i] || math.Float64bits(got.vs[i]) != vs[i] {
			t.Fatalf("%x: sample %d is %d %x, want %d %x", data, i, got.ts[i], math.Float64bits(got.vs[i]), ts[i], vs[i])
		}
	}
}

// chunkOf makes a chunk of random samples with all kinds of steps of time and of value.
func chunkOf(r *rand.Rand) []byte {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	t, v := r.Int64N(1<<42)-1<<41, r.Float64()
	for range r.IntN(200) {
		app.Append(0, t, v)
		t += 15000
		if r.IntN(3) == 0 {
			t += r.Int64N(1 << r.IntN(40))
		}
		switch r.IntN(6) {
		case 0:
			v = math.Float64frombits(r.Uint64())
		case 1:
			v += float64(r.IntN(100))
		case 2:
			v = math.Float64frombits(value.StaleNaN)
		case 3:
			v = float64(r.IntN(1000)) / 10
		}
	}
	return c.Bytes()
}

func TestChunksAreDecodedAsByPrometheus(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		data := chunkOf(r)
		if _, err := decoded(data); err != nil {
			t.Fatal(err)
		}
		same(t, data)
	}
}

func TestAChunkThatIsCutOffIsAnError(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		data := chunkOf(r)
		full, _, _ := reference(data)
		for n := 2; n < len(data)-1; n++ {
			s, err := decoded(data[:n])
			if err == nil && len(full) > 1 {
				t.Fatalf("%d of %d bytes: %d of %d samples and no error", n, len(data), len(s.ts), len(full))
			}
		}
	}
}

func FuzzChunk(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 2 && len(data) < 1<<16 {
			same(t, data)
		}
	})
}

// late is a series of one chunk of which only the end is asked for.
type late struct {
	storage.Series
	chunk    chunkenc.Chunk
	from, to int64
}

func (l *late) Chunks(into []chunks.Meta) (metas []chunks.Meta, from, to int64, ok bool) {
	return append(into, chunks.Meta{Chunk: l.chunk, MaxTime: math.MaxInt64}), l.from, l.to, true
}

func TestTheEndOfSeriesAfterSeriesTakesNoMemory(t *testing.T) {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	for i := range 100 {
		app.Append(0, int64(i), float64(i))
	}
	var s samples
	one := &late{chunk: c, from: 90, to: 95}
	if n := testing.AllocsPerRun(100, func() {
		if err := s.load(one, 90, 95, false); err != nil || len(s.ts) != 6 || s.vs[5] != 95 {
			t.Fatal(s.ts, s.vs, err)
		}
	}); n != 0 {
		t.Errorf("%g allocations a series", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	r := rand.New(rand.NewPCG(7, 8))
	v := 0.0
	for i := range 120 {
		app.Append(0, int64(i)*15000+r.Int64N(20), v)
		v += float64(r.IntN(50))
	}
	meta := &chunks.Meta{Chunk: c}
	b.Run("ours/samples=120", func(b *testing.B) {
		var s samples
		b.ReportAllocs()
		for b.Loop() {
			s.ts, s.vs = s.ts[:0], s.vs[:0]
			if err := s.appendXOR(meta); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("prometheus/samples=120", func(b *testing.B) {
		var it chunkenc.Iterator
		b.ReportAllocs()
		for b.Loop() {
			it = c.Iterator(it)
			for it.Next() == chunkenc.ValFloat {
				it.At()
			}
		}
	})
}

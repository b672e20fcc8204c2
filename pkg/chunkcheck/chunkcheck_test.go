package chunkcheck

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

var encodings = []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST}

// chunkOf returns a chunk of n samples; histograms have the schema and the offset of a second span.
func chunkOf(t testing.TB, enc chunkenc.Encoding, n int, schema, offset int32) []byte {
	t.Helper()
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		t.Fatal(err)
	}
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	spans := []histogram.Span{{Offset: 1, Length: 2}, {Offset: offset, Length: 1}}
	for i := range int64(n) {
		var next chunkenc.Chunk
		switch enc {
		case chunkenc.EncXOR, chunkenc.EncXOR2:
			app.Append(0, 1000*i, float64(i))
		case chunkenc.EncHistogram, chunkenc.EncHistogramST:
			next, _, app, err = app.AppendHistogram(nil, 0, 1000*i, &histogram.Histogram{Schema: schema, Count: uint64(3 + i), Sum: 9, PositiveSpans: spans, PositiveBuckets: []int64{1 + i, -i, 0}}, false)
		default:
			next, _, app, err = app.AppendFloatHistogram(nil, 0, 1000*i, &histogram.FloatHistogram{Schema: schema, Count: float64(3 + i), Sum: 9, PositiveSpans: spans, PositiveBuckets: []float64{1, 1, float64(1 + i)}}, false)
		}
		if err != nil || next != nil {
			t.Fatal(enc, next, err)
		}
	}
	return c.Bytes()
}

func count(enc chunkenc.Encoding, data []byte) (n int, err error) {
	err = Each(enc, data, func(s *Sample) error {
		if s.T != int64(1000*n) {
			return errors.New("another time")
		}
		n++
		return nil
	})
	return n, err
}

func TestEverySampleOfEveryEncodingIsRead(t *testing.T) {
	for _, enc := range encodings {
		for _, want := range []int{0, 1, 20} {
			if n, err := count(enc, chunkOf(t, enc, want, 3, 2)); n != want || err != nil {
				t.Errorf("%s: %d of %d samples, %v", enc, n, want, err)
			}
		}
	}
}

func TestDamagedChunksAreErrors(t *testing.T) {
	// A layout of one span of 2^32-1 buckets: a threshold of 0, schema 0, one span, its length behind 8 ones.
	wide := []byte{0, 1, 0, 0, 0b0_10_001_11, 0b111111_00, 0, 0, 0, 0, 0b11111111, 0xff, 0xff, 0xff, 0, 0, 0, 0}
	for what, c := range map[string]struct {
		enc  chunkenc.Encoding
		data []byte
		want string
	}{
		"no encoding":     {99, make([]byte, 9), "encoding 99"},
		"none":            {chunkenc.EncNone, make([]byte, 9), "encoding 0"},
		"short":           {chunkenc.EncXOR, []byte{0}, "1 bytes"},
		"short histogram": {chunkenc.EncHistogram, []byte{0, 0}, "2 bytes"},
		"short XOR2":      {chunkenc.EncXOR2, []byte{0, 0}, "2 bytes"},
		"cut":             {chunkenc.EncXOR, []byte{0, 9, 1}, "EOF"},
		"wide":            {chunkenc.EncHistogram, wide, "buckets"},
		"finer schema":    {chunkenc.EncHistogram, chunkOf(t, chunkenc.EncHistogram, 3, 20, -1), "negative"},
		"finer floats":    {chunkenc.EncFloatHistogram, chunkOf(t, chunkenc.EncFloatHistogram, 3, 20, -1), "negative"},
		"finer with ST":   {chunkenc.EncHistogramST, chunkOf(t, chunkenc.EncHistogramST, 3, 20, -1), "negative"},
	} {
		if _, err := count(c.enc, c.data); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, enc := range encodings {
		good := chunkOf(t, enc, 20, 3, 2)
		if _, err := count(enc, good[:len(good)/2]); errs.KindOf(err) != errs.Invalid {
			t.Errorf("half a chunk of %s: %v", enc, err)
		}
	}
}

// read reads a chunk that was opened as the engine does.
func read(c chunkenc.Chunk) (n int) {
	it := c.Iterator(nil)
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		switch n++; kind {
		case chunkenc.ValFloat:
			it.At()
		case chunkenc.ValHistogram:
			it.AtHistogram(nil)
			it.AtFloatHistogram(nil)
		default:
			it.AtFloatHistogram(nil)
		}
	}
	return n
}

func TestWhatIsOpenedCanBeRead(t *testing.T) {
	for _, enc := range encodings {
		for _, schema := range []int32{-4, 0, 3, 8, 9, 20} {
			data := chunkOf(t, enc, 20, schema, 2)
			c, err := Open(enc, data)
			if err != nil || read(c) != 20 {
				t.Errorf("%s of schema %d: %v", enc, schema, err)
			}
			if got := layoutOf(data[headerBytes:]); native(enc) && (got.schema != schema || got.buckets != 3) {
				t.Errorf("%s of schema %d: %+v", enc, schema, got)
			}
		}
	}
	for _, enc := range encodings[2:] {
		if _, err := Open(enc, chunkOf(t, enc, 3, 20, -1)); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s that cannot be made coarser: %v", enc, err)
		}
	}
}

func TestErrorsOfTheCallerAreItsOwn(t *testing.T) {
	stop := errors.New("stop")
	if err := Each(chunkenc.EncXOR, chunkOf(t, chunkenc.EncXOR, 2, 0, 0), func(*Sample) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func FuzzEach(f *testing.F) {
	for _, enc := range encodings {
		f.Add(uint8(enc), chunkOf(f, enc, 3, 3, 2))
	}
	f.Add(uint8(chunkenc.EncFloatHistogram), chunkOf(f, chunkenc.EncFloatHistogram, 3, 20, -1))
	f.Fuzz(func(t *testing.T, enc uint8, data []byte) {
		n := 0
		err := Each(chunkenc.Encoding(enc%8), data, func(*Sample) error { n++; return nil })
		if err == nil && n > 0 && len(data) >= xorHeaderBytes && n > int(binary.BigEndian.Uint16(data)) {
			t.Errorf("%d samples of a chunk of %d bytes", n, len(data))
		}
		if c, err := Open(chunkenc.Encoding(enc%8), data); err == nil && c.NumSamples() > 0 {
			read(c)
		}
	})
}

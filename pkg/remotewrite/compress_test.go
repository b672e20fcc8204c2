package remotewrite

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func compressed(t testing.TB, encoding string, b []byte) []byte {
	t.Helper()
	switch encoding {
	case "snappy":
		return snappy.Encode(nil, b)
	case "zstd":
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(b, nil)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDecompressUndoesEveryEncodingWithinItsBound(t *testing.T) {
	text := bytes.Repeat([]byte("amphora "), 10_000)
	for _, e := range []string{"snappy", "zstd", "gzip"} {
		src := compressed(t, e, text)
		if got, err := Decompress(make([]byte, 0, 100), src, e, len(text)); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %d bytes, %v", e, len(got), err)
		}
		if _, err := Decompress(nil, src, e, len(text)-1); errs.KindOf(err) != errs.BodyTooLarge {
			t.Errorf("%s over its bound: got %v, want BodyTooLarge", e, err)
		}
		if _, err := Decompress(nil, src[:len(src)/2], e, len(text)); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s cut: got %v, want Invalid", e, err)
		}
	}
	if _, err := Decompress(nil, text, "br", 1<<20); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("br: got %v, want Unsupported", err)
	}
}

func TestSnappyLiesAboutLengthCostNothing(t *testing.T) {
	src := append(binary.AppendUvarint(nil, 90<<20), "xxxx"...)
	var err error
	n := testing.AllocsPerRun(10, func() { _, err = Decompress(nil, src, "snappy", 100<<20) })
	if errs.KindOf(err) != errs.Invalid || n > 10 {
		t.Errorf("got %v with %g allocations, want Invalid with few", err, n)
	}
}

func TestDecompressionReusesMemory(t *testing.T) {
	src := compressed(t, "snappy", bytes.Repeat([]byte("amphora "), 1000))
	dst := make([]byte, 0, 10_000)
	if n := testing.AllocsPerRun(10, func() { _, _ = Decompress(dst, src, "snappy", 1<<20) }); n > 0 {
		t.Errorf("%g allocations, want 0", n)
	}
}

package exporting

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
)

// framed is a frame with one series.
func framed(t *testing.T, ls []prompb.Label, chunks ...prompb.Chunk) []byte {
	t.Helper()
	raw, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{Labels: ls, Chunks: chunks}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	out := binary.AppendUvarint(nil, uint64(len(raw)))
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)))
	return append(out, raw...)
}

// floats is a chunk of values, a second apart.
func floats(t *testing.T, from int64, vs ...float64) prompb.Chunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	a, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range vs {
		a.Append(0, from+int64(i)*1000, v)
	}
	return prompb.Chunk{Type: prompb.Chunk_XOR, Data: c.Bytes()}
}

func TestSamplesAreRowsOfParquet(t *testing.T) {
	h := chunkenc.NewHistogramChunk()
	a, err := h.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, _, a, err = a.AppendHistogram(nil, 0, int64(i)*1000, tsdbutil.GenerateTestHistogram(int64(i)), false); err != nil {
			t.Fatal(err)
		}
	}
	body := bytes.Join([][]byte{
		framed(t, []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "instance", Value: "a:1"}, {Name: "job", Value: "ü"}}, floats(t, 0, 1, math.Inf(1), math.Float64frombits(value.StaleNaN)), floats(t, 3000, -0.5)),
		framed(t, []prompb.Label{{Name: "job", Value: "nameless"}}, floats(t, 1000, 5)),
		framed(t, []prompb.Label{{Name: "__name__", Value: "bare"}}, floats(t, 1000, 6)),
		framed(t, []prompb.Label{{Name: "__name__", Value: "latency"}, {Name: "job", Value: "x"}}, prompb.Chunk{Type: prompb.Chunk_HISTOGRAM, Data: h.Bytes()}),
	}, nil)
	var file bytes.Buffer
	rows, err := copyFrames(&file, bytes.NewReader(body), 1000, 2000, false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parquet.Read[record](bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil || len(got) != 5 || rows != 5 {
		t.Fatalf("%d rows of %d, %v", len(got), rows, err)
	}
	want := []string{"up map[instance:a:1 job:ü] 1000 +Inf", "up map[instance:a:1 job:ü] 2000 -", " map[job:nameless] 1000 5", "bare map[] 1000 6", "latency map[job:x] 1000 -"}
	for i, r := range got {
		v := "-"
		if r.Value != nil {
			v = strconv.FormatFloat(*r.Value, 'g', -1, 64)
		}
		if text := fmt.Sprintf("%s %v %d %s", r.Metric, r.Labels, r.Timestamp, v); text != want[i] || (r.Histogram != nil) != (i == 4) {
			t.Errorf("row %d is %s, want %s; histogram %v", i, text, want[i], r.Histogram)
		}
	}
	x, sent := got[4].Histogram, tsdbutil.GenerateTestHistogram(1).ToFloat(nil)
	sum := 0.0
	for i, b := range x.Buckets {
		if sum += b.Count; b.Lower >= b.Upper || i > 0 && b.Lower < x.Buckets[i-1].Upper {
			t.Errorf("bucket %d is %+v", i, b)
		}
	}
	if x.Count != sent.Count || x.Sum != sent.Sum || x.Schema != sent.Schema || sum != sent.Count || len(x.Buckets) != len(sent.PositiveBuckets)+len(sent.NegativeBuckets)+1 || x.Gauge {
		t.Errorf("histogram %+v of %v", x, sent)
	}
	file.Reset()
	if rows, err := copyFrames(&file, bytes.NewReader(body), 0, 9000, true); err != nil || rows != 6 {
		t.Errorf("without histograms: %d rows, %v", rows, err)
	}
	if _, err := copyFrames(io.Discard, bytes.NewReader(append(body, 0x80)), 0, 9000, false); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("what breaks off ends with %v", err)
	}
}

// TestRowGroupsAreBounded writes more rows than one has.
func TestRowGroupsAreBounded(t *testing.T) {
	var body bytes.Buffer
	const series, samples = 40, groupRows / 16
	for i := range series {
		vs := make([]float64, samples)
		body.Write(framed(t, []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "i", Value: strconv.Itoa(i)}}, floats(t, 0, vs...)))
	}
	var file bytes.Buffer
	rows, err := copyFrames(&file, &body, 0, math.MaxInt64, false)
	if err != nil || rows != series*samples {
		t.Fatalf("%d rows, %v", rows, err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	groups := f.RowGroups()
	for _, g := range groups {
		if g.NumRows() > groupRows+batchRows {
			t.Errorf("a group has %d rows", g.NumRows())
		}
	}
	if len(groups) < 3 || f.NumRows() != series*samples {
		t.Errorf("%d rows in %d groups", f.NumRows(), len(groups))
	}
}

// chunkWells is wells for chunks: of one series with a sample for every hour of a day.
type chunkWells struct {
	t      *testing.T
	breaks int
}

func (s *chunkWells) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	whole := framed(s.t, []prompb.Label{{Name: "__name__", Value: "m"}}, func() (out []prompb.Chunk) {
		for h := range int64(24) {
			out = append(out, floats(s.t, h*3_600_000, float64(h)))
		}
		return out
	}()...)
	if r.URL.Path != "/prometheus/api/v1/export/native" {
		http.Error(w, "no", http.StatusNotFound)
		return
	}
	if s.breaks--; s.breaks == 0 {
		_, _ = w.Write(whole)
		_, _ = w.Write([]byte{0x80})
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(whole)
}

func TestEachWindowIsAFileOfParquet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := exportFrom(t, &chunkWells{t: t, breaks: 2}, dir, "--form", "parquet", "--window", "8h"); err != nil {
		t.Fatal(err)
	}
	sum := func() (rows, files int) {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			got, err := parquet.ReadFile[record](name)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			rows += len(got)
		}
		return rows, len(names)
	}
	if rows, files := sum(); rows != 24 || files != 3 {
		t.Errorf("%d rows in %d files", rows, files)
	}
	if _, err := os.Stat(filepath.Join(dir, "19700101T080000.000Z.parquet")); err != nil {
		t.Error(err)
	}
	if _, err := exportFrom(t, &wells{refuse: 500}, dir, "--form", "parquet"); err != nil {
		t.Errorf("a whole export was begun again: %v", err)
	}
	// It was killed within its second window.
	raw, err := os.ReadFile(dir + ".state")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(dir+".state", bytes.Replace(raw, []byte(`"next":82800001`), []byte(`"next":28800000`), 1), 0o600))
	must(os.WriteFile(filepath.Join(dir, "19700101T080000.000Z.parquet.part"), []byte("PAR1"), 0o600))
	must(os.Remove(filepath.Join(dir, "19700101T080000.000Z.parquet")))
	_, err = exportFrom(t, &wells{refuse: 422}, dir, "--form", "parquet", "--window", "8h")
	if status, ok := errors.AsType[*client.StatusError](err); !ok || status.Status != 422 {
		t.Errorf("ended with %v", err)
	}
	if rows, files := sum(); rows != 16 || files != 2 {
		t.Errorf("%d rows in %d files before it goes on", rows, files)
	}
	if _, err := exportFrom(t, &chunkWells{t: t}, dir, "--form", "parquet", "--window", "8h"); err != nil {
		t.Fatal(err)
	}
	if rows, files := sum(); rows != 24 || files != 3 {
		t.Errorf("%d rows in %d files after it went on", rows, files)
	}
	must(os.Remove(dir + ".state"))
	if _, err := exportFrom(t, &chunkWells{t: t}, dir, "--form", "parquet"); err == nil {
		t.Error("files of somebody else were written over")
	}
}

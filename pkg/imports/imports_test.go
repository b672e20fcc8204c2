package imports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	staleness "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// room gives n bytes.
type room struct{ n int }

var errRoom = errors.New("no memory")

func (r *room) Reserve(n int) error {
	if r.n -= n; r.n < 0 {
		return errRoom
	}
	return nil
}

func (r *room) Grow(buf []byte, n int) ([]byte, error) {
	if err := r.Reserve(n); err != nil {
		return buf, err
	}
	return append(make([]byte, 0, 2*cap(buf)+n), buf...), nil
}

// show writes what a body has, one series a line.
func show(t *testing.T, res Result, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var req writev2.Request
	if err := req.Unmarshal(res.Body); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	b := labels.NewScratchBuilder(0)
	n := 0
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ts.ToMetadata(req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(&out, ls)
		for _, s := range ts.Samples {
			n++
			fmt.Fprintf(&out, " %g@%d", s.Value, s.Timestamp)
		}
		for _, x := range ts.Exemplars {
			e, err := x.ToExemplar(&b, req.Symbols)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, " # %s %g@%d", e.Labels, e.Value, e.Ts)
		}
		fmt.Fprintf(&out, " %s %q %q\n", m.Type, m.Help, m.Unit)
	}
	if n != res.Samples {
		t.Errorf("%d samples, told %d", n, res.Samples)
	}
	return out.String()
}

var at = Options{Time: time.UnixMilli(5000)}

func TestTextIsImported(t *testing.T) {
	res, err := Text([]byte(`# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{code="200",b="x"} 1027 1395066363000
http_requests_total{code="400"} 3
# TYPE rt histogram
rt_bucket{le="0.5"} 1
rt_bucket{le="+Inf"} 2
rt_sum 1.5
rt_count 2
other 1e3
`), "", at, nil, &room{1 << 20})
	const want = `{__name__="http_requests_total", b="x", code="200"} 1027@1395066363000 counter "Requests." ""
{__name__="http_requests_total", code="400"} 3@5000 counter "Requests." ""
{__name__="rt_bucket", le="0.5"} 1@5000 histogram "" ""
{__name__="rt_bucket", le="+Inf"} 2@5000 histogram "" ""
{__name__="rt_sum"} 1.5@5000 histogram "" ""
{__name__="rt_count"} 2@5000 histogram "" ""
{__name__="other"} 1000@5000 unknown "" ""
`
	if got := show(t, res, err); got != want {
		t.Errorf("got\n%s", got)
	}
	res, err = Text([]byte("# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x=\"1\"} 2 7 # {trace_id=\"t\"} 0.5\n# EOF\n"),
		"application/openmetrics-text; version=1.0.0", at, nil, &room{1 << 20})
	if got := show(t, res, err); got != `{__name__="a_seconds_total", x="1"} 2@7000 # {trace_id="t"} 0.5@7000 counter "" "seconds"`+"\n" {
		t.Errorf("OpenMetrics: %s", got)
	}
}

func TestLinesAreImported(t *testing.T) {
	o := at
	o.Extra = labels.FromStrings("job", "extra", "zone", "z")
	res, err := Lines([]byte(`{"metric":{"__name__":"up","job":"node","instance":"a"},"values":[1,0.5,"Infinity",null],"timestamps":[1000,2000,3000,4000]}

{"metric":{"__name__":"empty"},"values":[],"timestamps":[]}
{"timestamps":[9],"values":[7],"metric":{"__name__":"x"}}`), o, nil, &room{1 << 20})
	const want = `{__name__="up", instance="a", job="extra", zone="z"} 1@1000 0.5@2000 +Inf@3000 NaN@4000 unknown "" ""
{__name__="x", job="extra", zone="z"} 7@9 unknown "" ""
`
	if got := show(t, res, err); got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestWhatIsMalformedIsNotTakenAtAll, and the error is short whatever was sent.
func TestWhatIsMalformedIsNotTakenAtAll(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for _, text := range []string{"good 1\nbad{\n", "good 1\n" + long + "{ 1\n", "a{b=\"" + long + "} 1\n", "good 1 soon\n"} {
		if _, err := Text([]byte(text), "text/plain", at, nil, &room{1 << 20}); errs.KindOf(err) != errs.Invalid || len(err.Error()) > 500 {
			t.Errorf("%.50q: %v", text, err)
		}
	}
	const good = `{"metric":{"__name__":"a"},"values":[1],"timestamps":[1]}` + "\n"
	for _, line := range []string{"{", `{"metric":{"a":"b"},"values":[1],"timestamps":[1]}`, `{"metric":{"__name__":"a"},"values":[1],"timestamps":[]}`,
		`{"metric":{"__name__":"a"},"values":["one"],"timestamps":[1]}`, `{"metric":{"__name__":"a"},"values":[1],"timestamps":["` + long + `"]}`, "[]",
		`{"metric":{"__name__":"a"},"values":[1],"timestamps":[null]}`} {
		if _, err := Lines([]byte(good+line), at, nil, &room{1 << 20}); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "line 2") || len(err.Error()) > 500 {
			t.Errorf("%.50q: %v", line, err)
		}
	}
	if _, err := Lines([]byte(strings.Repeat(good, 100)), at, nil, &room{2000}); !errors.Is(err, errRoom) {
		t.Errorf("without memory: %v", err)
	}
}

// sample is a histogram sample of a body.
type sample struct {
	series string
	t      int64
	h      *histogram.Histogram
	fh     *histogram.FloatHistogram
}

// samplesOf returns the histograms of a body, and the number of its floats.
func samplesOf(t *testing.T, res Result, err error) (out []sample, floats int) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var req writev2.Request
	if err := req.Unmarshal(res.Body); err != nil {
		t.Fatal(err)
	}
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		floats += len(ts.Samples)
		for _, h := range ts.Histograms {
			if x := (sample{series: ls.String(), t: h.Timestamp}); h.IsFloatHistogram() {
				x.fh = h.ToFloatHistogram()
				out = append(out, x)
			} else {
				x.h = h.ToIntHistogram()
				out = append(out, x)
			}
		}
	}
	return out, floats
}

// histograms are of all kinds.
func histograms() (out []sample) {
	for i := range 8 {
		x := sample{series: `{__name__="h", room="a"}`, t: int64(1000 * (i + 1))}
		switch i % 4 {
		case 0:
			x.h = tsdbutil.GenerateTestHistogram(int64(i))
		case 1:
			x.fh = tsdbutil.GenerateTestFloatHistogram(int64(i))
			x.fh.Sum, x.fh.ZeroCount = math.Inf(-1), 0.1
		case 2:
			x.h = tsdbutil.GenerateTestCustomBucketsHistogram(int64(i))
		default:
			x.fh = tsdbutil.GenerateTestCustomBucketsFloatHistogram(int64(i))
		}
		switch {
		case i == 4:
			x.h.CounterResetHint = histogram.GaugeType
		case i == 5:
			x.fh.CounterResetHint = histogram.CounterReset
		case i == 6:
			x.h = &histogram.Histogram{Sum: math.Float64frombits(staleness.StaleNaN)}
		}
		out = append(out, x)
	}
	return out
}

func same(t *testing.T, got, want []sample) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d histograms, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.series != w.series || g.t != w.t || (g.h == nil) != (w.h == nil) || w.h != nil && !g.h.Equals(w.h) || w.fh != nil && !g.fh.Equals(w.fh) {
			t.Errorf("histogram %d is %v, want %v", i, g, w)
		}
		if w.h != nil && g.h.CounterResetHint != w.h.CounterResetHint || w.fh != nil && g.fh.CounterResetHint != w.fh.CounterResetHint {
			t.Errorf("histogram %d has another hint", i)
		}
	}
}

func TestLinesOfHistogramsAreImportedAsTheyWere(t *testing.T) {
	want := histograms()
	line := []byte(`{"metric":{"__name__":"h","room":"a"},"histograms":[`)
	times := ""
	for i, x := range want {
		if i > 0 {
			line, times = append(line, ','), times+","
		}
		line, times = AppendHistogram(line, x.h, x.fh), times+fmt.Sprint(x.t)
	}
	line = append(line, `],"timestamps":[`+times+"]}\n"...)
	res, err := Lines(line, at, nil, &room{1 << 20})
	got, floats := samplesOf(t, res, err)
	same(t, got, want)
	if floats != 0 || res.Samples != len(want) {
		t.Errorf("%d floats, %d samples told", floats, res.Samples)
	}
}

// TestAHistogramHasNothingOfTheOneBefore: what one leaves out is zero, whatever the one before had.
func TestAHistogramHasNothingOfTheOneBefore(t *testing.T) {
	res, err := Lines([]byte(`{"metric":{"__name__":"h"},"histograms":[`+
		`{"count_int":3,"sum":1,"positive_spans":[{"offset":5,"length":1},{"offset":7,"length":1}],"positive_deltas":[1,1]},`+
		`{"count_int":2,"sum":1,"positive_spans":[{"length":1},{"length":1}],"positive_deltas":[1,0]}],"timestamps":[1,2]}`), at, nil, &room{1 << 20})
	got, _ := samplesOf(t, res, err)
	want := &histogram.Histogram{Count: 2, Sum: 1, PositiveSpans: []histogram.Span{{Length: 1}, {Length: 1}}, PositiveBuckets: []int64{1, 0}}
	if len(got) != 2 || !got[1].h.Equals(want) {
		t.Errorf("got %v, want the second to be %v", got, want)
	}
}

func TestMalformedHistogramsAreNotTaken(t *testing.T) {
	for what, c := range map[string]struct{ histograms, times, want string }{
		"no array":       {`{"count_int":1}`, "1", "array"},
		"too few times":  {`{"count_int":0,"sum":0},{"count_int":0,"sum":0}`, "1", "timestamps"},
		"too many times": {`{"count_int":0,"sum":0}`, "1,2", "timestamps"},
		"no count":       {`{"sum":1}`, "1", "count_int"},
		"both counts":    {`{"count_int":1,"count_float":1}`, "1", "count_int"},
		"mixed buckets":  {`{"count_int":1,"positive_counts":[1]}`, "1", "positive_deltas"},
		"no such hint":   {`{"count_int":1,"reset_hint":"MAYBE"}`, "1", "GAUGE"},
		"no buckets":     {`{"count_int":1,"positive_spans":[{"offset":0,"length":4294967295}]}`, "1", "histogram 1"},
		"a long number":  {`{"count_int":1` + strings.Repeat("0", 10_000) + `}`, "1", "histogram 1"},
		"a fine schema":  {`{"count_int":1,"schema":50,"positive_spans":[{"offset":0,"length":4294967295}],"positive_deltas":[1]}`, "1", "histogram 1"},
	} {
		list := "[" + c.histograms + "]"
		if what == "no array" {
			list = c.histograms
		}
		line := `{"metric":{"__name__":"h"},"histograms":` + list + `,"timestamps":[` + c.times + `]}`
		if _, err := Lines([]byte(line), at, nil, &room{1 << 20}); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "line 1") || len(err.Error()) > 500 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// frame is a frame of remote read.
func frame(t testing.TB, kv []string, chunks ...prompb.Chunk) []byte {
	t.Helper()
	s := &prompb.ChunkedSeries{Chunks: chunks}
	for i := 0; i < len(kv); i += 2 {
		s.Labels = append(s.Labels, prompb.Label{Name: kv[i], Value: kv[i+1]})
	}
	body, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{s}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	out := binary.AppendUvarint(nil, uint64(len(body)))
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return append(out, body...)
}

// chunkOf is a chunk of one sample, or of many floats.
func chunkOf(t testing.TB, x sample, floats int) prompb.Chunk {
	t.Helper()
	enc := map[bool]chunkenc.Encoding{true: chunkenc.EncXOR}[floats > 0]
	switch {
	case x.h != nil:
		enc = chunkenc.EncHistogram
	case x.fh != nil:
		enc = chunkenc.EncFloatHistogram
	}
	c, err := chunkenc.NewEmptyChunk(enc)
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case x.h != nil:
		_, _, _, err = a.AppendHistogram(nil, 0, x.t, x.h, false)
	case x.fh != nil:
		_, _, _, err = a.AppendFloatHistogram(nil, 0, x.t, x.fh, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range floats {
		a.Append(0, int64(1000*i), float64(i))
	}
	return prompb.Chunk{Type: prompb.Chunk_Encoding(enc), Data: c.Bytes()}
}

func TestChunksAreImported(t *testing.T) {
	want := histograms()
	var body []byte
	for _, x := range want {
		body = append(body, frame(t, []string{"room", "a", "__name__", "h"}, chunkOf(t, x, 0))...)
	}
	body = append(body, frame(t, []string{"__name__", "f"}, chunkOf(t, sample{}, 2*mostSamples+1), chunkOf(t, sample{}, 1))...)
	res, err := Native(body, at, nil, &room{1 << 20})
	got, floats := samplesOf(t, res, err)
	want[5].fh.CounterResetHint = histogram.UnknownCounterReset // the chunk has nothing before it
	same(t, got, want)
	if floats != 2*mostSamples+2 || res.Samples != floats+len(want) {
		t.Errorf("%d floats, %d samples told", floats, res.Samples)
	}
}

func TestDamagedFramesAreNotTaken(t *testing.T) {
	good := frame(t, []string{"__name__", "f"}, chunkOf(t, sample{}, 3))
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-1] ^= 1
	// A layout of one span of 2^32-1 buckets: a threshold of 0, schema 0, one span, its length behind 8 ones.
	wide := []byte{0, 1, 0, 0, 0b0_10_001_11, 0b111111_00, 0, 0, 0, 0, 0b11111111, 0xff, 0xff, 0xff, 0, 0, 0, 0}
	for what, c := range map[string]struct {
		body []byte
		want string
	}{
		"cut":         {good[:len(good)-1], "frame 2 is not whole"},
		"flipped":     {flipped, "checksum"},
		"huge":        {binary.AppendUvarint(nil, 1<<40), "not whole"},
		"no name":     {frame(t, []string{"a", "b"}, chunkOf(t, sample{}, 1)), "no name"},
		"empty chunk": {frame(t, []string{"__name__", "f"}, prompb.Chunk{Type: prompb.Chunk_XOR}), "bytes"},
		"no encoding": {frame(t, []string{"__name__", "f"}, prompb.Chunk{Type: 99, Data: make([]byte, 9)}), "encoding"},
		"cut chunk":   {frame(t, []string{"__name__", "f"}, prompb.Chunk{Type: prompb.Chunk_XOR, Data: []byte{0, 9, 1}}), "a chunk of"},
		"finer":       {frame(t, []string{"__name__", "f"}, finer(t)), "negative"},
		"wide":        {frame(t, []string{"__name__", "f"}, prompb.Chunk{Type: prompb.Chunk_HISTOGRAM, Data: wide}), "buckets"},
	} {
		if _, err := Native(append(append([]byte(nil), good...), c.body...), at, nil, &room{1 << 20}); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500 {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Native(good, at, nil, &room{10}); !errors.Is(err, errRoom) {
		t.Errorf("without memory: %v", err)
	}
}

// finer returns a chunk for which upstream's reader panics: a schema that it makes coarser, with spans that overlap.
func finer(t testing.TB) prompb.Chunk {
	return chunkOf(t, sample{fh: &histogram.FloatHistogram{Schema: 20, Count: 3, Sum: 1, PositiveSpans: []histogram.Span{{Length: 2}, {Offset: -1, Length: 1}}, PositiveBuckets: []float64{1, 1, 1}}}, 0)
}

func FuzzNative(f *testing.F) {
	for _, x := range histograms() {
		c := chunkOf(f, x, 0)
		f.Add(uint8(c.Type), c.Data)
	}
	f.Add(uint8(prompb.Chunk_XOR), chunkOf(f, sample{}, 5).Data)
	f.Add(uint8(prompb.Chunk_FLOAT_HISTOGRAM), finer(f).Data)
	f.Fuzz(func(t *testing.T, enc uint8, data []byte) {
		res, err := Native(frame(t, []string{"__name__", "f"}, prompb.Chunk{Type: prompb.Chunk_Encoding(enc % 8), Data: data}), at, nil, &room{1 << 24})
		scan(t, res, err)
	})
}

func FuzzText(f *testing.F) {
	f.Add([]byte("# TYPE a counter\na{b=\"c\"} 1 2\n"), false)
	f.Add([]byte("# TYPE a_s counter\n# UNIT a_s s\na_s_total 1 # {x=\"y\"} 2 3\n# EOF\n"), true)
	f.Fuzz(func(t *testing.T, text []byte, open bool) {
		kind := ""
		if open {
			kind = "application/openmetrics-text"
		}
		res, err := Text(text, kind, at, nil, &room{1 << 24})
		scan(t, res, err)
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"metric":{"__name__":"up","job":"node"},"values":[1,"NaN",null],"timestamps":[1000,2000,3000]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		res, err := Lines(text, at, nil, &room{1 << 24})
		scan(t, res, err)
	})
}

func scan(t *testing.T, res Result, err error) {
	t.Helper()
	if err != nil {
		return
	}
	var b remotewrite.Batch
	if err := b.Scan(remotewrite.NewKeys(), &remotewrite.Request{Version: remotewrite.V2, Body: res.Body}); err != nil || len(b.Times)+b.HistogramCount() != res.Samples {
		t.Fatalf("%d samples, told %d: %v", len(b.Times)+b.HistogramCount(), res.Samples, err)
	}
}

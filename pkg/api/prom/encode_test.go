package prom

import (
	"encoding/json"
	"math"
	"net/http/httptest"
	"strings"
	"testing"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/jsonutil"
)

// reference runs one of Prometheus's own encoders.
func reference(f func(*jsoniter.Stream)) string {
	s := jsoniter.NewStream(jsoniter.ConfigDefault, nil, 64)
	f(s)
	return string(s.Buffer())
}

func FuzzNumbersAreWrittenAsPrometheusWritesThem(f *testing.F) {
	for _, x := range []float64{0, math.Copysign(0, -1), 1, -1.5, 1e21, 9.99e20, 1e-6, 9.9e-7, 1e300, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64} {
		f.Add(math.Float64bits(x), int64(1435781451781))
	}
	for _, t := range []int64{0, 1, -1, 10, 999, 1000, 1050, -1001, math.MaxInt64, math.MinInt64 + 1} {
		f.Add(uint64(0), t)
	}
	f.Fuzz(func(t *testing.T, bits uint64, ms int64) {
		x := math.Float64frombits(bits)
		if got, want := string(appendFloat(nil, x)), reference(func(s *jsoniter.Stream) { jsonutil.MarshalFloat(x, s) }); got != want {
			t.Errorf("float %x: got %s, want %s", bits, got, want)
		}
		if ms == math.MinInt64 {
			return // the reference overflows here
		}
		if got, want := string(appendTimestamp(nil, ms)), reference(func(s *jsoniter.Stream) { jsonutil.MarshalTimestamp(ms, s) }); got != want {
			t.Errorf("timestamp %d: got %s, want %s", ms, got, want)
		}
	})
}

func FuzzStringsSurviveJSON(f *testing.F) {
	for _, s := range []string{"", "up", `a"b\c`, "\n\r\t\x00\x1f", "ä€😀", "\xff\xfe", "a\xc3", "\u2028", "<&>", "\ufffd\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: not JSON: %s: %v", s, b, err)
		}
		if want := string([]rune(s)); got != want { // the conversion puts U+FFFD for bad bytes
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

func TestHistogramsAreWrittenAsPrometheusWritesThem(t *testing.T) {
	for name, h := range map[string]*histogram.FloatHistogram{
		"empty": {},
		"both signs and zero": {Schema: 1, ZeroThreshold: 0.001, ZeroCount: 3, Count: 20, Sum: -3.5,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 3, Length: 1}}, PositiveBuckets: []float64{1, 0, 4},
			NegativeSpans: []histogram.Span{{Offset: 1, Length: 2}}, NegativeBuckets: []float64{2, 10}},
		"custom bounds": {Schema: histogram.CustomBucketsSchema, Count: 6, Sum: math.NaN(), CustomValues: []float64{0.5, 1, 10},
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 4}}, PositiveBuckets: []float64{1, 2, 0, 3}},
	} {
		if got, want := string(appendHistogram(nil, h)), reference(func(s *jsoniter.Stream) { jsonutil.MarshalHistogram(h, s) }); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func encoded(v parser.Value) string {
	rec := httptest.NewRecorder()
	newWriters().send(rec, httptest.NewRequest("GET", "/", nil), func(a *answer) { a.value(v) })
	return rec.Body.String()
}

func TestEachResultTypeHasItsForm(t *testing.T) {
	up := labels.FromStrings("__name__", "up", "job", "a\"b")
	h := &histogram.FloatHistogram{Count: 1, Sum: 2, ZeroThreshold: 1, ZeroCount: 1}
	for _, c := range []struct {
		v    parser.Value
		want string
	}{
		{promql.Matrix{}, `[]`},
		{promql.Matrix(nil), `[]`},
		{promql.Vector{}, `[]`},
		{promql.Scalar{T: 1500, V: math.Inf(1)}, `[1.5,"+Inf"]`},
		{promql.Scalar{T: 0, V: 1e21}, `[0,"1000000000000000000000"]`},
		{promql.String{T: 0, V: "a\nb"}, `[0,"a\nb"]`},
		{promql.Vector{{Metric: up, T: 1000, F: 1e21}, {T: 2, H: h}},
			`[{"metric":{"__name__":"up","job":"a\"b"},"value":[1,"1e+21"]},{"metric":{},"histogram":[0.002,{"count":"1","sum":"2","buckets":[[3,"-1","1","1"]]}]}]`},
		{promql.Matrix{{Metric: up, Floats: []promql.FPoint{{T: 1000, F: math.NaN()}, {T: -1, F: math.Copysign(0, -1)}}, Histograms: []promql.HPoint{{T: 5, H: h}}}, {}},
			`[{"metric":{"__name__":"up","job":"a\"b"},"values":[[1,"NaN"],[-0.001,"-0"]],"histograms":[[0.005,{"count":"1","sum":"2","buckets":[[3,"-1","1","1"]]}]]},{"metric":{}}]`},
	} {
		if got := encoded(c.v); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// TestLongAnswersLeaveInParts: an answer is larger than the buffer that carries it.
func TestLongAnswersLeaveInParts(t *testing.T) {
	m := promql.Matrix{{Metric: labels.FromStrings("a", strings.Repeat("x", 1000)), Floats: make([]promql.FPoint, 50_000)}}
	var held int
	rec := httptest.NewRecorder()
	newWriters().send(rec, httptest.NewRequest("GET", "/", nil), func(a *answer) {
		a.value(m)
		held = cap(a.buf)
	})
	if held > 2*spillBytes {
		t.Errorf("buffer grew to %d bytes for an answer of %d", held, rec.Body.Len())
	}
	var got []struct {
		Values [][]any `json:"values"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || len(got[0].Values) != 50_000 {
		t.Fatalf("not whole: %v", err)
	}
}

type discard struct{ httptest.ResponseRecorder }

func (*discard) Write(b []byte) (int, error) { return len(b), nil }

func BenchmarkEncodeMatrix(b *testing.B) {
	for name, series := range map[string]int{"series=1k": 1000, "series=10": 10} {
		m := make(promql.Matrix, series)
		for i := range m {
			m[i].Metric = labels.FromStrings("__name__", "http_requests_total", "instance", "host-0001:9100", "job", "node", "code", "200")
			for j := range 200 {
				m[i].Floats = append(m[i].Floats, promql.FPoint{T: int64(1700000000000 + j*15000), F: float64(i*j) * 1.37})
			}
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			p, r := newWriters(), httptest.NewRequest("GET", "/", nil)
			w := new(discard)
			for b.Loop() {
				p.send(w, r, func(a *answer) { a.value(m) })
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*series*200), "ns/sample")
		})
	}
}

func TestSamplesCostNoAllocation(t *testing.T) {
	points := make([]promql.FPoint, 10_000)
	for i := range points {
		points[i] = promql.FPoint{T: int64(i) * 15000, F: float64(i) * 1.1}
	}
	m := promql.Matrix{{Metric: labels.FromStrings("__name__", "up", "job", "node"), Floats: points}}
	p, r, w := newWriters(), httptest.NewRequest("GET", "/", nil), new(discard)
	got := testing.AllocsPerRun(20, func() { p.send(w, r, func(a *answer) { a.value(m) }) })
	if got > 50 {
		t.Errorf("%v allocations for 10,000 samples", got)
	}
}

package work

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/wire/packed"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

func nativeHistogram() *histogram.FloatHistogram {
	return &histogram.FloatHistogram{CounterResetHint: histogram.GaugeType, Schema: 1, ZeroThreshold: 0.001, ZeroCount: 2, Count: 9, Sum: 7.5,
		PositiveSpans: []histogram.Span{{Offset: -2, Length: 1}, {Offset: 3, Length: 2}}, PositiveBuckets: []float64{1, 2, 3},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []float64{1}}
}

func TestAnswersSurviveTheWire(t *testing.T) {
	foo := labels.FromStrings("__name__", "foo", "a", "b")
	long := promql.Series{Metric: foo}
	for i := range int64(60_000) {
		long.Floats = append(long.Floats, promql.FPoint{T: i*15_000 - 1000, F: float64(i)})
	}
	for name, v := range map[string]parser.Value{
		"scalar": promql.Scalar{T: 5, V: math.Inf(1)},
		"string": promql.String{T: 5, V: "x"},
		"vector": promql.Vector{{Metric: foo, T: 7, F: 1.5}, {T: 7, H: nativeHistogram()}},
		"matrix": promql.Matrix{long, {Metric: labels.FromStrings("x", "y"), Histograms: []promql.HPoint{{T: 1, H: nativeHistogram()}, {T: 9, H: nativeHistogram()}}}, long},
		"empty":  promql.Matrix{},
		"none":   promql.Vector{},
		"floats": promql.Matrix{long, {Metric: foo, Floats: []promql.FPoint{{T: 3, F: 1}, {T: 4, F: 2}, {T: 9, F: 3}}}, {}},
		"many":   manySamples(),
	} {
		surviveTheWire(t, name, v, false)
		surviveTheWire(t, name, v, true)
	}
}

// manySamples are more than one message has.
func manySamples() promql.Vector {
	out := make(promql.Vector, 20_000)
	for i := range out {
		out[i] = promql.Sample{Metric: labels.FromStrings("__name__", "many", "i", strconv.Itoa(i)), T: 1_700_000_000_000, F: float64(i)}
	}
	return out
}

// surviveTheWire sends v through a scheduler, to somebody who understands packed answers or to one who does not.
func surviveTheWire(t *testing.T, name string, v parser.Value, understood bool) {
	t.Helper()
	var ws annotations.Annotations
	ws.Add(annotations.NewPossibleNonCounterInfo("foo", posrange.PositionRange{Start: 5, End: 8}))
	sent := NewResult(v, ws, nil)
	sent.Samples = stats.QuerySamples{TotalSamples: 12, PeakSamples: 3, SamplesRead: 4}
	got := &Work{Query: &Query{Step: 1}}
	var relayed Relayed
	relay := &Work{Encoded: func(b []byte) error {
		sent := make([]byte, EncodedPart(b).SizeVT())
		if _, err := EncodedPart(b).MarshalToSizedBufferVT(sent); err != nil {
			return err
		}
		defer clear(sent)
		return got.DeliverEncoded(sent)
	}}
	pieces, lasts := 0, 0
	w := &Work{Query: &Query{Text: "rate(foo[1m])", Packed: understood}, Parts: func(p *querypb.Part) error {
		if pieces += len(p.Packed); lasts > 1 {
			t.Errorf("%s: a part comes after the last one", name)
		}
		b, err := (&querypb.FromWorker{Querier: "q", Part: p}).MarshalVT()
		if err != nil {
			return err
		}
		relayed.Reset()
		if err := relayed.UnmarshalVT(b); err != nil || relayed.Done || relayed.Error != nil {
			t.Fatalf("%s: relayed as %+v, %v", name, relayed, err)
		}
		lasts *= 2
		return relay.DeliverEncoded(relayed.Part)
	}}
	w.Last = func(p *querypb.Part) error {
		lasts++
		return w.Parts(p)
	}
	if err := w.Answer(sent); err != nil {
		t.Fatal(err)
	}
	if lasts != 2 {
		t.Errorf("%s: it is not said once which part is the last", name)
	}
	if err := got.Delivered(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !reflect.DeepEqual(got.Result.Value, v) {
		t.Errorf("%s: arrived as %v, want %v", name, got.Result.Value, v)
	}
	if !understood && pieces > 0 {
		t.Errorf("%s: it is packed for one who does not understand it", name)
	}
	if got.Result.Samples.TotalSamples != 12 || got.Result.Samples.PeakSamples != 3 {
		t.Errorf("%s: samples %+v", name, got.Result.Samples)
	}
	_, infos := got.Result.Warnings.AsStrings("rate(foo[1m])", 0, 0)
	if _, want := ws.AsStrings("rate(foo[1m])", 0, 0); !reflect.DeepEqual(infos, want) {
		t.Errorf("%s: infos %q, want %q", name, infos, want)
	}
}

func TestWhoReadsAnAnswerSaysWhetherItMayBePacked(t *testing.T) {
	for _, relays := range []bool{false, true} {
		for _, asked := range []bool{false, true} {
			w := &Work{Query: &Query{Text: "up", Packed: asked}}
			if relays {
				w.Parts = func(*querypb.Part) error { return nil }
			}
			msg, err := w.ToWire()
			if err != nil || msg.Query.Packed != (asked || !relays) {
				t.Errorf("relays %t, asked %t: %v, %v", relays, asked, msg, err)
			}
			back, err := FromWire(t.Context(), msg, func(*querypb.Part) error { return nil })
			if err != nil || back.Query.Packed != msg.Query.Packed {
				t.Errorf("arrived as %+v, %v", back.Query, err)
			}
		}
	}
}

func TestWhatAQuerierSaysIsRelayed(t *testing.T) {
	b, err := (&querypb.FromWorker{Querier: "q", Done: true, Error: &querypb.Failure{Kind: 3, Text: "no"}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, 0x7a, 1, 'x', 0x80, 1, 7) // fields 15 and 16, of a later version
	var m Relayed
	if err := m.UnmarshalVT(b); err != nil || m.Part != nil || !m.Done || m.Error.GetKind() != 3 || m.Error.GetText() != "no" {
		t.Errorf("relayed as %+v, %v", m, err)
	}
	for _, n := range []int{1, 2, 4, 6, 7, 9, len(b) - 1, len(b) - 4} { // within fields
		m.Reset()
		if err := m.UnmarshalVT(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken for a message", n, len(b))
		}
	}
}

func TestRequestsSurviveTheWire(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/prometheus/api/v1/series?limit=3", bytes.NewReader([]byte("match[]=x")))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sent := &Work{Class: Dashboard, Request: r}
	if _, err := sent.ToWire(); err != nil || !sent.Again() { // to somebody who was lost
		t.Fatalf("cannot be sent again: %v", err)
	}
	msg, err := sent.ToWire()
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	front := &Work{Request: r, Writer: rec}
	var sizes []int
	deliver := func(p *querypb.Part) error {
		sizes = append(sizes, len(p.Body))
		return front.Deliver(p)
	}
	w, err := FromWire(t.Context(), msg, deliver)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := w.ToWire(); err != nil || string(back.Http.Body) != "match[]=x" { // as a query-scheduler does
		t.Errorf("passed on as %v, %v", back, err)
	}
	lasts := 0
	w.Last = func(p *querypb.Part) error {
		lasts++
		return deliver(p)
	}
	body, _ := io.ReadAll(w.Request.Body)
	if w.Class != Dashboard || w.Request.URL.String() != r.URL.String() || string(body) != "match[]=x" || w.Request.Header.Get("Content-Type") == "" {
		t.Errorf("arrived as %+v with %q", w.Request, body)
	}
	rw, end := w.ResponseWriter()
	rw.Header().Set("X-A", "b")
	rw.WriteHeader(http.StatusTeapot)
	big := bytes.Repeat([]byte("0123456789"), partBytes/4)
	for b := range slices.Chunk(big, 100_000) {
		if _, err := rw.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if len(sizes) != 2 || lasts != 0 {
		t.Errorf("parts of %d bytes before the end, %d of them the last", sizes, lasts)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if len(sizes) != 3 || lasts != 1 {
		t.Errorf("parts of %d bytes, %d of them the last", sizes, lasts)
	}
	if rec.Code != http.StatusTeapot || rec.Header().Get("X-A") != "b" || !bytes.Equal(rec.Body.Bytes(), big) {
		t.Errorf("answer: %d, %v, %d bytes", rec.Code, rec.Header(), rec.Body.Len())
	}
	if front.Again() {
		t.Error("an answer that is out can be begun anew")
	}
}

// FuzzParts feeds the receiver with whatever another process may send.
func FuzzParts(f *testing.F) {
	for _, p := range []*querypb.Part{
		{Head: &querypb.Head{Type: querypb.Head_VECTOR}, Series: []*querypb.Series{{Labels: []string{"a", "b"}, Times: []int64{1}, Values: []float64{2}}}},
		{Head: &querypb.Head{Type: querypb.Head_MATRIX}, Series: []*querypb.Series{{HistogramTimes: []int64{1}, Histograms: []*querypb.Histogram{{Positive: []float64{1}, PositiveSpans: []*querypb.Span{{Length: 1}}}}}}},
		{Status: 200, Header: []string{"a", "b"}, Body: []byte("x")},
		{Head: &querypb.Head{Type: querypb.Head_VECTOR}, Packed: packed.AppendPoint(packed.AppendLabels(nil, labels.FromStrings("a", "b")), 1, 2)},
	} {
		b, err := p.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		p := new(querypb.Part)
		if p.UnmarshalVT(b) != nil {
			return
		}
		w := &Work{Query: &Query{}}
		if w.Deliver(p) == nil && w.Delivered() == nil {
			nobody := func(*querypb.Part) error { return nil }
			_ = encode(w.Result, asker{}, sink{nobody, nobody})
		}
		_ = writePart(httptest.NewRecorder(), p)
	})
}

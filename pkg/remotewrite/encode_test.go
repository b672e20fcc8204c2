package remotewrite

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

// heap is room without bounds until after bytes were asked for.
type heap struct{ left int }

var errHeap = errors.New("no memory")

func (h *heap) Reserve(n int) error {
	if h.left -= n; h.left < 0 {
		return errHeap
	}
	return nil
}

func (h *heap) Grow(buf []byte, n int) ([]byte, error) {
	if err := h.Reserve(n); err != nil {
		return buf, err
	}
	return append(make([]byte, 0, 2*cap(buf)+n), buf...), nil
}

func refsOf(e *Encoder, kv ...string) (refs []uint32) {
	for _, s := range kv {
		refs = append(refs, e.Symbol(s))
	}
	return refs
}

func TestWhatIsEncodedIsScanned(t *testing.T) {
	h := &histogram.Histogram{Count: 12, Sum: 3.5, Schema: -1, ZeroThreshold: 0.5, ZeroCount: 2, CounterResetHint: histogram.GaugeType,
		PositiveSpans: []histogram.Span{{Offset: -3, Length: 2}, {Offset: 4, Length: 1}}, PositiveBuckets: []int64{1, 2, -1},
		NegativeSpans: []histogram.Span{{Offset: 1 << 20, Length: 1}}, NegativeBuckets: []int64{4}}
	custom := &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: 1, Sum: math.NaN(), CustomValues: []float64{1, math.MaxFloat64},
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}}, PositiveBuckets: []int64{1}}
	floats := []*histogram.FloatHistogram{h.ToFloat(nil), custom.ToFloat(nil)}
	floats[0].PositiveBuckets[1], floats[0].ZeroCount = 0.25, math.Inf(1)
	e := new(Encoder)
	for round := range 3 { // the encoder is used again
		e.Begin(nil, &heap{1 << 30})
		e.Series(refsOf(e, "__name__", "m", "a", "1"))
		e.Sample(1.5, 1000, 0)
		e.Sample(-2, 2000, 500)
		e.Exemplar(refsOf(e, "trace_id", "x"), 7, 900)
		e.Metadata(Counter, e.Symbol("some help"), e.Symbol("seconds"))
		if err := e.EndSeries(); err != nil {
			t.Fatal(err)
		}
		e.Series(refsOf(e, "__name__", "h", "long", strings.Repeat("v", 300)))
		e.Histogram(h, 3000, 600)
		e.Histogram(custom, 3001, 0)
		e.FloatHistogram(floats[0], 3002, 600)
		e.FloatHistogram(floats[1], 3003, 0)
		_ = e.EndSeries()
		if e.Samples() != 6 {
			t.Errorf("%d samples, want 6", e.Samples())
		}
		body, err := e.End()
		if err != nil {
			t.Fatal(err)
		}
		b := scanned(t, NewKeys(), V2, body)
		compare(t, b, []decoded{
			{labels: labels.FromStrings("__name__", "m", "a", "1"), samples: []writev2.Sample{{Value: 1.5, Timestamp: 1000}, {Value: -2, Timestamp: 2000, StartTimestamp: 500}},
				exemplars: promExemplars("trace_id", "x", 7, 900)},
			{labels: labels.FromStrings("__name__", "h", "long", strings.Repeat("v", 300)), hists: []Histogram{{Time: 3000, StartTime: 600, H: h}, {Time: 3001, H: custom},
				{Time: 3002, StartTime: 600, FH: floats[0]}, {Time: 3003, FH: floats[1]}}},
		})
		if m := b.SeriesMetadata(0); m.Type != "counter" || string(m.Help) != "some help" || string(m.Unit) != "seconds" {
			t.Errorf("round %d: metadata %+v", round, m)
		}
	}
}

func TestManySymbolsKeepTheirReferences(t *testing.T) {
	e := new(Encoder)
	for _, n := range []int{10, 20_000, 3} {
		e.Begin(nil, &heap{1 << 30})
		for range 2 {
			for i := range n {
				if ref := e.Symbol(fmt.Sprint("s", i)); e.Text(ref) != fmt.Sprint("s", i) || int(ref) != i+1 {
					t.Fatalf("symbol %d of %d has reference %d, which is %q", i, n, ref, e.Text(ref))
				}
			}
		}
		if _, err := e.End(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnEncoderEndsAtItsBounds(t *testing.T) {
	e := new(Encoder)
	for _, left := range []int{0, 1 << 10, 100 << 10} {
		e.Begin(nil, &heap{left})
		for i := range 100_000 {
			e.Series(refsOf(e, "__name__", fmt.Sprint("m", i)))
			e.Sample(1, 1, 0)
			if e.EndSeries() != nil {
				break
			}
		}
		if _, err := e.End(); !errors.Is(err, errHeap) {
			t.Errorf("with %d bytes: %v", left, err)
		}
	}
	e.Begin(nil, &heap{1 << 30})
	e.Series(nil)
	for range maxItems + 1 {
		e.Sample(1, 1, 0)
		e.row = e.row[:0]
	}
	_ = e.EndSeries()
	if _, err := e.End(); errs.KindOf(err) != errs.BodyTooLarge {
		t.Errorf("too many samples: %v", err)
	}
}

func BenchmarkEncode(b *testing.B) {
	series := remotewritetest.Series(benchRequest)
	e, buf := new(Encoder), []byte(nil)
	var refs []uint32
	b.ReportAllocs()
	start := remotewritetest.CPUTime()
	for b.Loop() {
		e.Begin(buf, &heap{1 << 40})
		for _, ls := range series {
			refs = refs[:0]
			ls.Range(func(l labels.Label) { refs = append(refs, e.Symbol(l.Name), e.Symbol(l.Value)) })
			e.Series(refs)
			e.Sample(42, 1763700000000, 0)
			if err := e.EndSeries(); err != nil {
				b.Fatal(err)
			}
		}
		var err error
		if buf, err = e.End(); err != nil {
			b.Fatal(err)
		}
	}
	remotewritetest.ReportPerSample(b, start, benchRequest)
}

func promExemplars(name, value string, v float64, ms int64) []prompb.Exemplar {
	return []prompb.Exemplar{{Labels: []prompb.Label{{Name: name, Value: value}}, Value: v, Timestamp: ms}}
}

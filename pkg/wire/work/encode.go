package work

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// asker is who reads an answer.
type asker struct {
	text   string // what positions in warnings refer to
	packed bool   // packed answers are understood
}

// sink takes the messages of an answer.
type sink struct {
	send, last func(*querypb.Part) error
}

// encode sends r in parts.
func encode(r *Result, to asker, parts sink) error {
	e := encoder{to: parts, part: &querypb.Part{Head: &querypb.Head{}}}
	e.notes(r, to.text)
	if to.packed && packable(r.Value) {
		return e.pack(r.Value)
	}
	h := e.part.Head
	switch v := r.Value.(type) {
	case nil:
	case promql.Scalar:
		h.Type, h.Time, h.Scalar = querypb.Head_SCALAR, v.T, v.V
	case promql.String:
		h.Type, h.Time, h.Text = querypb.Head_STRING, v.T, v.V
	case promql.Vector:
		h.Type = querypb.Head_VECTOR
		for i := range v {
			s := promql.Series{Metric: v[i].Metric}
			if v[i].H != nil {
				s.Histograms = []promql.HPoint{{T: v[i].T, H: v[i].H}}
			} else {
				s.Floats = []promql.FPoint{{T: v[i].T, F: v[i].F}}
			}
			if err := e.series(&s); err != nil {
				return err
			}
		}
	case promql.Matrix:
		h.Type = querypb.Head_MATRIX
		for i := range v {
			if err := e.series(&v[i]); err != nil {
				return err
			}
		}
	default:
		return errs.New(errs.Internal, "a result of type %s cannot be sent", v.Type())
	}
	return e.to.last(e.part)
}

type encoder struct {
	to   sink
	part *querypb.Part
	size int
}

func (e *encoder) notes(r *Result, text string) {
	p := e.part
	p.Notes = NotesToWire(r.Warnings, text)
	p.Samples, p.SamplesPerStep = r.Samples.TotalSamples, r.Samples.TotalSamplesPerStep
	p.SamplesRead, p.ReadPerStep = r.Samples.SamplesRead, r.Samples.SamplesReadPerStep
	p.PeakSamples, p.FetchedSeries = int64(r.Samples.PeakSamples), r.Series
	p.IngesterBytes, p.BlockBytes = r.Fetched.Ingesters, r.Fetched.StoreGateways
}

func (e *encoder) flush() error {
	p := e.part
	e.part, e.size = &querypb.Part{}, 0
	return e.to.send(p)
}

func (e *encoder) series(s *promql.Series) error {
	out := &querypb.Series{}
	s.Metric.Range(func(l labels.Label) {
		out.Labels = append(out.Labels, l.Name, l.Value)
		e.size += len(l.Name) + len(l.Value)
	})
	if n := len(s.Floats); n > 0 {
		out.Times, out.Values = make([]int64, n), make([]float64, n)
		last := int64(0)
		for i, p := range s.Floats {
			out.Times[i], out.Values[i] = p.T-last, p.F
			last = p.T
		}
		e.size += 12 * n
	}
	last := int64(0)
	for _, p := range s.Histograms {
		h := HistogramToWire(p.H)
		out.HistogramTimes = append(out.HistogramTimes, p.T-last)
		out.Histograms = append(out.Histograms, h)
		last = p.T
		e.size += 64 + 8*(len(h.Positive)+len(h.Negative)+len(h.Custom))
	}
	e.part.Series = append(e.part.Series, out)
	if e.size >= partBytes {
		return e.flush()
	}
	return nil
}

// HistogramToWire returns a histogram as a message, which shares its memory.
func HistogramToWire(h *histogram.FloatHistogram) *querypb.Histogram {
	return &querypb.Histogram{
		ResetHint: uint32(h.CounterResetHint), Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, ZeroCount: h.ZeroCount, Count: h.Count, Sum: h.Sum,
		PositiveSpans: spansToWire(h.PositiveSpans), NegativeSpans: spansToWire(h.NegativeSpans),
		Positive: h.PositiveBuckets, Negative: h.NegativeBuckets, Custom: h.CustomValues,
	}
}

func spansToWire(spans []histogram.Span) []*querypb.Span {
	out := make([]*querypb.Span, len(spans))
	for i, s := range spans {
		out[i] = &querypb.Span{Offset: s.Offset, Length: s.Length}
	}
	return out
}

package work

import (
	"errors"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// receiver puts the parts of a query's answer together.
type receiver struct {
	head    *querypb.Head
	matrix  promql.Matrix
	vector  promql.Vector // the packed ones of it
	res     Result
	builder labels.ScratchBuilder
}

// add takes one part. Errors: Internal.
func (r *receiver) add(p *querypb.Part) error {
	if p.Head != nil {
		if r.head != nil {
			return errs.New(errs.Internal, "an answer begins twice")
		}
		r.head = p.Head
		r.res.Series, r.res.Fetched = p.FetchedSeries, Fetched{p.IngesterBytes, p.BlockBytes}
		r.res.Samples = stats.QuerySamples{TotalSamples: p.Samples, TotalSamplesPerStep: p.SamplesPerStep,
			SamplesRead: p.SamplesRead, SamplesReadPerStep: p.ReadPerStep, PeakSamples: int(p.PeakSamples)}
	}
	AddNotes(&r.res.Warnings, p.Notes)
	if len(p.Packed) > 0 {
		if err := r.unpack(p); err != nil {
			return err
		}
	}
	for _, s := range p.Series {
		one, err := r.series(s)
		if err != nil {
			return err
		}
		r.matrix = append(r.matrix, one)
	}
	return nil
}

func (r *receiver) series(s *querypb.Series) (promql.Series, error) {
	var out promql.Series
	if len(s.Labels)%2 != 0 || len(s.Times) != len(s.Values) || len(s.HistogramTimes) != len(s.Histograms) {
		return out, errs.New(errs.Internal, "a series of an answer has %d names and values, %d times of %d samples and %d times of %d histograms",
			len(s.Labels), len(s.Times), len(s.Values), len(s.HistogramTimes), len(s.Histograms))
	}
	r.builder.Reset()
	for i := 0; i < len(s.Labels); i += 2 {
		r.builder.Add(s.Labels[i], s.Labels[i+1])
	}
	out.Metric = r.builder.Labels()
	at := int64(0)
	if len(s.Times) > 0 {
		out.Floats = make([]promql.FPoint, len(s.Times))
		for i, d := range s.Times {
			at += d
			out.Floats[i] = promql.FPoint{T: at, F: s.Values[i]}
		}
	}
	at = 0
	for i, d := range s.HistogramTimes {
		at += d
		h, err := HistogramFromWire(s.Histograms[i])
		if err != nil {
			return out, err
		}
		out.Histograms = append(out.Histograms, promql.HPoint{T: at, H: h})
	}
	return out, nil
}

// HistogramFromWire returns the histogram of a message, which shares its memory. Errors: Internal.
func HistogramFromWire(p *querypb.Histogram) (*histogram.FloatHistogram, error) {
	if p == nil {
		return nil, errs.New(errs.Internal, "a histogram of an answer is empty")
	}
	h := &histogram.FloatHistogram{
		CounterResetHint: histogram.CounterResetHint(p.ResetHint), Schema: p.Schema, ZeroThreshold: p.ZeroThreshold, ZeroCount: p.ZeroCount, Count: p.Count, Sum: p.Sum,
		PositiveSpans: spansFromWire(p.PositiveSpans), NegativeSpans: spansFromWire(p.NegativeSpans),
		PositiveBuckets: p.Positive, NegativeBuckets: p.Negative, CustomValues: p.Custom,
	}
	if spread(h.PositiveSpans) != len(h.PositiveBuckets) || spread(h.NegativeSpans) != len(h.NegativeBuckets) {
		return nil, errs.New(errs.Internal, "the spans of a histogram do not fit its buckets")
	}
	return h, nil
}

// spread is how many buckets the spans cover.
func spread(spans []histogram.Span) int {
	n := 0
	for _, s := range spans {
		n += int(s.Length)
	}
	return n
}

func spansFromWire(spans []*querypb.Span) []histogram.Span {
	if len(spans) == 0 {
		return nil
	}
	out := make([]histogram.Span, len(spans))
	for i, s := range spans {
		out[i] = histogram.Span{Offset: s.GetOffset(), Length: s.GetLength()}
	}
	return out
}

// result returns what was received. Errors: Internal if the beginning is missing.
func (r *receiver) result() (*Result, error) {
	if r.head == nil {
		return nil, errs.Wrap(errs.Unavailable, errors.New("an answer ended before it began"))
	}
	out := r.res
	switch r.head.Type {
	case querypb.Head_SCALAR:
		out.Value = promql.Scalar{T: r.head.Time, V: r.head.Scalar}
	case querypb.Head_STRING:
		out.Value = promql.String{T: r.head.Time, V: r.head.Text}
	case querypb.Head_MATRIX:
		if r.matrix == nil {
			r.matrix = promql.Matrix{}
		}
		out.Value = r.matrix
	case querypb.Head_VECTOR:
		v := r.vector
		if v == nil {
			v = make(promql.Vector, 0, len(r.matrix))
		}
		for _, s := range r.matrix {
			switch {
			case len(s.Histograms) == 1:
				v = append(v, promql.Sample{Metric: s.Metric, T: s.Histograms[0].T, H: s.Histograms[0].H})
			case len(s.Floats) == 1:
				v = append(v, promql.Sample{Metric: s.Metric, T: s.Floats[0].T, F: s.Floats[0].F})
			default:
				return nil, errs.New(errs.Internal, "a sample of an instant answer is missing")
			}
		}
		out.Value = v
	case querypb.Head_NONE:
	default:
		return nil, errs.New(errs.Internal, "an answer has the unknown type %d", r.head.Type)
	}
	return &out, nil
}

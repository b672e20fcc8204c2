package prom

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// federateBack is how old a sample may be that is shown, as in Prometheus.
const federateBack = 5 * time.Minute

// Federate shows the newest sample of the series that match, in the formats that Prometheus scrapes.
func (a *API) Federate(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	ctx, cancel := a.bounded(r)
	defer cancel()
	sets, err := a.matcherSets(r)
	if err != nil {
		return paramError("match[]", err)
	}
	for _, ms := range sets {
		if err := a.checkSelector(ctx, ms); err != nil {
			return err
		}
	}
	newest, err := a.newest(ctx, sets)
	if err != nil {
		return err
	}
	format := expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeProtoText), expfmt.NewFormat(expfmt.TypeProtoCompact), expfmt.NewFormat(expfmt.TypeTextPlain))
	return a.writers.stream(w, r, string(format), func(out *answer) error {
		return writeFamilies(expfmt.NewEncoder(filling{out}, format), format.FormatType() == expfmt.TypeTextPlain, newest)
	})
}

// newest returns the last sample of each series that matches one of sets, by name; none of series that have ended.
func (a *API) newest(ctx context.Context, sets [][]*labels.Matcher) (promql.Vector, error) {
	now := a.b.Now()
	q, err := a.b.Storage.Querier(now.Add(-federateBack).UnixMilli(), now.UnixMilli())
	if err != nil {
		return nil, err
	}
	defer q.Close()
	found := make([]storage.SeriesSet, len(sets))
	for i, ms := range sets {
		found[i] = q.Select(ctx, true, nil, ms...)
	}
	var (
		out promql.Vector
		it  chunkenc.Iterator
	)
	set := storage.NewMergeSeriesSet(found, 0, storage.ChainedSeriesMerge)
	for set.Next() {
		it = set.At().Iterator(it)
		s := promql.Sample{Metric: set.At().Labels()}
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if s.H = nil; kind == chunkenc.ValFloat {
				s.T, s.F = it.At()
			} else {
				s.T, s.H = it.AtFloatHistogram(nil)
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
		if s.T == 0 || value.IsStaleNaN(s.F) && s.H == nil || s.H != nil && value.IsStaleNaN(s.H.Sum) || s.Metric.Get(model.MetricNameLabel) == "" {
			continue
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b promql.Sample) int {
		return cmp.Compare(a.Metric.Get(model.MetricNameLabel), b.Metric.Get(model.MetricNameLabel))
	})
	return out, set.Err()
}

// filling is an answer to write to.
type filling struct{ *answer }

// Write implements io.Writer.
func (f filling) Write(p []byte) (int, error) {
	f.buf = append(f.buf, p...)
	f.spill()
	return len(p), nil
}

// writeFamilies writes samples by name and kind. Native histograms have no form in text.
func writeFamilies(enc expfmt.Encoder, text bool, all promql.Vector) error {
	var family *dto.MetricFamily
	for _, s := range all {
		if text && s.H != nil && !s.H.UsesCustomBuckets() {
			continue
		}
		name, kind := s.Metric.Get(model.MetricNameLabel), kindOf(s.H)
		if family == nil || family.GetName() != name || family.GetType() != kind {
			if family != nil {
				if err := enc.Encode(family); err != nil {
					return err
				}
			}
			family = &dto.MetricFamily{Name: &name, Type: &kind}
		}
		family.Metric = append(family.Metric, exposed(s))
	}
	if family == nil {
		return nil
	}
	return enc.Encode(family)
}

// kindOf is the type of a family: of floats it is not known.
func kindOf(h *histogram.FloatHistogram) dto.MetricType {
	switch {
	case h == nil:
		return dto.MetricType_UNTYPED
	case h.CounterResetHint == histogram.GaugeType:
		return dto.MetricType_GAUGE_HISTOGRAM
	}
	return dto.MetricType_HISTOGRAM
}

// exposed is one sample. Without a label instance it gets an empty one, so that the scraper does not add its own.
func exposed(s promql.Sample) *dto.Metric {
	out := &dto.Metric{TimestampMs: &s.T}
	add := func(name, value string) { out.Label = append(out.Label, &dto.LabelPair{Name: &name, Value: &value}) }
	s.Metric.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			add(l.Name, l.Value)
		}
	})
	if !s.Metric.Has(model.InstanceLabel) {
		add(model.InstanceLabel, "")
	}
	switch {
	case s.H == nil:
		out.Untyped = &dto.Untyped{Value: &s.F}
	case s.H.UsesCustomBuckets():
		out.Histogram = classic(s.H)
	default:
		out.Histogram = native(s.H)
	}
	return out
}

func native(h *histogram.FloatHistogram) *dto.Histogram {
	return &dto.Histogram{
		SampleCountFloat: &h.Count, SampleSum: &h.Sum, Schema: &h.Schema, ZeroThreshold: &h.ZeroThreshold, ZeroCountFloat: &h.ZeroCount,
		PositiveSpan: spansOf(h.PositiveSpans), PositiveCount: h.PositiveBuckets, NegativeSpan: spansOf(h.NegativeSpans), NegativeCount: h.NegativeBuckets,
	}
}

func spansOf(spans []histogram.Span) []*dto.BucketSpan {
	var out []*dto.BucketSpan
	for _, s := range spans {
		out = append(out, &dto.BucketSpan{Offset: &s.Offset, Length: &s.Length})
	}
	return out
}

// classic is a histogram with custom buckets as a classic one, whose counts add up.
func classic(h *histogram.FloatHistogram) *dto.Histogram {
	counts := make([]float64, len(h.CustomValues)+1)
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Index >= 0 && int(b.Index) < len(counts) {
			counts[b.Index] = b.Count
		}
	}
	out := &dto.Histogram{SampleCountFloat: &h.Count, SampleSum: &h.Sum}
	sum := 0.0
	for i := range h.CustomValues {
		sum += counts[i]
		upTo := sum
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: &h.CustomValues[i], CumulativeCountFloat: &upTo})
	}
	return out
}

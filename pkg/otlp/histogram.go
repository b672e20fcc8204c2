package otlp

import (
	"errors"
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// histogramMemory is what reading histograms, summaries and exemplars needs.
type histogramMemory struct {
	point     explicitPoint
	boundsOf  []float64 // the bounds of the point before this one
	boundRefs []uint32  // their texts
	positive  buckets
	negative  buckets
	native    histogram.Histogram
	quantiles []quantile

	exemplar     []label
	exemplarRefs []uint32
}

func (h *histogramMemory) reset() {
	h.point.counts, h.point.bounds = forget(h.point.counts), forget(h.point.bounds)
	h.boundsOf, h.boundRefs = forget(h.boundsOf), forget(h.boundRefs)
	h.positive.counts, h.negative.counts = forget(h.positive.counts), forget(h.negative.counts)
	n := &h.native
	h.native = histogram.Histogram{PositiveSpans: forget(n.PositiveSpans), NegativeSpans: forget(n.NegativeSpans),
		PositiveBuckets: forget(n.PositiveBuckets), NegativeBuckets: forget(n.NegativeBuckets)}
	h.quantiles, h.exemplar, h.exemplarRefs = forget(h.quantiles), forget(h.exemplar), forget(h.exemplarRefs)
}

// explicitPoint is a HistogramDataPoint without its attributes and exemplars.
type explicitPoint struct {
	start, at, count, flags uint64
	sum                     float64
	hasSum                  bool
	counts                  []uint64
	bounds                  []float64
}

// read reads the HistogramDataPoint b.
func (t *Translator) readExplicit(b []byte) (*explicitPoint, error) {
	p := &t.hist.point
	*p = explicitPoint{counts: p.counts[:0], bounds: p.bounds[:0]}
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return nil, malformed("histogram data point")
		}
		switch {
		case f.is(9, wireBytes):
			if err := t.attribute(f.data); err != nil {
				return nil, err
			}
		case f.is(2, wireFixed64):
			p.start = f.num
		case f.is(3, wireFixed64):
			p.at = f.num
		case f.is(4, wireFixed64):
			p.count = f.num
		case f.is(5, wireFixed64):
			p.sum, p.hasSum = f.double(), true
		case f.number == 6:
			p.counts, ok = f.fixed64(p.counts)
		case f.number == 7:
			p.bounds, ok = f.doubles(p.bounds)
		case f.is(8, wireBytes):
			t.exemplar(f.data)
		case f.is(10, wireVarint):
			p.flags = f.num
		}
		if !ok {
			return nil, malformed("buckets of a histogram")
		}
	}
	t.resource.saw(p.at)
	return p, nil
}

// histogram reads and writes a HistogramDataPoint, as a classic histogram or a native one.
func (t *Translator) histogram(m *metric, b []byte) error {
	p, err := t.readExplicit(b)
	if err != nil {
		return err
	}
	if len(p.counts) > 0 && len(p.counts) != len(p.bounds)+1 {
		t.refusePoint(m, errors.New("it has not one bucket more than bounds"))
		return nil
	}
	if err := t.pointLabels(); err != nil {
		t.refusePoint(m, err)
		return nil
	}
	if m.addUp && !t.owned(m, b) {
		return nil
	}
	if m.addUp && p.flags&noRecordedValue == 0 {
		show, err := t.set.Streams.explicit(t.arrival(m, p.start, p.at), p)
		if err != nil {
			t.refusePoint(m, err)
		}
		if err != nil || !show {
			return nil
		}
	}
	if t.set.CustomBuckets {
		return t.custom(m, p)
	}
	s := series{m: m, at: milliseconds(p.at), start: t.start(p.start), ended: p.flags&noRecordedValue != 0}
	if p.hasSum {
		t.float(s, m.sumRef, p.sum)
	}
	t.float(s, m.countRef, float64(p.count))
	t.sortExemplars()
	t.withExtra("le")
	cumulative, exemplar := uint64(0), 0
	for i, ref := range t.boundTexts(p) {
		cumulative += p.counts[i]
		t.floatExtra(s, m.bucketRef, ref, float64(cumulative))
		if exemplar, err = t.writeExemplars(exemplar, p.bounds[i], p.at); err != nil {
			return err
		}
		t.endSeries(m)
		if err := t.enc.Err(); err != nil {
			return err
		}
	}
	t.floatExtra(s, m.bucketRef, t.enc.Symbol("+Inf"), float64(p.count))
	if _, err = t.writeExemplars(exemplar, math.Inf(1), p.at); err != nil {
		return err
	}
	t.endSeries(m)
	return nil
}

// boundTexts returns the symbols of the bounds of p. The points of a metric have the same bounds
// nearly always.
func (t *Translator) boundTexts(p *explicitPoint) []uint32 {
	h := &t.hist
	if len(p.counts) == 0 {
		return nil
	}
	if slices.Equal(p.bounds, h.boundsOf) && len(h.boundRefs) == len(p.bounds) {
		return h.boundRefs
	}
	h.boundsOf, h.boundRefs = append(h.boundsOf[:0], p.bounds...), h.boundRefs[:0]
	for _, bound := range p.bounds {
		text := t.enc.Keep(strconv.AppendFloat(t.enc.Spare(maxFloatBytes), bound, 'f', -1, 64))
		h.boundRefs = append(h.boundRefs, t.enc.Symbol(text))
	}
	return h.boundRefs
}

// custom writes p as a native histogram with custom buckets.
func (t *Translator) custom(m *metric, p *explicitPoint) error {
	h := &t.hist.native
	h.Schema, h.ZeroThreshold, h.ZeroCount, h.NegativeSpans, h.NegativeBuckets = histogram.CustomBucketsSchema, 0, 0, h.NegativeSpans[:0], h.NegativeBuckets[:0]
	if len(p.counts) == 0 { // it has a count, and no word on where the values lie
		p.counts = append(p.counts, p.count)
	}
	h.Count, h.Sum, h.CustomValues = p.count, p.sum, p.bounds
	b := &t.hist.positive
	*b = buckets{counts: append(b.counts[:0], p.counts...)}
	h.PositiveSpans, h.PositiveBuckets, _ = b.sparse(h.PositiveSpans[:0], h.PositiveBuckets[:0], 0)
	return t.writeNative(m, nativeTimes{p.at, p.start, p.flags})
}

// nativeTimes is what a native histogram has beside its buckets.
type nativeTimes struct{ at, start, flags uint64 }

// writeNative writes t.hist.native as the sample of the point being read.
func (t *Translator) writeNative(m *metric, x nativeTimes) error {
	h := &t.hist.native
	if n := len(h.PositiveSpans) + len(h.PositiveBuckets) + len(h.NegativeSpans) + len(h.NegativeBuckets) + len(h.CustomValues); n > remotewrite.MaxBuckets {
		t.refusePoint(m, errors.New("it has too many buckets"))
		return nil
	}
	h.CounterResetHint = histogram.UnknownCounterReset
	if m.temporality == temporalityDelta {
		h.CounterResetHint = histogram.GaugeType // a smaller value is no reset
	}
	t.setName(m.familyRef)
	t.enc.Series(t.refs)
	if x.flags&noRecordedValue != 0 {
		t.enc.Histogram(&histogram.Histogram{Sum: stale()}, milliseconds(x.at), t.start(x.start))
	} else {
		t.enc.Histogram(h, milliseconds(x.at), t.start(x.start))
	}
	h.CustomValues = nil
	if _, err := t.writeExemplars(0, math.Inf(1), x.at); err != nil {
		return err
	}
	t.endSeries(m)
	return nil
}

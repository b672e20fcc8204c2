package otlp

import (
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
)

const (
	// zeroThreshold is the width of the zero bucket of histograms that do not say it: nearly none.
	zeroThreshold = 1e-128
	// maxGap is how many empty buckets are written out before a new span is cheaper.
	maxGap = 2
)

// buckets are the buckets of one sign, one after another from the one with the number offset on.
type buckets struct {
	offset int32
	counts []uint64
}

// read reads Buckets.
func (s *buckets) read(b []byte) error {
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return malformed("buckets of an exponential histogram")
		}
		switch {
		case f.is(1, wireVarint):
			s.offset = zigzag(f.num)
		case f.number == 2:
			if s.counts, ok = f.varints(s.counts); !ok {
				return malformed("buckets of an exponential histogram")
			}
		}
	}
	return nil
}

// sparse appends s without its empty buckets to spans and deltas, with 2^merge neighbours made one;
// ok is false if a bucket has a number that cannot be written. The numbers stay as they are: who
// counts from the other end of a bucket changes offset before.
func (s *buckets) sparse(spans []histogram.Span, deltas []int64, merge int32) (_ []histogram.Span, _ []int64, ok bool) {
	next, last := int64(0), uint64(0) // the number after the last bucket written, and its count
	put := func(number int64, count uint64) {
		gap := number - next
		if len(spans) == 0 || gap > maxGap {
			spans = append(spans, histogram.Span{Offset: int32(gap)})
			ok = ok && gap >= math.MinInt32 && gap <= math.MaxInt32
			gap = 0
		}
		span := &spans[len(spans)-1]
		for ; gap > 0; gap-- {
			deltas, last = append(deltas, -int64(last)), 0
			span.Length++
		}
		deltas, last = append(deltas, int64(count-last)), count
		span.Length++
		next = number + 1
	}
	ok = true
	number, count := int64(0), uint64(0)
	for i, c := range s.counts {
		if n := (int64(s.offset) + int64(i)) >> merge; n != number || i == 0 {
			if count > 0 {
				put(number, count)
			}
			number, count = n, 0
		}
		count += c
	}
	if count > 0 {
		put(number, count)
	}
	return spans, deltas, ok
}

// exponential reads and writes an ExponentialHistogramDataPoint, as a native histogram.
func (t *Translator) exponential(m *metric, b []byte) error {
	h := &t.hist.native
	*h = histogram.Histogram{ZeroThreshold: zeroThreshold, PositiveSpans: h.PositiveSpans[:0], NegativeSpans: h.NegativeSpans[:0],
		PositiveBuckets: h.PositiveBuckets[:0], NegativeBuckets: h.NegativeBuckets[:0]}
	pos, neg := &t.hist.positive, &t.hist.negative
	*pos, *neg = buckets{counts: pos.counts[:0]}, buckets{counts: neg.counts[:0]}
	x, scale, err := t.readExponential(h, b)
	if err != nil {
		return err
	}
	t.resource.saw(x.at)
	if scale < histogram.ExponentialSchemaMin {
		t.refusePoint(m, errors.New("its scale is below -4, the coarsest that is stored"))
		return nil
	}
	if err := t.pointLabels(); err != nil {
		t.refusePoint(m, err)
		return nil
	}
	if m.addUp && !t.owned(m, b) {
		return nil
	}
	if m.addUp && x.flags&noRecordedValue == 0 {
		p := exponentialPoint{h, scale, pos, neg}
		start, show, err := t.set.Streams.exponential(t.arrival(m, x.start, x.at), &p)
		if err != nil {
			t.refusePoint(m, err)
		}
		if err != nil || !show {
			return nil
		}
		scale, x.start = p.scale, start
	}
	h.Schema = min(scale, histogram.ExponentialSchemaMax)
	posOK, negOK := false, false
	h.PositiveSpans, h.PositiveBuckets, posOK = pos.sparseExponential(h.PositiveSpans, h.PositiveBuckets, scale-h.Schema)
	h.NegativeSpans, h.NegativeBuckets, negOK = neg.sparseExponential(h.NegativeSpans, h.NegativeBuckets, scale-h.Schema)
	if !posOK || !negOK {
		t.refusePoint(m, errors.New("it has buckets with too large numbers"))
		return nil
	}
	return t.writeNative(m, x)
}

// sparseExponential is sparse for exponential buckets, which OpenTelemetry numbers by their lower
// end and Prometheus by their upper one.
func (s *buckets) sparseExponential(spans []histogram.Span, deltas []int64, merge int32) ([]histogram.Span, []int64, bool) {
	spans, deltas, ok := s.sparse(spans, deltas, merge)
	if len(spans) > 0 {
		if spans[0].Offset == math.MaxInt32 {
			return spans, deltas, false
		}
		spans[0].Offset++
	}
	return spans, deltas, ok
}

// readExponential reads an ExponentialHistogramDataPoint into h, all but its buckets, which are left
// in t.hist.
func (t *Translator) readExponential(h *histogram.Histogram, b []byte) (x nativeTimes, scale int32, err error) {
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return x, 0, malformed("exponential histogram data point")
		}
		switch {
		case f.is(1, wireBytes):
			err = t.attribute(f.data)
		case f.is(2, wireFixed64):
			x.start = f.num
		case f.is(3, wireFixed64):
			x.at = f.num
		case f.is(4, wireFixed64):
			h.Count = f.num
		case f.is(5, wireFixed64):
			h.Sum = f.double()
		case f.is(6, wireVarint):
			scale = zigzag(f.num)
		case f.is(7, wireFixed64):
			h.ZeroCount = f.num
		case f.is(8, wireBytes):
			err = t.hist.positive.read(f.data)
		case f.is(9, wireBytes):
			err = t.hist.negative.read(f.data)
		case f.is(10, wireVarint):
			x.flags = f.num
		case f.is(11, wireBytes):
			t.exemplar(f.data)
		case f.is(14, wireFixed64) && f.double() > 0:
			h.ZeroThreshold = f.double()
		}
		if err != nil {
			return x, 0, err
		}
	}
	return x, scale, nil
}

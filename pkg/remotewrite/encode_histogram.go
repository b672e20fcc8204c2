package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
)

// Histogram adds a native histogram sample of whole numbers. Times are in milliseconds; start 0
// stands for unknown. h is not kept.
func (e *Encoder) Histogram(h *histogram.Histogram, t, start int64) {
	p := e.part[:0]
	p = appendInt(p, histCountInt, int64(h.Count))
	p = appendDouble(p, histSum, h.Sum)
	if h.Schema != 0 {
		p = appendZigzag(p, histSchema, int64(h.Schema))
	}
	if h.ZeroThreshold != 0 {
		p = appendDouble(p, histZeroThreshold, h.ZeroThreshold)
	}
	p = appendInt(p, histZeroCountInt, int64(h.ZeroCount))
	p = appendSpans(p, histNegSpans, h.NegativeSpans)
	p = appendDeltas(p, histNegDeltas, h.NegativeBuckets)
	p = appendSpans(p, histPosSpans, h.PositiveSpans)
	p = appendDeltas(p, histPosDeltas, h.PositiveBuckets)
	e.endHistogram(p, h.CounterResetHint, h.CustomValues, t, start)
}

// FloatHistogram is Histogram for one whose counts are floats.
func (e *Encoder) FloatHistogram(h *histogram.FloatHistogram, t, start int64) {
	p := e.part[:0]
	p = appendDouble(p, histCountFloat, h.Count)
	p = appendDouble(p, histSum, h.Sum)
	if h.Schema != 0 {
		p = appendZigzag(p, histSchema, int64(h.Schema))
	}
	if h.ZeroThreshold != 0 {
		p = appendDouble(p, histZeroThreshold, h.ZeroThreshold)
	}
	p = appendDouble(p, histZeroCountFloat, h.ZeroCount)
	p = appendSpans(p, histNegSpans, h.NegativeSpans)
	p = appendDoubles(p, histNegCounts, h.NegativeBuckets)
	p = appendSpans(p, histPosSpans, h.PositiveSpans)
	p = appendDoubles(p, histPosCounts, h.PositiveBuckets)
	e.endHistogram(p, h.CounterResetHint, h.CustomValues, t, start)
}

// endHistogram adds to p what both kinds end with, and p to the series.
func (e *Encoder) endHistogram(p []byte, hint histogram.CounterResetHint, bounds []float64, t, start int64) {
	if hint != histogram.UnknownCounterReset {
		p = appendInt(p, histResetHint, int64(hint))
	}
	p = appendInt(p, histTime, t)
	p = appendDoubles(p, histCustomValues, bounds)
	if start != 0 {
		p = appendTag(p, histStartTime, wireVarint)
		p = binary.AppendUvarint(p, uint64(start))
	}
	e.part = p
	e.row = e.embed(e.row, v2SeriesHist, p)
	e.count(1)
	e.samples++
}

func appendTag(dst []byte, field, wire uint64) []byte {
	return binary.AppendUvarint(dst, field<<3|wire)
}

func appendDouble(dst []byte, field uint64, v float64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(dst, field, wireFixed64), math.Float64bits(v))
}

func appendZigzag(dst []byte, field uint64, v int64) []byte {
	return binary.AppendUvarint(appendTag(dst, field, wireVarint), uint64(v)<<1^uint64(v>>63))
}

func appendSpans(dst []byte, field uint64, spans []histogram.Span) []byte {
	for _, s := range spans {
		dst = append(appendTag(dst, field, wireBytes), 0)
		from := len(dst)
		dst = appendZigzag(dst, 1, int64(s.Offset))
		dst = appendInt(dst, 2, int64(s.Length))
		dst[from-1] = byte(len(dst) - from) // at most 12
	}
	return dst
}

// appendDoubles adds a packed run of floats.
func appendDoubles(dst []byte, field uint64, vs []float64) []byte {
	if len(vs) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(appendTag(dst, field, wireBytes), uint64(8*len(vs)))
	for _, v := range vs {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	}
	return dst
}

// appendDeltas adds a packed run of zigzag numbers.
func appendDeltas(dst []byte, field uint64, deltas []int64) []byte {
	if len(deltas) == 0 {
		return dst
	}
	n := 0
	for _, d := range deltas {
		n += uvarintLen(uint64(d)<<1 ^ uint64(d>>63))
	}
	dst = binary.AppendUvarint(appendTag(dst, field, wireBytes), uint64(n))
	for _, d := range deltas {
		dst = binary.AppendUvarint(dst, uint64(d)<<1^uint64(d>>63))
	}
	return dst
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

package frame

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/model/histogram"
)

// The forms of an encoded histogram.
const (
	formInteger = iota
	formFloat
)

// appendHistogram appends h. The codec of Prometheus's log is not used because its decoder makes
// slices of lengths it has not checked.
func appendHistogram(dst []byte, h *Histogram) []byte {
	dst = appendRef(dst, h.Ref)
	dst = appendVarint(dst, h.Time)
	dst = appendVarint(dst, h.StartTime)
	if x := h.H; x != nil {
		dst = append(dst, formInteger, byte(x.CounterResetHint))
		dst = appendVarint(dst, int64(x.Schema))
		dst = appendFloat(dst, x.ZeroThreshold)
		dst = appendFloat(dst, x.Sum)
		dst = binary.AppendUvarint(dst, x.Count)
		dst = binary.AppendUvarint(dst, x.ZeroCount)
		dst = appendSpans(dst, x.PositiveSpans)
		dst = appendSpans(dst, x.NegativeSpans)
		dst = appendIntegers(dst, x.PositiveBuckets)
		dst = appendIntegers(dst, x.NegativeBuckets)
		return appendFloats(dst, x.CustomValues)
	}
	x := h.FH
	dst = append(dst, formFloat, byte(x.CounterResetHint))
	dst = appendVarint(dst, int64(x.Schema))
	dst = appendFloat(dst, x.ZeroThreshold)
	dst = appendFloat(dst, x.Sum)
	dst = appendFloat(dst, x.Count)
	dst = appendFloat(dst, x.ZeroCount)
	dst = appendSpans(dst, x.PositiveSpans)
	dst = appendSpans(dst, x.NegativeSpans)
	dst = appendFloats(dst, x.PositiveBuckets)
	dst = appendFloats(dst, x.NegativeBuckets)
	return appendFloats(dst, x.CustomValues)
}

func appendSpans(dst []byte, spans []histogram.Span) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(spans)))
	for _, s := range spans {
		dst = appendVarint(dst, int64(s.Offset))
		dst = binary.AppendUvarint(dst, uint64(s.Length))
	}
	return dst
}

func appendIntegers(dst []byte, vs []int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(vs)))
	for _, v := range vs {
		dst = appendVarint(dst, v)
	}
	return dst
}

func appendFloats(dst []byte, vs []float64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(vs)))
	for _, v := range vs {
		dst = appendFloat(dst, v)
	}
	return dst
}

// readHistogram reads one histogram, whose memory is its own. That spans, buckets and counts agree
// is for who stores it to check.
func readHistogram(in *reader) Histogram {
	h := Histogram{Ref: in.ref(), Time: in.varint(), StartTime: in.varint()}
	form, hint, schema := in.byte(), histogram.CounterResetHint(in.byte()), in.varint()
	if int64(int32(schema)) != schema || hint > histogram.GaugeType {
		in.fail()
	}
	zeroThreshold, sum := in.float(), in.float()
	switch form {
	case formInteger:
		h.H = &histogram.Histogram{CounterResetHint: hint, Schema: int32(schema), ZeroThreshold: zeroThreshold, Sum: sum,
			Count: in.uvarint(), ZeroCount: in.uvarint(), PositiveSpans: in.spans(), NegativeSpans: in.spans(),
			PositiveBuckets: in.integers(), NegativeBuckets: in.integers(), CustomValues: in.floats()}
	case formFloat:
		h.FH = &histogram.FloatHistogram{CounterResetHint: hint, Schema: int32(schema), ZeroThreshold: zeroThreshold, Sum: sum,
			Count: in.float(), ZeroCount: in.float(), PositiveSpans: in.spans(), NegativeSpans: in.spans(),
			PositiveBuckets: in.floats(), NegativeBuckets: in.floats(), CustomValues: in.floats()}
	default:
		in.fail()
	}
	return h
}

func (r *reader) spans() []histogram.Span {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	out := make([]histogram.Span, n)
	for i := range out {
		offset, length := r.varint(), r.uvarint()
		if int64(int32(offset)) != offset || length > 1<<32-1 {
			r.fail()
			return nil
		}
		out[i] = histogram.Span{Offset: int32(offset), Length: uint32(length)}
	}
	return out
}

func (r *reader) integers() []int64 {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	out := make([]int64, n)
	for i := range out {
		out[i] = r.varint()
	}
	return out
}

func (r *reader) floats() []float64 {
	n := r.count(8)
	if n == 0 {
		return nil
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = r.float()
	}
	return out
}

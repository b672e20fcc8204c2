package ingester

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// decoder reads the parts of a record. After the first fault bad is set and everything reads as
// zero. Every count is checked against the bytes that are left before memory is taken for it.
type decoder struct {
	b    []byte
	bad  bool
	made labeltext.Builder
}

func (d *decoder) fail() {
	d.bad = true
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) fixed64() uint64 {
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

// big reads a float as Prometheus's histogram encoding writes it.
func (d *decoder) big() float64 {
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return math.Float64frombits(v)
}

// count reads how many items of at least atLeast bytes follow.
func (d *decoder) count(atLeast int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/atLeast) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes returns a string as part of the record.
func (d *decoder) bytes() []byte {
	n := d.count(1)
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

// labels returns labels that own their memory.
func (d *decoder) labels() labels.Labels {
	d.made.Reset()
	for range d.count(2) {
		name, value := d.bytes(), d.bytes()
		if max(len(name), len(value)) > labeltext.MaxBytes {
			d.fail()
			break
		}
		d.made.Add(name, value)
	}
	return d.made.Labels()
}

func (d *decoder) histogramSample() histogramSample {
	out := histogramSample{ref: head.Ref(d.uvarint()), t: d.varint()}
	switch d.byte() {
	case intHistogram:
		out.h = d.histogram()
	case floatHistogram:
		out.fh = d.floatHistogram()
	default:
		d.fail()
	}
	return out
}

func (d *decoder) histogram() *histogram.Histogram {
	h := &histogram.Histogram{CounterResetHint: histogram.CounterResetHint(d.byte())}
	h.Schema, h.ZeroThreshold = int32(d.varint()), d.big()
	h.ZeroCount, h.Count, h.Sum = d.uvarint(), d.uvarint(), d.big()
	h.PositiveSpans, h.NegativeSpans = d.spans(), d.spans()
	h.PositiveBuckets, h.NegativeBuckets = d.deltas(), d.deltas()
	if histogram.IsCustomBucketsSchema(h.Schema) {
		h.CustomValues = d.floats()
	}
	return h
}

func (d *decoder) floatHistogram() *histogram.FloatHistogram {
	h := &histogram.FloatHistogram{CounterResetHint: histogram.CounterResetHint(d.byte())}
	h.Schema, h.ZeroThreshold = int32(d.varint()), d.big()
	h.ZeroCount, h.Count, h.Sum = d.big(), d.big(), d.big()
	h.PositiveSpans, h.NegativeSpans = d.spans(), d.spans()
	h.PositiveBuckets, h.NegativeBuckets = d.floats(), d.floats()
	if histogram.IsCustomBucketsSchema(h.Schema) {
		h.CustomValues = d.floats()
	}
	return h
}

func (d *decoder) spans() []histogram.Span {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	out := make([]histogram.Span, n)
	for i := range out {
		out[i] = histogram.Span{Offset: int32(d.varint()), Length: uint32(d.uvarint())}
	}
	return out
}

func (d *decoder) deltas() []int64 {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	out := make([]int64, n)
	for i := range out {
		out[i] = d.varint()
	}
	return out
}

func (d *decoder) floats() []float64 {
	n := d.count(8)
	if n == 0 {
		return nil
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = d.big()
	}
	return out
}

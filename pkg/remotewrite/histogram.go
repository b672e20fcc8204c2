package remotewrite

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// MaxBuckets bounds the buckets, spans and bounds of one histogram. It is far above what any
// client library keeps (160 by default) and keeps a small body from growing eightfold unchecked.
const MaxBuckets = 1 << 16

// Histogram is one native histogram sample; exactly one of H and FH is set.
type Histogram struct {
	Time, StartTime int64 // milliseconds; StartTime 0: unknown
	H               *histogram.Histogram
	FH              *histogram.FloatHistogram
}

// The fields of both versions' Histogram.
const (
	histCountInt       = 1
	histCountFloat     = 2
	histSum            = 3
	histSchema         = 4
	histZeroThreshold  = 5
	histZeroCountInt   = 6
	histZeroCountFloat = 7
	histNegSpans       = 8
	histNegDeltas      = 9
	histNegCounts      = 10
	histPosSpans       = 11
	histPosDeltas      = 12
	histPosCounts      = 13
	histResetHint      = 14
	histTime           = 15
	histCustomValues   = 16
	histStartTime      = 17
)

// rawHistogram has every field of the message, before it is known of which kind it is.
type rawHistogram struct {
	isFloat, zeroIsFloat bool
	count, zeroCount     uint64
	countF, zeroCountF   float64
	sum, zeroThreshold   float64
	schema               int32
	hint                 histogram.CounterResetHint
	negSpans, posSpans   []histogram.Span
	negDeltas, posDeltas []int64
	negCounts, posCounts []float64
	customValues         []float64
	time, startTime      int64
	parts                int
	hasStart             bool // field 17 is known
}

// Histogram decodes histogram sample j into memory of its own. It checks the encoding alone; see
// Validate. Errors: Invalid.
func (b *Batch) Histogram(j int) (Histogram, error) {
	s := b.hists[j]
	p := b.bytes(s)
	r := rawHistogram{hasStart: b.version == V2}
	for i := 0; i < len(p); {
		field, wire, at := tag(p, i)
		e := -1
		if at >= 0 {
			e = r.field(p, at, field, wire)
		}
		if e < 0 {
			return Histogram{}, malformed("histogram", int(s.off)+i)
		}
		i = e
	}
	return r.histogram(), nil
}

// HistogramStart returns the start time of histogram sample j without decoding the rest; 0: it has none
// or is malformed.
func (b *Batch) HistogramStart(j int) (start int64) {
	if b.version != V2 {
		return 0
	}
	p := b.bytes(b.hists[j])
	for i := 0; i < len(p); {
		field, wire, at := tag(p, i)
		if at < 0 {
			return 0
		}
		if field == histStartTime && wire == wireVarint {
			v, _ := uvarint(p, at)
			start = int64(v)
		}
		if i = skip(p, at, wire); i < 0 {
			return 0
		}
	}
	return start
}

func (r *rawHistogram) histogram() Histogram {
	out := Histogram{Time: r.time, StartTime: r.startTime}
	if r.isFloat {
		zero := 0.0
		if r.zeroIsFloat {
			zero = r.zeroCountF
		}
		out.FH = &histogram.FloatHistogram{CounterResetHint: r.hint, Schema: r.schema, ZeroThreshold: r.zeroThreshold,
			ZeroCount: zero, Count: r.countF, Sum: r.sum, PositiveSpans: r.posSpans, NegativeSpans: r.negSpans,
			PositiveBuckets: r.posCounts, NegativeBuckets: r.negCounts, CustomValues: r.customValues}
		return out
	}
	zero := uint64(0)
	if !r.zeroIsFloat {
		zero = r.zeroCount
	}
	out.H = &histogram.Histogram{CounterResetHint: r.hint, Schema: r.schema, ZeroThreshold: r.zeroThreshold,
		ZeroCount: zero, Count: r.count, Sum: r.sum, PositiveSpans: r.posSpans, NegativeSpans: r.negSpans,
		PositiveBuckets: r.posDeltas, NegativeBuckets: r.negDeltas, CustomValues: r.customValues}
	return out
}

// field reads the value of one field at p[at:] and returns the position after it, negative if it
// is malformed.
func (r *rawHistogram) field(p []byte, at int, field uint32, wire uint8) int {
	switch field {
	case histCountInt, histZeroCountInt, histSchema, histResetHint, histTime:
		return r.integer(p, at, field, wire)
	case histCountFloat, histSum, histZeroThreshold, histZeroCountFloat:
		return r.float(p, at, field, wire)
	case histNegSpans:
		return r.span(p, at, wire, &r.negSpans)
	case histPosSpans:
		return r.span(p, at, wire, &r.posSpans)
	case histNegDeltas:
		return r.deltas(p, at, wire, &r.negDeltas)
	case histPosDeltas:
		return r.deltas(p, at, wire, &r.posDeltas)
	case histNegCounts:
		return r.doubles(p, at, wire, &r.negCounts)
	case histPosCounts:
		return r.doubles(p, at, wire, &r.posCounts)
	case histCustomValues:
		return r.doubles(p, at, wire, &r.customValues)
	case histStartTime:
		if r.hasStart {
			return r.integer(p, at, field, wire)
		}
	}
	return skip(p, at, wire)
}

func (r *rawHistogram) integer(p []byte, at int, field uint32, wire uint8) int {
	v, e := uvarint(p, at)
	if wire != wireVarint || e < 0 {
		return -1
	}
	switch field {
	case histCountInt:
		r.count, r.isFloat = v, false
	case histZeroCountInt:
		r.zeroCount, r.zeroIsFloat = v, false
	case histSchema:
		if v > math.MaxUint32 {
			return -1
		}
		r.schema = int32(zigzag(v))
	case histResetHint:
		if v > uint64(histogram.GaugeType) {
			return -1
		}
		r.hint = histogram.CounterResetHint(v)
	case histTime:
		r.time = int64(v)
	case histStartTime:
		r.startTime = int64(v)
	}
	return e
}

func (r *rawHistogram) float(p []byte, at int, field uint32, wire uint8) int {
	v, e := double(p, at)
	if wire != wireFixed64 || e < 0 {
		return -1
	}
	switch field {
	case histCountFloat:
		r.countF, r.isFloat = v, true
	case histSum:
		r.sum = v
	case histZeroThreshold:
		r.zeroThreshold = v
	case histZeroCountFloat:
		r.zeroCountF, r.zeroIsFloat = v, true
	}
	return e
}

// more says whether n more buckets, spans or bounds are allowed.
func (r *rawHistogram) more(n int) bool {
	r.parts += n
	return r.parts <= MaxBuckets
}

func (r *rawHistogram) span(p []byte, at int, wire uint8, dst *[]histogram.Span) int {
	s, e := chunk(p, at)
	if wire != wireBytes || e < 0 || !r.more(1) {
		return -1
	}
	var out histogram.Span
	for i := s; i < e; {
		field, wire, v := tag(p[:e], i)
		if v < 0 {
			return -1
		}
		if field > 2 {
			if i = skip(p[:e], v, wire); i < 0 {
				return -1
			}
			continue
		}
		n, next := uvarint(p[:e], v)
		if wire != wireVarint || next < 0 || n > math.MaxUint32 {
			return -1
		}
		if field == 1 {
			out.Offset = int32(zigzag(n))
		} else {
			out.Length = uint32(n)
		}
		i = next
	}
	*dst = append(*dst, out)
	return e
}

// deltas reads one number or a packed run of them.
func (r *rawHistogram) deltas(p []byte, at int, wire uint8, dst *[]int64) int {
	e := 0
	switch wire {
	case wireVarint:
		_, e = uvarint(p, at)
	case wireBytes:
		at, e = chunk(p, at)
	default:
		return -1
	}
	for at < e {
		var v uint64
		if v, at = uvarint(p[:e], at); at < 0 || !r.more(1) {
			return -1
		}
		*dst = append(*dst, zigzag(v))
	}
	return e
}

// doubles reads one number or a packed run of them.
func (r *rawHistogram) doubles(p []byte, at int, wire uint8, dst *[]float64) int {
	e := at + 8
	switch wire {
	case wireFixed64:
		if e > len(p) {
			return -1
		}
	case wireBytes:
		at, e = chunk(p, at)
	default:
		return -1
	}
	if e < 0 || (e-at)%8 != 0 || !r.more((e-at)/8) {
		return -1
	}
	for ; at < e; at += 8 {
		v, _ := double(p, at)
		*dst = append(*dst, v)
	}
	return e
}

// Validate brings a finer resolution than the storage knows down to the finest it does and checks
// that buckets, spans and counts fit together. Errors: Invalid, wrapping histogram.Error.
func (h *Histogram) Validate() error {
	var err error
	if h.H != nil {
		if finer(h.H.Schema) {
			err = h.H.ReduceResolution(histogram.ExponentialSchemaMax)
		}
		if err == nil {
			err = h.H.Validate()
		}
	} else {
		if finer(h.FH.Schema) {
			err = h.FH.ReduceResolution(histogram.ExponentialSchemaMax)
		}
		if err == nil {
			err = h.FH.Validate()
		}
	}
	return errs.Wrap(errs.Invalid, err)
}

func finer(schema int32) bool {
	return schema > histogram.ExponentialSchemaMax && schema <= histogram.ExponentialSchemaMaxReserved
}

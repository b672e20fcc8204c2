package imports

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	staleness "github.com/prometheus/prometheus/model/value"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// native is a native histogram in JSON, with the names that remote write gives its parts. Which kind of
// count it has tells which kind of histogram it is.
type native struct {
	Count         *uint64   `json:"count_int"`
	CountFloat    *value    `json:"count_float"`
	Sum           value     `json:"sum"`
	Schema        int32     `json:"schema"`
	ZeroThreshold value     `json:"zero_threshold"`
	ZeroCount     uint64    `json:"zero_count_int"`
	ZeroFloat     value     `json:"zero_count_float"`
	NegativeSpans []spanned `json:"negative_spans"`
	NegativeInts  []int64   `json:"negative_deltas"`
	Negative      []value   `json:"negative_counts"`
	PositiveSpans []spanned `json:"positive_spans"`
	PositiveInts  []int64   `json:"positive_deltas"`
	Positive      []value   `json:"positive_counts"`
	CustomValues  []value   `json:"custom_values"`
	ResetHint     string    `json:"reset_hint"`
}

// spanned is a run of buckets.
type spanned struct {
	Offset int32  `json:"offset"`
	Length uint32 `json:"length"`
}

// hintNames are the hints that JSON has; the others follow from the samples.
func hintNames() map[string]histogram.CounterResetHint {
	return map[string]histogram.CounterResetHint{"": histogram.UnknownCounterReset, "YES": histogram.CounterReset, "GAUGE": histogram.GaugeType}
}

// AppendHistogram appends a native histogram as lines have them; exactly one of h and fh is set.
func AppendHistogram(b []byte, h *histogram.Histogram, fh *histogram.FloatHistogram) []byte {
	if h != nil {
		b = strconv.AppendUint(append(b, `{"count_int":`...), h.Count, 10)
		b = appendShape(b, h.Sum, h.Schema, h.ZeroThreshold)
		b = strconv.AppendUint(append(b, `,"zero_count_int":`...), h.ZeroCount, 10)
		b = appendRun(appendSpans(b, "negative", h.NegativeSpans), `,"negative_deltas":[`, h.NegativeBuckets, appendInt)
		b = appendRun(appendSpans(b, "positive", h.PositiveSpans), `,"positive_deltas":[`, h.PositiveBuckets, appendInt)
		return appendRest(b, h.CustomValues, h.CounterResetHint)
	}
	b = AppendFloat(append(b, `{"count_float":`...), fh.Count)
	b = appendShape(b, fh.Sum, fh.Schema, fh.ZeroThreshold)
	b = AppendFloat(append(b, `,"zero_count_float":`...), fh.ZeroCount)
	b = appendRun(appendSpans(b, "negative", fh.NegativeSpans), `,"negative_counts":[`, fh.NegativeBuckets, AppendFloat)
	b = appendRun(appendSpans(b, "positive", fh.PositiveSpans), `,"positive_counts":[`, fh.PositiveBuckets, AppendFloat)
	return appendRest(b, fh.CustomValues, fh.CounterResetHint)
}

func appendShape(b []byte, sum float64, schema int32, zero float64) []byte {
	b = AppendFloat(append(b, `,"sum":`...), sum)
	b = strconv.AppendInt(append(b, `,"schema":`...), int64(schema), 10)
	return AppendFloat(append(b, `,"zero_threshold":`...), zero)
}

func appendRest(b []byte, bounds []float64, hint histogram.CounterResetHint) []byte {
	b = appendRun(b, `,"custom_values":[`, bounds, AppendFloat)
	for name, h := range hintNames() {
		if h == hint && name != "" {
			b = append(append(append(b, `,"reset_hint":"`...), name...), '"')
		}
	}
	return append(b, '}')
}

func appendInt(b []byte, v int64) []byte { return strconv.AppendInt(b, v, 10) }

func appendRun[T any](b []byte, head string, vs []T, one func([]byte, T) []byte) []byte {
	if len(vs) == 0 {
		return b
	}
	b = append(b, head...)
	for i, v := range vs {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, v)
	}
	return append(b, ']')
}

func appendSpans(b []byte, side string, spans []histogram.Span) []byte {
	return appendRun(b, `,"`+side+`_spans":[`, spans, func(b []byte, s histogram.Span) []byte {
		b = strconv.AppendInt(append(b, `{"offset":`...), int64(s.Offset), 10)
		return append(strconv.AppendUint(append(b, `,"length":`...), uint64(s.Length), 10), '}')
	})
}

// AppendFloat appends v as JSON so that it reads as the same bits: what JSON has no number for is null, or
// in quotes.
func AppendFloat(b []byte, v float64) []byte {
	switch {
	case staleness.IsStaleNaN(v):
		return append(b, `"StaleNaN"`...)
	case math.IsNaN(v):
		return append(b, "null"...)
	case math.IsInf(v, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// natives writes the histograms of a JSON array, one for each time.
func (w *writer) natives(array []byte, times []moment) error {
	d := json.NewDecoder(bytes.NewReader(array))
	if _, err := d.Token(); err != nil {
		return errs.New(errs.Invalid, "%.300s", err)
	}
	for i := 0; d.More(); i++ {
		var n native // not that of the histogram before: what a span leaves out would be taken from there
		if err := d.Decode(&n); err != nil {
			return errs.New(errs.Invalid, "histogram %d: %.300s", i+1, err) // it may quote a number of any length
		}
		if i >= len(times) {
			return errs.New(errs.Invalid, "more histograms than the %d timestamps", len(times))
		}
		if err := w.native(&n, int64(times[i])); err != nil {
			return errs.New(errs.Invalid, "histogram %d: %w", i+1, err)
		}
		if !d.More() && i+1 < len(times) {
			return errs.New(errs.Invalid, "%d histograms have %d timestamps", i+1, len(times))
		}
	}
	return nil
}

// native writes one histogram.
func (w *writer) native(n *native, t int64) error {
	hint, ok := hintNames()[n.ResetHint]
	switch {
	case !ok:
		return errs.New(errs.Invalid, "the reset_hint of a histogram is %.20q, it must be YES or GAUGE", n.ResetHint)
	case (n.Count == nil) == (n.CountFloat == nil):
		return errs.New(errs.Invalid, "a histogram must have either count_int or count_float")
	case n.Count != nil && len(n.Negative)+len(n.Positive) > 0, n.CountFloat != nil && len(n.NegativeInts)+len(n.PositiveInts) > 0:
		return errs.New(errs.Invalid, "a histogram with count_int has positive_deltas and negative_deltas, one with count_float has positive_counts and negative_counts")
	}
	if n.Count != nil {
		h := &histogram.Histogram{CounterResetHint: hint, Schema: n.Schema, ZeroThreshold: float64(n.ZeroThreshold), ZeroCount: n.ZeroCount, Count: *n.Count, Sum: float64(n.Sum),
			PositiveSpans: spans(n.PositiveSpans), NegativeSpans: spans(n.NegativeSpans), PositiveBuckets: n.PositiveInts, NegativeBuckets: n.NegativeInts, CustomValues: floats(n.CustomValues)}
		return w.histogram(h, t)
	}
	fh := &histogram.FloatHistogram{CounterResetHint: hint, Schema: n.Schema, ZeroThreshold: float64(n.ZeroThreshold), ZeroCount: float64(n.ZeroFloat), Count: float64(*n.CountFloat), Sum: float64(n.Sum),
		PositiveSpans: spans(n.PositiveSpans), NegativeSpans: spans(n.NegativeSpans), PositiveBuckets: floats(n.Positive), NegativeBuckets: floats(n.Negative), CustomValues: floats(n.CustomValues)}
	return w.floatHistogram(fh, t)
}

func (w *writer) histogram(h *histogram.Histogram, t int64) error {
	if err := (&remotewrite.Histogram{H: h}).Validate(); err != nil {
		return err
	}
	w.enc.Histogram(h, t, 0)
	return nil
}

func (w *writer) floatHistogram(fh *histogram.FloatHistogram, t int64) error {
	if err := (&remotewrite.Histogram{FH: fh}).Validate(); err != nil {
		return err
	}
	w.enc.FloatHistogram(fh, t, 0)
	return nil
}

func spans(in []spanned) []histogram.Span {
	if len(in) == 0 {
		return nil
	}
	out := make([]histogram.Span, len(in))
	for i, s := range in {
		out[i] = histogram.Span{Offset: s.Offset, Length: s.Length}
	}
	return out
}

func floats(in []value) []float64 {
	if len(in) == 0 {
		return nil // that there are bounds at all means something
	}
	out := make([]float64, len(in))
	for i, v := range in {
		out[i] = float64(v)
	}
	return out
}

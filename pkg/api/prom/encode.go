package prom

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD, so that the
// answer is valid JSON whatever is stored.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[from:i]...)
			b = appendEscape(b, c)
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[from:i]...)
			b = append(b, `\ufffd`...)
			from = i + 1
		}
		i += size
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

// appendTimestamp appends ms, milliseconds, as seconds with at most three decimals.
func appendTimestamp(b []byte, ms int64) []byte {
	u := uint64(ms)
	if ms < 0 {
		b = append(b, '-')
		u = -u
	}
	b = strconv.AppendUint(b, u/1000, 10)
	frac := u % 1000
	if frac == 0 {
		return b
	}
	return append(b, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
}

// appendSeconds appends ms as seconds in the shortest form.
func appendSeconds(b []byte, ms int64) []byte {
	return strconv.AppendFloat(b, float64(ms)/1000, 'f', -1, 64)
}

// appendFloat appends f in quotes, because JSON has no NaN and no infinities. The exponent form
// begins where JavaScript's does, as in Prometheus.
func appendFloat(b []byte, f float64) []byte {
	b = append(b, '"')
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	b = strconv.AppendFloat(b, f, format, -1, 64)
	return append(b, '"')
}

func appendLabels(b []byte, ls labels.Labels) []byte {
	b = append(b, '{')
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, l.Name)
		b = append(b, ':')
		b = appendString(b, l.Value)
	})
	return append(b, '}')
}

// bucketBounds says which bounds belong to a bucket: 0 the upper, 1 the lower, 2 none, 3 both.
func bucketBounds(bucket histogram.Bucket[float64]) byte {
	switch {
	case bucket.LowerInclusive && bucket.UpperInclusive:
		return '3'
	case bucket.LowerInclusive:
		return '1'
	case bucket.UpperInclusive:
		return '0'
	}
	return '2'
}

// appendHistogram appends count, sum and the buckets that are not empty, as
// [bounds, lower, upper, count].
func appendHistogram(b []byte, h *histogram.FloatHistogram) []byte {
	b = appendFloat(append(b, `{"count":`...), h.Count)
	b = appendFloat(append(b, `,"sum":`...), h.Sum)
	found := false
	for it := h.AllBucketIterator(); it.Next(); {
		bucket := it.At()
		if bucket.Count == 0 {
			continue
		}
		if found {
			b = append(b, ',')
		} else {
			b = append(b, `,"buckets":[`...)
		}
		found = true
		b = append(b, '[', bucketBounds(bucket), ',')
		b = append(appendFloat(b, bucket.Lower), ',')
		b = append(appendFloat(b, bucket.Upper), ',')
		b = append(appendFloat(b, bucket.Count), ']')
	}
	if found {
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendFPoint(b []byte, t int64, f float64) []byte {
	b = append(b, '[')
	b = append(appendTimestamp(b, t), ',')
	return append(appendFloat(b, f), ']')
}

func appendHPoint(b []byte, t int64, h *histogram.FloatHistogram) []byte {
	b = append(b, '[')
	b = append(appendTimestamp(b, t), ',')
	return append(appendHistogram(b, h), ']')
}

func appendSample(b []byte, s *promql.Sample) []byte {
	b = appendLabels(append(b, `{"metric":`...), s.Metric)
	if s.H != nil {
		b = appendHPoint(append(b, `,"histogram":`...), s.T, s.H)
	} else {
		b = appendFPoint(append(b, `,"value":`...), s.T, s.F)
	}
	return append(b, '}')
}

func appendExemplar(b []byte, e *exemplar.Exemplar) []byte {
	b = appendLabels(append(b, `{"labels":`...), e.Labels)
	b = appendFloat(append(b, `,"value":`...), e.Value)
	b = appendTimestamp(append(b, `,"timestamp":`...), e.Ts)
	return append(b, '}')
}

// series writes one series of a matrix; long ones leave the buffer in parts.
func (a *answer) series(s *promql.Series) {
	a.buf = appendLabels(append(a.buf, `{"metric":`...), s.Metric)
	if len(s.Floats) > 0 {
		a.buf = append(a.buf, `,"values":[`...)
		for i := range s.Floats {
			if i > 0 {
				a.buf = append(a.buf, ',')
			}
			a.buf = appendFPoint(a.buf, s.Floats[i].T, s.Floats[i].F)
			a.spill()
		}
		a.buf = append(a.buf, ']')
	}
	if len(s.Histograms) > 0 {
		a.buf = append(a.buf, `,"histograms":[`...)
		for i := range s.Histograms {
			if i > 0 {
				a.buf = append(a.buf, ',')
			}
			a.buf = appendHPoint(a.buf, s.Histograms[i].T, s.Histograms[i].H)
			a.spill()
		}
		a.buf = append(a.buf, ']')
	}
	a.buf = append(a.buf, '}')
}

// value writes the result of a query.
func (a *answer) value(v parser.Value) {
	switch v := v.(type) {
	case promql.Matrix:
		a.buf = append(a.buf, '[')
		for i := range v {
			if i > 0 {
				a.buf = append(a.buf, ',')
			}
			a.series(&v[i])
			a.spill()
		}
		a.buf = append(a.buf, ']')
	case promql.Vector:
		a.buf = append(a.buf, '[')
		for i := range v {
			if i > 0 {
				a.buf = append(a.buf, ',')
			}
			a.buf = appendSample(a.buf, &v[i])
			a.spill()
		}
		a.buf = append(a.buf, ']')
	case promql.Scalar:
		// Prometheus writes these two through another encoder: no exponents, no trailing zeros.
		a.buf = append(appendSeconds(append(a.buf, '['), v.T), `,"`...)
		a.buf = append(strconv.AppendFloat(a.buf, v.V, 'f', -1, 64), `"]`...)
	case promql.String:
		a.buf = append(appendSeconds(append(a.buf, '['), v.T), ',')
		a.buf = append(appendString(a.buf, v.V), ']')
	default:
		panic("BUG: query result of unknown type " + string(v.Type()))
	}
}

// strings writes a list, sorted or not as it comes.
func (a *answer) strings(list []string) {
	a.buf = append(a.buf, '[')
	for i, s := range list {
		if i > 0 {
			a.buf = append(a.buf, ',')
		}
		a.buf = appendString(a.buf, s)
		a.spill()
	}
	a.buf = append(a.buf, ']')
}

// notes writes warnings and infos, each sorted, so that equal answers are equal bytes.
func (a *answer) notes(warnings, infos []string) {
	if list := first(warnings, "warning"); len(list) > 0 {
		a.buf = appendStrings(append(a.buf, `,"warnings":`...), list)
	}
	if list := first(infos, "info"); len(list) > 0 {
		a.buf = appendStrings(append(a.buf, `,"infos":`...), list)
	}
}

// first returns the first of notes in their order, and as the last how many there are besides.
func first(notes []string, kind string) []string {
	slices.Sort(notes)
	if more := len(notes) - mostNotes; more > 0 {
		return append(notes[:mostNotes:mostNotes], fmt.Sprintf("%d more %s annotations omitted", more, kind))
	}
	return notes
}

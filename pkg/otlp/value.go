package otlp

import (
	"encoding/base64"
	"math"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// maxDepth bounds lists and maps within each other: each level costs stack.
const maxDepth = 32

// The fields of AnyValue.
const (
	anyString = 1
	anyBool   = 2
	anyInt    = 3
	anyDouble = 4
	anyArray  = 5
	anyMap    = 6
	anyBytes  = 7
)

// text returns the value of an attribute, an AnyValue, as the text of a label.
func (t *Translator) text(v []byte) (string, error) {
	var f, last field
	for b := v; len(b) > 0; {
		var ok bool
		if b, ok = f.next(b); !ok {
			return "", malformed("attribute value")
		}
		if f.number <= anyBytes {
			last = f // of several, the last counts
		}
	}
	switch {
	case last.is(anyString, wireBytes):
		return view(last.data), nil
	case last.is(anyBool, wireVarint):
		return strconv.FormatBool(last.num != 0), nil
	case last.is(anyInt, wireVarint):
		return t.enc.Keep(strconv.AppendInt(t.enc.Spare(20), int64(last.num), 10)), nil
	case last.is(anyDouble, wireFixed64):
		return t.enc.Keep(appendDouble(t.enc.Spare(32), last.double())), nil
	case last.is(anyBytes, wireBytes):
		n := base64.StdEncoding.EncodedLen(len(last.data))
		return t.enc.Keep(base64.StdEncoding.AppendEncode(t.enc.Spare(n), last.data)), nil
	case last.is(anyArray, wireBytes), last.is(anyMap, wireBytes):
		return t.nested(v)
	case last.number == 0:
		return "", nil
	}
	return "", malformed("attribute value of an unknown type")
}

// appendDouble adds v as JavaScript writes it, which is how OpenTelemetry makes text of numbers.
func appendDouble(dst []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, "NaN"...)
	case math.IsInf(v, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(v, -1):
		return append(dst, "-Infinity"...)
	}
	if abs := math.Abs(v); abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(dst, v, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, v, 'e', -1, 64)
	if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // e-09 is written e-9
		dst = dst[:n-1]
	}
	return dst
}

// nestedBytes is about how much memory decoding takes for a byte of a list or map.
const nestedBytes = 32

// nested returns a list or map as JSON. These are rare, so OpenTelemetry's own decoder does it; it
// does not bound how deep it goes.
func (t *Translator) nested(v []byte) (string, error) {
	if !shallow(v, maxDepth) {
		return "", malformed("attribute value that is nested too deep")
	}
	if err := t.enc.Reserve(nestedBytes * len(v)); err != nil {
		return "", err
	}
	// The decoder takes whole requests: this one has a resource with one attribute.
	body := v
	for _, number := range []byte{2 /* value */, 1 /* attributes */, 1 /* resource */, 1 /* resource_metrics */} {
		body = appendMessage(nil, number, body)
	}
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(body); err != nil {
		return "", malformed("attribute value")
	}
	text, ok := req.Metrics().ResourceMetrics().At(0).Resource().Attributes().Get("")
	if !ok {
		return "", malformed("attribute value")
	}
	return text.AsString(), nil
}

func appendMessage(dst []byte, number byte, b []byte) []byte {
	dst = append(dst, number<<3|wireBytes)
	for n := len(b); ; n >>= 7 {
		if n < 0x80 {
			dst = append(dst, byte(n))
			break
		}
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, b...)
}

// shallow says whether the AnyValue v has at most depth lists and maps within each other.
func shallow(v []byte, depth int) bool {
	if depth == 0 {
		return false
	}
	var f field
	for len(v) > 0 {
		var ok bool
		if v, ok = f.next(v); !ok {
			return false
		}
		if f.is(anyArray, wireBytes) || f.is(anyMap, wireBytes) {
			if !shallowList(f.data, f.number == anyMap, depth-1) {
				return false
			}
		}
	}
	return true
}

// shallowList is shallow for an ArrayValue or a KeyValueList: both have their members as field 1,
// which for a list of pairs have their value as field 2.
func shallowList(b []byte, pairs bool, depth int) bool {
	var f, inner field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return false
		}
		if !f.is(1, wireBytes) {
			continue
		}
		if !pairs {
			if !shallow(f.data, depth) {
				return false
			}
			continue
		}
		for p := f.data; len(p) > 0; {
			if p, ok = inner.next(p); !ok {
				return false
			}
			if inner.is(2, wireBytes) && !shallow(inner.data, depth) {
				return false
			}
		}
	}
	return true
}

package influx

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

const nameLabel = "__name__"

// The errors of a line are made once: a body may have many bad lines.
var (
	errNoMeasurement = errors.New("it has no measurement")
	errNoFields      = errors.New("it has no fields")
	errTag           = errors.New("a tag is not name=value")
	errField         = errors.New("a field is not name=value")
	errText          = errors.New("a text has no end")
	errTooMany       = errors.New("it has too many tags or fields")
)

// line reads one line and writes its points.
func (t *Translator) line(b []byte, o Options) error {
	b = bytes.TrimSuffix(b, []byte("\r"))
	b = bytes.TrimLeft(b, " \t")
	if len(b) == 0 || b[0] == '#' {
		return nil
	}
	t.res.Lines++
	measurement, b, err := t.head(b)
	if err != nil {
		return err
	}
	b, err = t.readFields(b)
	if err != nil {
		return err
	}
	ms := o.Now.UnixMilli()
	if b = bytes.Trim(b, " "); len(b) > 0 {
		n, err := strconv.ParseInt(view(b), 10, 64)
		if err != nil {
			return malformed("the timestamp %.32q is not a whole number", b)
		}
		if ms, err = milliseconds(n, o.Precision); err != nil {
			return err
		}
	}
	if len(t.fields) > 0 {
		t.write(measurement, ms)
	}
	return nil
}

// milliseconds is the time of n units of p.
func milliseconds(n int64, p Precision) (int64, error) {
	if p < Precision(time.Millisecond) {
		per := int64(Precision(time.Millisecond) / p)
		ms := n / per
		if n%per < 0 { // times before 1970 are rounded down as all others
			ms--
		}
		return ms, nil
	}
	per := int64(p / Precision(time.Millisecond))
	if n > math.MaxInt64/per || n < math.MinInt64/per {
		return 0, malformed("the timestamp %d is out of range", n)
	}
	return n * per, nil
}

// head reads the measurement and the tags of a line; the fields follow.
func (t *Translator) head(b []byte) (measurement string, rest []byte, err error) {
	t.tags = t.tags[:0]
	measurement, b, stop := t.word(b, ", ")
	if measurement == "" {
		return "", nil, errNoMeasurement
	}
	for stop == ',' {
		var name, value string
		if name, b, stop = t.word(b[1:], ",= "); stop != '=' || name == "" {
			return "", nil, errTag
		}
		if value, b, stop = t.word(b[1:], ",= "); stop == '=' || value == "" {
			return "", nil, errTag
		}
		if len(t.tags) == maxTags {
			return "", nil, errTooMany
		}
		t.tags = append(t.tags, tag{t.labelName(name), value})
	}
	return measurement, b, nil
}

// word reads up to the first byte of ends that no backslash escapes. Of b, that byte and what
// follows are left; stop is it, 0 at the end of the line.
func (t *Translator) word(b []byte, ends string) (word string, rest []byte, stop byte) {
	escaped := 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\' && i+1 < len(b) && strings.IndexByte(",= ", b[i+1]) >= 0:
			escaped++
			i++
		case c <= '=' && strings.IndexByte(ends, c) >= 0:
			return t.unescape(b[:i], escaped, ",= "), b[i:], c
		}
	}
	return t.unescape(b, escaped, ",= "), nil, 0
}

// unescape leaves out the backslashes before the bytes of special.
func (t *Translator) unescape(b []byte, escaped int, special string) string {
	if escaped == 0 {
		return view(b)
	}
	out := t.enc.Spare(len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) && strings.IndexByte(special, b[i+1]) >= 0 {
			i++
		}
		out = append(out, b[i])
	}
	return t.enc.Keep(out)
}

// readFields reads the fields of a line and returns what follows them.
func (t *Translator) readFields(b []byte) (rest []byte, err error) {
	t.fields = t.fields[:0]
	b = bytes.TrimLeft(b, " ")
	if len(b) == 0 {
		return nil, errNoFields
	}
	for count := 0; ; count++ {
		if count == maxFields {
			return nil, errTooMany
		}
		key, after, stop := t.word(b, ",= ")
		if stop != '=' || key == "" {
			return nil, errField
		}
		b = after[1:]
		if len(b) > 0 && b[0] == '"' {
			if b, err = skipText(b); err != nil {
				return nil, err
			}
		} else {
			n := bytes.IndexAny(b, ", ")
			if n < 0 {
				n = len(b)
			}
			v, err := number(b[:n])
			if err != nil {
				return nil, err
			}
			t.fields, b = append(t.fields, field{key, v}), b[n:]
		}
		switch {
		case len(b) == 0 || b[0] == ' ':
			return b, nil
		case b[0] != ',':
			return nil, errField
		}
		b = b[1:]
	}
}

// skipText returns what follows the text that b begins with.
func skipText(b []byte) ([]byte, error) {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return b[i+1:], nil
		}
	}
	return nil, errText
}

// number reads a field that is a number or a truth value.
func number(b []byte) (float64, error) {
	if len(b) == 0 {
		return 0, errField
	}
	switch last := b[len(b)-1]; last {
	case 'i':
		if n, err := strconv.ParseInt(view(b[:len(b)-1]), 10, 64); err == nil {
			return float64(n), nil
		}
	case 'u':
		if n, err := strconv.ParseUint(view(b[:len(b)-1]), 10, 64); err == nil {
			return float64(n), nil
		}
	default:
		switch view(b) {
		case "t", "T", "true", "True", "TRUE":
			return 1, nil
		case "f", "F", "false", "False", "FALSE":
			return 0, nil
		}
		// What strconv takes beside decimal numbers is no number here: infinities, hexadecimal.
		if last <= '9' || last == '.' {
			if v, err := strconv.ParseFloat(view(b), 64); err == nil && !bytes.ContainsAny(b, "xXpP_") {
				return v, nil
			}
		}
	}
	return 0, malformed("the value %.32q of a field is not a number, a truth value or a text", b)
}

// write writes the points of the line.
func (t *Translator) write(measurement string, ms int64) {
	slices.SortStableFunc(t.tags, func(a, b tag) int { return strings.Compare(a.name, b.name) })
	name := t.enc.Symbol(nameLabel)
	t.refs, t.nameAt = t.refs[:0], -1
	for _, l := range t.tags {
		if t.nameAt < 0 && l.name > nameLabel {
			t.nameAt = len(t.refs) + 1
			t.refs = append(t.refs, name, 0)
		}
		t.refs = append(t.refs, t.enc.Symbol(l.name), t.enc.Symbol(l.value))
	}
	if t.nameAt < 0 {
		t.nameAt = len(t.refs) + 1
		t.refs = append(t.refs, name, 0)
	}
	for _, f := range t.fields {
		t.refs[t.nameAt] = t.metric(measurement, f.key)
		t.enc.Series(t.refs)
		t.enc.Sample(f.value, ms, 0)
		if t.enc.EndSeries() != nil {
			return // the error stays in the encoder
		}
	}
}

// metric is the symbol of the name of a field's series.
func (t *Translator) metric(measurement, key string) uint32 {
	of := metric{measurement, key}
	ref, ok := t.metrics[of]
	if !ok {
		ref = t.enc.Symbol(t.metricName(measurement, key))
		t.metrics[of] = ref
	}
	return ref
}

// metricName is measurement_field, with an underscore for what a name may not have.
func (t *Translator) metricName(measurement, key string) string {
	b := append(append(append(t.enc.Spare(len(measurement)+len(key)+2), measurement...), '_'), key...)
	b = clean(b, true)
	if b[0] >= '0' && b[0] <= '9' {
		b = append(b, 0)
		copy(b[1:], b)
		b[0] = '_'
	}
	return t.enc.Keep(b)
}

// labelName is the tag with an underscore for what a label may not have.
func (t *Translator) labelName(s string) string {
	if isClean(s) {
		return s
	}
	if name, ok := t.names[s]; ok {
		return name
	}
	b := append(t.enc.Spare(len(s)+1), s...)
	b = clean(b, false)
	if b[0] >= '0' && b[0] <= '9' {
		b = append(b, 0)
		copy(b[1:], b)
		b[0] = '_'
	}
	name := t.enc.Keep(b)
	t.names[s] = name
	return name
}

func isClean(s string) bool {
	for i := range len(s) {
		if !nameByte(s[i], false) {
			return false
		}
	}
	return s[0] > '9'
}

// clean puts an underscore for each byte of b that a name may not have, and one for each rune.
func clean(b []byte, colon bool) []byte {
	n := 0
	for i, c := range b {
		switch {
		case nameByte(c, colon):
			b[n] = c
		case c >= 0x80 && c < 0xc0 && i > 0: // within a rune
			continue
		default:
			b[n] = '_'
		}
		n++
	}
	return b[:n]
}

func nameByte(c byte, colon bool) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || colon && c == ':'
}

// view returns b as a string without copying it. The body of a request does not change while it is
// translated, and no view outlives that.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

package otlp

import (
	"cmp"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxExemplarRunes is the limit of OpenMetrics on the names and values of an exemplar.
	maxExemplarRunes = 128
	// maxExemplars bounds those of one point; SDKs keep a handful, one per bucket at most.
	maxExemplars = 1024

	traceID = "trace_id"
	spanID  = "span_id"
)

// rawExemplar is an exemplar whose attributes are not read yet.
type rawExemplar struct {
	value float64
	body  []byte
}

// exemplar notes the Exemplar b of the point being read. One that is malformed, or has no value, is
// left out: a sample is not refused for its exemplar.
func (t *Translator) exemplar(b []byte) {
	if !t.set.Exemplars || len(t.exemplars) == maxExemplars {
		return
	}
	x, has := rawExemplar{body: b}, false
	var f field
	for rest := b; len(rest) > 0; {
		var ok bool
		if rest, ok = f.next(rest); !ok {
			return
		}
		switch {
		case f.is(3, wireFixed64):
			x.value, has = f.double(), true
		case f.is(6, wireFixed64):
			x.value, has = float64(int64(f.num)), true
		}
	}
	if has {
		t.exemplars = append(t.exemplars, x)
	}
}

// sortExemplars orders the exemplars by value, for writeExemplars.
func (t *Translator) sortExemplars() {
	slices.SortStableFunc(t.exemplars, func(a, b rawExemplar) int { return cmp.Compare(a.value, b.value) })
}

// writeExemplars adds the exemplars from first on that are not above bound to the series under way
// and returns the first that is left. at is the time of those that have none.
func (t *Translator) writeExemplars(first int, bound float64, at uint64) (next int, err error) {
	for i, x := range t.exemplars[first:] {
		if x.value > bound {
			return first + i, nil
		}
		if err := t.writeExemplar(x, at); err != nil {
			return 0, err
		}
	}
	return len(t.exemplars), nil
}

func (t *Translator) writeExemplar(x rawExemplar, at uint64) error {
	var f field
	ls, runes := t.hist.exemplar[:0], 0
	for rest := x.body; len(rest) > 0; {
		rest, _ = f.next(rest)
		switch {
		case f.is(2, wireFixed64) && f.num > 0:
			at = f.num
		case f.is(4, wireBytes) && len(f.data) == 8 && !zeros(f.data):
			ls = append(ls, label{name: spanID, value: t.hex(f.data)})
		case f.is(5, wireBytes) && len(f.data) == 16 && !zeros(f.data):
			ls = append(ls, label{name: traceID, value: t.hex(f.data)})
		}
	}
	own := len(ls)
	for rest := x.body; len(rest) > 0; {
		if rest, _ = f.next(rest); !f.is(7, wireBytes) {
			continue
		}
		key, value, err := t.keyValue(f.data)
		if err != nil {
			return err
		}
		if value == "" {
			continue
		}
		ls = append(ls, label{name: key, value: value})
		if runes += utf8.RuneCountInString(key) + utf8.RuneCountInString(value); runes > maxExemplarRunes {
			break
		}
	}
	for _, l := range ls[:own] {
		runes += len(l.name) + len(l.value)
	}
	if runes > maxExemplarRunes { // the trace is worth more than the rest
		ls = ls[:own]
	}
	slices.SortStableFunc(ls, func(a, b label) int { return strings.Compare(a.name, b.name) })
	ls = slices.CompactFunc(ls, func(a, b label) bool { return a.name == b.name })
	refs := t.hist.exemplarRefs[:0]
	for _, l := range ls {
		refs = append(refs, t.enc.Symbol(l.name), t.enc.Symbol(l.value))
	}
	t.enc.Exemplar(refs, x.value, milliseconds(at))
	t.hist.exemplar, t.hist.exemplarRefs = ls, refs
	return nil
}

// zeros says whether id is the one that stands for none.
func zeros(id []byte) bool {
	return !slices.ContainsFunc(id, func(b byte) bool { return b != 0 })
}

// hex returns id in hexadecimal digits.
func (t *Translator) hex(id []byte) string {
	return t.enc.Keep(hex.AppendEncode(t.enc.Spare(hex.EncodedLen(len(id))), id))
}

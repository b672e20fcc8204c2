package otlp

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/otlptranslator"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	nameLabel = "__name__"
	// maxAttributes bounds the attributes of one point. No limit lets a series have as many labels.
	maxAttributes = 4096
	// fewAttributes is up to where sorting by insertion is quickest; senders sort by themselves.
	fewAttributes = 32
)

// label is one label of a series, or an attribute on the way to one.
type label struct {
	name     string // of the label
	key      string // of the attribute, by which those with the same name are ordered
	value    string
	nameRef  uint32
	valueRef uint32 // 0: not looked up yet
	override bool   // of a constant: wins over an attribute
}

// before is an attribute of the point before, at the same place. Most points of a metric have the same
// attributes in the same order, and many of the same values; telling that is cheaper than looking up.
type before struct {
	key, value string
	name       labelName
	valueRef   uint32
}

// labelName is what an attribute is called as a label.
type labelName struct {
	name string
	ref  uint32
	bad  bool
}

func (t *Translator) namer() otlptranslator.LabelNamer {
	return otlptranslator.LabelNamer{UTF8Allowed: t.set.UTF8,
		UnderscoreLabelSanitization: t.set.UnderscoreKeys, //nolint:staticcheck // The limit offers it.
		PreserveMultipleUnderscores: t.set.PreserveUnderscores}
}

// labelNameOf returns the name of the label for the attribute key.
func (t *Translator) labelNameOf(key string) labelName {
	if n, ok := t.labelNames[key]; ok {
		return n
	}
	namer := t.namer()
	name, err := namer.Build(key)
	n := labelName{name: name, bad: err != nil}
	if err == nil {
		n.ref = t.enc.Symbol(name)
	}
	t.labelNames[key] = n
	return n
}

// badName is the error for an attribute that cannot be a label.
func badName(key string) error {
	return errs.New(errs.Invalid, "attribute %q cannot be a label: its name has no letter or digit", clip(key))
}

// keyValue reads a KeyValue.
func (t *Translator) keyValue(b []byte) (key, value string, err error) {
	var f field
	for len(b) > 0 {
		var ok bool
		if b, ok = f.next(b); !ok {
			return "", "", malformed("attribute")
		}
		switch {
		case f.is(1, wireBytes):
			key = view(f.data)
		case f.is(2, wireBytes):
			// Nearly all values are strings, with nothing else in the message.
			if v := f.data; len(v) > 2 && v[0] == anyString<<3|wireBytes && int(v[1]) == len(v)-2 && v[1] < 0x80 {
				value = view(v[2:])
			} else if value, err = t.text(v); err != nil {
				return "", "", err
			}
		}
	}
	return key, value, nil
}

// attribute adds the KeyValue b to the attributes of the point being read.
func (t *Translator) attribute(b []byte) error {
	key, value, err := t.keyValue(b)
	if err != nil || key == nameLabel {
		return err
	}
	if len(t.attrs) <= maxAttributes { // one too many is seen by pointLabels
		t.attrs = append(t.attrs, label{key: key, value: value})
	}
	return nil
}

// pointLabels makes the labels of a series of the attributes of the point being read and the
// constants of its scope. The value of the name is left out. Errors: Invalid.
func (t *Translator) pointLabels() error {
	if len(t.attrs) > maxAttributes {
		return errs.New(errs.Invalid, "a data point has more than %d attributes", maxAttributes)
	}
	for i := range t.attrs {
		a := &t.attrs[i]
		if i == len(t.before) {
			t.before = append(t.before, before{})
		}
		b := &t.before[i]
		if b.key != a.key || b.name.name == "" {
			b.key, b.name = a.key, t.labelNameOf(a.key)
		}
		if b.name.bad {
			return badName(a.key)
		}
		if b.value != a.value {
			b.value, b.valueRef = a.value, t.enc.Symbol(a.value)
		}
		a.name, a.nameRef, a.valueRef = b.name.name, b.name.ref, b.valueRef
	}
	t.attrs = t.joined(t.attrs)
	t.merge()
	t.refs = t.refs[:0]
	for i := range t.merged {
		m := &t.merged[i]
		if m.name == nameLabel {
			t.nameAt = len(t.refs) + 1
		}
		if m.valueRef == 0 {
			m.valueRef = t.enc.Symbol(m.value)
		}
		t.refs = append(t.refs, m.nameRef, m.valueRef)
	}
	return nil
}

// joined sorts ls by name and joins the values of those that have the same one.
func (t *Translator) joined(ls []label) []label {
	if len(ls) <= fewAttributes {
		for i := 1; i < len(ls); i++ {
			for j := i; j > 0 && less(&ls[j], &ls[j-1]); j-- {
				ls[j], ls[j-1] = ls[j-1], ls[j]
			}
		}
	} else {
		slices.SortStableFunc(ls, func(a, b label) int {
			return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.key, b.key))
		})
	}
	n := 0
	for i := range ls {
		if n > 0 && ls[n-1].nameRef == ls[i].nameRef {
			if ls[n-1].value != "" {
				ls[n-1].value = t.enc.Join(ls[n-1].value, ";", ls[i].value)
			} else {
				ls[n-1].value = ls[i].value
			}
			ls[n-1].valueRef = 0
			continue
		}
		ls[n] = ls[i]
		n++
	}
	return ls[:n]
}

func less(a, b *label) bool {
	if a.name != b.name {
		return a.name < b.name
	}
	return a.key < b.key
}

// merge puts attrs and constants together in merged, without those that have no value. Both are
// sorted by name.
func (t *Translator) merge() {
	t.merged = t.merged[:0]
	constants := t.constants
	for i := range t.attrs {
		a := &t.attrs[i]
		for len(constants) > 0 && constants[0].name < a.name {
			t.take(&constants[0])
			constants = constants[1:]
		}
		if len(constants) > 0 && constants[0].nameRef == a.nameRef {
			if constants[0].override || a.value == "" {
				a = &constants[0]
			}
			constants = constants[1:]
		}
		t.take(a)
	}
	for i := range constants {
		t.take(&constants[i])
	}
}

// take adds l to merged. The name has its value later.
func (t *Translator) take(l *label) {
	if l.value != "" || l.name == nameLabel {
		t.merged = append(t.merged, *l)
	}
}

// withExtra makes t.extra the labels of the point with one more, whose value is left out.
func (t *Translator) withExtra(name string) {
	ref := t.enc.Symbol(name)
	t.extra, t.extraAt = t.extra[:0], -1
	for i := range t.merged {
		if m := &t.merged[i]; t.extraAt < 0 && m.name >= name {
			t.extra = append(t.extra, ref, 0)
			t.extraAt = len(t.extra) - 1
			if m.name == name {
				continue
			}
		}
		t.extra = append(t.extra, t.refs[2*i], t.refs[2*i+1])
	}
	if t.extraAt < 0 {
		t.extra = append(t.extra, ref, 0)
		t.extraAt = len(t.extra) - 1
	}
}

// setName gives the series of the point the name ref.
func (t *Translator) setName(ref uint32) { t.refs[t.nameAt] = ref }

// setExtra gives the series of the point with one label more the name and the value of that label.
func (t *Translator) setExtra(name, value uint32) {
	at := t.nameAt
	if t.extraAt < at {
		at += 2
	}
	t.extra[at], t.extra[t.extraAt] = name, value
}

const maxNameText = 64

// clip is at most maxNameText bytes of s, for errors.
func clip(s string) string {
	if len(s) <= maxNameText {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:maxNameText], "") + "..."
}

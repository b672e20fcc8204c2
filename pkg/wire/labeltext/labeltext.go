// Package labeltext owns the assumption on how labels.Labels lie in memory: one text in which a
// length precedes each name and value. Where millions of series are defined, labels are built and
// read here in one piece instead of label by label through a builder and a callback, which takes two
// to three times as long. With another layout, from another version or build tag, this does not
// compile or fails its tests.
package labeltext

import (
	"encoding/binary"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
)

// MaxBytes is the length that a name or value may have: the layout has 24 bits for it.
const MaxBytes = 1<<24 - 1

// long stands in the place of a length that does not fit one byte; three bytes follow.
const long = 255

// Labels are one string, and nothing else.
var _ = [1]struct{}{}[unsafe.Sizeof(labels.Labels{})-unsafe.Sizeof("")]

// Of returns the text of ls, which shares its memory.
func Of(ls labels.Labels) string { return *(*string)(unsafe.Pointer(&ls)) }

// Next returns the label of a text that begins at byte at, and where the next one begins. The label
// shares the memory of the text.
func Next(text string, at int) (name, value string, next int) {
	name, at = part(text, at)
	value, at = part(text, at)
	return name, value, at
}

// View returns the labels of a text, which share its memory: it must not change any more. Without ok it
// is none: it ends within a name or value or with a name alone, or a name is empty.
func View(text []byte) (ls labels.Labels, ok bool) {
	parts := 0
	for at := 0; at < len(text); parts++ {
		n := int(text[at])
		if at++; n == long {
			if len(text)-at < 3 {
				return ls, false
			}
			n = int(text[at]) | int(text[at+1])<<8 | int(text[at+2])<<16
			at += 3
		}
		if n > len(text)-at || n == 0 && parts%2 == 0 {
			return ls, false
		}
		at += n
	}
	if parts%2 != 0 {
		return ls, false
	}
	s := unsafe.String(unsafe.SliceData(text), len(text))
	return *(*labels.Labels)(unsafe.Pointer(&s)), true
}

func part(text string, at int) (string, int) {
	n := int(text[at])
	if at++; n == long {
		n = int(text[at]) | int(text[at+1])<<8 | int(text[at+2])<<16
		at += 3
	}
	return text[at : at+n], at + n
}

// Append appends ls as it goes to disk: how many labels there are, then each name and value behind its
// length, all numbers in the varint encoding.
func Append(b []byte, ls labels.Labels) []byte {
	text, n, short := Of(ls), 0, true
	for at := 0; at < len(text); n++ {
		for range 2 {
			if size := int(text[at]); size < 0x80 { // which is written alike in both
				at += 1 + size
				continue
			}
			short = false
			_, at = part(text, at)
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	if short {
		return append(b, text...)
	}
	for at := 0; at < len(text); {
		var s string
		s, at = part(text, at)
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

// AppendSeparated appends the names and values of ls, each with separator behind it, but for the label
// without and its value. Their text is copied in one piece, and separators take the places of lengths.
func AppendSeparated(b []byte, ls labels.Labels, separator byte, without string) []byte {
	text := Of(ls)
	if text == "" {
		return b
	}
	start := len(b)
	b = append(append(b, text[1:]...), separator)
	into := b[start:] // byte i of it is byte i+1 of the text
	gone, behind := 0, 0
	for at := 0; at < len(text); {
		name := int(text[at])
		value := at + 1 + name
		if name == long || text[value] == long || behind > 0 && text[at+1:value] == without {
			return appendSeparated(b[:start], text, separator, without)
		}
		next := value + 1 + int(text[value])
		into[value-1], into[next-1] = separator, separator
		if text[at+1:value] == without {
			gone, behind = at, next
		}
		at = next
	}
	if behind > 0 {
		b = b[:start+gone+copy(into[gone:], into[behind:])]
	}
	return b
}

// appendSeparated is AppendSeparated for texts of every length.
func appendSeparated(b []byte, text string, separator byte, without string) []byte {
	for at := 0; at < len(text); {
		var name, value string
		if name, value, at = Next(text, at); name != without {
			b = append(append(b, name...), separator)
			b = append(append(b, value...), separator)
		}
	}
	return b
}

// Builder makes labels. Its zero value is ready.
type Builder struct{ text []byte }

// keptBytes is the capacity up to which a Builder keeps its memory.
const keptBytes = 1 << 16

// Reset forgets what was added.
func (b *Builder) Reset() {
	if b.text = b.text[:0]; cap(b.text) > keptBytes {
		b.text = nil
	}
}

// Add adds one label, whose name must come after those before. Name and value must not have more than
// MaxBytes.
func (b *Builder) Add(name, value []byte) {
	b.text = appendPart(appendPart(b.text, name), value)
}

func appendPart(b, s []byte) []byte {
	n := len(s)
	if n < long {
		return append(append(b, byte(n)), s...)
	}
	if n > MaxBytes {
		panic("BUG: a label is too long")
	}
	return append(append(b, long, byte(n), byte(n>>8), byte(n>>16)), s...)
}

// Text is what was added, for AppendLabel. What that returned must go back by SetText.
func (b *Builder) Text() []byte { return b.text }

// SetText replaces what was added.
func (b *Builder) SetText(text []byte) { b.text = text }

// AppendLabel is Add to a text outside of its Builder: so many labels are added without a store to
// memory that the garbage collector watches.
func AppendLabel(text, name, value []byte) []byte { return appendPart(appendPart(text, name), value) }

// Labels returns what was added since Reset, in memory of its own.
func (b *Builder) Labels() labels.Labels {
	text := string(b.text)
	return *(*labels.Labels)(unsafe.Pointer(&text))
}

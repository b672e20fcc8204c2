package remotewrite

import (
	"encoding/binary"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// Label is one label as it lies in a body; Name and Value are valid as long as the body is.
type Label struct{ Name, Value []byte }

// Labels appends the labels of series i that have a value to dst, in the order of the body and
// at most limit of them, and returns dst and how many there are in all. Errors: Invalid.
func (b *Batch) Labels(i int, dst []Label, limit int) ([]Label, int, error) {
	s := b.series[i].labels
	if b.version == V2 {
		dst, n := b.refLabels(b.bytes(s), dst, limit)
		return dst, n, nil
	}
	return labelsV1(b.bytes(s), dst, limit)
}

// ASCII says whether the labels of series i are of ASCII characters alone. It looks at all of them at
// once, which is cheaper than to check each; false may also say that it cannot tell.
func (b *Batch) ASCII(i int) bool {
	if b.version != V1 {
		return false
	}
	p, all := b.bytes(b.series[i].labels), uint64(0)
	for ; len(p) >= 8; p = p[8:] {
		all |= binary.LittleEndian.Uint64(p)
	}
	for _, c := range p {
		all |= uint64(c)
	}
	return all&0x8080808080808080 == 0
}

// refLabels resolves pairs of references that the scan has checked.
func (b *Batch) refLabels(p []byte, dst []Label, limit int) ([]Label, int) {
	n := 0
	for i := 0; i < len(p); {
		var name, value uint64
		name, i = uvarint(p, i)
		value, i = uvarint(p, i)
		if b.symbols[value].n == 0 {
			continue
		}
		if n++; n <= limit {
			dst = append(dst, Label{b.symbol(uint32(name)), b.symbol(uint32(value))})
		}
	}
	return dst, n
}

// labelsV1 reads a run of labels, each with its tag and length.
func labelsV1(p []byte, dst []Label, limit int) ([]Label, int, error) {
	n := 0
	for i := 0; i < len(p); {
		if l, next := shortLabelV1(p, i); next > 0 {
			if i = next; len(l.Value) == 0 {
				continue
			}
			if n++; n <= limit {
				dst = append(dst, l)
			}
			continue
		}
		_, _, s := tag(p, i)
		s, e := chunk(p, max(s, 0))
		if e < 0 {
			return dst, n, malformed("label", i)
		}
		l, ok := labelV1(p[:e], s)
		if !ok {
			return dst, n, malformed("label", i)
		}
		if i = e; len(l.Value) == 0 {
			continue
		}
		if n++; n <= limit {
			dst = append(dst, l)
		}
	}
	return dst, n, nil
}

// shortLabelV1 reads a label at p[i:] as all senders write it: its name, then its value, and every
// length in one byte. next is 0 if it is another.
func shortLabelV1(p []byte, i int) (l Label, next int) {
	if i+4 > len(p) || p[i+1] >= 0x80 || p[i+2] != 1<<3|wireBytes || p[i+3] >= 0x80 {
		return Label{}, 0
	}
	end, value := i+2+int(p[i+1]), i+4+int(p[i+3])
	if end > len(p) || value+2 > end || p[value] != 2<<3|wireBytes || value+2+int(p[value+1]) != end {
		return Label{}, 0
	}
	return Label{p[i+4 : value], p[value+2 : end]}, end
}

// labelV1 reads one prometheus.Label at b[i:].
func labelV1(b []byte, i int) (l Label, ok bool) {
	for i < len(b) {
		field, wire, p := tag(b, i)
		if p < 0 {
			return l, false
		}
		if field > 2 {
			if i = skip(b, p, wire); i < 0 {
				return l, false
			}
			continue
		}
		s, e := chunk(b, p)
		if wire != wireBytes || e < 0 {
			return l, false
		}
		if field == 1 {
			l.Name = b[s:e]
		} else {
			l.Value = b[s:e]
		}
		i = e
	}
	return l, true
}

// Build returns ls as labels that own their memory. ls must be sorted by name, and no text be longer
// than labeltext.MaxBytes. b is scratch memory.
func Build(b *labeltext.Builder, ls []Label) labels.Labels {
	b.Reset()
	text := b.Text()
	for i := range ls {
		text = labeltext.AppendLabel(text, ls[i].Name, ls[i].Value)
	}
	b.SetText(text)
	return b.Labels()
}

// view returns b as a string without copying it; it is read before b can change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Views appends the labels of ls to dst. They share the memory of ls and must not be written to.
func Views(dst []Label, ls labels.Labels) []Label {
	bytes := func(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
	ls.Range(func(l labels.Label) { dst = append(dst, Label{bytes(l.Name), bytes(l.Value)}) })
	return dst
}

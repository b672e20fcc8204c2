package frame

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// flags of an encoded frame; FORMAT.md.
const (
	flagGenerations = 1 << iota
	flagStartTimes

	knownFlags = flagGenerations | flagStartTimes
)

// maxLabelBytes bounds the labels that one frame spells out: symbols make a few bytes on the wire
// stand for many in memory. A request's body is bounded well below it.
const maxLabelBytes = 256 << 20

// maxSymbolBytes bounds one label name or value: labels.Labels holds lengths of 24 bits.
const maxSymbolBytes = 1<<24 - 1

// maxKeptBytes is the scratch memory an Encoder keeps between frames.
const maxKeptBytes = 1 << 20

// Encoder encodes frames. Its zero value is ready; it is not safe for concurrent use.
type Encoder struct {
	index      map[string]uint32 // symbol by text, for the frame at work
	symbols    []byte            // the symbol table, encoded
	tail       []byte            // definitions and exemplars, which refer to symbols
	labelBytes int
	longest    int // bytes of the longest symbol
}

// AppendFrame appends the record of f to dst, which is the way to use a buffer again. On an error
// dst is returned as it was. Errors: BodyTooLarge, Internal (f breaks the rules of Frame).
func (e *Encoder) AppendFrame(dst []byte, sequence uint64, f *Frame) ([]byte, error) {
	start := len(dst)
	var all Ref
	for _, ref := range f.Refs {
		all |= ref
	}
	if err := check(f, all); err != nil {
		return dst, err
	}
	flags := byte(0)
	if all.Gen() != 0 {
		flags |= flagGenerations
	}
	if len(f.StartTimes) > 0 {
		flags |= flagStartTimes
	}
	dst = slices.Grow(dst, headerBytes+64+len(f.Tenant)+15*len(f.Refs))
	dst = appendHeader(dst, sequence)
	dst = append(dst, flags, byte(f.Source))
	dst = appendString(dst, f.Tenant)
	dst = appendSamples(dst, f, flags)

	dst = binary.AppendUvarint(dst, uint64(len(f.Histograms)))
	for i := range f.Histograms {
		dst = appendHistogram(dst, &f.Histograms[i])
	}
	var err error
	if dst, err = e.appendLabelled(dst, f); err != nil {
		return dst[:start], err
	}
	dst = binary.AppendUvarint(dst, uint64(len(f.Metadata)))
	for i := range f.Metadata {
		m := &f.Metadata[i]
		for _, s := range [...]string{m.Name, m.Type, m.Help, m.Unit} {
			dst = appendString(dst, s)
		}
	}
	return closeRecord(dst, start)
}

// check refuses what could not be decoded as it was. all is every reference of f's columns, or-ed.
func check(f *Frame, all Ref) error {
	n := len(f.Refs)
	if len(f.Times) != n || len(f.Values) != n || len(f.StartTimes) != 0 && len(f.StartTimes) != n {
		return errs.New(errs.Internal, "frame columns differ in length: %d references, %d times, %d values, %d start times",
			n, len(f.Times), len(f.Values), len(f.StartTimes))
	}
	for i := range f.Histograms {
		h := &f.Histograms[i]
		if (h.H == nil) == (h.FH == nil) {
			return errs.New(errs.Internal, "frame histogram %d has not exactly one form", i)
		}
		all |= h.Ref
	}
	for i := range f.Defs {
		all |= f.Defs[i].Ref
	}
	for i := range f.Metadata {
		if f.Metadata[i].Name == "" {
			return errs.New(errs.Internal, "frame metadata %d has no name", i)
		}
	}
	for i := range f.Exemplars {
		all |= f.Exemplars[i].Ref
	}
	if all>>48 != 0 {
		return errs.New(errs.Internal, "frame reference uses more than 48 bits")
	}
	return nil
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func appendSamples(dst []byte, f *Frame, flags byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(f.Refs)))
	for _, ref := range f.Refs {
		dst = binary.LittleEndian.AppendUint32(dst, ref.Index())
	}
	if flags&flagGenerations != 0 {
		for _, ref := range f.Refs {
			dst = binary.LittleEndian.AppendUint16(dst, ref.Gen())
		}
	}
	for _, v := range f.Values {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	}
	dst = appendDeltas(dst, f.Times)
	if flags&flagStartTimes != 0 {
		dst = appendDeltas(dst, f.StartTimes)
	}
	return dst
}

// appendDeltas appends each time as its difference from the one before. Samples of one scrape
// share their time, so that most differences take one byte.
func appendDeltas(dst []byte, times []int64) []byte {
	last := int64(0)
	for _, t := range times {
		d := t - last // Wraps around for far times; the decoder wraps back.
		last = t
		if d == 0 {
			dst = append(dst, 0)
			continue
		}
		dst = appendVarint(dst, d)
	}
	return dst
}

// appendLabelled appends the symbol table, the definitions and the exemplars.
func (e *Encoder) appendLabelled(dst []byte, f *Frame) ([]byte, error) {
	if len(f.Defs) == 0 && len(f.Exemplars) == 0 {
		return append(dst, 0, 0, 0), nil
	}
	defer e.forget()
	if e.index == nil {
		e.index = make(map[string]uint32)
	}
	e.tail = binary.AppendUvarint(e.tail, uint64(len(f.Defs)))
	for i := range f.Defs {
		d := &f.Defs[i]
		e.tail = appendRef(e.tail, d.Ref)
		e.tail = binary.LittleEndian.AppendUint32(e.tail, d.Token)
		e.appendLabels(d.Labels)
	}
	e.tail = binary.AppendUvarint(e.tail, uint64(len(f.Exemplars)))
	for i := range f.Exemplars {
		x := &f.Exemplars[i]
		e.tail = appendRef(e.tail, x.Ref)
		e.tail = appendVarint(e.tail, x.Time)
		e.tail = appendFloat(e.tail, x.Value)
		e.appendLabels(x.Labels)
	}
	if e.longest > maxSymbolBytes {
		return dst, errs.New(errs.BodyTooLarge, "a label takes %d bytes, at most %d are allowed", e.longest, maxSymbolBytes)
	}
	if e.labelBytes > maxLabelBytes {
		return dst, errs.New(errs.BodyTooLarge, "labels of a frame take %d bytes, at most %d are allowed", e.labelBytes, maxLabelBytes)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.index)))
	dst = append(dst, e.symbols...)
	return append(dst, e.tail...), nil
}

func (e *Encoder) appendLabels(ls labels.Labels) {
	e.tail = binary.AppendUvarint(e.tail, uint64(ls.Len()))
	text := labeltext.Of(ls)
	for at := 0; at < len(text); {
		var name, value string
		name, value, at = labeltext.Next(text, at)
		e.tail = binary.AppendUvarint(e.tail, uint64(e.symbol(name)))
		e.tail = binary.AppendUvarint(e.tail, uint64(e.symbol(value)))
		e.labelBytes += len(name) + len(value)
	}
}

func (e *Encoder) symbol(s string) uint32 {
	if i, ok := e.index[s]; ok {
		return i
	}
	i := uint32(len(e.index))
	e.index[s] = i
	e.longest = max(e.longest, len(s))
	e.symbols = appendString(e.symbols, s)
	return i
}

// forget drops what belongs to one frame, and memory that an unusual frame made large.
func (e *Encoder) forget() {
	if len(e.symbols)+len(e.tail) > maxKeptBytes {
		*e = Encoder{}
		return
	}
	clear(e.index)
	e.symbols, e.tail, e.labelBytes, e.longest = e.symbols[:0], e.tail[:0], 0, 0
}

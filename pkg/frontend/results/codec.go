package results

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/bits"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Answer is an item: extents of the answer to one query.
type Answer struct {
	Grid    Grid
	Scalar  bool   // it is a number, in the one series of the extent
	Text    string // what positions in notes refer to
	Extents []Extent
}

// formatVersion stands first in every item.
const formatVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged says that an item is not what was put there.
var errDamaged = errs.Wrap(errs.Internal, errors.New("an item of the results cache is damaged"))

// sealed begins an item; seal ends it.
func sealed() []byte { return append(make([]byte, 4, 1024), formatVersion) }

func seal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func unseal(b []byte) ([]byte, error) {
	if len(b) < 5 || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) || b[4] != formatVersion {
		return nil, errDamaged
	}
	return b[5:], nil
}

// ErrTooLarge says that an answer has more bytes than an item may have.
var ErrTooLarge = errs.New(errs.Internal, "the answer is too large to be kept")

// Encode puts the extents of a together that follow each other, and returns a as an item of at most the given bytes. What
// is larger is given up soon. Errors: ErrTooLarge.
func (a *Answer) Encode(most int, turn *turns.Turn) ([]byte, error) {
	points := 0
	for i := range a.Extents {
		for _, s := range a.Extents[i].Series {
			points += len(s.Floats) + len(s.Histograms)
		}
	}
	if points > most { // each takes a byte or more
		return nil, ErrTooLarge
	}
	a.Extents = join(a.Extents, a.Grid, turn)
	b := sealed()
	b = binary.AppendVarint(b, a.Grid.Step)
	b = binary.AppendVarint(b, a.Grid.Phase)
	scalar := byte(0)
	if a.Scalar {
		scalar = 1
	}
	b = appendText(append(b, scalar), a.Text)
	b = binary.AppendUvarint(b, uint64(len(a.Extents)))
	var err error
	for i := range a.Extents {
		if b, err = appendExtent(b, &a.Extents[i], a.Grid, most, turn); err != nil {
			return nil, err
		}
	}
	if len(b) > most {
		return nil, ErrTooLarge
	}
	return seal(b), nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendMessage(b []byte, m interface{ MarshalVT() ([]byte, error) }) ([]byte, error) {
	x, err := m.MarshalVT()
	return append(binary.AppendUvarint(b, uint64(len(x))), x...), err
}

func appendExtent(b []byte, e *Extent, g Grid, most int, turn *turns.Turn) (_ []byte, err error) {
	b = binary.AppendVarint(b, e.Start)
	b = binary.AppendVarint(b, e.End)
	b = binary.AppendVarint(b, e.At)
	b = binary.AppendUvarint(b, uint64(len(e.Notes)))
	for _, n := range e.Notes {
		if b, err = appendMessage(b, n); err != nil {
			return nil, err
		}
	}
	b = binary.AppendUvarint(b, uint64(len(e.Series)))
	for _, s := range e.Series {
		if turn.Yield(); len(b) > most {
			return nil, ErrTooLarge
		}
		b = binary.AppendUvarint(b, uint64(s.Metric.Len()))
		s.Metric.Range(func(l labels.Label) { b = appendText(appendText(b, l.Name), l.Value) })
		b = appendFloats(b, s.Floats, g)
		b = binary.AppendUvarint(b, uint64(len(s.Histograms)))
		last := g.Phase
		for _, p := range s.Histograms {
			b = binary.AppendVarint(b, p.T-last)
			last = p.T
			if b, err = appendMessage(b, work.HistogramToWire(p.H)); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// appendFloats writes points as runs without a gap, and of each value the bytes in which it differs
// from the one before.
func appendFloats(b []byte, ps []promql.FPoint, g Grid) []byte {
	b = binary.AppendUvarint(b, uint64(len(ps)))
	last, before := g.Phase, uint64(0)
	for len(ps) > 0 {
		n := 1
		for g.Step > 0 && n < len(ps) && ps[n].T == ps[n-1].T+g.Step {
			n++
		}
		b = binary.AppendVarint(b, ps[0].T-last)
		b = binary.AppendUvarint(b, uint64(n))
		for _, p := range ps[:n] {
			v := math.Float64bits(p.F)
			b = appendDifference(b, v^before)
			before = v
		}
		last, ps = ps[n-1].T, ps[n:]
	}
	return b
}

// appendDifference writes how many zero bytes x begins and ends with, and the others.
func appendDifference(b []byte, x uint64) []byte {
	if x == 0 {
		return append(b, 0x80)
	}
	lead, trail := bits.LeadingZeros64(x)/8, bits.TrailingZeros64(x)/8
	b = append(b, byte(lead<<4|trail))
	for i := trail; i < 8-lead; i++ {
		b = append(b, byte(x>>(8*i)))
	}
	return b
}

// reader reads an item; after the first fault it returns zeros.
type reader struct {
	b       []byte
	damaged bool
	builder labels.ScratchBuilder
	turn    *turns.Turn
}

func (r *reader) fail() { r.b, r.damaged = nil, true }

func (r *reader) uvarint() uint64 {
	x, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return x
}

func (r *reader) varint() int64 {
	x, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return x
}

// count reads how many things follow that take a byte or more each.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte {
	n := r.count()
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) text() string { return string(r.bytes()) }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	x := r.b[0]
	r.b = r.b[1:]
	return x
}

// DecodeAnswer reads an item. Errors: Internal if it is damaged.
func DecodeAnswer(b []byte, turn *turns.Turn) (*Answer, error) {
	b, err := unseal(b)
	if err != nil {
		return nil, err
	}
	r := &reader{b: b, turn: turn}
	a := &Answer{Grid: Grid{Step: r.varint(), Phase: r.varint()}, Scalar: r.byte() == 1, Text: r.text()}
	if a.Grid.Step < 0 {
		return nil, errDamaged
	}
	n := r.count()
	if n > mostExtents {
		return nil, errDamaged
	}
	for range n {
		a.Extents = append(a.Extents, r.extent(a.Grid))
	}
	if r.damaged || len(r.b) > 0 {
		return nil, errDamaged
	}
	return a, nil
}

func (r *reader) extent(g Grid) Extent {
	e := Extent{Start: r.varint(), End: r.varint(), At: r.varint()}
	for range r.count() {
		n := &querypb.Note{}
		if n.UnmarshalVT(r.bytes()) != nil {
			r.fail()
		}
		e.Notes = append(e.Notes, n)
	}
	n := r.count()
	e.Series = make(promql.Matrix, 0, min(n, 4096))
	for range n {
		if r.damaged {
			break
		}
		e.Series = append(e.Series, r.series(g))
		r.turn.Yield()
	}
	return e
}

func (r *reader) series(g Grid) promql.Series {
	r.builder.Reset()
	for range r.count() {
		name := r.text()
		r.builder.Add(name, r.text())
	}
	s := promql.Series{Metric: r.builder.Labels(), Floats: r.floats(g)}
	last := g.Phase
	for range r.count() {
		last += r.varint()
		p := &querypb.Histogram{}
		if p.UnmarshalVT(r.bytes()) != nil || r.damaged {
			r.fail()
			break
		}
		h, err := work.HistogramFromWire(p)
		if err != nil {
			r.fail()
			break
		}
		s.Histograms = append(s.Histograms, promql.HPoint{T: last, H: h})
	}
	return s
}

func (r *reader) floats(g Grid) []promql.FPoint {
	n := r.count()
	if n == 0 {
		return nil
	}
	out := make([]promql.FPoint, 0, n)
	last, before := g.Phase, uint64(0)
	for len(out) < n && !r.damaged {
		last += r.varint()
		run := r.uvarint()
		if run == 0 || run > uint64(n-len(out)) {
			r.fail()
			break
		}
		for i := range run {
			if i > 0 {
				last += g.Step
			}
			before ^= r.difference()
			out = append(out, promql.FPoint{T: last, F: math.Float64frombits(before)})
		}
	}
	return out
}

func (r *reader) difference() uint64 {
	x := r.byte()
	if x == 0x80 {
		return 0
	}
	lead, trail := int(x>>4), int(x&15)
	if lead+trail > 7 || len(r.b) < 8-lead-trail {
		r.fail()
		return 0
	}
	var out uint64
	for i := trail; i < 8-lead; i++ {
		out |= uint64(r.b[0]) << (8 * i)
		r.b = r.b[1:]
	}
	return out
}

// EncodeFailure returns an error as an item.
func EncodeFailure(kind byte, text string) []byte {
	return seal(appendText(append(sealed(), kind), text))
}

// DecodeFailure reads an error. Errors: Internal if it is damaged.
func DecodeFailure(b []byte) (kind byte, text string, err error) {
	if b, err = unseal(b); err != nil {
		return 0, "", err
	}
	r := &reader{b: b}
	if kind, text = r.byte(), r.text(); r.damaged || len(r.b) > 0 {
		return 0, "", errDamaged
	}
	return kind, text, nil
}

// Response is an item: the answer to a request that is no query.
type Response struct {
	At             int64 // what it was made of was read then or later
	Type, Encoding string
	Body           []byte
}

// Encode returns p as an item.
func (p *Response) Encode() []byte {
	b := binary.AppendVarint(sealed(), p.At)
	b = appendText(appendText(b, p.Type), p.Encoding)
	return seal(append(b, p.Body...))
}

// DecodeResponse reads an item. Errors: Internal if it is damaged.
func DecodeResponse(b []byte) (*Response, error) {
	b, err := unseal(b)
	if err != nil {
		return nil, err
	}
	r := &reader{b: b}
	p := &Response{At: r.varint(), Type: r.text(), Encoding: r.text()}
	if r.damaged {
		return nil, errDamaged
	}
	p.Body = r.b
	return p, nil
}

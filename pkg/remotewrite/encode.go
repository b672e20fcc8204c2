package remotewrite

import (
	"encoding/binary"
	"math"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Room gives an Encoder the memory it asks for.
type Room interface {
	// Grow returns buf with space for at least n more bytes behind its end, perhaps elsewhere; then
	// the old memory is not used any more. An error ends the encoding.
	Grow(buf []byte, n int) ([]byte, error)
	// Reserve accounts for n bytes that the encoder takes by itself.
	Reserve(n int) error
}

const (
	// symbolBytes is about what the index takes for a symbol beside its text.
	symbolBytes = 64
	// symbolStep is for how many symbols at once memory is reserved.
	symbolStep = 1024
	// maxHeadBytes is the most that a tag and a length take.
	maxHeadBytes = 1 + binary.MaxVarintLen32
)

// Encoder builds a body of version 2.0 from another form of push. Use it for one body after another:
// then it allocates only what Room gives and the texts of symbols not seen in the body. Its first
// error sticks; what is written after it is ignored.
type Encoder struct {
	room    Room
	buf     []byte
	symbols index
	parts   int
	samples int
	err     error

	row   []byte // the series under way
	part  []byte // the message in row under way
	chunk []byte // memory for texts that are not in what is translated
}

// Begin starts a body in buf, which may be nil.
func (e *Encoder) Begin(buf []byte, room Room) {
	e.room, e.buf = room, buf[:0]
	e.symbols.begin()
}

// Symbol returns the reference of s, which must stay as it is until End.
func (e *Encoder) Symbol(s string) uint32 {
	if s == "" {
		return 0
	}
	ref, hash, ok := e.symbols.find(s)
	if ok {
		return ref
	}
	if e.count(1); len(e.symbols.texts)%symbolStep == 1 && e.err == nil {
		e.err = e.room.Reserve(symbolStep * symbolBytes)
	}
	if e.err != nil {
		return 0
	}
	return e.symbols.put(s, hash)
}

// Text returns the text of the symbol ref.
func (e *Encoder) Text(ref uint32) string { return e.symbols.texts[ref] }

// count notes n more parts of the request, of which Scan takes only so many.
func (e *Encoder) count(n int) {
	if e.parts += n; e.parts > maxItems && e.err == nil {
		e.err = errs.New(errs.BodyTooLarge, "the request has more than %d series, samples and different texts; send smaller requests", maxItems)
	}
}

// Samples is how many float and histogram samples the body has so far.
func (e *Encoder) Samples() int { return e.samples }

// Err is the first error, if any.
func (e *Encoder) Err() error { return e.err }

// Series begins a series with the labels refs, references of names and values by turns, sorted by
// name. What follows belongs to it until EndSeries.
func (e *Encoder) Series(refs []uint32) {
	e.row = e.row[:0]
	e.refs(refs)
	e.row = e.embed(e.row, v2SeriesRefs, e.part)
}

// refs puts refs into e.part as a packed run.
func (e *Encoder) refs(refs []uint32) {
	p := e.part[:0]
	for _, r := range refs {
		switch {
		case r < 0x80:
			p = append(p, byte(r))
		case r < 0x4000:
			p = append(p, byte(r)|0x80, byte(r>>7))
		default:
			p = binary.AppendUvarint(p, uint64(r))
		}
	}
	e.part = p
}

// Sample adds a float sample. Times are in milliseconds; start 0 stands for unknown.
func (e *Encoder) Sample(v float64, t, start int64) {
	p := append(e.part[:0], tagValue)
	p = binary.LittleEndian.AppendUint64(p, math.Float64bits(v))
	p = appendInt(p, 2, t)
	if start != 0 {
		p = appendInt(p, 3, start)
	}
	e.part = p
	e.row = e.embed(e.row, v2SeriesSample, p)
	e.count(1)
	e.samples++
}

// Exemplar adds an exemplar with the labels refs, as Series takes them.
func (e *Encoder) Exemplar(refs []uint32, v float64, t int64) {
	e.refs(refs)
	n := len(e.part)
	p := append(e.embed(e.part, 1, e.part), 2<<3|wireFixed64)
	p = binary.LittleEndian.AppendUint64(p, math.Float64bits(v))
	e.part = appendInt(p, 3, t)
	e.row = e.embed(e.row, v2SeriesExemplar, e.part[n:])
	e.count(1)
}

// Kind is the type of a metric family.
type Kind uint8

// The kinds, with the numbers that both versions give them.
const (
	Unknown        Kind = 0
	Counter        Kind = 1
	Gauge          Kind = 2
	HistogramKind  Kind = 3
	GaugeHistogram Kind = 4
	Summary        Kind = 5
)

// Metadata says what the family of the series is; help and unit are symbols.
func (e *Encoder) Metadata(kind Kind, help, unit uint32) {
	p := append(e.part[:0], 1<<3|wireVarint, byte(kind))
	if help != 0 {
		p = binary.AppendUvarint(append(p, 3<<3|wireVarint), uint64(help))
	}
	if unit != 0 {
		p = binary.AppendUvarint(append(p, 4<<3|wireVarint), uint64(unit))
	}
	e.part = p
	e.row = e.embed(e.row, v2SeriesMetadata, p)
}

// EndSeries writes the series begun last. Errors: BodyTooLarge, and those of Room.
func (e *Encoder) EndSeries() error {
	// The scan counts a series as a row and as a series.
	e.count(2)
	e.write(v2Series, e.row)
	return e.err
}

// write adds a field to the body.
func (e *Encoder) write(field byte, b []byte) {
	if e.err != nil {
		return
	}
	if need := len(b) + maxHeadBytes; cap(e.buf)-len(e.buf) < need {
		if e.buf, e.err = e.room.Grow(e.buf, need); e.err != nil {
			return
		}
	}
	e.buf = e.embed(e.buf, field, b)
}

// End returns the body and forgets everything but its own memory. The body is the caller's, even if
// there is an error.
func (e *Encoder) End() ([]byte, error) {
	for _, s := range e.symbols.texts {
		if e.err != nil {
			break
		}
		if need := len(s) + maxHeadBytes; cap(e.buf)-len(e.buf) < need {
			if e.buf, e.err = e.room.Grow(e.buf, need); e.err != nil {
				break
			}
		}
		e.buf = append(e.buf, v2Symbol<<3|wireBytes)
		e.buf = append(binary.AppendUvarint(e.buf, uint64(len(s))), s...)
	}
	body, err := e.buf, e.err
	e.symbols.end()
	e.room, e.buf, e.parts, e.samples, e.err = nil, nil, 0, 0, nil
	e.row, e.part, e.chunk = trim(e.row), trim(e.part), trim(e.chunk)
	return body, err
}

// embed adds the message b to dst as field, which is below 16.
func (e *Encoder) embed(dst []byte, field byte, b []byte) []byte {
	dst = append(dst, field<<3|wireBytes)
	if len(b) < 0x80 {
		dst = append(dst, byte(len(b)))
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(b)))
	}
	return append(dst, b...)
}

// appendInt adds a number that is not zigzag coded.
func appendInt(dst []byte, field byte, v int64) []byte {
	return binary.AppendUvarint(append(dst, field<<3|wireVarint), uint64(v))
}

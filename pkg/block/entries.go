package block

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/amphora-metrics/amphora/pkg/block/paged"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// symbolStep is how many symbols lie between two whose places are known.
const symbolStep = 16

// What a series may have. An index can tell of much more than its own size by naming the same long symbol
// again and again.
const (
	maxSeriesText = 16 << 20 // of the names and values of its labels together
	maxChunks     = 1 << 20
)

// symbols is the table of the texts of an index.
type symbols struct {
	file   *paged.File
	v1     bool // symbols are named by where they lie, not by their numbers
	n      uint32
	from   int      // of the first symbol
	places []uint32 // of every symbolStep-th symbol, from the first one on
}

// readSymbols finds the symbols of an index whose table begins at byte at. Its reader compares the checksum.
func readSymbols(f *paged.File, version, at int) (*symbols, error) {
	const heads = 8 // how long the table is, and how many symbols it has
	if at < 0 || at > f.Len()-heads {
		return nil, errTable
	}
	head := f.Bytes(at, at+heads)
	s := &symbols{file: f, v1: version == index.FormatV1, n: binary.BigEndian.Uint32(head[4:]), from: at + heads}
	size := int(binary.BigEndian.Uint32(head)) - 4
	if size < 0 || size > f.Len()-s.from {
		return nil, errTable
	}
	if uint64(s.n) > uint64(size) { //nolint:gosec // It is not negative.
		return nil, errTable
	}
	if s.v1 {
		return s, nil
	}
	b := f.Bytes(s.from, s.from+size)
	s.places = make([]uint32, 0, s.n/symbolStep+1)
	place := 0
	for i := range s.n {
		if i%symbolStep == 0 {
			s.places = append(s.places, uint32(place)) //nolint:gosec // The length of the table has 32 bits.
		}
		next, ok := skip(b, place)
		if !ok {
			return nil, errTable
		}
		place = next
	}
	return s, nil
}

var errTable = errs.New(errs.Internal, "its index is corrupted: its table of symbols is cut off")

// skip returns where the text behind the one at byte at begins.
func skip(b []byte, at int) (int, bool) {
	if at < len(b) && b[at] < 0x80 { // nearly all are short
		at += 1 + int(b[at])
		return at, at <= len(b)
	}
	if at >= len(b) {
		return 0, false
	}
	size, n := binary.Uvarint(b[at:])
	if n <= 0 || size > uint64(len(b)-at-n) {
		return 0, false
	}
	return at + n + int(size), true
}

// text returns a symbol, which lies in the index.
func (s *symbols) text(symbol uint32) ([]byte, bool) {
	if s.v1 {
		return textAt(s.file.Bytes(0, s.file.Len()), int(symbol))
	}
	if symbol >= s.n {
		return nil, false
	}
	b := s.file.Bytes(s.from, s.file.Len())
	at := int(s.places[symbol/symbolStep])
	for range symbol % symbolStep {
		next, ok := skip(b, at)
		if !ok {
			return nil, false
		}
		at = next
	}
	return textAt(b, at)
}

// textAt returns the text at byte at.
func textAt(b []byte, at int) ([]byte, bool) {
	next, ok := skip(b, at)
	if !ok {
		return nil, false
	}
	_, n := binary.Uvarint(b[at:])
	return b[at+n : next], true
}

// word is a symbol with its text.
type word struct {
	symbol uint32
	known  bool
	text   []byte
}

// wordPlaces is how many values of labels an entries remembers.
const wordPlaces = 1024

// entries reads what an index says of series. The series of a selection follow each other sorted, so of
// the labels of one most are those of the series before.
type entries struct {
	bytes   indexBytes
	symbols *symbols
	align   int

	pairs []uint32 // names and values of the current series, as symbols

	// Of the series whose labels were made last.
	last []uint32
	text []byte
	ends []int // of each label in text

	names  []word // by the place of the label in its series
	values []word // by symbol modulo their number, a power of two
}

func (o *opened) entries(n int) *entries {
	e := &entries{bytes: indexBytes{o.file}, symbols: o.symbols, align: o.align()}
	places := 64
	for places < n && places < wordPlaces {
		places *= 2
	}
	e.values = make([]word, places)
	return e
}

// align is how many bytes a reference to a series stands for.
func (o *opened) align() int {
	if o.index.Version() == index.FormatV1 {
		return 1
	}
	return 16
}

// read makes the series at ref the current one, and appends those of its chunks that overlap
// mint <= t <= maxt to cs, without their data.
func (e *entries) read(ref storage.SeriesRef, cs []Chunk, mint, maxt int64) ([]Chunk, error) {
	d := encoding.NewDecbufUvarintAt(e.bytes, int(ref)*e.align, castagnoli) //nolint:gosec // Who made it had an int, too.
	if err := d.Err(); err != nil {
		return cs, errs.New(errs.Internal, "its index is corrupted: series %d: %w", ref, err)
	}
	r := numbers{b: d.B}
	n := r.next()
	if n > uint64(len(r.b)) {
		return cs, errEntry(ref)
	}
	e.pairs = e.pairs[:0]
	for range 2 * n {
		e.pairs = append(e.pairs, uint32(r.next())) //nolint:gosec // Symbols have 32 bits; others are not found.
	}
	if n = r.next(); n > uint64(len(r.b))+1 {
		return cs, errEntry(ref)
	}
	if n > maxChunks {
		return cs, errs.New(errs.Internal, "its index is corrupted: series %d has %d chunks, %d can be read", ref, n, maxChunks)
	}
	var place, end int64
	for i := range n {
		var c Chunk
		if i == 0 {
			c.MinTime = r.signed()
		} else {
			c.MinTime = end + int64(r.next()) //nolint:gosec // It comes back as it went.
		}
		c.MaxTime = c.MinTime + int64(r.next()) //nolint:gosec // As above.
		end = c.MaxTime
		if i == 0 {
			place = int64(r.next()) //nolint:gosec // As above.
		} else {
			place += r.signed()
		}
		if c.MinTime <= maxt && c.MaxTime >= mint {
			c.ref = chunks.ChunkRef(place) //nolint:gosec // As above.
			cs = append(cs, c)
		}
	}
	if r.bad {
		return cs, errEntry(ref)
	}
	return cs, nil
}

func errEntry(ref storage.SeriesRef) error {
	return errs.New(errs.Internal, "its index is corrupted: the entry of series %d is cut off", ref)
}

// labels appends the text of the current series' labels to b, and returns the labels, which share it.
func (e *entries) labels(b []byte) ([]byte, labels.Labels, error) {
	start := len(b)
	same := 0 // labels that the last series had as well
	for 2*same < min(len(e.pairs), len(e.last)) && e.pairs[2*same] == e.last[2*same] && e.pairs[2*same+1] == e.last[2*same+1] {
		same++
	}
	e.ends = e.ends[:same]
	if same > 0 {
		b = append(b, e.text[:e.ends[same-1]]...)
	}
	for len(e.names) < len(e.pairs)/2 {
		e.names = append(e.names, word{})
	}
	for i := same; 2*i < len(e.pairs); i++ {
		name, ok := e.look(&e.names[i], e.pairs[2*i])
		value, found := e.look(&e.values[int(e.pairs[2*i+1])&(len(e.values)-1)], e.pairs[2*i+1])
		if !ok || !found || len(name) > labeltext.MaxBytes || len(value) > labeltext.MaxBytes {
			e.last, e.ends = e.last[:0], e.ends[:0]
			return b[:start], labels.EmptyLabels(), errs.New(errs.Internal, "its index is corrupted: a series has the symbols %d and %d of %d", e.pairs[2*i], e.pairs[2*i+1], e.symbols.n)
		}
		if len(b)-start+len(name)+len(value) > maxSeriesText {
			e.last, e.ends = e.last[:0], e.ends[:0]
			return b[:start], labels.EmptyLabels(), errs.New(errs.Internal, "its index is corrupted: the labels of a series have more than %d bytes", maxSeriesText)
		}
		b = labeltext.AppendLabel(b, name, value)
		e.ends = append(e.ends, len(b)-start)
	}
	e.last, e.pairs = e.pairs, e.last
	e.text = b[start:len(b):len(b)]
	ls, ok := labeltext.View(e.text)
	if !ok {
		return b[:start], ls, errs.New(errs.Internal, "its index is corrupted: a label of a series has no name")
	}
	return b, ls, nil
}

// look returns the text of a symbol, from w if that is it.
func (e *entries) look(w *word, symbol uint32) ([]byte, bool) {
	if w.symbol == symbol && w.known {
		return w.text, true
	}
	text, ok := e.symbols.text(symbol)
	if ok {
		*w = word{symbol, true, text}
	}
	return text, ok
}

// numbers reads varints.
type numbers struct {
	b   []byte
	bad bool
}

func (r *numbers) next() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *numbers) signed() int64 {
	v := r.next()
	return int64(v>>1) ^ -int64(v&1) //nolint:gosec // As varints have it.
}

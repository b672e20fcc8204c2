package stream

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// samples is what was read of one series, sorted by time, one for each time.
type samples struct {
	ts []int64
	vs []float64
	// allTs and allVs have what was read for ts and vs, and are used again.
	allTs []int64
	allVs []float64
	it    chunkenc.Iterator // used again

	metas []chunks.Meta
}

// load replaces s by the samples of sr with mint <= t <= maxt, and maybe some before and behind them.
// Staleness markers are among them only if stale is set. Errors: errHistograms, those of sr.
func (s *samples) load(sr storage.Series, mint, maxt int64, stale bool) error {
	s.ts, s.vs = s.allTs[:0], s.allVs[:0]
	if c, ok := sr.(Chunked); ok {
		if done, err := s.decode(c, mint, maxt); done || err != nil {
			if !stale {
				s.dropStale()
			}
			return err
		}
		s.ts, s.vs = s.ts[:0], s.vs[:0]
	}
	defer func() { s.allTs, s.allVs = s.ts, s.vs }()
	s.it = sr.Iterator(s.it)
	for typ := s.it.Seek(mint); typ != chunkenc.ValNone; typ = s.it.Next() {
		if typ != chunkenc.ValFloat {
			return errHistograms
		}
		t, v := s.it.At()
		if t > maxt {
			break
		}
		if stale || present(v) {
			s.ts, s.vs = append(s.ts, t), append(s.vs, v)
		}
	}
	return s.it.Err()
}

// decode reads the chunks of c. It gives up, and done is false, if they overlap or are of another
// kind than nearly all are.
func (s *samples) decode(c Chunked, mint, maxt int64) (done bool, err error) {
	metas, from, to, ok := c.Chunks(s.metas[:0])
	if s.metas = metas; !ok {
		return false, nil
	}
	mint, maxt = max(mint, from), min(maxt, to)
	for i := range metas {
		m := &metas[i]
		if m.MaxTime < mint {
			continue
		}
		if m.MinTime > maxt {
			break
		}
		switch m.Chunk.Encoding() {
		case chunkenc.EncXOR:
		case chunkenc.EncXOR2:
			return false, nil
		default:
			return false, errHistograms
		}
		n := len(s.ts)
		if err := s.appendXOR(m); err != nil {
			return false, err
		}
		if n > 0 && len(s.ts) > n && s.ts[n] <= s.ts[n-1] {
			return false, nil
		}
	}
	s.allTs, s.allVs = s.ts, s.vs
	lo, _ := slices.BinarySearch(s.ts, from)
	hi := len(s.ts)
	if to < math.MaxInt64 {
		hi, _ = slices.BinarySearch(s.ts, to+1)
	}
	s.ts, s.vs = s.ts[lo:max(lo, hi)], s.vs[lo:max(lo, hi)]
	return true, nil
}

func (s *samples) dropStale() {
	n := 0
	for n < len(s.vs) && present(s.vs[n]) {
		n++
	}
	for i := n; i < len(s.vs); i++ {
		if present(s.vs[i]) {
			s.ts[n], s.vs[n] = s.ts[i], s.vs[i]
			n++
		}
	}
	s.ts, s.vs = s.ts[:n], s.vs[:n]
}

// errBroken is of a chunk that ends before its last sample.
func errBroken() error { return errs.New(errs.Internal, "a chunk is shorter than its samples") }

// xorHeaderBytes is the number of samples before the stream of bits.
const xorHeaderBytes = 2

// appendXOR appends the samples of a chunk. The stream is that of chunkenc.XORChunk: a time and a
// value, a difference of times and a value, and then differences of differences and values.
func (s *samples) appendXOR(m *chunks.Meta) error {
	data := m.Chunk.Bytes()
	if len(data) < xorHeaderBytes {
		return errBroken()
	}
	n := int(binary.BigEndian.Uint16(data))
	b := data[xorHeaderBytes:]
	if n == 0 {
		return nil
	}
	t, k := binary.Varint(b)
	if k <= 0 || len(b) < k+8 {
		return errBroken()
	}
	bits := binary.BigEndian.Uint64(b[k:])
	at := k + 8
	// Every sample but the first takes two bits at least, so a short chunk cannot ask for much.
	if n > 4*len(data)+1 {
		return errBroken()
	}
	from := len(s.ts)
	s.ts, s.vs = slices.Grow(s.ts, n)[:from+n], slices.Grow(s.vs, n)[:from+n]
	ts, vs := s.ts[from:], s.vs[from:]
	ts[0], vs[0] = t, math.Float64frombits(bits)
	if n == 1 {
		return nil
	}
	d, k := binary.Uvarint(b[at:])
	if k <= 0 {
		return errBroken()
	}
	r := bitReader{b: b, pos: uint(at+k) * 8}
	x := xorValue{bits: bits}
	x.read(&r)
	t += int64(d)
	ts[1], vs[1] = t, math.Float64frombits(x.bits)
	r.readSamples(ts, vs, int64(d), x)
	if r.pos > uint(len(b))*8 {
		return errBroken()
	}
	return nil
}

// readSamples reads the samples from the third on. delta is the difference of the times of the first
// two, x the second value.
func (r *bitReader) readSamples(ts []int64, vs []float64, delta int64, x xorValue) {
	t, b, pos := ts[1], r.b, r.pos
	vs = vs[:len(ts)]
	i := 2
	for ; i < len(ts); i++ {
		o := pos >> 3
		if o+8 > uint(len(b)) {
			break
		}
		// Nearly all samples lie within the 57 bits that one load has at least.
		w := binary.BigEndian.Uint64(b[o:]) << (pos & 7)
		used := uint(1)
		if w>>63 != 0 {
			if w>>60 == 0b1111 {
				r.pos = pos
				delta += r.readDelta(w)
				pos, used, w = r.pos, 0, r.peek()
			} else {
				var d int64
				d, used = shortDelta(w)
				delta += d
				w <<= used
			}
		} else {
			w <<= 1
		}
		t += delta
		switch {
		case w>>63 == 0:
			pos += used + 1
		default:
			if w>>62 == 0b11 {
				x.where(w)
				w, used = w<<13, used+13
			} else {
				w, used = w<<2, used+2
			}
			if width := 64 - uint(x.lead) - uint(x.trail); used+width <= 57 {
				x.bits ^= w >> (64 - width) << x.trail
				pos += used + width
			} else {
				r.pos = pos + used
				x.bits ^= r.read(uint(64-x.lead-x.trail)) << x.trail
				pos = r.pos
			}
		}
		ts[i], vs[i] = t, math.Float64frombits(x.bits)
	}
	r.pos = pos
	r.readLast(ts[i:], vs[i:], t, delta, x)
}

// readLast is readSamples close to the end of the bits.
func (r *bitReader) readLast(ts []int64, vs []float64, t, delta int64, x xorValue) {
	for i := range ts {
		if w := r.peek(); w>>63 == 0 {
			r.pos++
		} else {
			delta += r.readDelta(w)
		}
		t += delta
		x.read(r)
		ts[i], vs[i] = t, math.Float64frombits(x.bits)
	}
}

// shortDelta returns a difference of differences of at most 20 bits that is not 0, and its bits.
func shortDelta(w uint64) (delta int64, used uint) {
	prefix, size := uint(4), uint(20)
	switch {
	case w>>62 == 0b10:
		prefix, size = 2, 14
	case w>>61 == 0b110:
		prefix, size = 3, 17
	}
	delta = int64(w << prefix >> (64 - size))
	if delta > 1<<(size-1) {
		delta -= 1 << size
	}
	return delta, prefix + size
}

// xorValue is the value before the next one, and where the two last differed.
type xorValue struct {
	bits        uint64
	lead, trail uint8
}

func (x *xorValue) read(r *bitReader) {
	w := r.peek()
	if w>>63 == 0 {
		r.pos++
		return
	}
	if w>>62 == 0b11 {
		x.where(w)
		r.pos += 13
	} else {
		r.pos += 2
	}
	x.bits ^= r.read(uint(64-x.lead-x.trail)) << x.trail
}

// where reads where the next value differs: two bits, 5 of lead, 6 of width.
func (x *xorValue) where(w uint64) {
	x.lead = uint8(w >> 57 & 31)
	width := uint8(w >> 51 & 63)
	if width == 0 {
		width = 64
	}
	x.trail = 64 - x.lead - width
}

// bitReader reads bits, zeroes behind the end.
type bitReader struct {
	b   []byte
	pos uint // in bits
}

// peek returns the next 57 bits at least, from the highest one on.
func (r *bitReader) peek() uint64 {
	o := r.pos >> 3
	if o+8 <= uint(len(r.b)) {
		return binary.BigEndian.Uint64(r.b[o:]) << (r.pos & 7)
	}
	var x [8]byte
	if o < uint(len(r.b)) {
		copy(x[:], r.b[o:])
	}
	return binary.BigEndian.Uint64(x[:]) << (r.pos & 7)
}

// read returns the next n bits, 1 to 64.
func (r *bitReader) read(n uint) uint64 {
	if n <= 56 {
		v := r.peek() >> (64 - n)
		r.pos += n
		return v
	}
	hi := r.read(n - 32)
	return hi<<32 | r.read(32)
}

// readDelta returns a difference of differences that is not 0; w is what peek returned.
func (r *bitReader) readDelta(w uint64) int64 {
	if w>>60 == 0b1111 {
		r.pos += 4
		return int64(r.read(64))
	}
	d, used := shortDelta(w)
	r.pos += used
	return d
}

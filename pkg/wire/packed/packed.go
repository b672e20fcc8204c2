// Package packed owns how series lie in one piece of memory on their way between processes: their
// chunks from ingesters to queriers, their points from queriers to frontends. Who reads them takes
// nothing apart and copies nothing: labels and chunks share the memory of the message, which stays as
// long as any of them is in use.
//
// A series is the length of its labels' text, that text, and what belongs to it. The text has each name
// and value behind its length, sorted by name: one byte, or for 255 bytes and more the byte 255 and
// three bytes, the lowest first. All other numbers are varints, with a sign where one may be below zero.
//
//	series of chunks = labels {encoding min_time max_time-min_time length data} 0
//	series of points = labels number*2+regular [first time] [times] values
//
// An encoding is the one byte of chunkenc.Encoding, none of which is 0. Of regular times, which are
// equally far apart, one distance is there if there are two or more; of others the distance of each from
// the one before. Values are the 8 bytes of float64, the lowest first.
package packed

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/labeltext"
)

// AppendLabels appends how a series begins.
func AppendLabels(b []byte, ls labels.Labels) []byte {
	text := labeltext.Of(ls)
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// Chunk is one chunk of a series.
type Chunk struct {
	MinTime, MaxTime int64
	Encoding         chunkenc.Encoding
	Data             []byte
}

// AppendChunk appends a chunk to a series.
func AppendChunk(b []byte, c Chunk) []byte {
	b = binary.AppendVarint(append(b, byte(c.Encoding)), c.MinTime)
	b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime)) //nolint:gosec // It comes back as it went.
	return append(binary.AppendUvarint(b, uint64(len(c.Data))), c.Data...)
}

// EndChunks appends that a series has no more chunks.
func EndChunks(b []byte) []byte { return append(b, byte(chunkenc.EncNone)) }

// PointBytes is about what a point takes, and SeriesBytes a series beside its text and its points.
const (
	PointBytes  = 9
	SeriesBytes = 12
)

// AppendPoints appends the points of a series, which are sorted by time.
func AppendPoints(b []byte, ps []promql.FPoint) []byte {
	n := len(ps)
	if n == 0 {
		return append(b, 0)
	}
	regular := uint64(1)
	for i := 2; i < n; i++ {
		if ps[i].T-ps[i-1].T != ps[1].T-ps[0].T {
			regular = 0
			break
		}
	}
	b = binary.AppendUvarint(b, uint64(n)<<1|regular)
	b = binary.AppendVarint(b, ps[0].T)
	for i := 1; i < n; i++ {
		b = binary.AppendVarint(b, ps[i].T-ps[i-1].T)
		if regular == 1 {
			break
		}
	}
	for i := range ps {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(ps[i].F))
	}
	return b
}

// AppendPoint appends the one point of a series.
func AppendPoint(b []byte, t int64, v float64) []byte {
	b = binary.AppendVarint(append(b, 1<<1|1), t)
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}

// Reader reads series. What it returns shares the memory it reads, which must not change any more.
type Reader struct {
	b    []byte
	bad  bool
	open bool // the chunks or points of the current series are still to be read
}

// Read returns a reader of series.
func Read(b []byte) Reader { return Reader{b: b} }

// Next returns the labels of the next series, whose chunks or points must have been read before it is
// called again. Without ok there is none, or Err says what is wrong.
func (r *Reader) Next() (ls labels.Labels, ok bool) {
	if len(r.b) == 0 || r.bad || r.open {
		r.bad = r.bad || r.open
		return labels.EmptyLabels(), false
	}
	text, ok := r.bytes()
	if !ok {
		return labels.EmptyLabels(), false
	}
	if ls, ok = labeltext.View(text); !ok {
		r.bad = true
	}
	r.open = ok
	return ls, ok
}

// Chunk returns the next chunk of the series. Without ok there is none, or Err says what is wrong.
func (r *Reader) Chunk() (c Chunk, ok bool) {
	if len(r.b) == 0 || r.bad {
		r.bad = true
		return c, false
	}
	c.Encoding, r.b = chunkenc.Encoding(r.b[0]), r.b[1:]
	if c.Encoding == chunkenc.EncNone {
		r.open = false
		return c, false
	}
	c.MinTime = r.varint()
	c.MaxTime = c.MinTime + int64(r.uvarint()) //nolint:gosec // As it went.
	c.Data, ok = r.bytes()
	return c, ok
}

// Points appends the points of the series. Without ok, Err says what is wrong.
func (r *Reader) Points(to []promql.FPoint) (_ []promql.FPoint, ok bool) {
	r.open = false
	head := r.uvarint()
	n, regular := head>>1, head&1 == 1
	if r.bad || n > uint64(len(r.b)/8) {
		r.bad = true
		return to, false
	}
	if n == 0 {
		return to, true
	}
	from := len(to)
	t := r.varint()
	to = append(to, promql.FPoint{T: t})
	distance := int64(0)
	for i := uint64(1); i < n; i++ {
		if i == 1 || !regular {
			distance = r.varint()
		}
		t += distance
		to = append(to, promql.FPoint{T: t})
	}
	if r.bad || n > uint64(len(r.b)/8) {
		r.bad = true
		return to[:from], false
	}
	for i := range to[from:] {
		to[from+i].F = math.Float64frombits(binary.LittleEndian.Uint64(r.b[8*i:]))
	}
	r.b = r.b[8*n:]
	return to, true
}

// Err returns what is wrong with what was read so far. Errors: Internal.
func (r *Reader) Err() error {
	if r.bad {
		return errs.New(errs.Internal, "series of an answer are cut off or broken")
	}
	return nil
}

func (r *Reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *Reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes reads bytes behind their length.
func (r *Reader) bytes() ([]byte, bool) {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil, false
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out, true
}

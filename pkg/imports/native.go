package imports

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

const (
	// maxFrameBytes bounds a frame: exports end one after the chunk with which it is over 1 MiB, and
	// what a frame takes decoded is several times its size.
	maxFrameBytes = 4 << 20
	// frameFactor is about how much memory decoding takes for a byte of a frame.
	frameFactor = 8
	// mostSamples bounds the samples that one series of the body has, for the encoder holds one at a time.
	mostSamples = 1000
	// histogramHeader is the bytes of a chunk of histograms before its bits.
	histogramHeader = 3
)

// Native makes a remote write 2.0 body of chunks in the frames of remote read, as export/native has them.
// Errors: Invalid, naming the frame; BodyTooLarge, those of room.
func Native(body []byte, o Options, buf []byte, room remotewrite.Room) (Result, error) {
	w := new(writer)
	w.begin(o, buf, room)
	return w.end(w.frames(body))
}

func (w *writer) frames(body []byte) error {
	table := crc32.MakeTable(crc32.Castagnoli)
	for number := 1; len(body) > 0; number++ {
		size, n := binary.Uvarint(body)
		switch {
		case n <= 0 || size > uint64(len(body)) || len(body) < n+crc32.Size+int(size):
			return errs.New(errs.Invalid, "frame %d is not whole, nothing is stored: cut exports between frames only", number)
		case size > maxFrameBytes:
			return errs.New(errs.Invalid, "frame %d has %d bytes, the most is %d; nothing is stored", number, size, maxFrameBytes)
		}
		sum, frame := binary.BigEndian.Uint32(body[n:]), body[n+crc32.Size:n+crc32.Size+int(size)]
		body = body[n+crc32.Size+int(size):]
		if crc32.Checksum(frame, table) != sum {
			return errs.New(errs.Invalid, "frame %d is damaged, its checksum does not fit; nothing is stored", number)
		}
		if err := w.enc.Reserve(frameFactor * len(frame)); err != nil {
			return err
		}
		var resp prompb.ChunkedReadResponse
		if err := resp.Unmarshal(frame); err != nil {
			return errs.New(errs.Invalid, "frame %d, nothing is stored: %w", number, err)
		}
		for _, s := range resp.ChunkedSeries {
			if err := w.chunked(s); err != nil {
				return errs.Wrap(errs.KindOf(err), fmt.Errorf("frame %d, nothing is stored: %w", number, err))
			}
		}
	}
	return nil
}

// chunked writes the samples of the chunks of a series.
func (w *writer) chunked(s *prompb.ChunkedSeries) error {
	b := labels.NewScratchBuilder(len(s.Labels))
	for _, l := range s.Labels {
		b.Add(l.Name, l.Value)
	}
	b.Sort()
	ls := b.Labels()
	var it chunkenc.Iterator
	for _, c := range s.Chunks {
		chunk, err := soundChunk(c)
		if err != nil {
			return err
		}
		if chunk == nil {
			continue
		}
		it = chunk.Iterator(it)
		for more := true; more; {
			if more, err = w.some(ls, it); err != nil {
				return err
			}
		}
	}
	return nil
}

// some writes up to mostSamples samples as a series. more is false if there are none behind them.
func (w *writer) some(ls labels.Labels, it chunkenc.Iterator) (more bool, err error) {
	n := 0
	for ; n < mostSamples; n++ {
		kind := it.Next()
		if kind == chunkenc.ValNone {
			break
		}
		if n == 0 {
			if err := w.series(ls); err != nil {
				return false, err
			}
		}
		switch kind {
		case chunkenc.ValFloat:
			t, v := it.At()
			w.enc.Sample(v, t, 0)
		case chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			h.CounterResetHint = told(h.CounterResetHint)
			err = w.histogram(h, t)
		default:
			t, fh := it.AtFloatHistogram(nil)
			fh.CounterResetHint = told(fh.CounterResetHint)
			err = w.floatHistogram(fh, t)
		}
		if err != nil {
			return false, err
		}
	}
	if err := it.Err(); err != nil {
		return false, errs.New(errs.Invalid, "a chunk of %.200s: %w", ls, err)
	}
	if n == 0 {
		return false, nil
	}
	return n == mostSamples, w.enc.EndSeries()
}

// told is a hint as it is passed on: that there is no reset follows from the samples.
func told(h histogram.CounterResetHint) histogram.CounterResetHint {
	if h == histogram.NotCounterReset {
		return histogram.UnknownCounterReset
	}
	return h
}

// soundChunk returns a chunk whose reading takes memory by its size, whoever made it; nil: it is empty.
func soundChunk(c prompb.Chunk) (chunkenc.Chunk, error) {
	enc, header := chunkenc.Encoding(c.Type), 2
	native := false
	switch enc {
	case chunkenc.EncXOR:
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		native, header = true, histogramHeader
	default:
		return nil, errs.New(errs.Invalid, "a chunk has the encoding %d, which is unknown here", c.Type)
	}
	if len(c.Data) < header {
		return nil, errs.New(errs.Invalid, "a chunk has %d bytes, the least is %d", len(c.Data), header)
	}
	if binary.BigEndian.Uint16(c.Data) == 0 {
		return nil, nil
	}
	if native {
		if n := bucketsOf(c.Data[histogramHeader:]); n > remotewrite.MaxBuckets {
			return nil, errs.New(errs.Invalid, "the histograms of a chunk have %d buckets, the most is %d", n, remotewrite.MaxBuckets)
		}
	}
	chunk, err := chunkenc.FromData(enc, c.Data)
	return chunk, errs.Wrap(errs.Invalid, err)
}

// bucketsOf is how many buckets the layout of a chunk of histograms announces: its reader makes room for
// all of them before it sees any.
func bucketsOf(b []byte) uint64 {
	r := bits{b: b}
	if r.read(8) == 255 {
		r.read(64) // a zero threshold that is no power of two
	}
	r.varbit() // schema
	total := uint64(0)
	for range 2 {
		for n := r.varbit(); n > 0 && !r.ended(); n-- {
			total += min(r.varbit(), math.MaxUint32)
			r.varbit() // offset
		}
	}
	return total
}

// bits reads numbers of bits, the highest first. Behind the end there are zeros.
type bits struct {
	b  []byte
	at int
}

func (r *bits) ended() bool { return r.at >= 8*len(r.b) }

func (r *bits) read(n int) (v uint64) {
	for range n {
		v <<= 1
		if !r.ended() {
			v |= uint64(r.b[r.at/8]>>(7-r.at%8)) & 1
		}
		r.at++
	}
	return v
}

// varbit reads a number behind ones that say how long it is.
func (r *bits) varbit() uint64 {
	ones := 0
	for ones < 8 && r.read(1) == 1 {
		ones++
	}
	return r.read([...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}[ones])
}

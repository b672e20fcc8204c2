package imports

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/chunkcheck"
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

// chunked writes the samples of the chunks of a series, as series of up to mostSamples.
func (w *writer) chunked(s *prompb.ChunkedSeries) error {
	b := labels.NewScratchBuilder(len(s.Labels))
	for _, l := range s.Labels {
		b.Add(l.Name, l.Value)
	}
	b.Sort()
	ls := b.Labels()
	n := 0
	for _, c := range s.Chunks {
		err := chunkcheck.Each(chunkenc.Encoding(c.Type), c.Data, func(x *chunkcheck.Sample) error {
			if n == 0 {
				if err := w.series(ls); err != nil {
					return err
				}
			}
			if err := w.checked(x); err != nil {
				return err
			}
			if n++; n < mostSamples {
				return nil
			}
			n = 0
			return w.enc.EndSeries()
		})
		if err != nil {
			return errs.Wrap(errs.KindOf(err), fmt.Errorf("a chunk of %.200s: %w", ls, err))
		}
	}
	if n == 0 {
		return nil
	}
	return w.enc.EndSeries()
}

// checked writes a sample of the series that was begun.
func (w *writer) checked(x *chunkcheck.Sample) error {
	switch x.Kind {
	case chunkenc.ValFloat:
		w.enc.Sample(x.V, x.T, 0)
		return nil
	case chunkenc.ValHistogram:
		x.H.CounterResetHint = told(x.H.CounterResetHint)
		return w.histogram(x.H, x.T)
	default:
		x.FH.CounterResetHint = told(x.FH.CounterResetHint)
		return w.floatHistogram(x.FH, x.T)
	}
}

// told is a hint as it is passed on: that there is no reset follows from the samples.
func told(h histogram.CounterResetHint) histogram.CounterResetHint {
	if h == histogram.NotCounterReset {
		return histogram.UnknownCounterReset
	}
	return h
}

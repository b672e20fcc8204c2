// Package chunkcheck reads chunks of samples that anybody may have made: those of imports and of uploaded
// blocks. What a chunk announces is looked at before its reader makes room for it, and where upstream's
// readers panic for a damaged chunk, an error is returned.
package chunkcheck

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// headerBytes is the bytes of a chunk before its bits: floats have no flags but in XOR2.
const (
	xorHeaderBytes = 2
	headerBytes    = 3
)

// Sample is a sample of a chunk. It is valid until the next one is read.
type Sample struct {
	Kind chunkenc.ValueType
	T    int64 // milliseconds
	V    float64
	H    *histogram.Histogram
	FH   *histogram.FloatHistogram
}

// Each calls f for the samples of a chunk, in the order in which they stand there, until f fails. It takes
// memory by the size of data, and keeps none of it. Errors: Invalid for a chunk that cannot be read, behind
// the samples that can; those of f as they are.
func Each(enc chunkenc.Encoding, data []byte, f func(*Sample) error) error {
	c, err := sound(enc, data)
	if err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	if c.NumSamples() == 0 {
		return nil
	}
	r := reader{it: c.Iterator(nil)}
	for {
		ok, err := r.next()
		if err != nil {
			return errs.Wrap(errs.Invalid, err)
		}
		if !ok {
			return nil
		}
		if err := f(&r.Sample); err != nil {
			return err
		}
	}
}

// Open returns a chunk that upstream's readers do not panic for, and that takes memory by the size of data, of
// which it is made. It reads few bytes of it unless what they say is rare. Errors: Invalid.
func Open(enc chunkenc.Encoding, data []byte) (chunkenc.Chunk, error) {
	c, err := sound(enc, data)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if native(enc) && layoutOf(data[headerBytes:]).schema > histogram.ExponentialSchemaMax {
		// Its histograms are made coarser as they are read, for which some cannot be.
		if err := Each(enc, data, func(*Sample) error { return nil }); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// native says whether chunks have histograms.
func native(enc chunkenc.Encoding) bool {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	}
	return false
}

type reader struct {
	it chunkenc.Iterator
	Sample
}

// next reads a sample. Upstream's readers panic, as of histograms of a finer schema that cannot be made coarser.
func (r *reader) next() (ok bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			ok, err = false, fmt.Errorf("damaged: %v", p)
		}
	}()
	r.Sample = Sample{Kind: r.it.Next()}
	switch r.Kind {
	case chunkenc.ValNone:
		return false, r.it.Err()
	case chunkenc.ValFloat:
		r.T, r.V = r.it.At()
	case chunkenc.ValHistogram:
		r.T, r.H = r.it.AtHistogram(nil)
	default:
		r.T, r.FH = r.it.AtFloatHistogram(nil)
	}
	return true, nil
}

// sound returns the chunk of data if its header is whole and announces no more than there can be.
func sound(enc chunkenc.Encoding, data []byte) (chunkenc.Chunk, error) {
	header := headerBytes
	switch {
	case enc == chunkenc.EncXOR:
		header = xorHeaderBytes
	case enc != chunkenc.EncXOR2 && !native(enc):
		return nil, fmt.Errorf("the encoding %d is unknown here", enc)
	}
	if len(data) < header {
		return nil, fmt.Errorf("%d bytes, the least is %d", len(data), header)
	}
	if native(enc) {
		if n := layoutOf(data[header:]).buckets; n > remotewrite.MaxBuckets {
			return nil, fmt.Errorf("histograms of %d buckets, the most is %d", n, remotewrite.MaxBuckets)
		}
	}
	return chunkenc.FromData(enc, data)
}

// layout is what a chunk of histograms announces.
type layout struct {
	schema  int32
	buckets uint64 // its reader makes room for all of them before it sees any
}

func layoutOf(b []byte) (l layout) {
	r := bits{b: b}
	if r.read(8) == 255 {
		r.read(64) // a zero threshold that is no power of two
	}
	l.schema = int32(r.signed()) //nolint:gosec // As its reader does.
	for range 2 {
		for n := r.varbit(); n > 0 && !r.ended(); n-- {
			l.buckets += min(r.varbit(), math.MaxUint32)
			r.varbit() // offset
		}
	}
	return l
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
func (r *bits) varbit() uint64 { return r.read(r.width()) }

// signed reads one that may be negative.
func (r *bits) signed() int64 {
	n := r.width()
	v := int64(r.read(n)) //nolint:gosec // It comes back as it went.
	if n > 0 && n < 64 && v > 1<<(n-1) {
		v -= 1 << n
	}
	return v
}

func (r *bits) width() int {
	ones := 0
	for ones < 8 && r.read(1) == 1 {
		ones++
	}
	return [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}[ones]
}

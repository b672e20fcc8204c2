package remotewrite

import (
	"math"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// maxItems bounds the series, samples, symbols and other parts of one request. The smallest
	// part takes two bytes of a body and up to 80 of a Batch; Prometheus sends 2,000 samples a
	// request, and senders with larger batches stay below 100,000.
	maxItems = 1 << 20

	// maxBodyBytes keeps every offset in 31 bits.
	maxBodyBytes = math.MaxInt32

	// keepItems is the capacity up to which a Batch keeps its memory for the next request.
	keepItems = 1 << 16
)

// span is a range of bytes of the body, or, with inExtra set in n, of the batch's own buffer.
type span struct{ off, n uint32 }

const inExtra = 1 << 31

// series is what one series of a request has; the fields named end are positions in the columns
// of the batch behind its last part.
type series struct {
	labels       span
	samplesEnd   uint32
	histsEnd     uint32
	exemplarsEnd uint32
	meta         uint32 // position in metas plus one; 0: none
}

// seriesMeta is the metadata RW 2.0 attaches to a series.
type seriesMeta struct {
	kind       uint8
	help, unit uint32
	hash       uint64
}

// Batch is a scanned request: where everything lies in its body, with the float samples in
// columns. It can be used for one request after another and then allocates nothing. It refers to
// the body of the request until Release or the next Scan.
type Batch struct {
	// Hashes has one entry per series that carries anything but labels.
	Hashes []Hash
	// Times (milliseconds) and Values have one entry per float sample. StartTimes is empty or
	// has as many; 0 stands for unknown.
	Times      []int64
	Values     []float64
	StartTimes []int64
	// Several says that some series has more than one float sample.
	Several bool

	version   Version
	body      []byte
	extra     []byte // labels that are not contiguous in the body
	series    []series
	metas     []seriesMeta
	hists     []span
	exemplars []span
	metadata  []span // of RW 1.0
	symbols   []span // of RW 2.0
	symHashes []Hash
	rows      []span // series messages of RW 2.0, found before the symbols are complete
	borrowed  bool   // extra, symbols and symHashes belong to another batch
}

// Scan walks req and replaces what b holds. Labels are hashed, but looked into only by Labels,
// as histograms, exemplars and metadata are by their methods. Errors: Invalid, naming what is
// malformed; BodyTooLarge if the request has too many parts.
func (b *Batch) Scan(k *Keys, req *Request) error {
	b.reset()
	if len(req.Body) > maxBodyBytes {
		return errs.New(errs.BodyTooLarge, "remote write request has %d bytes, at most %d are allowed", len(req.Body), maxBodyBytes)
	}
	b.version, b.body = req.Version, req.Body
	switch req.Version {
	case V1:
		return b.scanV1(k)
	case V2:
		return b.scanV2(k)
	}
	return errs.New(errs.Unsupported, "unknown remote write version %d", req.Version)
}

// Release forgets the body. Columns and hashes stay valid until the next Scan.
func (b *Batch) Release() {
	b.body = nil
	if b.borrowed {
		b.extra, b.symbols, b.symHashes, b.borrowed = nil, nil, nil, false
	}
}

func (b *Batch) reset() {
	b.Release()
	b.body, b.Several = nil, false
	b.Hashes, b.Times, b.Values, b.StartTimes = trim(b.Hashes), trim(b.Times), trim(b.Values), trim(b.StartTimes)
	b.series, b.metas, b.hists, b.exemplars = trim(b.series), trim(b.metas), trim(b.hists), trim(b.exemplars)
	b.metadata, b.symbols, b.symHashes, b.rows = trim(b.metadata), trim(b.symbols), trim(b.symHashes), trim(b.rows)
	if b.extra = b.extra[:0]; cap(b.extra) > keepItems*16 {
		b.extra = nil
	}
}

// trim empties s and keeps its memory unless one large request made it unusually big.
func trim[T any](s []T) []T {
	if cap(s) > keepItems {
		return nil
	}
	return s[:0]
}

// room fails once the request has too many parts.
func (b *Batch) room() error {
	n := len(b.series) + len(b.Times) + len(b.hists) + len(b.exemplars) + len(b.metadata) + len(b.symbols) + len(b.rows)
	if n <= maxItems {
		return nil
	}
	return errs.New(errs.BodyTooLarge, "remote write request has more than %d series, samples and other parts; send smaller requests", maxItems)
}

// Len is the number of series.
func (b *Batch) Len() int { return len(b.Hashes) }

// Samples returns the range of series i in Times and Values.
func (b *Batch) Samples(i int) (from, to int) {
	if i > 0 {
		from = int(b.series[i-1].samplesEnd)
	}
	return from, int(b.series[i].samplesEnd)
}

// Histograms returns the range of series i for Histogram.
func (b *Batch) Histograms(i int) (from, to int) {
	if i > 0 {
		from = int(b.series[i-1].histsEnd)
	}
	return from, int(b.series[i].histsEnd)
}

// Exemplars returns the range of series i for Exemplar.
func (b *Batch) Exemplars(i int) (from, to int) {
	if i > 0 {
		from = int(b.series[i-1].exemplarsEnd)
	}
	return from, int(b.series[i].exemplarsEnd)
}

// HistogramCount is the number of native histogram samples of the request.
func (b *Batch) HistogramCount() int { return len(b.hists) }

// ExemplarCount is the number of exemplars of the request.
func (b *Batch) ExemplarCount() int { return len(b.exemplars) }

// bytes returns what s spans.
func (b *Batch) bytes(s span) []byte {
	if s.n&inExtra != 0 {
		n := s.n &^ inExtra
		return b.extra[s.off : s.off+n]
	}
	return b.body[s.off : s.off+s.n]
}

// addSample appends one float sample.
func (b *Batch) addSample(v float64, t, start int64) {
	b.Values = append(b.Values, v)
	b.Times = append(b.Times, t)
	if start != 0 || len(b.StartTimes) > 0 {
		for len(b.StartTimes) < len(b.Times)-1 {
			b.StartTimes = append(b.StartTimes, 0)
		}
		b.StartTimes = append(b.StartTimes, start)
	}
}

// endSeries closes the series whose parts were appended since the last call. A series that
// carries nothing is forgotten.
func (b *Batch) endSeries(h Hash, labels span, meta uint32) error {
	var last series
	if n := len(b.series); n > 0 {
		last = b.series[n-1]
	}
	s := series{labels, uint32(len(b.Times)), uint32(len(b.hists)), uint32(len(b.exemplars)), meta}
	if s.samplesEnd == last.samplesEnd && s.histsEnd == last.histsEnd && s.exemplarsEnd == last.exemplarsEnd && meta == 0 {
		return nil
	}
	if s.samplesEnd-last.samplesEnd > 1 {
		b.Several = true
	}
	b.series = append(b.series, s)
	b.Hashes = append(b.Hashes, h)
	return b.room()
}

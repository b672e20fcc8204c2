package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/amphora-metrics/amphora/pkg/block/paged"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// batchSeries is how many series are read ahead: enough that the requests for their chunks can
	// be joined, few enough that a batch fits into memory.
	batchSeries = 2048
	// batchChunks ends a batch early, for series with many chunks.
	batchChunks = 64 << 10
	// batchText ends a batch early, for series with long labels.
	batchText = 16 << 20

	// aheadSeries is of how many series everything is fetched once something has to be: requests cost more
	// than what they bring.
	aheadSeries = 8 * batchSeries

	// seriesGuess and chunkGuess are how much is fetched of a series or chunk before its length is
	// known.
	seriesGuess = 512
	chunkGuess  = 1024

	// refBytes, seriesBytes and chunkBytes are what a reference to a series, a series beside its text and a
	// chunk take in memory.
	refBytes    = 8
	seriesBytes = 120
	chunkBytes  = 96
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Selection says what is read of a block.
type Selection struct {
	MinTime, MaxTime int64 // milliseconds, both inclusive
	Matchers         []*labels.Matcher
	// Only series whose labels hash (labels.StableHash) modulo ShardCount is ShardIndex; 0: all.
	ShardIndex, ShardCount uint64
	// LabelsOnly leaves the chunks out.
	LabelsOnly bool
	// Memory is told how many bytes reading takes, or gives back if negative; its error ends the
	// reading. nil: nobody counts. Calls may come from several goroutines.
	Memory func(bytes int64) error
}

// Work is what reading took.
type Work struct {
	paged.Traffic
	Postings, Series, Chunks int
}

// Chunk is a chunk of a series. Its data lies in the local copy of the block.
type Chunk struct {
	MinTime, MaxTime int64
	Encoding         chunkenc.Encoding
	Data             []byte
	ref              chunks.ChunkRef
}

// Series is one series with those of its chunks that may have samples of the selected time. All of it is
// valid until the next one is asked for.
type Series struct {
	Labels labels.Labels
	Chunks []Chunk
}

// SeriesSet yields the series of a selection in the order of their labels. It is for one goroutine.
type SeriesSet struct {
	// Waits is called before reading waits for what is not on the local disk, and what it returns after
	// that. nil: nobody wants to know.
	Waits func() (over func())

	ctx     context.Context
	block   *Block
	sel     Selection
	refs    []storage.SeriesRef
	files   []*paged.File // segments in use
	entries *entries

	batch *batch
	at    int
	work  Work
	err   error
	held  int64 // bytes of the batch and of refs that Memory was told of
}

// batch is the memory of series that are read ahead.
type batch struct {
	series []Series
	chunks []Chunk
	text   []byte // of labels
}

// empty forgets the series: nothing stays that points to files which are closed one day.
func (b *batch) empty() {
	clear(b.series)
	clear(b.chunks)
	b.series, b.chunks, b.text = b.series[:0], b.chunks[:0], b.text[:0]
}

// keptText and keptChunks are how large a batch may be that waits for the next selection.
const (
	keptText   = 2 << 20
	keptChunks = 16 << 10
)

// Select begins to read. The set must be closed before the block. Errors: those of ctx, Internal if
// the block is corrupted, TooLarge, Unavailable.
func (b *Block) Select(ctx context.Context, sel Selection) (*SeriesSet, error) {
	s := &SeriesSet{ctx: ctx, block: b, sel: sel, at: -1, files: make([]*paged.File, len(b.opened.segments))}
	var err error
	if s.refs, err = b.expand(ctx, sel.Matchers); err != nil {
		return nil, fmt.Errorf("select from block %s: %w", b.opened.key.block, err)
	}
	s.work.Postings = len(s.refs)
	if err := s.hold(int64(len(s.refs)) * refBytes); err != nil {
		return nil, fmt.Errorf("select from block %s: %w", b.opened.key.block, err)
	}
	s.entries = b.opened.entries(len(s.refs))
	var ok bool
	if s.batch, ok = b.store.batches.Get().(*batch); !ok {
		s.batch = &batch{}
	}
	return s, nil
}

// hold tells whoever counts that reading takes n bytes now.
func (s *SeriesSet) hold(n int64) error {
	if s.sel.Memory == nil || n == s.held {
		return nil
	}
	more := n - s.held
	s.held = n
	return s.sel.Memory(more)
}

// expand returns the series that match, from the cache if they are there. The caller must not
// change them.
func (b *Block) expand(ctx context.Context, matchers []*labels.Matcher) (refs []storage.SeriesRef, err error) {
	key := postingsKey{b.opened.key, keyOf(matchers)}
	if refs, ok := b.store.postings.get(key); ok {
		return refs, nil
	}
	err = faults(func() error {
		p, err := tsdb.PostingsForMatchers(ctx, b.opened.index, slices.Clone(matchers)...) // it sorts them in place
		if err != nil {
			return err
		}
		refs, err = index.ExpandPostings(p)
		return err
	})
	if err != nil {
		return nil, b.corrupted(ctx, err)
	}
	b.store.postings.put(key, refs)
	return refs, nil
}

// corrupted gives errors of the index reader, which have no kind, the one they deserve, and counts those
// that a damaged block is to blame for.
func (b *Block) corrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	kind := errs.KindOf(err)
	if kind == errs.Internal {
		b.store.metrics.corrupted.Inc()
	}
	return errs.Wrap(kind, err)
}

func keyOf(matchers []*labels.Matcher) string {
	keys := make([]string, len(matchers))
	for i, m := range matchers {
		keys[i] = fmt.Sprintf("%d\xff%s\xff%s", m.Type, m.Name, m.Value)
	}
	slices.Sort(keys)
	return strings.Join(keys, "\xfe")
}

// Due says whether Next would read series ahead, as it has passed on all that were.
func (s *SeriesSet) Due() bool {
	return s.err == nil && s.at+1 >= len(s.batch.series) && len(s.refs) > 0
}

// Ahead reads the series that follow before Next does if that is due, so that those of several blocks can be
// read side by side. The one that Next moved to is no longer valid then. Its error is that of the set, too.
func (s *SeriesSet) Ahead() error {
	if s.Due() {
		if s.at, s.err = -1, s.read(); s.err != nil {
			s.batch.series = nil
		}
	}
	return s.err
}

// load fetches stretches of a file.
func (s *SeriesSet) load(f *paged.File, ranges []paged.Range) error {
	if s.Waits != nil && !f.Here(ranges) {
		defer s.Waits()()
	}
	t, err := f.Load(s.ctx, ranges...)
	s.work.Add(t)
	return err
}

// Next moves on to the next series; false at the end or after an error.
func (s *SeriesSet) Next() bool {
	s.at++
	for s.at >= len(s.batch.series) {
		if s.err != nil || len(s.refs) == 0 {
			return false
		}
		if s.Ahead() != nil {
			return false
		}
		s.at = 0
	}
	return true
}

// At is the series that Next moved to.
func (s *SeriesSet) At() Series { return s.batch.series[s.at] }

// Labels are those of the series that Next moved to.
func (s *SeriesSet) Labels() labels.Labels { return s.batch.series[s.at].Labels }

// Err is why Next ended early.
func (s *SeriesSet) Err() error { return s.err }

// Work is what reading took so far.
func (s *SeriesSet) Work() Work { return s.work }

// Close gives up the chunks' files. It may be called again.
func (s *SeriesSet) Close() error {
	var err error
	for i, f := range s.files {
		if f != nil {
			err = errors.Join(err, f.Close())
			s.files[i] = nil
		}
	}
	if b := s.batch; cap(b.text) > 0 && cap(b.text) <= keptText && cap(b.chunks) <= keptChunks {
		b.empty()
		s.block.store.batches.Put(b)
	}
	s.batch, s.entries, s.refs = &batch{}, nil, nil
	return err
}

// read fills the batch.
func (s *SeriesSet) read() error {
	if err := s.ctx.Err(); err != nil {
		return context.Cause(s.ctx)
	}
	n := min(len(s.refs), batchSeries)
	if err := s.foresee(s.refs, n); err != nil {
		return err
	}
	taken, err := s.readEntries(n)
	if err != nil {
		return fmt.Errorf("read series of block %s: %w", s.block.opened.key.block, s.block.corrupted(s.ctx, err))
	}
	s.refs = s.refs[taken:]
	s.work.Series += taken
	b := s.batch
	size := int64(len(s.refs))*refBytes + int64(len(b.chunks))*chunkBytes + int64(len(b.text)) + int64(len(b.series))*seriesBytes
	if err := s.hold(size); err != nil || len(b.chunks) == 0 {
		return err
	}
	if err := s.readChunks(); err != nil {
		return fmt.Errorf("read chunks of block %s: %w", s.block.opened.key.block, s.block.corrupted(s.ctx, err))
	}
	return nil
}

// readEntries fills the batch with the next n series or fewer, whose chunks have no data yet, and returns how
// many it looked at.
func (s *SeriesSet) readEntries(n int) (taken int, err error) {
	s.batch.empty()
	series, cs, text := s.batch.series, s.batch.chunks, s.batch.text
	err = faults(func() error {
		for _, ref := range s.refs[:n] {
			taken++
			from, start := len(cs), len(text)
			var err error
			if cs, err = s.entries.read(ref, cs, s.sel.MinTime, s.sel.MaxTime); err != nil {
				return err
			}
			if len(cs) == from {
				continue
			}
			var ls labels.Labels
			if text, ls, err = s.entries.labels(text); err != nil {
				return err
			}
			if s.sel.ShardCount > 0 && labels.StableHash(ls)%s.sel.ShardCount != s.sel.ShardIndex {
				cs, text = cs[:from], text[:start]
				continue
			}
			if s.sel.LabelsOnly {
				cs = cs[:from]
			}
			series = append(series, Series{ls, cs[from:len(cs):len(cs)]})
			if len(cs) >= batchChunks || len(text) >= batchText {
				break
			}
		}
		return nil
	})
	s.batch.series, s.batch.chunks, s.batch.text = series, cs, text
	return taken, err
}

// foresee fetches the part of the index that holds the first n series of refs, in few requests, and if it is
// not here that of those behind them.
func (s *SeriesSet) foresee(refs []storage.SeriesRef, n int) error {
	f := s.block.opened.file
	ranges := s.entriesOf(refs[:n])
	if n < len(refs) && !f.Here(ranges) {
		ranges = s.entriesOf(refs[:min(len(refs), aheadSeries)])
	}
	return s.load(f, ranges)
}

// entriesOf is where the index holds series.
func (s *SeriesSet) entriesOf(refs []storage.SeriesRef) []paged.Range {
	f := s.block.opened.file
	align := int64(s.block.opened.align())
	ranges := make([]paged.Range, 0, len(refs))
	for _, ref := range refs {
		from := int64(ref) * align
		to := min(from+seriesGuess, int64(f.Len()))
		if n := len(ranges); n > 0 && from <= ranges[n-1].To {
			ranges[n-1].To = to
			continue
		}
		ranges = append(ranges, paged.Range{From: from, To: to})
	}
	return ranges
}

// place is where a chunk lies.
type place struct{ segment, at int }

func placeOf(ref chunks.ChunkRef) place {
	seg, at := chunks.BlockChunkRef(ref).Unpack()
	return place{seg, at}
}

// readChunks finds the data of the batch's chunks: first their beginnings are fetched, which tell how long
// they are, then what is missing.
func (s *SeriesSet) readChunks() error {
	s.work.Chunks += len(s.batch.chunks)
	starts, ends := make(stretches, len(s.files)), make(stretches, len(s.files))
	if err := s.each(func(c *Chunk) error { return s.addStart(starts, c.ref) }); err != nil {
		return err
	}
	if !s.here(starts) {
		if err := s.addNext(starts); err != nil {
			return err
		}
	}
	if err := s.loadChunks(starts); err != nil {
		return err
	}
	if err := s.each(func(c *Chunk) error {
		p := placeOf(c.ref)
		from, to, err := chunkAt(s.files[p.segment], p.at)
		ends.add(p.segment, paged.Range{From: int64(from), To: int64(to)})
		return err
	}); err != nil {
		return err
	}
	if err := s.loadChunks(ends); err != nil {
		return err
	}
	for i := range s.batch.series {
		one := &s.batch.series[i]
		for j := range one.Chunks {
			c := &one.Chunks[j]
			p := placeOf(c.ref)
			f := s.files[p.segment]
			from, to, err := chunkAt(f, p.at)
			if err != nil {
				return err
			}
			b := f.Bytes(from, to)
			data := b[:len(b)-crc32.Size]
			if got, want := crc32.Checksum(data, castagnoli), binary.BigEndian.Uint32(b[len(data):]); got != want {
				return errs.New(errs.Internal, "it is corrupted: checksum %x of a chunk of series %s, %x is recorded", got, one.Labels, want)
			}
			c.Encoding, c.Data = chunkenc.Encoding(data[0]), data[chunks.ChunkEncodingSize:len(data):len(data)]
			if !chunkenc.IsValidEncoding(c.Encoding) {
				return errs.New(errs.Internal, "it is corrupted: a chunk of series %s has the encoding %d", one.Labels, c.Encoding)
			}
		}
	}
	return nil
}

// chunkAt returns where the encoding, data and checksum of the chunk at byte at lie.
func chunkAt(f *paged.File, at int) (from, to int, err error) {
	length, n := binary.Uvarint(f.Bytes(at, at+chunks.MaxChunkLengthFieldSize))
	from = at + n
	if n <= 0 || length < 2 || length > uint64(f.Len()) || from+chunks.ChunkEncodingSize+int(length)+crc32.Size > f.Len() {
		return 0, 0, errs.New(errs.Internal, "it is corrupted: a chunk at byte %d of %d has the length %d", at, f.Len(), length)
	}
	return from, from + chunks.ChunkEncodingSize + int(length) + crc32.Size, nil
}

// each calls f for the chunks of the batch.
func (s *SeriesSet) each(f func(*Chunk) error) error {
	for i := range s.batch.series {
		for j := range s.batch.series[i].Chunks {
			if err := f(&s.batch.series[i].Chunks[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// stretches are parts of segments.
type stretches [][]paged.Range

// add adds a part of a segment. Chunks mostly follow each other, so that few are left.
func (x stretches) add(segment int, r paged.Range) {
	rs := x[segment]
	if n := len(rs); n > 0 && r.From >= rs[n-1].From && r.From <= rs[n-1].To {
		rs[n-1].To = max(rs[n-1].To, r.To)
		return
	}
	x[segment] = append(rs, r)
}

// addStart adds where a chunk begins, as long as most are.
func (s *SeriesSet) addStart(to stretches, ref chunks.ChunkRef) error {
	p := placeOf(ref)
	f, err := s.segment(p.segment)
	if err != nil {
		return err
	}
	if p.at+chunks.MaxChunkLengthFieldSize > f.Len() {
		return errs.New(errs.Internal, "it is corrupted: a chunk begins at byte %d of %d", p.at, f.Len())
	}
	to.add(p.segment, paged.Range{From: int64(p.at), To: int64(min(p.at+chunkGuess, f.Len()))})
	return nil
}

// addNext adds where the chunks of those series begin that follow the batch.
func (s *SeriesSet) addNext(to stretches) error {
	refs := s.refs[:min(len(s.refs), aheadSeries-batchSeries)]
	if err := s.foresee(refs, len(refs)); err != nil {
		return err
	}
	return faults(func() error {
		var cs []Chunk
		for n := 0; len(refs) > 0 && n < batchChunks; n, refs = n+len(cs), refs[1:] {
			var err error
			if cs, err = s.entries.read(refs[0], cs[:0], s.sel.MinTime, s.sel.MaxTime); err != nil {
				return err
			}
			for i := range cs {
				if err := s.addStart(to, cs[i].ref); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// here says whether all parts are on the local disk.
func (s *SeriesSet) here(x stretches) bool {
	for i, rs := range x {
		if len(rs) > 0 && !s.files[i].Here(rs) {
			return false
		}
	}
	return true
}

// loadChunks fetches parts of segments.
func (s *SeriesSet) loadChunks(x stretches) error {
	for i, rs := range x {
		if len(rs) == 0 {
			continue
		}
		if err := s.load(s.files[i], rs); err != nil {
			return err
		}
	}
	return nil
}

// segment returns the file of segment n, which stays in use until the set is closed.
func (s *SeriesSet) segment(n int) (*paged.File, error) {
	if n < 0 || n >= len(s.files) {
		return nil, errs.New(errs.Internal, "it is corrupted: a chunk is in segment %d of %d", n+1, len(s.files))
	}
	if s.files[n] == nil {
		o := s.block.opened
		f, err := s.block.store.pages.Open(path.Join(string(o.key.tenant), o.key.block.String(), o.segments[n].RelPath), o.segments[n].SizeBytes)
		if err != nil {
			return nil, err
		}
		s.files[n] = f
	}
	return s.files[n], nil
}

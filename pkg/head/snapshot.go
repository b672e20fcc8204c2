package head

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// Snapshot is what a head had in memory, as files in a directory. The zero Snapshot is that of a
// head without series and has no files.
type Snapshot struct {
	Series  uint64
	MinTime int64 // milliseconds; chunks may hold older samples, which are in blocks
	Late    bool  // some samples are late ones
	// Exemplars is how many there are. The TSDB reads back as many as it has room for at open.
	Exemplars int
	Files     []SnapshotFile
}

// SnapshotFile is one file of a snapshot.
type SnapshotFile struct {
	Name  string // below the directory of the snapshot
	Bytes int64
	Sum   uint32 // CRC-32C
}

// LastSample is the newest sample of a series.
type LastSample struct {
	Time    int64 // milliseconds
	Buckets int   // of a native histogram; -1: it is a float
}

// The parts of a snapshot: closed chunks, as the TSDB keeps them beside an open head; series with
// their open chunks, as it writes them at shutdown; and the last sample of each series.
const (
	chunksDir    = "chunks_head"
	openDir      = "chunk_snapshot.000000.0000000000"
	openDirs     = "chunk_snapshot.*"
	lastFile     = "last"
	openedSeries = 1 // kind of a record in openDir
	openedExs    = 3

	snapshotBatch = 1 << 20 // bytes of records written at a time
	exemplarBatch = 1000
)

// Snapshot writes all that is in memory to dir, which is made anew; it is on disk when Snapshot
// returns. There must be no appends and no cuts meanwhile and afterwards.
func (h *Head) Snapshot(ctx context.Context, dir string) (_ Snapshot, err error) {
	defer recoverDisk(&err)
	if err := os.RemoveAll(dir); err != nil {
		return Snapshot{}, err
	}
	if h.NumSeries() == 0 {
		return Snapshot{}, nil
	}
	w, err := h.newSnapshotWriter(ctx, dir)
	if err != nil {
		return Snapshot{}, err
	}
	err = w.writeAll(ctx)
	if err = errors.Join(err, w.close()); err != nil {
		return Snapshot{}, errors.Join(fmt.Errorf("write snapshot: %w", err), os.RemoveAll(dir))
	}
	s := Snapshot{Series: w.series, MinTime: h.MinTime(), Late: w.late != nil, Exemplars: len(w.refs)}
	s.Files, err = filesOf(dir)
	return s, err
}

// snapshotWriter writes one snapshot. Series get new references, which count from 1.
type snapshotWriter struct {
	h        *Head
	index    tsdb.IndexReader
	chunks   tsdb.ChunkReader
	late     *tsdb.OOOCompactionHead // nil: there are no late samples
	lateIdx  tsdb.IndexReader
	lateChks tsdb.ChunkReader

	closed *chunks.ChunkDiskMapper
	open   *wlog.WL
	lastTo *os.File
	last   *bufio.Writer

	series    uint64
	exemplars map[uint64][]seriesExemplars // by the hash of the labels
	refs      []record.RefExemplar         // of those written
	builder   labels.ScratchBuilder
	metas     []chunks.Meta
	buf       []byte
	recs      [][]byte
	chunkErr  error
}

func (h *Head) newSnapshotWriter(ctx context.Context, dir string) (*snapshotWriter, error) {
	w := &snapshotWriter{h: h}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	err := w.openSources(ctx)
	if err == nil {
		w.closed, err = chunks.NewChunkDiskMapper(nil, filepath.Join(dir, chunksDir), chunkenc.NewPool(), chunkBufferBytes, 0)
	}
	if err == nil {
		w.open, err = wlog.New(nil, nil, filepath.Join(dir, openDir), compression.None)
	}
	if err == nil {
		w.lastTo, err = os.Create(filepath.Join(dir, lastFile))
		w.last = bufio.NewWriter(w.lastTo)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// openSources opens what the head has.
func (w *snapshotWriter) openSources(ctx context.Context) (err error) {
	head := w.h.db.Head()
	if w.h.sawLate.Load() {
		if w.late, err = tsdb.NewOOOCompactionHead(ctx, head); err != nil {
			return err
		}
		if w.lateIdx, err = w.late.Index(); err != nil {
			return err
		}
		if w.lateChks, err = w.late.Chunks(); err != nil {
			return err
		}
	}
	if w.index, err = head.Index(); err != nil {
		return err
	}
	if w.chunks, err = head.Chunks(); err != nil {
		return err
	}
	return w.loadExemplars(ctx)
}

func (w *snapshotWriter) close() error {
	var out []error
	closeAll := func(cs ...io.Closer) {
		for _, c := range cs {
			out = append(out, c.Close())
		}
	}
	if w.index != nil {
		closeAll(w.index)
	}
	if w.chunks != nil {
		closeAll(w.chunks)
	}
	if w.lateIdx != nil {
		closeAll(w.lateIdx)
	}
	if w.lateChks != nil {
		closeAll(w.lateChks)
	}
	if w.closed != nil {
		closeAll(w.closed)
	}
	if w.open != nil {
		closeAll(w.open)
	}
	if w.lastTo != nil {
		out = append(out, w.last.Flush(), w.lastTo.Sync())
		closeAll(w.lastTo)
	}
	return errors.Join(out...)
}

func (w *snapshotWriter) writeAll(ctx context.Context) error {
	name, value := index.AllPostingsKey()
	p, err := w.index.Postings(ctx, name, value)
	if err != nil {
		return err
	}
	for p.Next() {
		if w.series%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.writeSeries(p.At()); err != nil {
			return err
		}
	}
	if err := errors.Join(p.Err(), w.flush()); err != nil {
		return err
	}
	return w.writeExemplars()
}

// writeSeries writes the series ref, unless it has no samples.
func (w *snapshotWriter) writeSeries(ref storage.SeriesRef) error {
	now := w.series + 1
	last := LastSample{Time: math.MinInt64, Buckets: -1}
	if err := w.writeLate(ref, now, &last); err != nil {
		return err
	}
	if err := w.index.Series(ref, &w.builder, &w.metas); err != nil {
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		return err
	}
	ls := w.builder.Labels()
	var open *openChunk
	for _, m := range w.metas {
		if m.MaxTime == math.MaxInt64 { // as the TSDB marks the one that is appended to
			var err error
			if open, err = w.readOpen(m); err != nil {
				return fmt.Errorf("series %s: %w", ls, err)
			}
			last = open.last
			continue
		}
		c, _, err := w.chunks.ChunkOrIterable(m)
		if err != nil {
			return fmt.Errorf("series %s: %w", ls, err)
		}
		if err := w.writeChunk(now, m, c, false); err != nil {
			return err
		}
		last.Time = max(last.Time, m.MaxTime)
	}
	if last.Time == math.MinInt64 {
		return nil
	}
	w.series = now
	w.noteExemplars(ls, now)
	w.buf, w.recs = open.appendRecord(w.buf, w.recs, now, ls)
	var b [2 * binary.MaxVarintLen64]byte
	_, err := w.last.Write(binary.AppendUvarint(binary.AppendVarint(b[:0], last.Time), uint64(last.Buckets+1)))
	if err == nil && len(w.buf) > snapshotBatch {
		err = w.flush()
	}
	return err
}

// writeLate writes the late samples of the series ref.
func (w *snapshotWriter) writeLate(ref storage.SeriesRef, now uint64, last *LastSample) error {
	if w.late == nil {
		return nil
	}
	err := w.lateIdx.Series(ref, &w.builder, &w.metas)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, m := range w.metas {
		c, several, err := w.lateChks.ChunkOrIterable(m)
		if err != nil {
			return fmt.Errorf("late samples of series %s: %w", w.builder.Labels(), err)
		}
		last.Time = max(last.Time, m.MaxTime)
		if several == nil {
			err = w.writeChunk(now, m, c, true)
		} else {
			err = w.writeMerged(now, several)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeMerged writes the samples of several chunks that overlap.
func (w *snapshotWriter) writeMerged(now uint64, several chunkenc.Iterable) error {
	it := storage.NewSeriesToChunkEncoder(&storage.SeriesEntry{Lset: w.builder.Labels(), SampleIteratorFn: several.Iterator}).Iterator(nil)
	for it.Next() {
		m := it.At()
		if err := w.writeChunk(now, m, m.Chunk, true); err != nil {
			return err
		}
	}
	return it.Err()
}

func (w *snapshotWriter) writeChunk(now uint64, m chunks.Meta, c chunkenc.Chunk, late bool) error {
	w.closed.WriteChunk(chunks.HeadSeriesRef(now), m.MinTime, m.MaxTime, c, late, func(err error) {
		if err != nil && w.chunkErr == nil {
			w.chunkErr = err
		}
	})
	return w.chunkErr
}

// openChunk is the chunk of a series that is appended to.
type openChunk struct {
	chunk      chunkenc.Chunk
	mint, maxt int64
	value      float64 // of the last sample, one of the three
	h          *histogram.Histogram
	fh         *histogram.FloatHistogram
	last       LastSample
}

// readOpen returns a copy of the chunk m.
func (w *snapshotWriter) readOpen(m chunks.Meta) (*openChunk, error) {
	from, ok := w.chunks.(tsdb.ChunkReaderWithCopy)
	if !ok {
		return nil, errors.New("open chunks cannot be copied")
	}
	c, _, maxt, err := from.ChunkOrIterableWithCopy(m)
	if err != nil {
		return nil, err
	}
	o := &openChunk{chunk: c, mint: m.MinTime, maxt: maxt, last: LastSample{Time: maxt, Buckets: -1}}
	it := c.Iterator(nil)
	left := c.NumSamples()
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if left--; left > 0 {
			continue
		}
		switch kind {
		case chunkenc.ValFloat:
			_, o.value = it.At()
		case chunkenc.ValHistogram:
			_, o.h = it.AtHistogram(nil)
			o.last.Buckets = len(o.h.PositiveBuckets) + len(o.h.NegativeBuckets)
		case chunkenc.ValFloatHistogram:
			_, o.fh = it.AtFloatHistogram(nil)
			o.last.Buckets = len(o.fh.PositiveBuckets) + len(o.fh.NegativeBuckets)
		}
	}
	return o, it.Err()
}

// appendRecord appends the record of a series to buf, as the TSDB reads it, and to recs. o is nil
// if no chunk is open.
func (o *openChunk) appendRecord(buf []byte, recs [][]byte, ref uint64, ls labels.Labels) ([]byte, [][]byte) {
	b := encoding.Encbuf{B: buf}
	b.PutByte(openedSeries)
	b.PutBE64(ref)
	record.EncodeLabels(&b, ls)
	b.PutBE64int64(0) // once the length of a chunk
	if o == nil {
		b.PutUvarint(0)
		return b.B, append(recs, b.B[len(buf):])
	}
	b.PutUvarint(1)
	b.PutBE64int64(o.mint)
	b.PutBE64int64(o.maxt)
	b.PutByte(byte(o.chunk.Encoding()))
	b.PutUvarintBytes(o.chunk.Bytes())
	switch {
	case o.h != nil:
		record.EncodeHistogram(&b, o.h)
	case o.fh != nil:
		record.EncodeFloatHistogram(&b, o.fh)
	default:
		for range 3 { // once the samples before the last
			b.PutBE64int64(0)
			b.PutBEFloat64(0)
		}
		b.PutBE64int64(0)
		b.PutBEFloat64(o.value)
	}
	return b.B, append(recs, b.B[len(buf):])
}

func (w *snapshotWriter) flush() error {
	if len(w.recs) == 0 {
		return nil
	}
	err := w.open.Log(w.recs...)
	w.buf, w.recs = w.buf[:0], w.recs[:0]
	return err
}

// seriesExemplars are those of one series.
type seriesExemplars struct {
	ls  labels.Labels
	exs []record.RefExemplar
}

func (w *snapshotWriter) loadExemplars(ctx context.Context) error {
	q, err := w.h.ExemplarQuerier(ctx)
	if err != nil {
		return err
	}
	all, err := labels.NewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".*")
	if err != nil {
		return err
	}
	found, err := q.Select(math.MinInt64, math.MaxInt64, []*labels.Matcher{all})
	if err != nil {
		return err
	}
	w.exemplars = make(map[uint64][]seriesExemplars, len(found))
	for _, f := range found {
		s := seriesExemplars{ls: f.SeriesLabels}
		for _, e := range f.Exemplars {
			s.exs = append(s.exs, record.RefExemplar{T: e.Ts, V: e.Value, Labels: e.Labels})
		}
		w.exemplars[s.ls.Hash()] = append(w.exemplars[s.ls.Hash()], s)
	}
	return nil
}

// noteExemplars remembers the exemplars of the series ls, which is called ref now.
func (w *snapshotWriter) noteExemplars(ls labels.Labels, ref uint64) {
	if len(w.exemplars) == 0 {
		return
	}
	for _, s := range w.exemplars[ls.Hash()] {
		if !labels.Equal(s.ls, ls) {
			continue
		}
		for _, e := range s.exs {
			e.Ref = chunks.HeadSeriesRef(ref)
			w.refs = append(w.refs, e)
		}
	}
}

// writeExemplars writes those of the series that were written, oldest first: the oldest make room
// for new ones.
func (w *snapshotWriter) writeExemplars() error {
	slices.SortStableFunc(w.refs, func(a, b record.RefExemplar) int { return int(min(max(a.T-b.T, -1), 1)) })
	var enc record.Encoder
	for batch := range slices.Chunk(w.refs, exemplarBatch) {
		b := encoding.Encbuf{}
		b.PutByte(openedExs)
		enc.EncodeExemplarsIntoBuffer(batch, &b)
		if err := w.open.Log(b.Get()); err != nil {
			return err
		}
	}
	return nil
}

// filesOf lists the files below dir with their sums, and makes their names durable.
func filesOf(dir string) ([]SnapshotFile, error) {
	var out []SnapshotFile
	for _, sub := range []string{chunksDir, openDir, "."} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				continue
			}
			f := SnapshotFile{Name: filepath.Join(sub, e.Name())}
			if f.Bytes, f.Sum, err = sumOf(filepath.Join(dir, f.Name)); err != nil {
				return nil, err
			}
			out = append(out, f)
		}
		if err := syncDir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	return out, syncDir(filepath.Dir(dir))
}

// sumOf returns the length and CRC-32C of a file.
func sumOf(path string) (n int64, sum uint32, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err = io.Copy(c, f)
	return n, c.Sum32(), err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

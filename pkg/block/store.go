package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block/pagecache"
	"github.com/amphora-metrics/amphora/pkg/block/paged"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// openTimeout ends what one block's meta file and the tables of its index may take to come. It
	// does not depend on the query that asks first, so that the next one finds them.
	openTimeout = 2 * time.Minute

	// faultTimeout ends the fetch of a page of an index that nobody had foreseen.
	faultTimeout = 30 * time.Second

	// tailBytes is where an index is opened from: its table of contents, and often more.
	tailBytes = 64 << 10
)

// StoreDeps are what a Store works with.
type StoreDeps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Bucket objstore.Bucket // of all tenants
	// LocalBytes is how many bytes of blocks are kept on the local disk.
	LocalBytes int64
	Dir        string // owned by the store
	// Shared are asked before the bucket is. The caller closes them after the store.
	Shared SharedCaches
	// Indexes are asked for the shapes of blocks, which spares reading their meta files. nil: those
	// are read.
	Indexes *Indexes
	Now     func() time.Time // nil: time.Now
}

// SharedCaches are caches beside the local disk, of indexes, chunks and meta files. nil: there is none.
type SharedCaches struct{ Index, Chunks, Meta *pagecache.Cache }

// Store reads blocks in object storage, of all tenants, for the queries of one process. Of an index
// and of the chunks only those pages are fetched that queries touch; they stay on the local disk
// while there is room, over restarts too. Nothing is fetched before a query needs it.
type Store struct {
	deps     StoreDeps
	metrics  *storeMetrics
	pages    *paged.Cache
	postings *postingsCache
	batches  sync.Pool // of *batch

	mu     sync.Mutex // guards what follows
	closed bool
	opened map[blockKey]*opened
}

// blockKey names a block of a tenant.
type blockKey struct {
	tenant tenant.ID
	block  ulid.ULID
}

var errClosed = errs.New(errs.Unavailable, "the store of blocks is closed")

// opened is a block whose index is open, or being opened.
type opened struct {
	key   blockKey
	ready chan struct{} // closed when the rest or err is set

	// Set before ready is closed.
	// mint <= t < maxt and series are what the meta file or the bucket index tell.
	mint, maxt int64
	series     uint64
	segments   []File // by their number minus one
	file       *paged.File
	index      *index.Reader
	symbols    *symbols
	err        error

	// Guarded by Store.mu.
	users int
	used  time.Time
}

// NewStore opens a store in deps.Dir. The caller closes it.
func NewStore(deps StoreDeps) (*Store, error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	s := &Store{deps: deps, metrics: newStoreMetrics(deps.Reg), postings: newPostingsCache(expandedBytes), opened: map[blockKey]*opened{}}
	var err error
	s.pages, err = paged.New(paged.Options{
		Dir: filepath.Join(deps.Dir, "pages"), MaxBytes: deps.LocalBytes, Fetch: s.fetch, Logger: deps.Logger, Reg: deps.Reg,
	})
	return s, err
}

// fetch reads a stretch of an object, from a shared cache as far as it is there.
func (s *Store) fetch(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	of := s.deps.Shared.Chunks
	if path.Base(name) == IndexFile {
		of = s.deps.Shared.Index
	}
	return of.Range(ctx, name, off, length, s.fetchObject)
}

// fetchObject reads a stretch of an object of the bucket.
func (s *Store) fetchObject(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	r, err := s.deps.Bucket.GetRange(bucket.Because(ctx, bucket.Query), name, off, length)
	if err != nil {
		return nil, storeError(ctx, s.deps.Bucket, err, "read %s", name)
	}
	return r, nil
}

// Close waits for open blocks and notes what is on the local disk for the next start.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Unload(0)
	return s.pages.Close() // waits for the rest, which the last user of each closes
}

// Open returns a block of a tenant with its index open. The caller closes it. Errors: NotFound if
// it is gone, Internal if it is corrupted, TooLarge if the blocks in use fill the local disk,
// Unavailable.
func (s *Store) Open(ctx context.Context, id tenant.ID, block ulid.ULID) (*Block, error) {
	key := blockKey{id, block}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errClosed
	}
	o := s.opened[key]
	if o == nil {
		o = &opened{key: key, ready: make(chan struct{}), users: 1} // the load uses it, too
		s.opened[key] = o
		go s.load(o)
	}
	o.users++
	s.mu.Unlock()
	b := &Block{store: s, opened: o}
	select {
	case <-o.ready:
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), b.Close())
	}
	if o.err != nil {
		return nil, errors.Join(fmt.Errorf("open block %s of tenant %s: %w", block, id, o.err), b.Close())
	}
	return b, nil
}

// load opens o. What panics in spite of faults is an error, too: nobody is below who would recover it.
func (s *Store) load(o *opened) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(bucket.Because(context.Background(), bucket.Query), openTimeout)
	defer cancel()
	o.err = faults(func() error { return s.open(ctx, o) })
	s.metrics.loads.Inc()
	s.metrics.loadDuration.Observe(time.Since(began).Seconds())
	if o.err != nil {
		s.metrics.loadFailures.Inc()
		if errs.KindOf(o.err) == errs.Internal {
			s.metrics.corrupted.Inc()
		}
		s.mu.Lock()
		delete(s.opened, o.key) // the next query tries again
		s.mu.Unlock()
	}
	s.leave(o) // before others hear of it: who then closes the block is its last user
	close(o.ready)
}

// leave gives up one use of o.
func (s *Store) leave(o *opened) {
	s.mu.Lock()
	o.users--
	o.used = s.deps.Now()
	last := o.users == 0 && s.closed && s.opened[o.key] == o
	if last {
		delete(s.opened, o.key)
	}
	s.mu.Unlock()
	if last {
		s.close(o)
	}
}

// open fetches the meta file and the tables of the index, and reads the latter.
func (s *Store) open(ctx context.Context, o *opened) (err error) {
	dir := path.Join(string(o.key.tenant), o.key.block.String())
	size, err := s.shape(ctx, o, dir)
	if err != nil {
		return err
	}
	if err := sane(size, o.segments); err != nil {
		return err
	}
	if o.file, err = s.pages.Open(path.Join(dir, IndexFile), size); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.file.Close())
		}
	}()
	tables, err := loadTables(ctx, o.file)
	if err != nil {
		return err
	}
	return faults(func() error {
		// The TSDB's reader makes room for as many symbols as are announced, so they are looked at first.
		version := int(o.file.Bytes(index.HeaderLen-1, index.HeaderLen)[0])
		if o.symbols, err = readSymbols(o.file, version, int(tables.Symbols)); err != nil { //nolint:gosec // It lies in the file.
			return err
		}
		if o.index, err = index.NewReader(indexBytes{o.file}, index.DecodePostingsRaw); err != nil {
			return errs.New(errs.Internal, "its index is corrupted: %w", err)
		}
		return nil
	})
}

// shape finds out what o consists of, and returns the size of its index: from the tenant's bucket index,
// which tells of all blocks with one request, or from the meta file.
func (s *Store) shape(ctx context.Context, o *opened, dir string) (index int64, err error) {
	if s.deps.Indexes != nil {
		if b := s.deps.Indexes.Block(ctx, o.key.tenant, o.key.block); b != nil && b.Shape != nil {
			o.mint, o.maxt, o.series = b.MinTime, b.MaxTime, b.Shape.Series
			for i, n := range b.Shape.Segments {
				o.segments = append(o.segments, File{RelPath: fmt.Sprintf("%s/%06d", ChunksDir, i+1), SizeBytes: n})
			}
			return b.Shape.Index, nil
		}
	}
	name := path.Join(dir, MetaFile)
	text, err := s.deps.Shared.Meta.Object(ctx, name, func() ([]byte, error) { return readObject(ctx, s.deps.Bucket, name, maxMetaBytes) })
	if err != nil {
		return 0, err
	}
	meta, err := metaOf(text, o.key.block)
	if err != nil {
		return 0, err
	}
	files, err := filesOf(ctx, objstore.NewPrefixedBucket(s.deps.Bucket, dir), meta)
	if err != nil {
		return 0, err
	}
	o.mint, o.maxt, o.series = meta.MinTime, meta.MaxTime, meta.Stats.NumSeries
	for _, f := range files {
		if f.RelPath == IndexFile {
			index = f.SizeBytes
		} else {
			o.segments = append(o.segments, f)
		}
	}
	return index, nil
}

// loadTables fetches those parts of an index that opening it reads: its ends, the symbols and the
// table of postings.
func loadTables(ctx context.Context, f *paged.File) (toc *index.TOC, err error) {
	size := int64(f.Len())
	if _, err := f.Load(ctx, paged.Range{To: min(size, index.HeaderLen)}, paged.Range{From: max(0, size-tailBytes), To: size}); err != nil {
		return nil, err
	}
	err = faults(func() (err error) {
		if toc, err = index.NewTOCFromByteSlice(indexBytes{f}); err != nil {
			return errs.New(errs.Internal, "its index is corrupted: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	symbols, series, table := int64(toc.Symbols), int64(toc.Series), int64(toc.PostingsTable)
	if symbols > series || series > size || table > size {
		return nil, errs.New(errs.Internal, "its index is corrupted: its table of contents points outside")
	}
	_, err = f.Load(ctx, paged.Range{From: symbols, To: series}, paged.Range{From: table, To: size})
	return toc, err
}

// Unload closes the indexes that nobody used for idle. Their pages stay on the disk.
func (s *Store) Unload(idle time.Duration) {
	now := s.deps.Now()
	s.mu.Lock()
	var out []*opened
	for key, o := range s.opened {
		if o.users == 0 && now.Sub(o.used) >= idle {
			delete(s.opened, key)
			out = append(out, o)
		}
	}
	s.mu.Unlock()
	for _, o := range out {
		s.close(o)
	}
}

func (s *Store) close(o *opened) {
	s.metrics.unloads.Inc()
	if err := o.file.Close(); err != nil {
		s.deps.Logger.Warn("index of a block not closed", "block", o.key.block, "err", err)
	}
}

// Note writes down what is on the local disk, so that a process that is killed finds it at its next start.
func (s *Store) Note() error { return s.pages.Note() }

// Loaded is the number of open indexes.
func (s *Store) Loaded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.opened)
}

// Forget drops what is kept of the blocks of a tenant for which gone says so, unless a query reads
// them: those are dropped by a later call.
func (s *Store) Forget(id tenant.ID, gone func(ulid.ULID) bool) error {
	s.mu.Lock()
	var out []*opened
	for key, o := range s.opened {
		if key.tenant == id && o.users == 0 && gone(key.block) {
			delete(s.opened, key)
			out = append(out, o)
		}
	}
	s.mu.Unlock()
	for _, o := range out {
		s.close(o)
	}
	prefix := string(id) + "/"
	return s.pages.Drop(func(name string) bool {
		rest, ours := strings.CutPrefix(name, prefix)
		block, _, _ := strings.Cut(rest, "/")
		u, err := ulid.ParseStrict(block)
		return ours && err == nil && gone(u)
	})
}

// Block is a block in use.
type Block struct {
	store  *Store
	opened *opened
	once   sync.Once
}

// Close gives the block up.
func (b *Block) Close() error {
	b.once.Do(func() { b.store.leave(b.opened) })
	return nil
}

// indexBytes gives the TSDB's index reader the bytes of an index, fetching what is not here. The
// reader knows no errors at this place, so one travels as a panic to faults.
type indexBytes struct{ file *paged.File }

// fault is an error on its way out of an index reader.
type fault struct{ err error }

// Len is the size of the index.
func (i indexBytes) Len() int { return i.file.Len() }

// Range returns a stretch of the index.
func (i indexBytes) Range(from, to int) []byte {
	if from < 0 || to > i.file.Len() || from > to {
		panic(fault{errs.New(errs.Internal, "its index is corrupted: it points to bytes %d to %d of %d", from, to, i.file.Len())})
	}
	// To look up a symbol the reader asks for all there is, and then reads among the symbols, which
	// are here since the index was opened.
	if from == 0 && to == i.file.Len() {
		return i.file.Bytes(from, to)
	}
	if !i.file.Present(from, to) {
		ctx, cancel := context.WithTimeout(context.Background(), faultTimeout)
		defer cancel()
		if _, err := i.file.Load(ctx, paged.Range{From: int64(from), To: int64(to)}); err != nil {
			panic(fault{err})
		}
	}
	return i.file.Bytes(from, to)
}

// faults calls f and returns its error, or the one that a missing page of an index caused. The TSDB's reader
// panics for some damaged indexes, which is the fault of the block: it must not end more than what reads it.
func faults(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case fault:
			err = p.err
		default:
			err = errs.New(errs.Internal, "it is corrupted: reading it broke: %v at %s", p, panickedAt())
		}
	}()
	return f()
}

// panickedAt is where the panic that is being recovered came from.
func panickedAt() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for behind := false; ; {
		f, more := frames.Next()
		if behind && !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", path.Base(f.File), f.Line)
		}
		behind = behind || f.Function == "runtime.gopanic"
		if !more {
			return "an unknown place"
		}
	}
}

// Tenants are those of whose blocks something is kept, sorted.
func (s *Store) Tenants() []tenant.ID {
	found := map[tenant.ID]struct{}{}
	s.pages.Names(func(name string) {
		id, _, _ := strings.Cut(name, "/")
		found[tenant.ID(id)] = struct{}{}
	})
	return slices.Sorted(maps.Keys(found))
}

// Package head owns the recent series of one tenant: appends by reference, queries over memory and
// local blocks, and cutting old samples into blocks. It builds on the Prometheus TSDB with its log
// turned off; durability is up to the caller (the log shared by the process), and a new Head holds
// only the blocks on its disk. No other package depends on what is inside.
package head

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// BlockRange is the time range of one block; the bucket's compactor merges them into larger ones.
const BlockRange = 2 * time.Hour

const (
	rangeMillis = int64(BlockRange / time.Millisecond)
	// chunkBufferBytes is the write buffer of closed chunks, the least the TSDB allows.
	chunkBufferBytes = 64 << 10
	// reloadEvery is when the TSDB looks at its directory and writes closed chunks by itself, which
	// is never: it ends the process if the disk is full then.
	reloadEvery = 100 * 365 * 24 * time.Hour
)

// Ref names a series within one Head; another Head, also of the same tenant, has other Refs.
type Ref uint64

// Options of a Head. The hooks must be quick; they run under a lock of the series map.
type Options struct {
	Dir              string
	Logger           *slog.Logger
	OutOfOrderWindow time.Duration
	MaxExemplars     int // newest exemplars kept; 0: none
	// Series is about how many series will be held; 0: few or unknown. Too small a number makes
	// appends slower, too large a one wastes memory.
	Series uint64
	Shared *Shared // of all heads of the process; nil: this one has everything of its own
	// Selections is that of the process. nil: each query looks its series up.
	Selections *Selections

	// LargeLateBlocks puts late samples of days before today (UTC) in blocks of a day.
	LargeLateBlocks bool
	Now             func() time.Time // nil: time.Now

	// Snapshot, in SnapshotDir, is what the head begins with. Its files are used up: opening it again
	// finds them damaged. nil: the head begins empty.
	Snapshot    *Snapshot
	SnapshotDir string
	// Restored is called for each series of the snapshot, after PostCreate.
	Restored func(Ref, labels.Labels, LastSample)

	PreCreate  func(labels.Labels) error // may refuse a new series; the error comes back from Append
	PostCreate func(labels.Labels)
	PostDelete func(Ref, labels.Labels)

	meters string // prefix of the TSDB's metrics to keep; "": those of exemplars
}

// Head is safe for concurrent use.
type Head struct {
	o  Options
	db *tsdb.DB

	// flush is held for reading by open appenders, so that a cut of everything can wait for them.
	flush sync.RWMutex
	// cutting is after the times being cut: no sample may be appended before it. noCut if nothing
	// is being cut. It is set under flush.
	cutting atomic.Int64
	// creating is held while a series is made. The TSDB gives it a reference first and sorts it into
	// its postings later, and of two that do so in the other order the lists are put right under the
	// eyes of queries, which may miss a series then.
	creating sync.Mutex
	late     atomic.Bool  // late samples are taken
	sawLate  atomic.Bool  // late samples came since they were cut last
	gone     atomic.Int64 // series that left memory

	lateSamples atomic.Int64
	meters      meters // of the TSDB
	order       order
	views       views
	lateCut     lateCut
	pause       pause
	// restoring says that series come back whose samples may not.
	restoring atomic.Bool

	blocks blockList
	made   atomic.Int64 // blocks cut

	unreleased atomic.Int64 // samples that came since chunks were released

	exemplars exemplarRoom
	changes   changes
}

// Open opens the head in o.Dir, which is created. A damaged local block is moved aside (suffix
// .damaged) and reported; the rest is served. Errors: ErrSnapshot, and then nothing is open and the
// head can be opened without.
func Open(o Options) (*Head, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	h := &Head{o: o, blocks: blockList{dir: filepath.Join(o.Dir, blocksDir), log: quiet(o.Logger), count: o.Shared.openBlocks(), now: o.Now},
		meters: meters{prefix: cmp.Or(o.meters, "prometheus_tsdb_exemplar_")}}
	if err := h.blocks.load(o.Dir); err != nil {
		return nil, fmt.Errorf("open blocks in %s: %w", o.Dir, err)
	}
	db, err := h.open()
	if err != nil {
		return nil, fmt.Errorf("open head in %s: %w", o.Dir, err)
	}
	h.db = db
	if h.pause.old, err = h.lastChunkFile(); err != nil {
		return nil, errors.Join(fmt.Errorf("open head in %s: %w", o.Dir, err), db.Close())
	}
	h.cutting.Store(noCut)
	h.late.Store(o.OutOfOrderWindow > 0)
	if maxt, ok := h.blocks.newest(); ok {
		db.Head().SetMinValidTime(maxt)
	}
	db.DisableCompactions()
	return h, nil
}

func (h *Head) open() (*tsdb.DB, error) {
	if err := clearCaches(h.o.Dir); err != nil {
		return nil, err
	}
	t := tsdb.DefaultOptions()
	t.WALSegmentSize = -1
	t.NoLockfile = true // the process-wide log holds the lock of the data directory
	t.StripeSize = StripesFor(h.o.Series)
	t.HeadChunksWriteBufferSize = chunkBufferBytes
	t.HeadChunksWriteQueueSize = 0
	t.MinBlockDuration = rangeMillis
	t.MaxBlockDuration = rangeMillis
	t.EnableOverlappingCompaction = false
	t.EnableExemplarStorage = true
	t.MaxExemplars = h.exemplars.begin(&h.o)
	t.BlockReloadInterval = reloadEvery
	t.SeriesLifecycleCallback = lifecycle{h}
	t.NewCompactorFunc = h.newCompactor
	if h.o.Selections != nil {
		t.BlockChunkQuerierFunc = h.selectingOf
	}
	// The TSDB fixes at open whether late samples can be cut to blocks, so a window is always
	// opened; SetLimits gives the true one.
	t.OutOfOrderTimeWindow = max(1, h.o.OutOfOrderWindow.Milliseconds())
	if h.o.Snapshot != nil && h.o.Snapshot.Series > 0 {
		return h.restore(t)
	}
	return h.openTSDB(t)
}

func (h *Head) openTSDB(t *tsdb.Options) (*tsdb.DB, error) {
	db, err := tsdb.Open(h.o.Dir, quiet(h.o.Logger), &h.meters, t, nil)
	if err != nil {
		return nil, err
	}
	h.o.Shared.slim(db)
	if h.o.OutOfOrderWindow <= 0 {
		db.Head().SetOutOfOrderTimeWindow(0, nil)
	}
	return db, nil
}

// SetLimits applies changed limits at once. Open batches are waited for.
func (h *Head) SetLimits(oooWindow time.Duration, maxExemplars int) error {
	h.flush.Lock() // the TSDB's ApplyConfig must not run beside appends
	defer h.flush.Unlock()
	h.late.Store(oooWindow > 0)
	return h.exemplars.setLimits(h, oooWindow, int64(maxExemplars))
}

// NumSeries is the number of series in memory.
func (h *Head) NumSeries() uint64 { return h.db.Head().NumSeries() }

// MinTime is the oldest time in memory, in milliseconds; math.MaxInt64 if there is none.
func (h *Head) MinTime() int64 { return h.db.Head().MinTime() }

// MaxTime is the newest time in memory, in milliseconds; math.MinInt64 if there is none.
func (h *Head) MaxTime() int64 { return h.db.Head().MaxTime() }

// ExemplarQuerier reads the kept exemplars.
func (h *Head) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return h.db.ExemplarQuerier(ctx)
}

// Labels returns the labels of the series ref; false if it is not in memory (any more). It is made for
// error texts and other rare needs: it takes locks.
func (h *Head) Labels(ref Ref) (labels.Labels, bool) {
	ir, err := h.db.Head().Index()
	if err != nil {
		return labels.EmptyLabels(), false
	}
	defer ir.Close()
	var b labels.ScratchBuilder
	if err := ir.Series(storage.SeriesRef(ref), &b, nil); err != nil {
		return labels.EmptyLabels(), false
	}
	return b.Labels(), true
}

// ForEachSeries calls fn for every series in memory, until it returns an error.
func (h *Head) ForEachSeries(fn func(ref Ref, ls labels.Labels) error) error {
	name, value := index.AllPostingsKey()
	return h.each(func(ir tsdb.IndexReader) (index.Postings, error) {
		return ir.Postings(context.Background(), name, value)
	},
		func(Ref) bool { return true }, fn)
}

// SelectSeries calls fn for the series in memory that matchers select and whose reference is
// wanted, until it returns an error.
func (h *Head) SelectSeries(ctx context.Context, matchers []*labels.Matcher, wanted func(Ref) bool, fn func(ref Ref, ls labels.Labels) error) error {
	return h.each(func(ir tsdb.IndexReader) (index.Postings, error) {
		return tsdb.PostingsForMatchers(ctx, ir, matchers...)
	}, wanted, fn)
}

func (h *Head) each(find func(tsdb.IndexReader) (index.Postings, error), wanted func(Ref) bool, fn func(ref Ref, ls labels.Labels) error) error {
	ir, err := h.db.Head().Index()
	if err != nil {
		return err
	}
	defer ir.Close()
	p, err := find(ir)
	if err != nil {
		return err
	}
	var b labels.ScratchBuilder
	for p.Next() {
		if !wanted(Ref(p.At())) {
			continue
		}
		if err := ir.Series(p.At(), &b, nil); err != nil {
			if errors.Is(err, storage.ErrNotFound) {
				continue // removed since the postings were taken
			}
			return err
		}
		if err := fn(Ref(p.At()), b.Labels()); err != nil {
			return err
		}
	}
	return p.Err()
}

// Unreleased is how many samples came since ReleaseChunks.
func (h *Head) Unreleased() int64 { return h.unreleased.Load() }

// ReleaseChunks moves closed chunks from the heap to the disk cache. The first time it costs a head
// two open files, a mapping and a buffer of 64 KiB, for good. The process ends if the disk has no
// room for the chunks, so that must be known before. Calls must not overlap.
func (h *Head) ReleaseChunks() {
	h.flush.RLock()
	defer h.flush.RUnlock()
	h.unreleased.Store(0)
	h.db.ForceHeadMMap()
}

// Close closes the head. What is in memory only is gone unless the caller logged it. Errors:
// Unavailable if the disk is full, and then not everything was closed.
func (h *Head) Close() (err error) {
	defer recoverDisk(&err)
	h.o.Selections.drop(func(of *Head) bool { return of == h })
	return errors.Join(h.db.Close(), h.blocks.closeAll())
}

// recoverDisk turns the panic by which the TSDB reports that it cannot write chunks into an error.
func recoverDisk(err *error) {
	switch r := recover().(type) {
	case nil:
	case syscall.Errno:
		*err = errs.New(errs.Unavailable, "write chunks: %w", r)
	case error:
		if errors.Is(r, syscall.ENOSPC) || errors.Is(r, syscall.EDQUOT) || errors.Is(r, syscall.EIO) {
			*err = errs.New(errs.Unavailable, "write chunks: %w", r)
			return
		}
		panic(r)
	default:
		panic(r)
	}
}

// lifecycle hands the TSDB's callbacks to the hooks.
type lifecycle struct{ h *Head }

func (l lifecycle) PreCreation(ls labels.Labels) error {
	if l.h.restoring.Load() {
		return nil
	}
	if f := l.h.o.PreCreate; f != nil {
		return f(ls)
	}
	return nil
}

func (l lifecycle) PostCreation(ls labels.Labels) {
	l.h.changes.add(ls) // the index has it already
	if f := l.h.o.PostCreate; f != nil && !l.h.restoring.Load() {
		f(ls)
	}
}

func (l lifecycle) PostDeletion(gone map[chunks.HeadSeriesRef]labels.Labels) {
	l.h.changes.gone.Add(1)
	if l.h.restoring.Load() {
		return // nobody was told of them
	}
	l.h.gone.Add(int64(len(gone)))
	if f := l.h.o.PostDelete; f != nil {
		for ref, ls := range gone {
			f(Ref(ref), ls)
		}
	}
}

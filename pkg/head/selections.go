package head

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Selections remembers for a while which series of which head matchers selected, in order: the parts
// of a query that is split, and the panels of a dashboard, ask for the same again and again. What is
// remembered counts as long as no series was made that could belong to it, so nobody is told less
// than without it. One serves all heads of a process.
type Selections struct {
	o    SelectionsOptions
	asks atomic.Int64
	hits atomic.Int64

	mu    sync.Mutex // guards what follows
	all   map[selectionKey]*list.Element
	byAge list.List // of *selection, the oldest first
	bytes int64
}

// SelectionsOptions are the bounds of a Selections.
type SelectionsOptions struct {
	Keep     time.Duration
	MaxBytes int64
	Take     func(bytes int64) // is told what is taken, below zero what is given back; nil: nobody
	Now      func() time.Time  // nil: time.Now
}

type selectionKey struct {
	of *Head
	ms string
}

// selection is what one caller finds out and others wait for.
type selection struct {
	key     selectionKey
	version uint64
	made    time.Time
	done    chan struct{} // closed when refs and err are set
	refs    []storage.SeriesRef
	err     error
	size    int64 // 0: not kept, or not yet
}

// selectionBytes is about what a selection takes beside its text and references.
const selectionBytes = 320

// NewSelections returns an empty Selections.
func NewSelections(o SelectionsOptions) *Selections {
	if o.Take == nil {
		o.Take = func(int64) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Selections{o: o, all: map[selectionKey]*list.Element{}}
}

// Asked is how often it was asked, and how often it knew or somebody was finding out.
func (s *Selections) Asked() (asks, hits int64) { return s.asks.Load(), s.hits.Load() }

// Bytes is about what is held.
func (s *Selections) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// get returns what is known under the key for the version, or else what find finds. The caller must
// not change it.
func (s *Selections) get(ctx context.Context, key selectionKey, version uint64, find func() ([]storage.SeriesRef, error)) ([]storage.SeriesRef, error) {
	s.asks.Add(1)
	now := s.o.Now()
	s.mu.Lock()
	s.expire(now)
	if e := s.all[key]; e != nil {
		if x := e.Value.(*selection); x.version == version {
			s.mu.Unlock()
			select {
			case <-x.done:
			case <-ctx.Done():
				return nil, fmt.Errorf("wait for the selection of series: %w", context.Cause(ctx))
			}
			if x.err != nil { // perhaps only who was finding out was cancelled
				return find()
			}
			s.hits.Add(1)
			return x.refs, nil
		}
		s.remove(e)
	}
	x := &selection{key: key, version: version, made: now, done: make(chan struct{})}
	e := s.byAge.PushBack(x)
	s.all[key] = e
	s.mu.Unlock()
	defer close(x.done)
	x.refs, x.err = find()
	s.keep(e, x)
	return x.refs, x.err
}

// keep accounts for what was found, if it is still asked for, and makes room.
func (s *Selections) keep(e *list.Element, x *selection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[x.key] != e {
		return
	}
	size := int64(selectionBytes + len(x.key.ms) + 8*len(x.refs))
	if x.err != nil || size > s.o.MaxBytes/4 {
		s.remove(e)
		return
	}
	x.size = size
	s.bytes += size
	s.o.Take(size)
	for at := s.byAge.Front(); at != nil && s.bytes > s.o.MaxBytes; {
		next := at.Next()
		if at.Value.(*selection).size > 0 {
			s.remove(at)
		}
		at = next
	}
}

// expire needs mu.
func (s *Selections) expire(now time.Time) {
	for e := s.byAge.Front(); e != nil && now.Sub(e.Value.(*selection).made) >= s.o.Keep; e = s.byAge.Front() {
		s.remove(e)
	}
}

// remove needs mu.
func (s *Selections) remove(e *list.Element) {
	x := e.Value.(*selection)
	s.byAge.Remove(e)
	delete(s.all, x.key)
	s.bytes -= x.size
	s.o.Take(-x.size)
	x.size = 0
}

// Drop forgets everything.
func (s *Selections) Drop() { s.drop(func(*Head) bool { return true }) }

// drop forgets what is known of some heads.
func (s *Selections) drop(of func(*Head) bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.byAge.Front(); e != nil; {
		next := e.Next()
		if of(e.Value.(*selection).key.of) {
			s.remove(e)
		}
		e = next
	}
}

// changes counts series that were made and removed, so that selections know whether they still hold.
type changes struct {
	made, gone atomic.Uint32
	byName     [64]atomic.Uint32 // made, by hash of the metric's name
}

func (c *changes) of(name string) *atomic.Uint32 {
	return &c.byName[xxhash.Sum64String(name)%uint64(len(c.byName))]
}

// add counts a series that queries find from now on.
func (c *changes) add(ls labels.Labels) {
	c.made.Add(1)
	c.of(ls.Get(model.MetricNameLabel)).Add(1)
}

// version changes with every series made that ms may select, and with every one removed.
func (c *changes) version(ms []*labels.Matcher) uint64 {
	made := &c.made
	for _, m := range ms {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			made = c.of(m.Value)
		}
	}
	return uint64(c.gone.Load())<<32 | uint64(made.Load())
}

// selected returns the series that ms select.
func (h *Head) selected(ctx context.Context, ir tsdb.IndexReader, sorted bool, ms []*labels.Matcher) ([]storage.SeriesRef, error) {
	version := h.changes.version(ms)
	return h.o.Selections.get(ctx, selectionKey{h, selectionText(ms, sorted)}, version, func() ([]storage.SeriesRef, error) {
		p, err := tsdb.PostingsForMatchers(ctx, ir, slices.Clone(ms)...) // it sorts them
		if err != nil {
			return nil, err
		}
		if sorted {
			p = ir.SortedPostings(p)
		}
		return index.ExpandPostings(p)
	})
}

// selectionText writes ms, in whatever order they are, unmistakably.
func selectionText(ms []*labels.Matcher, sorted bool) string {
	ms = slices.SortedFunc(slices.Values(ms), func(a, b *labels.Matcher) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value))
	})
	var b []byte
	for _, m := range ms {
		b = fmt.Appendf(b, "%d:%s%d%d:%s", len(m.Name), m.Name, m.Type, len(m.Value), m.Value)
	}
	if sorted {
		b = append(b, 's')
	}
	return string(b)
}

// selecting is a querier of what is in memory that asks Selections.
type selecting struct {
	storage.ChunkQuerier // answers all else, and closes what is read
	h                    *Head
	block                ulid.ULID
	ir                   tsdb.IndexReader
	cr                   tsdb.ChunkReader
	deleted              tombstones.Reader
	mint, maxt           int64
}

// Select is part of storage.ChunkQuerier.
func (q *selecting) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	mint, maxt, whole := q.mint, q.maxt, false
	if hints != nil {
		if hints.ShardCount > 0 || hints.Step > 0 {
			return q.ChunkQuerier.Select(ctx, sorted, hints, ms...)
		}
		mint, maxt, whole = hints.Start, hints.End, hints.DisableTrimming
	}
	refs, err := q.h.selected(ctx, q.ir, sorted, ms)
	if err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	return tsdb.NewBlockChunkSeriesSet(q.block, q.ir, q.cr, q.deleted, index.NewListPostings(refs), mint, maxt, whole)
}

// opened notes the readers that are opened of a block.
type opened struct {
	tsdb.BlockReader
	ir      tsdb.IndexReader
	cr      tsdb.ChunkReader
	deleted tombstones.Reader
}

// Index is part of tsdb.BlockReader.
func (o *opened) Index() (ir tsdb.IndexReader, err error) {
	ir, err = o.BlockReader.Index()
	o.ir = ir
	return ir, err
}

// Chunks is part of tsdb.BlockReader.
func (o *opened) Chunks() (cr tsdb.ChunkReader, err error) {
	cr, err = o.BlockReader.Chunks()
	o.cr = cr
	return cr, err
}

// Tombstones is part of tsdb.BlockReader.
func (o *opened) Tombstones() (r tombstones.Reader, err error) {
	r, err = o.BlockReader.Tombstones()
	o.deleted = r
	return r, err
}

// selectingOf is what the TSDB opens to read samples in memory that came in order.
func (h *Head) selectingOf(b tsdb.BlockReader, mint, maxt int64) (storage.ChunkQuerier, error) {
	o := &opened{BlockReader: b}
	q, err := tsdb.NewBlockChunkQuerier(o, mint, maxt)
	if err != nil || o.ir == nil || o.cr == nil || o.deleted == nil {
		return q, err
	}
	return &selecting{q, h, b.Meta().ULID, o.ir, o.cr, o.deleted, mint, maxt}, nil
}

// memoryChunks reads what is in memory. To what came late the TSDB has readers of its own, which are
// taken from its querier by reflection; if a later version has others, late samples are read
// without Selections, and a test says so.
func (h *Head) memoryChunks(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := h.db.ChunkQuerier(mint, maxt)
	if err != nil || h.o.Selections == nil {
		return q, err
	}
	late, ok := q.(*tsdb.HeadAndOOOChunkQuerier)
	if !ok {
		return q, nil
	}
	memory, ok := fieldOf[storage.ChunkQuerier](late, "querier").(*selecting)
	ir, cr := fieldOf[tsdb.IndexReader](late, "index"), fieldOf[tsdb.ChunkReader](late, "chunkr")
	if !ok || ir == nil || cr == nil {
		return q, nil
	}
	return &selecting{late, h, memory.block, ir, cr, memory.deleted, mint, maxt}, nil
}

// fieldOf returns the field name of the struct that of points to, nil if it has no such field of type T.
func fieldOf[T any](of any, name string) T {
	if f := part(of, name); f.IsValid() {
		if v, ok := f.Interface().(T); ok {
			return v
		}
	}
	var none T
	return none
}

package head

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// blocksDir in the directory of a head holds its blocks, out of sight of the TSDB: that would keep
	// all of them open, and a process with thousands of tenants has neither the open files nor the
	// mappings for that.
	blocksDir = "blocks"
	// closeAfter is how long a block that nobody reads stays open.
	closeAfter = 2 * time.Minute
	// mostOpen is how many blocks that nobody reads may be open in a process. A block takes two
	// files and two mappings, and Linux allows a process some 65,000 mappings by default.
	mostOpen = 4096
)

// Endings of the directories of blocks that are half written or half deleted.
const (
	tmpCreation = ".tmp-for-creation"
	tmpDeletion = ".tmp-for-deletion"
	damaged     = ".damaged"
)

// openBlocks counts the open blocks of a process.
type openBlocks struct{ n atomic.Int64 }

// blockList is the local blocks of one head. They are opened when a query first reads them.
type blockList struct {
	dir   string
	log   *slog.Logger
	count *openBlocks
	now   func() time.Time

	// mu guards all. A querier takes the blocks and the memory under it, and a block joins before
	// its samples leave memory: so a querier has every sample in one or the other.
	mu  sync.RWMutex
	all []*localBlock // oldest first
}

// localBlock is one block on disk.
type localBlock struct {
	Block
	bytes   int64
	counted bool // its samples came in order: what is older than its end is late
	list    *blockList

	mu      sync.Mutex  // guards what follows; it is held while the block is being opened
	open    *tsdb.Block // nil: closed
	pins    int         // queries that read it
	used    time.Time   // when the last of them ended
	dropped bool        // to be deleted when nobody reads it
}

// load finds the blocks in the directory. One that does not open is moved aside. Blocks that lie
// beside the head join the others.
func (l *blockList) load(beside string) error {
	if err := os.MkdirAll(l.dir, 0o750); err != nil {
		return err
	}
	if err := l.adopt(beside); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(l.dir, e.Name())
		if strings.HasSuffix(path, tmpCreation) || strings.HasSuffix(path, tmpDeletion) {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			continue
		}
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		if err := l.check(path); err != nil {
			return err
		}
	}
	return nil
}

// adopt moves the blocks of dir to the directory of the list.
func (l *blockList) adopt(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(l.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// check adds the block at path if it opens. Errors: only those that are not the block's fault.
func (l *blockList) check(path string) error {
	err := l.add(path)
	if err == nil {
		var b *tsdb.Block
		if b, err = tsdb.OpenBlock(l.log, path, nil, tsdb.DefaultPostingsDecoderFactory); err == nil {
			return b.Close()
		}
		l.all = slices.DeleteFunc(l.all, func(b *localBlock) bool { return b.Dir == path })
	}
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EIO} {
		if errors.Is(err, lack) {
			return fmt.Errorf("open block %s: %w", path, err)
		}
	}
	if rerr := os.Rename(path, path+damaged); rerr != nil {
		l.log.Error("damaged local block cannot be moved aside", "block", path, "err", errors.Join(err, rerr))
		return nil
	}
	l.log.Error("damaged local block moved aside; its samples are missing unless another replica or the bucket has them",
		"block", path, "err", err)
	return nil
}

// add lets the block at path join.
func (l *blockList) add(path string) error {
	data, err := os.ReadFile(filepath.Join(path, "meta.json"))
	if err != nil {
		return err
	}
	var m tsdb.BlockMeta
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	b := &localBlock{list: l, Block: Block{
		ID: m.ULID, Dir: path, MinTime: m.MinTime, MaxTime: m.MaxTime,
		OutOfOrder: m.Compaction.FromOutOfOrder(), Series: m.Stats.NumSeries, Samples: m.Stats.NumSamples,
	}}
	if b.bytes, err = fileBytes(path); err != nil {
		return err
	}
	b.counted = !m.Compaction.FromOutOfOrder() && !m.Compaction.FromStaleSeries() && !m.Compaction.FromSelectedSeries()
	l.mu.Lock()
	defer l.mu.Unlock()
	at, _ := slices.BinarySearchFunc(l.all, b, func(a, b *localBlock) int {
		if a.MinTime <= b.MinTime {
			return -1 // behind those that begin at the same time
		}
		return 1
	})
	l.all = slices.Insert(l.all, at, b)
	return nil
}

// newest is the end of the newest samples that came in order; false if there are none.
func (l *blockList) newest() (maxt int64, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, b := range l.all {
		if b.counted && (!ok || b.MaxTime > maxt) {
			maxt, ok = b.MaxTime, true
		}
	}
	return maxt, ok
}

// list returns the blocks, oldest first.
func (l *blockList) list() []Block {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []Block
	for _, b := range l.all {
		if !b.isDropped() {
			out = append(out, b.Block)
		}
	}
	return out
}

// drop hides blocks from list and from further queriers, until sweep deletes them.
func (l *blockList) drop(ids []ulid.ULID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.all {
		if slices.Contains(ids, b.ID) {
			b.mu.Lock()
			b.dropped = true
			b.mu.Unlock()
		}
	}
}

// sweep deletes dropped blocks and closes those that were not read for long, as far as nobody reads
// them now.
func (l *blockList) sweep() error {
	l.mu.RLock()
	all := slices.Clone(l.all)
	l.mu.RUnlock()
	var out error
	for _, b := range all {
		gone, err := b.tidy(l.now())
		out = errors.Join(out, err)
		if gone {
			l.mu.Lock()
			l.all = slices.DeleteFunc(l.all, func(x *localBlock) bool { return x == b })
			l.mu.Unlock()
		}
	}
	return out
}

// tidy says whether the block is gone.
func (b *localBlock) tidy(now time.Time) (gone bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pins > 0 {
		return false, nil
	}
	if !b.dropped {
		if b.open != nil && now.Sub(b.used) >= closeAfter {
			return false, b.close()
		}
		return false, nil
	}
	if err := b.close(); err != nil {
		return false, err
	}
	// A crash must not leave a part that looks like a block.
	tmp := b.Dir + tmpDeletion
	if err := os.Rename(b.Dir, tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return true, os.RemoveAll(tmp)
}

// close needs b.mu.
func (b *localBlock) close() error {
	if b.open == nil {
		return nil
	}
	err := b.open.Close()
	b.open = nil
	b.list.count.n.Add(-1)
	return err
}

func (b *localBlock) isDropped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

// pin keeps the block from being closed and deleted until unpin; false if it is too late for that.
func (b *localBlock) pin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dropped {
		return false
	}
	b.pins++
	return true
}

func (b *localBlock) unpin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used = b.list.now()
	if b.pins--; b.pins == 0 && b.list.count.n.Load() > mostOpen {
		return b.close()
	}
	return nil
}

// reader returns the open block. It must be pinned. Errors: Unavailable.
func (b *localBlock) reader() (*tsdb.Block, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == nil {
		open, err := tsdb.OpenBlock(b.list.log, b.Dir, nil, tsdb.DefaultPostingsDecoderFactory)
		if err != nil {
			return nil, errs.New(errs.Unavailable, "open block %s: %w", b.ID, err)
		}
		b.open = open
		b.list.count.n.Add(1)
	}
	return b.open, nil
}

// closeAll closes every block.
func (l *blockList) closeAll() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.all {
		b.mu.Lock()
		err = errors.Join(err, b.close())
		b.mu.Unlock()
	}
	return err
}

// pinned is the blocks that one querier reads.
type pinned []*localBlock

// pin returns the blocks with samples in mint <= t <= maxt. l.mu must be held.
func (l *blockList) pin(mint, maxt int64) (out pinned) {
	for _, b := range l.all {
		if b.MinTime <= maxt && mint < b.MaxTime && b.pin() {
			out = append(out, b)
		}
	}
	return out
}

func (p pinned) unpin() (err error) {
	for _, b := range p {
		err = errors.Join(err, b.unpin())
	}
	return err
}

// reading is the queriers over the parts of a head.
type reading[Q interface{ Close() error }] struct {
	parts  []Q
	pinned pinned
}

// openParts opens the memory and the blocks of a head with samples in mint <= t <= maxt.
func openParts[Q interface{ Close() error }](h *Head, mint, maxt int64, memory func(mint, maxt int64) (Q, error), block func(tsdb.BlockReader, int64, int64) (Q, error)) (_ *reading[Q], err error) {
	h.blocks.mu.RLock()
	r := &reading[Q]{pinned: h.blocks.pin(mint, maxt)}
	q, err := memory(mint, maxt)
	h.blocks.mu.RUnlock()
	if err != nil {
		return nil, errors.Join(err, r.pinned.unpin())
	}
	r.parts = append(r.parts, q)
	for _, b := range r.pinned {
		open, err := b.reader()
		if err == nil {
			q, err = block(open, mint, maxt)
		}
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.parts = append(r.parts, q)
	}
	return r, nil
}

func (r *reading[Q]) close() (err error) {
	for _, q := range r.parts {
		err = errors.Join(err, q.Close())
	}
	return errors.Join(err, r.pinned.unpin())
}

// Querier reads what is in memory and in local blocks, mint <= t <= maxt. Of a batch with late
// samples it may show a part; ChunkQuerier does not.
func (h *Head) Querier(mint, maxt int64) (storage.Querier, error) {
	r, err := openParts(h, mint, maxt, h.db.Querier, tsdb.NewBlockQuerier)
	if err != nil {
		return nil, err
	}
	return &sampleParts{storage.NewMergeQuerier(r.parts, nil, storage.ChainedSeriesMerge), r.pinned}, nil
}

// chunkQuerier reads the same as encoded chunks.
func (h *Head) chunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	r, err := openParts(h, mint, maxt, h.memoryChunks, tsdb.NewBlockChunkQuerier)
	if err != nil {
		return nil, err
	}
	if len(r.pinned) == 0 {
		return r.parts[0], nil
	}
	merge := storage.NewCompactingChunkSeriesMerger(storage.ChainedSeriesMerge)
	return &chunkParts{storage.NewMergeChunkQuerier(r.parts, nil, merge), r.pinned}, nil
}

type sampleParts struct {
	storage.Querier
	pinned pinned
}

// Close is part of storage.Querier.
func (q *sampleParts) Close() error { return errors.Join(q.Querier.Close(), q.pinned.unpin()) }

type chunkParts struct {
	storage.ChunkQuerier
	pinned pinned
}

// Close is part of storage.ChunkQuerier.
func (q *chunkParts) Close() error { return errors.Join(q.ChunkQuerier.Close(), q.pinned.unpin()) }

package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Deps are what a Reader works with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Bucket objstore.Bucket  // of all tenants
	Now    func() time.Time // nil: time.Now
}

// Reader serves the blocks of all tenants of a bucket to the queries of one process. A block is
// copied as a whole to the local disk when a query first needs it and stays while there is room.
type Reader struct {
	lists *lists
	cache *cache
}

// NewReader opens a reader, which owns the directory cfg.SyncDir/cache and empties it: a copy may
// have been cut short by a crash. The caller closes it.
func NewReader(cfg Config, deps Deps) (*Reader, error) {
	if cfg.SyncDir == "" || cfg.MaxCacheBytes <= 0 {
		return nil, errs.New(errs.Invalid, "bucket_store needs sync_dir and a positive max_cache_bytes")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	dir := filepath.Join(cfg.SyncDir, "cache")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o750)); err != nil {
		return nil, fmt.Errorf("prepare block cache: %w", err)
	}
	m := newMetrics(deps.Reg)
	ctx, stop := context.WithCancelCause(context.Background())
	return &Reader{
		lists: &lists{deps: deps, metrics: m, tenants: map[tenant.ID]*list{}},
		cache: &cache{
			deps: deps, metrics: m, dir: dir, maxBytes: int64(cfg.MaxCacheBytes),
			life: ctx, stop: stop, slots: make(chan struct{}, loadConcurrency),
			copies: map[blockKey]*copied{},
		},
	}, nil
}

// Close ends running downloads, waits for open snapshots to be closed, and drops all copies.
func (r *Reader) Close() error { return r.cache.close() }

// Snapshot is the blocks of one tenant that overlap a time range. They stay on the local disk
// until Close.
type Snapshot struct {
	cache      *cache
	pinned     []*copied
	mint, maxt int64
	queriers   []storage.ChunkQuerier

	closing sync.Once
}

// Open returns the tenant's blocks with samples in mint <= t <= maxt (milliseconds), copying
// those that are not here yet. A block that is deleted meanwhile makes it look at the bucket
// again, once. Errors: Unavailable if any block cannot be had, Internal if one is corrupted,
// TooLarge if the blocks do not fit the cache; never a part of the blocks.
func (r *Reader) Open(ctx context.Context, id tenant.ID, mint, maxt int64) (*Snapshot, error) {
	l, err := r.lists.at(ctx, id, time.Time{})
	if err != nil {
		return nil, err
	}
	s, err := r.cache.open(ctx, id, l.metas, mint, maxt)
	if errs.KindOf(err) != errs.NotFound {
		return s, err
	}
	if l, err = r.lists.at(ctx, id, l.began.Add(1)); err != nil {
		return nil, err
	}
	if s, err = r.cache.open(ctx, id, l.metas, mint, maxt); errs.KindOf(err) == errs.NotFound {
		err = errs.New(errs.Unavailable, "blocks keep disappearing: %w", err)
	}
	return s, err
}

// Len returns the number of blocks.
func (s *Snapshot) Len() int { return len(s.pinned) }

// ChunkQueriers returns a querier for each block, which the snapshot closes. What they yield lies
// in the block's mapped files and must not be used after the snapshot's Close.
func (s *Snapshot) ChunkQueriers() ([]storage.ChunkQuerier, error) {
	qs := make([]storage.ChunkQuerier, 0, len(s.pinned))
	for _, c := range s.pinned {
		q, err := tsdb.NewBlockChunkQuerier(c.block, s.mint, s.maxt)
		if err != nil {
			return nil, fmt.Errorf("query block %s: %w", c.key.block, err)
		}
		qs, s.queriers = append(qs, q), append(s.queriers, q)
	}
	return qs, nil
}

// Close closes the queriers and lets the blocks go. It may be called more than once.
func (s *Snapshot) Close() error {
	var err error
	s.closing.Do(func() {
		for _, q := range s.queriers {
			err = errors.Join(err, q.Close())
		}
		for _, c := range s.pinned {
			s.cache.release(c)
		}
	})
	return err
}

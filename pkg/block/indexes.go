package block

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// indexAge is how old a bucket index in memory may be before it is read again. Ingesters keep
	// what they uploaded for hours, so a block may be seen late without a gap.
	indexAge = time.Minute

	// staleIndexAge is how old it may be while it cannot be read. It is far below the time
	// ingesters keep uploaded samples, so queries of recent data outlive an outage of the storage
	// without a gap.
	staleIndexAge = 15 * time.Minute

	// idleIndexAge is when the index of a tenant nobody queries is forgotten.
	idleIndexAge = time.Hour

	// missingIndexAge is how old a listing may be that stands in for an index: a tenant without
	// one has no blocks, or no compactor has looked at it yet.
	missingIndexAge = 5 * time.Minute
)

// IndexesDeps are what Indexes work with.
type IndexesDeps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Bucket objstore.Bucket // of all tenants
	// MaxStale is how old an index may be by its own account. 0: no limit.
	MaxStale time.Duration
	// IndexOnly makes a tenant without an index an error instead of listing its blocks.
	IndexOnly bool
	Now       func() time.Time // nil: time.Now
}

// Indexes remembers the bucket indexes of the tenants that were queried lately.
type Indexes struct {
	deps    IndexesDeps
	metrics *indexMetrics

	renewed atomic.Int64 // in nanoseconds since the epoch: what was read before is not used

	mu      sync.Mutex // guards tenants
	tenants map[tenant.ID]*tenantIndex
}

// tenantIndex is of one tenant. Its lock is a channel so that waiting ends with the waiter's
// context.
type tenantIndex struct {
	lock chan struct{}
	used time.Time // guarded by Indexes.mu

	// Guarded by lock.
	read  time.Time // when the last try began that succeeded
	index *BucketIndex
	// listed says that there was no index object and the bucket was listed instead.
	listed bool
	byID   map[ulid.ULID]*IndexedBlock // of index; nil until somebody asks
	failed time.Time                   // when Block tried in vain
}

// NewIndexes returns an empty memory.
func NewIndexes(deps IndexesDeps) *Indexes {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	x := &Indexes{deps: deps, tenants: map[tenant.ID]*tenantIndex{}}
	x.metrics = newIndexMetrics(deps.Reg, x)
	return x
}

// At returns the tenant's blocks as they were at most a minute ago. If that is the index old, which
// the caller found to be out of date, it is read again; old may be nil. The caller must not change
// what is returned. Errors: Unavailable, Internal.
func (x *Indexes) At(ctx context.Context, id tenant.ID, old *BucketIndex) (*BucketIndex, error) {
	t := x.of(id)
	select {
	case t.lock <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-t.lock }()
	return x.at(ctx, id, t, old)
}

// Since is At for whom the index must be as it was at a time or later, however new the last one is.
func (x *Indexes) Since(ctx context.Context, id tenant.ID, since time.Time) (*BucketIndex, error) {
	t := x.of(id)
	select {
	case t.lock <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-t.lock }()
	var old *BucketIndex
	if t.read.Before(since) {
		old = t.index
	}
	return x.at(ctx, id, t, old)
}

// Block returns what the index says of a block, nil if it cannot tell.
func (x *Indexes) Block(ctx context.Context, id tenant.ID, block ulid.ULID) *IndexedBlock {
	t := x.of(id)
	select {
	case t.lock <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-t.lock }()
	if b := t.byID[block]; b != nil {
		return b // of an older index, too: blocks do not change
	}
	if now := x.deps.Now(); now.Sub(t.failed) < indexAge {
		return nil
	} else if _, err := x.at(ctx, id, t, nil); err != nil {
		t.failed = now
		return nil
	}
	if t.byID != nil {
		return nil
	}
	idx := t.index
	t.byID = make(map[ulid.ULID]*IndexedBlock, len(idx.Blocks))
	for i := range idx.Blocks {
		t.byID[idx.Blocks[i].ID] = &idx.Blocks[i]
	}
	return t.byID[block]
}

// at is At with t locked.
func (x *Indexes) at(ctx context.Context, id tenant.ID, t *tenantIndex, old *BucketIndex) (*BucketIndex, error) {
	now := x.deps.Now()
	age, fresh := now.Sub(t.read), indexAge
	if t.listed {
		fresh = missingIndexAge
	}
	usable := t.index != nil && t.index != old && t.read.UnixNano() >= x.renewed.Load()
	if usable && age < fresh {
		return t.index, x.checkAge(id, t, now)
	}
	x.metrics.loads.Inc()
	index, listed, err := x.load(ctx, id, t.index, t.index == old)
	if err == nil {
		t.index, t.read, t.listed, t.byID = index, now, listed, nil
		x.metrics.duration.Observe(x.deps.Now().Sub(now).Seconds())
		return index, x.checkAge(id, t, now)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	x.metrics.failures.Inc()
	if usable && age < staleIndexAge {
		x.deps.Logger.Warn("bucket index not read, the last one is used", "tenant", id, "age", age, "err", err)
		return t.index, nil
	}
	return nil, err
}

// Renew makes every call of At that begins from now on look at the bucket again: somebody who
// answered for samples says that they are in blocks by now.
func (x *Indexes) Renew() { x.renewed.Store(x.deps.Now().UnixNano()) }

// load reads the index, or lists the bucket if there is none, in which last spares to read the meta
// files of blocks it has, unless it is known to be wrong.
func (x *Indexes) load(ctx context.Context, id tenant.ID, last *BucketIndex, wrong bool) (_ *BucketIndex, listed bool, err error) {
	ctx = bucket.Because(ctx, bucket.Index)
	bkt := objstore.NewPrefixedBucket(x.deps.Bucket, string(id))
	index, err := ReadBucketIndex(ctx, bkt)
	if x.deps.IndexOnly || errs.KindOf(err) != errs.NotFound {
		return index, false, err
	}
	x.metrics.listings.Inc()
	if wrong {
		last = nil
	}
	s, err := ScanBlocks(ctx, bkt, last, x.deps.Now())
	if err != nil {
		return nil, true, err
	}
	for block, err := range s.Corrupted {
		return nil, true, errs.New(errs.Internal, "block %s of tenant %s would be left out: %w", block, id, err)
	}
	return s.Index, true, nil
}

// checkAge refuses an index that nobody has kept up to date: it may lack blocks.
func (x *Indexes) checkAge(id tenant.ID, t *tenantIndex, now time.Time) error {
	age := now.Sub(time.Unix(t.index.UpdatedAt, 0))
	if x.deps.MaxStale <= 0 || t.listed || age <= x.deps.MaxStale {
		return nil
	}
	return errs.WithID(errs.Internal, "bucket-index-too-old", "See whether the compactor runs, or raise -blocks-storage.bucket-store.bucket-index.max-stale-period.",
		"the bucket index of tenant %s was last updated %s ago, at most %s are allowed", id, age.Round(time.Second), x.deps.MaxStale)
}

func (x *Indexes) of(id tenant.ID) *tenantIndex {
	now := x.deps.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.tenants[id]
	if t == nil {
		t = &tenantIndex{lock: make(chan struct{}, 1)}
		maps.DeleteFunc(x.tenants, func(_ tenant.ID, t *tenantIndex) bool { return now.Sub(t.used) > idleIndexAge })
		x.tenants[id] = t
	}
	t.used = now
	return t
}

// Overlapping returns the blocks that may have samples in mint <= t <= maxt and are not marked for
// deletion, oldest first.
func (i *BucketIndex) Overlapping(mint, maxt int64) []IndexedBlock {
	marked := make(map[[16]byte]bool, len(i.DeletionMarks))
	for _, m := range i.DeletionMarks {
		marked[m.ID] = true
	}
	var out []IndexedBlock
	for _, b := range i.Blocks {
		// Chunks of downsampled blocks are of another format.
		if b.Overlaps(mint, maxt) && !marked[b.ID] && b.Resolution == 0 {
			out = append(out, b)
		}
	}
	return out
}

// AddToBucketIndex adds blocks that were just uploaded to the index of a tenant, so that queries
// know them at once; bkt is the tenant's. Two writers at the same time may lose each other's blocks,
// so whoever adds looks again later: known says whether the index had all of them already. Errors:
// Unavailable.
func AddToBucketIndex(ctx context.Context, bkt objstore.Bucket, now time.Time, blocks ...IndexedBlock) (known bool, err error) {
	idx, err := ReadBucketIndex(ctx, bkt)
	if k := errs.KindOf(err); err != nil && (k == errs.NotFound || k == errs.Internal) {
		s, err := ScanBlocks(ctx, bkt, nil, now)
		if err != nil {
			return false, err
		}
		return false, WriteBucketIndex(ctx, bkt, s.Index)
	}
	if err != nil {
		return false, err
	}
	known = true
	have := make(map[[16]byte]bool, len(idx.Blocks)+len(idx.DeletionMarks))
	for _, b := range idx.Blocks {
		have[b.ID] = true
	}
	for _, m := range idx.DeletionMarks {
		have[m.ID] = true
	}
	for _, b := range blocks {
		if !have[b.ID] {
			idx.Blocks = append(idx.Blocks, b)
			known = false
		}
	}
	if known {
		return true, nil
	}
	// UpdatedAt stays: it says when all of the bucket was looked at last.
	return false, WriteBucketIndex(ctx, bkt, idx)
}

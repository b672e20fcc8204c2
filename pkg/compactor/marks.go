package compactor

import (
	"context"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// reasonManual is that of marks that people set.
const reasonManual = "manual"

// there refuses a block that the tenant does not have. Errors: NotFound, Unavailable.
func (c *Compactor) there(ctx context.Context, id tenant.ID, b ulid.ULID) error {
	ok, err := c.bucket(id).Exists(ctx, path.Join(b.String(), block.MetaFile))
	if err != nil {
		return errs.New(errs.Unavailable, "look for block %s: %w", b, err)
	}
	if !ok {
		return errs.New(errs.NotFound, "tenant %s has no block %s", id, b)
	}
	return nil
}

// MarkNoCompact sets a block aside from compaction. Errors: NotFound, Unavailable.
func (c *Compactor) MarkNoCompact(ctx context.Context, id tenant.ID, b ulid.ULID, details string) error {
	if err := c.there(ctx, id, b); err != nil {
		return err
	}
	if err := block.MarkNoCompact(ctx, c.bucket(id), b, c.deps.Now(), reasonManual, details); err != nil {
		return err
	}
	c.metrics.setAside.WithLabelValues(reasonManual).Inc()
	c.deps.Logger.Info("block set aside from compaction on request", "tenant", id, "block", b, "details", details)
	return nil
}

// UnmarkNoCompact lets a block be compacted again. Errors: NotFound, Unavailable.
func (c *Compactor) UnmarkNoCompact(ctx context.Context, id tenant.ID, b ulid.ULID) error {
	if err := c.there(ctx, id, b); err != nil {
		return err
	}
	if err := block.UnmarkNoCompact(ctx, c.bucket(id), b); err != nil {
		return err
	}
	c.deps.Logger.Info("block is compacted again on request", "tenant", id, "block", b)
	return nil
}

// MarkForDeletion hides a block from queries and lets it be deleted after the delay. Errors:
// NotFound, Unavailable.
func (c *Compactor) MarkForDeletion(ctx context.Context, id tenant.ID, b ulid.ULID, details string) error {
	if err := c.there(ctx, id, b); err != nil {
		return err
	}
	now := c.deps.Now()
	if err := block.MarkForDeletion(ctx, c.bucket(id), b, now, details); err != nil {
		return err
	}
	c.metrics.marked.WithLabelValues(reasonManual).Inc()
	c.deps.Logger.Info("block marked for deletion on request", "tenant", id, "block", b, "details", details)
	return c.relist(ctx, id, func(idx *block.BucketIndex) {
		idx.Alter(b, now)
		idx.DeletionMarks = append(without(idx.DeletionMarks, func(m block.IndexedMark) bool { return m.ID == b }), block.IndexedMark{ID: b, DeletionTime: now.Unix()})
	})
}

// UnmarkForDeletion takes that back, also for a block that compaction or retention marked. Errors:
// NotFound if the block is gone, Unavailable.
func (c *Compactor) UnmarkForDeletion(ctx context.Context, id tenant.ID, b ulid.ULID) error {
	if err := c.there(ctx, id, b); err != nil {
		return err
	}
	if err := block.UnmarkForDeletion(ctx, c.bucket(id), b); err != nil {
		return err
	}
	c.deps.Logger.Info("deletion mark of a block removed on request", "tenant", id, "block", b)
	return c.relist(ctx, id, func(idx *block.BucketIndex) {
		idx.Alter(b, c.deps.Now())
		idx.DeletionMarks = without(idx.DeletionMarks, func(m block.IndexedMark) bool { return m.ID == b })
	})
}

// relist changes the bucket index at once; if another writes it at the same time, the next round of
// cleaning up does.
func (c *Compactor) relist(ctx context.Context, id tenant.ID, change func(*block.BucketIndex)) error {
	idx, err := block.ReadBucketIndex(ctx, c.bucket(id))
	if err != nil {
		if k := errs.KindOf(err); k == errs.NotFound || k == errs.Internal {
			return nil // the next round makes one
		}
		return err
	}
	change(idx)
	slices.SortFunc(idx.DeletionMarks, func(a, b block.IndexedMark) int { return a.ID.Compare(b.ID) })
	return block.WriteBucketIndex(ctx, c.bucket(id), idx)
}

// paceHalf is after how many jobs a pace has half of its weight.
const paceHalf = 10

// pace is how quick jobs are lately.
type pace struct {
	mu             sync.Mutex // guards what follows
	bytes, seconds float64
}

func (p *pace) add(bytes int64, took time.Duration) {
	if bytes <= 0 || took <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	keep := 1 - 1.0/paceHalf
	p.bytes, p.seconds = keep*p.bytes+float64(bytes), keep*p.seconds+took.Seconds()
}

// Estimate is how long compaction of so many bytes takes if all compactors are as quick as this one
// was lately; 0: it did no job yet.
func (c *Compactor) Estimate(bytes int64) time.Duration {
	c.pace.mu.Lock()
	defer c.pace.mu.Unlock()
	if c.pace.bytes == 0 {
		return 0
	}
	workers := float64(c.cfg.Concurrency)
	if c.deps.Peers != nil {
		workers *= float64(max(c.deps.Peers(), 1))
	}
	return time.Duration(float64(bytes) * c.pace.seconds / c.pace.bytes / workers * float64(time.Second))
}

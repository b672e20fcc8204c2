package compactor

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// cleaning is the piece of work of a tenant that is its cleanup.
const cleaning = "cleanup"

// minPartialDelay is the least age at which a block without a meta file is taken for one that
// nobody uploads any more.
const minPartialDelay = 4 * time.Hour

// alterationSlack is how much longer than answers are kept it is remembered what operators did to
// blocks: as long as it may take until the last querier knows.
const alterationSlack = 2 * time.Hour

// debugMetaAge is how old copies of meta files of blocks that are gone become.
const debugMetaAge = 90 * 24 * time.Hour

// CleanUp brings the bucket index of every tenant of this process up to date, marks what retention
// ends, deletes what was marked long enough ago, and goes on with tenants being deleted.
func (c *Compactor) CleanUp(ctx context.Context) error {
	ctx = bucket.Because(ctx, bucket.Cleanup)
	c.metrics.cleanStarted.Inc()
	tenants, err := c.tenants(ctx, cleaning)
	if err == nil {
		err = c.cleanTenants(ctx, tenants)
		c.metrics.keepTenants(tenants)
	} else if ctx.Err() == nil {
		c.deps.Logger.Error("tenants not found, cleaning up is tried again in the next round", "err", err)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		c.metrics.cleanFailed.Inc()
		return err
	}
	c.metrics.cleanCompleted.Inc()
	c.metrics.lastClean.Set(float64(c.deps.Now().Unix()))
	return nil
}

// cleanTenants cleans up all tenants, some at a time, until ctx ends. The failure of one does not stop the others.
func (c *Compactor) cleanTenants(ctx context.Context, tenants []tenant.ID) error {
	var mu sync.Mutex // guards problems
	var problems []error
	g := errgroup.Group{}
	g.SetLimit(c.cfg.CleanupConcurrency)
	for _, id := range tenants {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			if err := c.guarded("cleaning up", func() error { return c.cleanTenant(ctx, id) }, "tenant", id); err != nil && ctx.Err() == nil {
				c.deps.Logger.Error("tenant's blocks not cleaned up, it is tried again in the next round", "tenant", id, "err", err)
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, fmt.Errorf("tenant %s: %w", id, err))
			}
			return nil
		})
	}
	_ = g.Wait() // what failed is among the problems
	return errors.Join(problems...)
}

func (c *Compactor) cleanTenant(ctx context.Context, id tenant.ID) error {
	bkt := c.bucket(id)
	if d, err := block.ReadTenantDeletion(ctx, bkt); err != nil {
		return err
	} else if d != nil {
		return c.deleteTenant(ctx, id, *d)
	}
	now := c.deps.Now()
	old, err := block.ReadBucketIndex(ctx, bkt)
	lost := err != nil && errs.KindOf(err) == errs.Internal
	if lost {
		c.deps.Logger.Warn("bucket index made anew", "tenant", id, "err", err)
	} else if err != nil && errs.KindOf(err) != errs.NotFound {
		return err
	}
	scan, err := block.ScanBlocks(ctx, bkt, old, now)
	if err != nil {
		return err
	}
	for block, err := range scan.Corrupted {
		c.deps.Logger.Error("block has a corrupted meta file and is in no index, so queries lack its samples", "tenant", id, "block", block, "err", err)
	}
	v := c.deps.Limits(id)
	if old != nil || lost {
		scan.NoteAlterations(old, max(limits.ResultsCacheTTL.Of(v), limits.ResultsCacheTTLForOutOfOrder.Of(v))+alterationSlack)
	}
	problems := []error{c.retire(ctx, id, scan.Index)}
	gone := c.takeDue(scan.Index)
	// A block goes only after the index without it is there: who reads the index finds all of it.
	if err := block.WriteBucketIndex(ctx, bkt, scan.Index); err != nil {
		return errors.Join(append(problems, err)...)
	}
	problems = append(problems, c.deleteMarked(ctx, id, gone), c.deletePartial(ctx, id, scan), c.forgetMetas(ctx, id, scan, old))
	return errors.Join(append(problems, c.report(ctx, id, scan))...)
}

// report sets the tenant's metrics.
func (c *Compactor) report(ctx context.Context, id tenant.ID, scan *block.Scan) error {
	all, marks, err := c.erasures(ctx, id, scan.Marks)
	if err != nil {
		c.metrics.estimateFailures.Inc()
		return err
	}
	jobs, erased := due(c.planning(id), eligible(scan.Index, scan.Marks), all, marks)
	c.metrics.tenant(id, scan, jobs, c.deps.Now(), c.Estimate)
	return c.reportErased(ctx, id, scan, all, erased)
}

// retire marks the blocks that are older than the tenant's retention.
func (c *Compactor) retire(ctx context.Context, id tenant.ID, idx *block.BucketIndex) error {
	keep := tombstone.KeepAll(c.deps.Limits(id))
	if keep <= 0 {
		return nil
	}
	now := c.deps.Now()
	marked := map[ulid.ULID]bool{}
	for _, m := range idx.DeletionMarks {
		marked[m.ID] = true
	}
	for _, b := range idx.Blocks {
		if marked[b.ID] || b.MaxTime >= now.Add(-keep).UnixMilli() {
			continue
		}
		if err := block.MarkObsolete(ctx, c.bucket(id), b.ID, now, fmt.Sprintf("older than the retention of %s", keep)); err != nil {
			return err
		}
		idx.DeletionMarks = append(idx.DeletionMarks, block.IndexedMark{ID: b.ID, DeletionTime: now.Unix()})
		c.metrics.marked.WithLabelValues("retention").Inc()
		c.deps.Logger.Info("block is older than the tenant's retention and marked for deletion", "tenant", id, "block", b.ID, "retention", keep)
	}
	return nil
}

// takeDue takes the blocks whose marks are old enough out of the index, and returns them.
func (c *Compactor) takeDue(idx *block.BucketIndex) []ulid.ULID {
	var due []ulid.ULID
	gone := map[ulid.ULID]bool{}
	for _, m := range idx.DeletionMarks {
		if c.deps.Now().Sub(time.Unix(m.DeletionTime, 0)) >= c.cfg.DeletionDelay {
			due = append(due, m.ID)
			gone[m.ID] = true
		}
	}
	if len(due) > 0 {
		idx.Blocks = without(idx.Blocks, func(b block.IndexedBlock) bool { return gone[b.ID] })
		idx.DeletionMarks = without(idx.DeletionMarks, func(m block.IndexedMark) bool { return gone[m.ID] })
	}
	return due
}

// deleteMarked deletes blocks. What is left of one is found by its mark in the next round.
func (c *Compactor) deleteMarked(ctx context.Context, id tenant.ID, due []ulid.ULID) error {
	var problems []error
	for _, u := range due {
		if _, err := block.Delete(ctx, c.bucket(id), u); err != nil {
			c.metrics.deletionFailures.Inc()
			problems = append(problems, err)
			continue
		}
		c.metrics.deleted.Inc()
		c.deps.Logger.Info("marked block deleted", "tenant", id, "block", u)
	}
	return errors.Join(problems...)
}

// without returns a copy of list that lacks the elements for which drop says so.
func without[T any](list []T, drop func(T) bool) []T {
	out := make([]T, 0, len(list))
	for _, x := range list {
		if !drop(x) {
			out = append(out, x)
		}
	}
	return out
}

// deletePartial deletes what an upload that was cut off left, if nothing was added for long enough,
// and blocks whose deletion was cut off.
func (c *Compactor) deletePartial(ctx context.Context, id tenant.ID, scan *block.Scan) error {
	delay := limits.CompactorPartialBlockDeletionDelay.Of(c.deps.Limits(id))
	if delay <= 0 {
		return nil
	}
	delay = max(delay, minPartialDelay)
	var problems []error
	for _, u := range scan.Partial {
		if scan.Marks.Deletion[u] {
			continue // deleteMarked goes on with it
		}
		last, err := lastModified(ctx, c.bucket(id), u)
		switch {
		case err != nil:
			problems = append(problems, err)
		case c.deps.Now().Sub(last) < delay:
		default:
			if _, err := block.Delete(ctx, c.bucket(id), u); err != nil {
				c.metrics.deletionFailures.Inc()
				problems = append(problems, err)
				continue
			}
			c.metrics.deleted.Inc()
			c.deps.Logger.Info("partial block deleted, its upload was never finished", "tenant", id, "block", u, "last_change", last)
		}
	}
	return errors.Join(problems...)
}

// forgetMetas removes old copies of the meta files of blocks that are gone, in the first round of a day:
// old is the index of the round before.
func (c *Compactor) forgetMetas(ctx context.Context, id tenant.ID, scan *block.Scan, old *block.BucketIndex) error {
	day := int64(24 * time.Hour / time.Second)
	if old == nil || old.UpdatedAt/day == scan.Index.UpdatedAt/day {
		return nil
	}
	there := map[ulid.ULID]bool{}
	for _, b := range scan.Index.Blocks {
		there[b.ID] = true
	}
	n, err := block.ForgetDebugMetas(ctx, c.bucket(id), c.deps.Now().Add(-debugMetaAge), func(u ulid.ULID) bool { return there[u] })
	if n > 0 {
		c.deps.Logger.Info("old copies of meta files of deleted blocks removed", "tenant", id, "removed", n)
	}
	return err
}

// lastModified is when an object of a block was written last.
func lastModified(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) (time.Time, error) {
	var last time.Time
	err := bkt.Iter(ctx, id.String()+"/", func(name string) error {
		a, err := bkt.Attributes(ctx, name)
		if err != nil {
			if bkt.IsObjNotFoundErr(err) {
				return nil
			}
			return err
		}
		if a.LastModified.After(last) {
			last = a.LastModified
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return last, errs.New(errs.Unavailable, "look at partial block %s: %w", id, err)
	}
	return last, nil
}

// deleteTenant goes on with a tenant that is marked for deletion: first its blocks go, and after a
// delay, in which it can be seen that they did, the rest.
func (c *Compactor) deleteTenant(ctx context.Context, id tenant.ID, d block.TenantDeletion) error {
	bkt := c.bucket(id)
	now := c.deps.Now()
	c.metrics.forget(id)
	// Without the index no querier finds the blocks that are about to go.
	if err := bkt.Delete(ctx, block.BucketIndexFile); err != nil && !bkt.IsObjNotFoundErr(err) {
		return errs.New(errs.Unavailable, "delete the bucket index: %w", err)
	}
	scan, err := block.ScanBlocks(ctx, bkt, nil, now)
	if err != nil {
		return err
	}
	ids := append([]ulid.ULID{}, scan.Partial...)
	for _, b := range scan.Index.Blocks {
		ids = append(ids, b.ID)
	}
	for u := range scan.Corrupted {
		ids = append(ids, u)
	}
	for _, u := range ids {
		if _, err := block.Delete(ctx, bkt, u); err != nil {
			c.metrics.deletionFailures.Inc()
			return err
		}
		c.metrics.deleted.Inc()
	}
	if len(ids) > 0 {
		c.deps.Logger.Info("blocks of a deleted tenant removed", "tenant", id, "blocks", len(ids))
	}
	if d.FinishedTime == 0 {
		d.FinishedTime = now.Unix()
		return block.WriteTenantDeletion(ctx, bkt, d)
	}
	if now.Sub(time.Unix(d.FinishedTime, 0)) < c.cfg.TenantCleanupDelay {
		return nil
	}
	return c.deleteRest(ctx, id)
}

// deleteRest removes every object that is left of a tenant, the mark last.
func (c *Compactor) deleteRest(ctx context.Context, id tenant.ID) error {
	bkt := c.bucket(id)
	var names []string
	err := bkt.Iter(ctx, "", func(name string) error {
		if name != path.Join(block.MarkersDir, block.TenantDeletionMark) {
			names = append(names, name)
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return errs.New(errs.Unavailable, "list what is left of the tenant: %w", err)
	}
	if err := c.forget(ctx, id); err != nil { // which came after the mark, from who had not seen it
		return err
	}
	for _, name := range append(names, path.Join(block.MarkersDir, block.TenantDeletionMark)) {
		if err := bkt.Delete(ctx, name); err != nil && !bkt.IsObjNotFoundErr(err) {
			return errs.New(errs.Unavailable, "delete %s: %w", name, err)
		}
	}
	c.deps.Logger.Info("tenant deleted", "tenant", id, "objects", len(names))
	return nil
}

package compactor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// round is a tenant's turn: what one listing found of its blocks, kept up with the jobs that are done
// since, so that the next job is planned without another listing. What others do to the bucket
// meanwhile is noticed by looking at the marks before each job.
type round struct {
	c     *Compactor
	id    tenant.ID
	began time.Time
	all   tombstone.Set // to be left out

	mu      sync.Mutex // guards what follows
	changed *sync.Cond // a job ended
	blocks  map[ulid.ULID]block.IndexedBlock
	known   *block.BucketIndex       // of all blocks, also those that are not compacted
	metas   map[ulid.ULID]block.Meta // those read or made so far
	erased  map[ulid.ULID][]string   // as noted by marks
	running map[string]bool          // keys of jobs
	failed  map[string]bool
	done    int
	err     error // of the ring; it ends the round
}

// list begins a round with a listing. last is the one before, nil: there was none.
func (c *Compactor) list(ctx context.Context, id tenant.ID, last *round) (*round, error) {
	bkt := c.bucket(id)
	var old *block.BucketIndex
	failed := map[string]bool{}
	if last != nil {
		old, failed = last.known, last.failed
	} else {
		var err error
		if old, err = block.ReadBucketIndex(ctx, bkt); err != nil && errs.KindOf(err) != errs.NotFound && errs.KindOf(err) != errs.Internal {
			return nil, err
		}
	}
	scan, err := block.ScanBlocks(ctx, bkt, old, c.deps.Now())
	if err != nil {
		return nil, err
	}
	if scan.Marks.Tenant {
		return nil, errDeleted
	}
	r := &round{c: c, id: id, began: c.deps.Now(), blocks: map[ulid.ULID]block.IndexedBlock{}, known: scan.Index, metas: map[ulid.ULID]block.Meta{},
		running: map[string]bool{}, failed: failed}
	r.changed = sync.NewCond(&r.mu)
	for _, b := range eligible(scan.Index, scan.Marks) {
		r.blocks[b.ID] = b
	}
	r.all, r.erased, err = c.erasures(ctx, id, scan.Marks)
	return r, err
}

// errDeleted says that the tenant is being deleted.
var errDeleted = errors.New("the tenant is being deleted")

// eligible returns the blocks that may be compacted.
func eligible(idx *block.BucketIndex, marks block.Marks) []block.IndexedBlock {
	not := map[ulid.ULID]bool{}
	for _, m := range idx.DeletionMarks {
		not[m.ID] = true
	}
	return without(idx.Blocks, func(b block.IndexedBlock) bool { return not[b.ID] || marks.Deletion[b.ID] || marks.NoCompact[b.ID] })
}

// run does jobs, as many at a time as there may be, until none is left that is due and this process's,
// or the tenant's time is up. It returns how many it did.
func (r *round) run(ctx context.Context, until time.Time) (int, error) {
	var workers sync.WaitGroup
	for range r.c.cfg.Concurrency {
		workers.Go(func() {
			err := r.c.guarded("planning jobs", func() error { r.work(ctx, until); return nil }, "tenant", r.id)
			if err != nil {
				r.mu.Lock()
				r.err = err
				r.changed.Broadcast()
				r.mu.Unlock()
			}
		})
	}
	workers.Wait()
	return r.done, r.err
}

// work does jobs one after the other.
func (r *round) work(ctx context.Context, until time.Time) {
	for {
		j, ok := r.next(ctx, until)
		if !ok {
			return
		}
		err := r.c.try(ctx, r, j)
		r.mu.Lock()
		delete(r.running, j.Key)
		if err != nil && !errors.Is(err, errPlanAnew) {
			r.failed[j.Key] = true
		}
		r.done++
		r.changed.Broadcast()
		r.mu.Unlock()
	}
}

// next waits for a job.
func (r *round) next(ctx context.Context, until time.Time) (Job, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if ctx.Err() != nil || r.err != nil || !until.IsZero() && r.c.deps.Now().After(until) {
			return Job{}, false
		}
		for _, j := range r.jobs() {
			if r.running[j.Key] || r.failed[j.Key] {
				continue
			}
			mine, err := r.c.deps.Owns(r.id, j.Key)
			if err != nil {
				r.err = fmt.Errorf("ask the ring whose job it is: %w", err)
				return Job{}, false
			}
			if mine {
				r.running[j.Key] = true
				return j, true
			}
		}
		if len(r.running) == 0 {
			return Job{}, false
		}
		r.changed.Wait() // what is made now may be merged further
	}
}

// jobs are those that are due, the first to be done first. r.mu is held.
func (r *round) jobs() []Job {
	blocks := make([]block.IndexedBlock, 0, len(r.blocks))
	for _, b := range r.blocks {
		blocks = append(blocks, b)
	}
	slices.SortFunc(blocks, func(a, b block.IndexedBlock) int { return a.ID.Compare(b.ID) })
	jobs, _ := due(r.c.planning(r.id), blocks, r.all, r.erased)
	return jobs
}

// meta returns the meta file of a block, which is read once. Errors: as of block.ReadMeta.
func (r *round) meta(ctx context.Context, id ulid.ULID) (block.Meta, error) {
	r.mu.Lock()
	m, ok := r.metas[id]
	r.mu.Unlock()
	if ok {
		return m, nil
	}
	m, err := block.ReadMeta(ctx, r.c.bucket(r.id), id)
	if err != nil {
		return m, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.blocks[id]; known {
		r.metas[id] = m
	}
	return m, nil
}

// add takes up a new block.
func (r *round) add(m block.Meta) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := m.Indexed(r.c.deps.Now())
	r.blocks[m.ULID] = b
	r.known.Blocks = append(r.known.Blocks, b)
	r.metas[m.ULID] = m
}

// drop takes out blocks that are not compacted any more.
func (r *round) drop(ids ...ulid.ULID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		delete(r.blocks, id)
		delete(r.metas, id)
	}
}

// marked takes out a block that was marked for deletion.
func (r *round) marked(id ulid.ULID, now time.Time) {
	r.drop(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known.DeletionMarks = append(r.known.DeletionMarks, block.IndexedMark{ID: id, DeletionTime: now.Unix()})
}

// free notes that a block has no samples of the tombstones names, and returns of which it has none.
func (r *round) free(id ulid.ULID, names []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Concat(r.erased[id], names)
	slices.Sort(all)
	r.erased[id] = slices.Compact(all)
	return r.erased[id]
}

// overlapping are the blocks of shards that reach into mint <= t < maxt.
func (r *round) overlapping(mint, maxt int64) []ulid.ULID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []ulid.ULID
	for id, b := range r.blocks {
		if b.CompactorShard != "" && b.Overlaps(mint, maxt-1) {
			out = append(out, id)
		}
	}
	return out
}

// look lists the marks and drops those of the job's blocks that others marked, so that nobody waits
// long for a request to leave a block alone, and no block is compacted twice when jobs change hands.
func (r *round) look(ctx context.Context, j *Job) error {
	marks, err := block.ListMarks(ctx, r.c.bucket(r.id))
	if err != nil {
		return err
	}
	if marks.Tenant {
		r.mu.Lock()
		r.err = errDeleted
		r.mu.Unlock()
		return errDeleted
	}
	var gone []ulid.ULID
	for _, b := range j.Blocks {
		if marks.Deletion[b.ID] || marks.NoCompact[b.ID] {
			gone = append(gone, b.ID)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	r.drop(gone...)
	return fmt.Errorf("%w: others marked %d of its blocks", errPlanAnew, len(gone))
}

package compactor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// erasures are the tombstones of a tenant whose samples compaction leaves out, and of which of them
// marks say that a block has no samples.
func (c *Compactor) erasures(ctx context.Context, id tenant.ID, marks block.Marks) (all tombstone.Set, erased map[ulid.ULID][]string, err error) {
	all = tombstone.Retention(c.deps.Limits(id), c.deps.Now())
	if c.deps.Deletions != nil {
		requested, err := c.deps.Deletions.Due(ctx, id)
		if err != nil {
			return all, nil, err
		}
		all = tombstone.Join(requested, all)
	}
	if all.Empty() {
		return all, map[ulid.ULID][]string{}, nil
	}
	erased, err = block.ReadErased(ctx, c.bucket(id), marks.Erased)
	return all, erased, err
}

// applies says whether t is to be applied to blocks of MinTime <= t < MaxTime. What ends by its age is
// left until all of a block is too old, so that it is not written anew every day.
func applies(t *tombstone.Tombstone, mint, maxt int64) bool {
	return t.Overlaps(mint, maxt-1) && (!t.Lapses() || t.MaxTime >= maxt-1)
}

// names are the IDs of tombstones.
func names(s tombstone.Set) []string {
	var out []string
	for _, t := range s.List() {
		out = append(out, t.ID)
	}
	return out
}

// due returns the jobs that are due of eligible blocks: those of compaction, and the rewriting of
// blocks that have samples of all and are in no other job, which would leave them out, too. erased
// says of each tombstone whether no eligible block has its samples; marks is as of block.ReadErased.
func due(p planning, blocks []block.IndexedBlock, all tombstone.Set, marks map[ulid.ULID][]string) (jobs []Job, erased map[string]bool) {
	jobs = plan(blocks, p)
	if all.Empty() {
		return jobs, nil
	}
	busy := map[ulid.ULID]bool{}
	for i := range jobs {
		for _, b := range jobs[i].Blocks {
			busy[b.ID] = true
		}
	}
	erased = map[string]bool{}
	for _, t := range all.List() {
		erased[t.ID] = true
	}
	for _, b := range blocks {
		todo := false
		for _, t := range all.List() {
			if b.Resolution == 0 && applies(&t, b.MinTime, b.MaxTime) && !slices.Contains(b.Erased, t.ID) && !slices.Contains(marks[b.ID], t.ID) {
				todo, erased[t.ID] = true, false
			}
		}
		j := Job{Stage: Rewrite, Shard: b.CompactorShard, MinTime: b.MinTime, MaxTime: b.MaxTime,
			Blocks: []block.IndexedBlock{b}, Key: fmt.Sprintf("%s-%s", Rewrite, b.ID)}
		if todo && !busy[b.ID] && !p.waiting(&j) {
			jobs = append(jobs, j)
		}
	}
	return jobs, erased
}

// reportErased tells of which requests no block has samples. Blocks that are set aside and not
// marked for deletion count.
func (c *Compactor) reportErased(ctx context.Context, id tenant.ID, scan *block.Scan, all tombstone.Set, erased map[string]bool) error {
	if c.deps.Deletions == nil || len(erased) == 0 {
		return nil
	}
	for _, b := range eligible(scan.Index, block.Marks{}) {
		if !scan.Marks.NoCompact[b.ID] {
			continue
		}
		for _, t := range all.List() {
			if applies(&t, b.MinTime, b.MaxTime) && !slices.Contains(b.Erased, t.ID) {
				erased[t.ID] = false
			}
		}
	}
	return c.deps.Deletions.Report(ctx, id, erased)
}

// touched says whether the block of a rewriting has any sample to leave out, of which only the index
// is fetched. If not, that is noted in the bucket.
func (w *work) touched(ctx context.Context) (touched bool, err error) {
	if w.gone.Empty() {
		return false, nil
	}
	m := w.sources[0]
	path := filepath.Join(w.dir, "index")
	if err := block.DownloadIndex(ctx, w.bkt, m, path); err != nil {
		if errs.KindOf(err) == errs.Internal && ctx.Err() == nil {
			return false, w.setAside(ctx, m.ULID, err)
		}
		return false, err
	}
	touched, err = touches(ctx, path, w.gone)
	if rerr := os.Remove(path); rerr != nil {
		err = errors.Join(err, rerr)
	}
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, w.setAside(ctx, m.ULID, errs.New(errs.Internal, "its index is corrupted: %w", err))
	}
	if touched {
		return true, nil
	}
	return false, block.MarkErased(ctx, w.bkt, m.ULID, w.round.free(m.ULID, names(w.gone)))
}

// touches says whether a chunk of an index reaches into what is gone.
func touches(ctx context.Context, path string, gone tombstone.Set) (found bool, err error) {
	r, err := block.OpenIndex(path)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	err = block.Guard(func() error {
		found, err = anyTouches(ctx, r, gone)
		return err
	})
	return found, err
}

func anyTouches(ctx context.Context, r *block.IndexReader, gone tombstone.Set) (bool, error) {
	p, err := r.Refs(ctx)
	if err != nil {
		return false, err
	}
	var builder labels.ScratchBuilder
	var metas []chunks.Meta
	for p.Next() {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err := r.Series(p.At(), &builder, &metas); err != nil {
			return false, err
		}
		for _, i := range gone.Of(builder.Labels()) {
			if slices.ContainsFunc(metas, func(m chunks.Meta) bool { return m.OverlapsClosedInterval(i.Mint, i.Maxt) }) {
				return true, nil
			}
		}
	}
	return false, p.Err()
}

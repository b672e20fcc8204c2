package compactor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// transferConcurrency is how many blocks of a job are copied at the same time.
const transferConcurrency = 8

// Reasons why blocks are set aside.
const (
	reasonCorrupted = "corrupted"
)

// work is a job being done.
type work struct {
	c     *Compactor
	round *round
	began time.Time
	id    tenant.ID
	bkt   objstore.Bucket // the tenant's
	job   Job
	dir   string
	// sources are the blocks to be compacted, and dirs where they lie.
	sources []block.Meta
	dirs    []string
	// gone is what the new blocks lack.
	gone tombstone.Set
}

// do does one job: sources are copied here, made into new blocks, these are uploaded, and then the
// sources are marked for deletion. Errors: Unavailable for the storage and the disk; Internal if a
// block is damaged, which is set aside before do returns, so that the next try goes without it.
func (c *Compactor) do(ctx context.Context, r *round, j Job) (err error) {
	id := r.id
	w := &work{c: c, round: r, began: time.Now(), id: id, bkt: c.bucket(id), job: j,
		dir: filepath.Join(c.scratch(), fmt.Sprintf("%016x", xxhash.Sum64String(string(id)+"/"+j.Key)))}
	if err := errors.Join(os.RemoveAll(w.dir), os.MkdirAll(w.dir, 0o750)); err != nil {
		return errs.New(errs.Unavailable, "prepare the job's directory: %w", err)
	}
	defer func() {
		if rerr := os.RemoveAll(w.dir); rerr != nil {
			c.deps.Logger.Warn("directory of a job not removed, it fills the disk until the next start", "dir", w.dir, "err", rerr)
		}
	}()
	if err := r.look(ctx, &j); err != nil {
		return err
	}
	if err := w.choose(ctx); err != nil {
		return err
	}
	if len(w.sources) == 0 || j.Stage == Merge && len(w.sources) < 2 {
		return nil
	}
	w.gone = r.all.Pick(func(t *tombstone.Tombstone) bool { return applies(t, j.MinTime, j.MaxTime) })
	if j.Stage == Rewrite {
		if touched, err := w.touched(ctx); err != nil || !touched {
			return err
		}
	}
	ctx, end := c.deps.Activity.Begin(tenant.Inject(ctx, id), "compaction", w.described)
	defer end()
	if err := w.download(ctx); err != nil {
		return err
	}
	var results []made
	err = c.guarded("making new blocks", func() error { results, err = w.compact(ctx); return err }, "tenant", id, "job", j.Key)
	if err != nil {
		return w.blame(ctx, err)
	}
	if err := w.stillDue(ctx); err != nil {
		return err
	}
	if err := w.upload(ctx, results); err != nil {
		return err
	}
	if err := w.mark(ctx, w.sources, "compacted"); err != nil {
		return fmt.Errorf("%w: %w", errPlanAnew, err) // which marks the rest
	}
	c.metrics.compacted(j.Stage, len(w.sources))
	c.pace.add(j.Bytes(), time.Since(w.began))
	c.deps.Logger.Info("blocks compacted", "tenant", id, "stage", string(j.Stage), "shard", j.Shard, "from", j.MinTime, "to", j.MaxTime,
		"sources", len(w.sources), "results", len(results), "took", time.Since(w.began))
	return nil
}

// stillDue looks once more whether others marked what was compacted: a process that hung is dead to them,
// and its job done by another. Errors: errPlanAnew.
func (w *work) stillDue(ctx context.Context) error {
	j := w.job
	j.Blocks = slices.DeleteFunc(slices.Clone(j.Blocks), func(b block.IndexedBlock) bool {
		return !slices.ContainsFunc(w.sources, func(m block.Meta) bool { return m.ULID == b.ID })
	})
	return w.round.look(ctx, &j)
}

// choose reads the meta files of the job's blocks and leaves out those that were compacted already:
// a crash between an upload and the marks leaves both. Those are marked now.
func (w *work) choose(ctx context.Context) error {
	metas := make([]block.Meta, len(w.job.Blocks))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(transferConcurrency)
	for i, b := range w.job.Blocks {
		g.Go(func() (err error) {
			if metas[i], err = w.round.meta(gctx, b.ID); errs.KindOf(err) == errs.NotFound {
				w.round.drop(b.ID)
				err = fmt.Errorf("%w: block %s is gone", errPlanAnew, b.ID)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("read the job's blocks: %w", err)
	}
	done := obsolete(metas)
	if w.job.Stage == Split {
		more, err := w.splitAlready(ctx, metas)
		if err != nil {
			return err
		}
		for id := range more {
			done[id] = true
		}
	}
	var gone []block.Meta
	for _, m := range metas {
		if done[m.ULID] {
			gone = append(gone, m)
		} else {
			w.sources = append(w.sources, m)
		}
	}
	slices.SortFunc(w.sources, func(a, b block.Meta) int {
		if a.MinTime != b.MinTime {
			if a.MinTime < b.MinTime {
				return -1
			}
			return 1
		}
		return a.ULID.Compare(b.ULID)
	})
	return w.mark(ctx, gone, "its samples are in another block, too")
}

// obsolete returns those blocks of one shard whose sources another one has as well.
func obsolete(metas []block.Meta) map[ulid.ULID]bool {
	out := map[ulid.ULID]bool{}
	for i := range metas {
		for j := range metas {
			a, b := &metas[i], &metas[j]
			if i == j || out[a.ULID] || out[b.ULID] || !within(a.Compaction.Sources, b.Compaction.Sources) {
				continue
			}
			// Of two blocks of the same sources the one that was compacted more often stays, then the newer one.
			same := len(a.Compaction.Sources) == len(b.Compaction.Sources)
			if !same || a.Compaction.Level < b.Compaction.Level || a.Compaction.Level == b.Compaction.Level && a.ULID.Compare(b.ULID) < 0 {
				out[a.ULID] = true
			}
		}
	}
	return out
}

// within says whether all of a is in b.
func within(a, b []ulid.ULID) bool {
	return len(a) > 0 && !slices.ContainsFunc(a, func(u ulid.ULID) bool { return !slices.Contains(b, u) })
}

// splitAlready returns those blocks of a split whose sources are in all shards of another one.
func (w *work) splitAlready(ctx context.Context, metas []block.Meta) (map[ulid.ULID]bool, error) {
	var shards []block.Meta
	for _, id := range w.round.overlapping(w.job.MinTime, w.job.MaxTime) {
		m, err := w.round.meta(ctx, id)
		if err != nil && errs.KindOf(err) == errs.NotFound {
			continue // replaced and deleted since
		}
		if err != nil {
			return nil, err
		}
		shards = append(shards, m)
	}
	out := map[ulid.ULID]bool{}
	for _, m := range metas {
		have := map[string]bool{}
		for _, s := range shards {
			if within(m.Compaction.Sources, s.Compaction.Sources) {
				have[s.Thanos.Labels[block.ShardLabel]] = true
			}
		}
		if complete(have, w.job.Shards) {
			out[m.ULID] = true
		}
	}
	return out, nil
}

// complete says whether all of n shards are there. A shard without series makes no block, so after
// a crash a split whose shards are not all there is done again, which is no harm.
func complete(have map[string]bool, n int) bool {
	for i := range n {
		if !have[shardName(i, n)] {
			return false
		}
	}
	return true
}

// shardName is the value of block.ShardLabel.
func shardName(i, n int) string { return fmt.Sprintf("%d_of_%d", i+1, n) }

// download copies the sources. One that is damaged is set aside.
func (w *work) download(ctx context.Context) error {
	w.dirs = make([]string, len(w.sources))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(transferConcurrency)
	for i, m := range w.sources {
		w.dirs[i] = filepath.Join(w.dir, "sources", m.ULID.String())
		g.Go(func() error {
			err := block.Download(gctx, w.bkt, m, w.dirs[i])
			if err == nil {
				err = check(gctx, w.dirs[i], ofBytes)
			}
			if err != nil && errs.KindOf(err) == errs.Internal && gctx.Err() == nil {
				return w.setAside(ctx, m.ULID, err)
			}
			return err
		})
	}
	return g.Wait()
}

// blame looks for sources that made a compaction fail and sets them aside: reading every sample of all blocks
// would make each compaction slow, so it is done for those that need it. It returns why there are no new blocks.
func (w *work) blame(ctx context.Context, why error) error {
	if ctx.Err() != nil || errs.KindOf(why) != errs.Internal {
		return why
	}
	found := []error{why}
	for i, m := range w.sources {
		err := check(ctx, w.dirs[i], ofSamples)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			found = append(found, w.setAside(ctx, m.ULID, err))
		}
	}
	return errors.Join(found...)
}

// errPlanAnew says that blocks of the job were set aside or are gone: the jobs are to be planned anew.
var errPlanAnew = errors.New("the job is planned anew")

// setAside marks a block so that it is not compacted, and returns why.
func (w *work) setAside(ctx context.Context, id ulid.ULID, why error) error {
	w.c.metrics.setAside.WithLabelValues(reasonCorrupted).Inc()
	w.c.deps.Logger.Error("damaged block set aside, the others are compacted without it", "tenant", w.id, "block", id, "err", why)
	if err := block.MarkNoCompact(ctx, w.bkt, id, w.c.deps.Now(), reasonCorrupted, why.Error()); err != nil {
		return errors.Join(why, err)
	}
	w.round.drop(id)
	return fmt.Errorf("%w: %w", errPlanAnew, why)
}

// described is what is said of the job while it is under way.
func (w *work) described() string {
	return fmt.Sprintf("stage=%s shard=%s from=%d to=%d sources=%d bytes=%d", w.job.Stage, w.job.Shard, w.job.MinTime, w.job.MaxTime, len(w.sources), w.job.Bytes())
}

// made is a new block.
type made struct {
	id    ulid.ULID
	dir   string
	shard string
}

// compact writes the new blocks: one, or one for each shard that has series.
func (w *work) compact(ctx context.Context) ([]made, error) {
	dest := filepath.Join(w.dir, "results")
	if err := os.MkdirAll(dest, 0o750); err != nil {
		return nil, errs.New(errs.Unavailable, "prepare the job's directory: %w", err)
	}
	parts := []part{{gone: w.gone}}
	if w.job.Stage == Split {
		parts = parts[:0]
		for i := range w.job.Shards {
			parts = append(parts, part{shard: uint64(i), shards: uint64(w.job.Shards), gone: w.gone})
		}
	}
	tc, err := newTSDBCompactor(ctx, quiet(w.c.deps.Logger), segmentBytes(w.sources))
	if err != nil {
		return nil, err
	}
	var out []made
	for i, p := range parts {
		ids, err := tc.CompactWithBlockPopulator(dest, w.dirs, nil, p)
		if err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, errs.New(diskKind(err), "compact: %w", err)
		}
		for _, id := range ids {
			m := made{id: id, dir: filepath.Join(dest, id.String()), shard: w.job.Shard}
			if w.job.Stage == Split {
				m.shard = shardName(i, w.job.Shards)
			}
			out = append(out, m)
		}
	}
	return out, nil
}

// diskKind tells a full disk from other errors.
func diskKind(err error) errs.Kind {
	if strings.Contains(err.Error(), "no space left") {
		return errs.Unavailable
	}
	return errs.Internal
}

// upload publishes the new blocks.
func (w *work) upload(ctx context.Context, blocks []made) error {
	external := map[string]string{}
	for k, v := range w.sources[0].Thanos.Labels {
		if k != block.ShardLabel && k != block.OutOfOrderLabel {
			external[k] = v
		}
	}
	var metas []block.Meta
	for _, m := range blocks {
		labels := map[string]string{}
		for k, v := range external {
			labels[k] = v
		}
		if m.shard != "" {
			labels[block.ShardLabel] = m.shard
		}
		meta, err := block.Publish(ctx, w.c.deps.Logger, w.bkt, m.dir, block.Tags{External: labels, Erased: names(w.gone)})
		if err != nil {
			return err
		}
		metas = append(metas, meta)
	}
	for _, m := range metas { // all of a split at once, or it would be merged in parts
		w.round.add(m)
	}
	return nil
}

// mark marks blocks for deletion.
func (w *work) mark(ctx context.Context, blocks []block.Meta, why string) error {
	for _, m := range blocks {
		now := w.c.deps.Now()
		if err := block.MarkObsolete(ctx, w.bkt, m.ULID, now, why); err != nil {
			return err
		}
		w.c.metrics.marked.WithLabelValues("compaction").Inc()
		w.round.marked(m.ULID, now)
	}
	return nil
}

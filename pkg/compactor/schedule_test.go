package compactor

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/seeds"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const yardTenant tenant.ID = "t1"

// cell is the samples of one series in one hour.
type cell struct {
	series int
	hour   int64
}

// yard is a bucket whose blocks are meta files alone, and what would be in them. Compactors choose,
// publish and mark there as they do; only the merging itself is left out.
type yard struct {
	t       *testing.T
	rnd     *rand.Rand
	bkt     *faulty
	now     time.Time
	limits  limits.View
	changed bool // the number of shards has changed
	made    uint64
	cells   map[ulid.ULID]map[cell]bool
	odd     map[ulid.ULID]bool // uploaded blocks that fit no range
	aside   map[ulid.ULID]bool
	index   *block.BucketIndex // of the last look, so that meta files are read once
	workers []*worker
	steps   []string
}

// worker is a compactor process: its view of the bucket, and the job it is at.
type worker struct {
	c     *Compactor
	round *round
	job   *work
	todo  []func() error // the rest of the job
}

func newYard(t *testing.T, rnd *rand.Rand) *yard {
	t.Helper()
	y := &yard{t: t, rnd: rnd, bkt: &faulty{Bucket: objstore.NewInMemBucket()}, now: time.UnixMilli(1000 * hour),
		cells: map[ulid.ULID]map[cell]bool{}, odd: map[ulid.ULID]bool{}, aside: map[ulid.ULID]bool{}}
	y.limits = limits.CompactorSplitAndMergeShards.With(y.limits, rnd.IntN(4))
	y.limits = limits.CompactorSplitGroups.With(y.limits, 1+rnd.IntN(3))
	for range 2 {
		y.workers = append(y.workers, y.worker())
	}
	return y
}

func (y *yard) worker() *worker {
	c, err := New(Config{DataDir: "unused", BlockRanges: []string{"2h", "8h", "24h"}, Interval: time.Hour, CleanupInterval: time.Hour,
		Concurrency: 1, CleanupConcurrency: 1, Retries: 1, DeletionDelay: 12 * time.Hour, TenantCleanupDelay: 6 * time.Hour},
		Deps{Logger: discard, Reg: prometheus.NewRegistry(), Bucket: y.bkt, Limits: func(tenant.ID) limits.View { return y.limits }, Now: func() time.Time { return y.now }})
	if err != nil {
		y.t.Fatal(err)
	}
	return &worker{c: c}
}

func (y *yard) tenantBucket() objstore.Bucket {
	return objstore.NewPrefixedBucket(y.bkt, string(yardTenant))
}

func (y *yard) note(format string, args ...any) {
	y.steps = append(y.steps, fmt.Sprintf(format, args...))
}

// publish uploads a block; as long as its meta file is not there, there is no block.
func (y *yard) publish(m block.Meta, cells map[cell]bool) error {
	m.Version = 1
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := y.tenantBucket().Upload(y.t.Context(), path.Join(m.ULID.String(), block.MetaFile), bytes.NewReader(b)); err != nil {
		return err
	}
	y.cells[m.ULID] = cells
	return nil
}

func (y *yard) id() ulid.ULID {
	y.made++
	return ulid.MustNew(y.made, nil)
}

// arrives uploads a block of an ingester: of two hours, or of a day of late samples, or one that fits
// nowhere, of which it may lack a part.
func (y *yard) arrives() {
	id := y.id()
	from := y.rnd.Int64N(16) * 2
	to := from + 2
	switch y.rnd.IntN(12) {
	case 0:
		from, to = from/24*24, from/24*24+24
	case 1:
		from, to = from+1, from+3
	case 2:
		from, to = from/24*24+22, from/24*24+26
		y.odd[id] = true
	}
	cells := map[cell]bool{}
	for h := from; h < to; h++ {
		for s := range 6 {
			if y.rnd.IntN(4) > 0 {
				cells[cell{s, h}] = true
			}
		}
	}
	if len(cells) == 0 {
		return
	}
	m := block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: from * hour, MaxTime: to * hour, Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}}}}
	if err := y.publish(m, cells); err != nil {
		y.t.Fatal(err)
	}
	y.note("%d arrives with hours %d-%d", id.Time(), from, to)
}

// step lets something happen.
func (y *yard) step() {
	switch k := y.rnd.IntN(40); {
	case k < 8:
		y.arrives()
	case k < 10:
		y.now = y.now.Add(time.Duration(y.rnd.IntN(14)) * time.Hour)
	case k == 10:
		if err := y.workers[y.rnd.IntN(2)].c.CleanUp(y.t.Context()); err != nil {
			y.t.Fatal(err)
		}
		y.note("cleaned up")
	case k == 11:
		y.setAside()
	case k == 12:
		n := y.rnd.IntN(4)
		y.changed = y.changed || n != limits.CompactorSplitAndMergeShards.Of(y.limits)
		y.limits = limits.CompactorSplitAndMergeShards.With(y.limits, n)
		y.note("%d shards", n)
	default:
		i := y.rnd.IntN(2)
		y.bkt.on.Store(y.rnd.IntN(8) == 0)
		y.bkt.left.Store(0)
		err := y.workers[i].step(y)
		y.bkt.on.Store(false)
		if err != nil || y.rnd.IntN(15) == 0 {
			y.note("compactor %d dies: %v", i, err)
			y.workers[i] = y.worker()
		}
	}
}

// setAside has an operator keep a block from compaction.
func (y *yard) setAside() {
	blocks := y.visible()
	if len(blocks) == 0 {
		return
	}
	id := blocks[y.rnd.IntN(len(blocks))].ID
	if err := block.MarkNoCompact(y.t.Context(), y.tenantBucket(), id, y.now, reasonManual, ""); err != nil {
		y.t.Fatal(err)
	}
	y.aside[id] = true
	y.note("%d is set aside", id.Time())
}

// step goes on by one write, or begins a round or a job.
func (w *worker) step(y *yard) error {
	ctx := y.t.Context()
	switch {
	case len(w.todo) > 0:
		next := w.todo[0]
		w.todo = w.todo[1:]
		return next()
	case w.round == nil:
		r, err := w.c.list(ctx, yardTenant, nil)
		if err != nil {
			return err
		}
		w.round = r
		return nil
	}
	j, ok := w.round.next(ctx, time.Time{})
	if !ok {
		w.round = nil
		return nil
	}
	delete(w.round.running, j.Key)
	y.note("%p: %s", w, planned([]Job{j}))
	w.job = &work{c: w.c, round: w.round, id: yardTenant, bkt: y.tenantBucket(), job: j}
	if err := w.round.look(ctx, &j); err != nil {
		return w.anew(err)
	}
	if err := w.job.choose(ctx); err != nil {
		return w.anew(err)
	}
	if len(w.job.sources) == 0 || j.Stage == Merge && len(w.job.sources) < 2 {
		return nil
	}
	w.plan(y)
	return nil
}

// anew says that the jobs are planned anew, if that is all.
func (w *worker) anew(err error) error {
	if errors.Is(err, errPlanAnew) {
		return nil
	}
	return err
}

// plan lays out the writes of the job: results one by one, all of them taken up at once, marks one by
// one.
func (w *worker) plan(y *yard) {
	job, ctx := w.job, y.t.Context()
	var results []block.Meta
	for i := range max(job.job.Shards, 1) {
		m, cells := y.merged(job, i)
		if len(cells) == 0 {
			continue // a block without series is not made
		}
		results = append(results, m)
		w.todo = append(w.todo, func() error { return y.publish(m, cells) })
	}
	w.todo = append(w.todo, func() error {
		for _, m := range results {
			job.round.add(m)
		}
		return nil
	})
	for _, m := range job.sources {
		w.todo = append(w.todo, func() error { return job.mark(ctx, []block.Meta{m}, "compacted") })
	}
}

// merged is what the compactor of the TSDB would make of the sources of a job: the i-th of its results.
func (y *yard) merged(job *work, i int) (block.Meta, map[cell]bool) {
	cells := map[cell]bool{}
	m := block.Meta{BlockMeta: tsdb.BlockMeta{ULID: y.id(), MinTime: job.sources[0].MinTime, MaxTime: job.sources[0].MaxTime}}
	shard := job.job.Shard
	if job.job.Stage == Split {
		shard = shardName(i, job.job.Shards)
	}
	if shard != "" {
		m.Thanos.Labels = map[string]string{block.ShardLabel: shard}
	}
	for _, s := range job.sources {
		m.MinTime, m.MaxTime = min(m.MinTime, s.MinTime), max(m.MaxTime, s.MaxTime)
		m.Compaction.Level = max(m.Compaction.Level, s.Compaction.Level+1)
		m.Compaction.Sources = append(m.Compaction.Sources, s.Compaction.Sources...)
		for c := range y.cells[s.ULID] {
			if job.job.Stage != Split || c.series%job.job.Shards == i {
				cells[c] = true
			}
		}
	}
	slices.SortFunc(m.Compaction.Sources, ulid.ULID.Compare)
	m.Compaction.Sources = slices.Compact(m.Compaction.Sources)
	return m, cells
}

// visible are the blocks that are not marked for deletion.
func (y *yard) visible() []block.IndexedBlock {
	scan, err := block.ScanBlocks(y.t.Context(), y.tenantBucket(), y.index, y.now)
	if err != nil {
		y.t.Fatal(err)
	}
	y.index = scan.Index
	out := eligible(scan.Index, block.Marks{Deletion: scan.Marks.Deletion})
	slices.SortFunc(out, func(a, b block.IndexedBlock) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ID.Compare(b.ID))
	})
	return out
}

// whole checks that nothing is missing.
func (y *yard) whole() {
	y.t.Helper()
	seen := map[cell]bool{}
	for _, b := range y.visible() {
		for c := range y.cells[b.ID] {
			seen[c] = true
		}
	}
	for id, cells := range y.cells {
		for c := range cells {
			if !seen[c] {
				y.t.Fatalf("series %d of hour %d, which block %d had, is in no block that is not marked\nwhat happened:\n%s", c.series, c.hour, id.Time(), strings.Join(y.steps, "\n"))
			}
		}
	}
}

// calm lets one compactor work in peace, long after, until it finds nothing to do.
func (y *yard) calm() {
	y.now = y.now.Add(100 * time.Hour)
	y.note("calm")
	w := y.worker()
	bound := 20 * (len(y.visible()) + 10)
	for n := 0; ; n++ {
		if n > bound {
			y.t.Fatalf("there is something to do after %d steps\nwhat happened:\n%s", n, strings.Join(y.steps, "\n"))
		}
		fresh := w.round == nil
		if err := w.step(y); err != nil {
			y.t.Fatal(err)
		}
		y.whole()
		if fresh && len(w.round.jobs()) == 0 {
			break
		}
	}
	once := map[cell]ulid.ULID{}
	for _, b := range y.visible() {
		if y.changed || y.aside[b.ID] || y.odd[b.ID] || b.MaxTime-b.MinTime > 24*hour {
			continue // what is split differently, set aside or fits nowhere is left as it is
		}
		for c := range y.cells[b.ID] {
			if was, ok := once[c]; ok {
				y.t.Fatalf("series %d of hour %d is in blocks %d and %d\nwhat happened:\n%s", c.series, c.hour, was.Time(), b.ID.Time(), strings.Join(y.steps, "\n"))
			}
			once[c] = b.ID
		}
	}
}

// TestAtAnyScheduleEverySampleEndsInOneBlock has blocks arrive, be set aside and split into other
// numbers of shards, while two compactors work that do not agree whose job is whose and die at any write.
// No sample is ever in marked blocks alone; in the end there is nothing more to do, and what can be
// merged is in one block.
func TestAtAnyScheduleEverySampleEndsInOneBlock(t *testing.T) {
	seeds.Run(t, 6, func(t *testing.T, rnd *rand.Rand) {
		y := newYard(t, rnd)
		for range 150 {
			y.step()
			y.whole()
		}
		y.calm()
	})
}

package compactor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

var discard = slog.New(slog.DiscardHandler)

// truth is what the bucket must hold: values by series and time, histograms by their text.
type truth map[string]map[int64]string

func (tr truth) add(series string, t int64, v string) {
	if tr[series] == nil {
		tr[series] = map[int64]string{}
	}
	tr[series][t] = v
}

// faulty is a bucket whose writes fail, or that cuts a process off at a given write.
type faulty struct {
	objstore.Bucket
	left atomic.Int64 // writes that succeed; negative from the beginning: all do
	on   atomic.Bool
}

var errCut = errors.New("the process was killed")

func (f *faulty) write() error {
	if f.on.Load() && f.left.Add(-1) < 0 {
		return errCut
	}
	return nil
}

func (f *faulty) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if err := f.write(); err != nil {
		return err
	}
	return f.Bucket.Upload(ctx, name, r, opts...)
}

func (f *faulty) Delete(ctx context.Context, name string) error {
	if err := f.write(); err != nil {
		return err
	}
	return f.Bucket.Delete(ctx, name)
}

// world is a bucket with one tenant and a clock.
type world struct {
	t      *testing.T
	bkt    *faulty
	now    time.Time
	limits limits.View
	truth  truth
	dir    string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	b, err := bucket.NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, bkt: &faulty{Bucket: b}, now: time.UnixMilli(1000 * hour), truth: truth{}, dir: t.TempDir()}
}

func (w *world) tenantBucket() objstore.Bucket { return objstore.NewPrefixedBucket(w.bkt, "t1") }

func (w *world) compactor() *Compactor {
	w.t.Helper()
	c, err := New(Config{DataDir: w.dir, BlockRanges: []string{"2h", "12h", "24h"}, Interval: time.Hour, CleanupInterval: time.Hour,
		Concurrency: 2, CleanupConcurrency: 2, Retries: 1, DeletionDelay: 12 * time.Hour, TenantCleanupDelay: 6 * time.Hour},
		Deps{Logger: discard, Reg: prometheus.NewRegistry(), Bucket: w.bkt, Limits: func(tenant.ID) limits.View { return w.limits }, Now: func() time.Time { return w.now }})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.starting(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// replica uploads a block of hours from to from+2 of n series, of which it lacks the samples for
// which lacks says so.
func (w *world) replica(from int64, n int, lacks func(series, sample int) bool) ulid.ULID {
	w.t.Helper()
	dir := w.t.TempDir()
	bw, err := tsdb.NewBlockWriter(discard, dir, 2*hour*2)
	if err != nil {
		w.t.Fatal(err)
	}
	app := bw.Appender(w.t.Context())
	for j := range 120 {
		at := from*hour + int64(j)*60_000
		for i := range n {
			if lacks != nil && lacks(i, j) {
				continue
			}
			ls := labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%04d", i))
			if i%10 == 9 {
				h := tsdbutil.GenerateTestHistogram(int64(i*1000 + j))
				if _, err := app.AppendHistogram(0, ls, at, h, nil); err != nil {
					w.t.Fatal(err)
				}
				w.truth.add(ls.String(), at, plain(h.ToFloat(nil)))
				continue
			}
			v := float64(i*1000 + j)
			if _, err := app.Append(0, ls, at, v); err != nil {
				w.t.Fatal(err)
			}
			w.truth.add(ls.String(), at, fmt.Sprint(v))
		}
	}
	if err := app.Commit(); err != nil {
		w.t.Fatal(err)
	}
	id, err := bw.Flush(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := bw.Close(); err != nil {
		w.t.Fatal(err)
	}
	if err := block.Upload(w.t.Context(), discard, w.tenantBucket(), filepath.Join(dir, id.String()), block.Tags{}); err != nil {
		w.t.Fatal(err)
	}
	return id
}

// plain words a histogram without its hint, which depends on what stands before it.
func plain(h *histogram.FloatHistogram) string {
	h = h.Copy()
	h.CounterResetHint = histogram.UnknownCounterReset
	return h.String()
}

// index lists the tenant's blocks that are not marked.
func (w *world) index() []block.IndexedBlock {
	w.t.Helper()
	s, err := block.ScanBlocks(w.t.Context(), w.tenantBucket(), nil, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	for id, err := range s.Corrupted {
		w.t.Errorf("block %s: %v", id, err)
	}
	return s.Index.Overlapping(-1<<60, 1<<60)
}

// read returns what the blocks that are not marked hold, by the TSDB's own reader.
func (w *world) read() truth {
	w.t.Helper()
	out := truth{}
	for _, b := range w.index() {
		m, err := block.ReadMeta(w.t.Context(), w.tenantBucket(), b.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		dir := filepath.Join(w.t.TempDir(), b.ID.String())
		if err := block.Download(w.t.Context(), w.tenantBucket(), m, dir); err != nil {
			w.t.Fatal(err)
		}
		if err := check(w.t.Context(), dir, ofEverything); err != nil {
			w.t.Error(err)
		}
		w.readBlock(out, dir)
	}
	return out
}

func (w *world) readBlock(out truth, dir string) {
	w.t.Helper()
	b, err := tsdb.OpenBlock(discard, dir, nil, tsdb.DefaultPostingsDecoderFactory)
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockQuerier(b, -1<<60, 1<<60)
	if err != nil {
		w.t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(w.t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "i", ".+"))
	for set.Next() {
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			switch typ {
			case chunkenc.ValFloat:
				at, v := it.At()
				out.add(set.At().Labels().String(), at, fmt.Sprint(v))
			default:
				at, h := it.AtFloatHistogram(nil)
				out.add(set.At().Labels().String(), at, plain(h))
			}
		}
		if it.Err() != nil {
			w.t.Fatal(it.Err())
		}
	}
	if set.Err() != nil {
		w.t.Fatal(set.Err())
	}
}

// whole fails the test unless the bucket holds exactly the truth.
func (w *world) whole(when string) {
	w.t.Helper()
	got := w.read()
	for series, samples := range w.truth {
		if !maps.Equal(samples, got[series]) {
			w.t.Fatalf("%s: series %s has %d samples, want %d", when, series, len(got[series]), len(samples))
		}
	}
	if len(got) != len(w.truth) {
		w.t.Fatalf("%s: %d series, want %d", when, len(got), len(w.truth))
	}
}

func oneOf(n int) func(series, sample int) bool {
	return func(series, sample int) bool { return (series+sample)%3 == n }
}

func TestReplicasAndRangesAreMergedToOneBlockWithoutLosingASample(t *testing.T) {
	w := newWorld(t)
	for from := int64(0); from < 24; from += 2 {
		for r := range 3 {
			w.replica(from, 20, oneOf(r))
		}
	}
	w.whole("before")
	c := w.compactor()
	if err := c.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.whole("after")
	idx := w.index()
	if len(idx) != 1 || idx[0].MinTime != 0 || idx[0].CompactionLevel != 4 {
		t.Errorf("%d blocks: %+v", len(idx), idx)
	}
	if left, err := os.ReadDir(c.scratch()); err != nil || len(left) != 0 {
		t.Errorf("left on disk: %v, %v", left, err)
	}
}

func TestALargeTenantIsSplitBySeries(t *testing.T) {
	w := newWorld(t)
	w.limits = limits.CompactorSplitGroups.With(limits.CompactorSplitAndMergeShards.With(w.limits, 3), 2)
	for from := int64(0); from < 6; from += 2 {
		w.replica(from, 30, oneOf(0))
		w.replica(from, 30, oneOf(1))
	}
	if err := w.compactor().Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.whole("after")
	shards := map[string]int{}
	for _, b := range w.index() {
		shards[b.CompactorShard]++
	}
	if len(w.index()) != 3 || len(shards) != 3 || shards[""] != 0 {
		t.Fatalf("blocks by shard: %v", shards)
	}
	for _, b := range w.index() {
		m, err := block.ReadMeta(t.Context(), w.tenantBucket(), b.ID)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), b.ID.String())
		if err := block.Download(t.Context(), w.tenantBucket(), m, dir); err != nil {
			t.Fatal(err)
		}
		part := truth{}
		w.readBlock(part, dir)
		var shard, of uint64
		if _, err := fmt.Sscanf(b.CompactorShard, "%d_of_%d", &shard, &of); err != nil {
			t.Fatal(err)
		}
		blk, err := tsdb.OpenBlock(discard, dir, nil, tsdb.DefaultPostingsDecoderFactory)
		if err != nil {
			t.Fatal(err)
		}
		ix, err := blk.Index()
		if err != nil {
			t.Fatal(err)
		}
		values, err := ix.LabelValues(t.Context(), "i", nil)
		if err != nil || len(values) != len(part) {
			t.Errorf("shard %s: %d values of a label for %d series, %v", b.CompactorShard, len(values), len(part), err)
		}
		for _, v := range values {
			if h := labels.StableHash(labels.FromStrings("__name__", "m", "i", v)); h%of != shard-1 {
				t.Errorf("series %s is in shard %s", v, b.CompactorShard)
			}
		}
		if err := errors.Join(ix.Close(), blk.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestACompactorKilledAtAnyWriteLosesNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // Reproducible on purpose.
	for _, shards := range []int{0, 2} {
		w := newWorld(t)
		w.limits = limits.CompactorSplitAndMergeShards.With(w.limits, shards)
		for from := int64(0); from < 4; from += 2 {
			for r := range 2 {
				w.replica(from, 12, oneOf(r))
			}
		}
		kills := 0
		for {
			w.bkt.left.Store(rnd.Int64N(12))
			w.bkt.on.Store(true)
			err := w.compactor().Compact(t.Context())
			w.bkt.on.Store(false)
			w.whole(fmt.Sprintf("%d shards, after kill %d", shards, kills))
			if err == nil {
				break
			}
			if kills++; kills > 200 {
				t.Fatalf("%d shards: compaction does not come to an end", shards)
			}
		}
		if kills == 0 {
			t.Error("nothing was killed")
		}
		if want := max(shards, 1); len(w.index()) != want {
			t.Errorf("%d shards: %d blocks after %d kills, want %d", shards, len(w.index()), kills, want)
		}
	}
}

func TestADamagedBlockIsSetAsideAndTheRestGoesOn(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(0, 10, oneOf(0)), w.replica(0, 10, oneOf(1))
	bad := w.replica(0, 10, nil)
	name := bad.String() + "/" + block.ChunksDir + "/000001"
	r, err := w.tenantBucket().Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0xff
	if err := w.tenantBucket().Upload(t.Context(), name, strings.NewReader(string(data))); err != nil {
		t.Fatal(err)
	}
	c := w.compactor()
	c.cfg.Retries = 2
	if err := c.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	aside, err := block.NoCompacts(t.Context(), w.tenantBucket())
	if err != nil || len(aside) != 1 || aside[0].ID != bad || aside[0].Reason != "corrupted" || !strings.Contains(aside[0].Details, "chunk") {
		t.Fatalf("set aside: %+v, %v", aside, err)
	}
	left := map[ulid.ULID]bool{}
	for _, b := range w.index() {
		left[b.ID] = true
	}
	if len(left) != 2 || !left[bad] || left[a] || left[b] {
		t.Errorf("blocks %v; want %s and what %s and %s became", left, bad, a, b)
	}
}

func TestCleaningUpDeletesWhatIsDueAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.limits = limits.CompactorPartialBlockDeletionDelay.With(limits.CompactorBlocksRetentionPeriod.With(w.limits, 990*time.Hour), 24*time.Hour)
	old, kept, partial := w.replica(0, 2, nil), w.replica(20, 2, nil), w.replica(30, 2, nil)
	if err := w.tenantBucket().Delete(t.Context(), partial.String()+"/"+block.MetaFile); err != nil {
		t.Fatal(err)
	}
	clean := func() *block.BucketIndex {
		t.Helper()
		if err := w.compactor().CleanUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		idx, err := block.ReadBucketIndex(t.Context(), w.tenantBucket())
		if err != nil {
			t.Fatal(err)
		}
		return idx
	}
	idx := clean()
	if len(idx.Blocks) != 2 || len(idx.DeletionMarks) != 1 || idx.DeletionMarks[0].ID != old {
		t.Fatalf("first round: %+v", idx)
	}
	w.now = w.now.Add(11 * time.Hour)
	if idx = clean(); len(idx.Blocks) != 2 {
		t.Errorf("before the delay is over: %+v", idx)
	}
	// The real clock, by which the partial block is young, and then old.
	w.now = time.Now()
	w.limits = limits.CompactorBlocksRetentionPeriod.With(w.limits, 0)
	if idx = clean(); len(idx.Blocks) != 1 || idx.Blocks[0].ID != kept || len(idx.DeletionMarks) != 0 {
		t.Errorf("after the delay: %+v", idx)
	}
	exists := func(id ulid.ULID) bool {
		n := 0
		if err := w.tenantBucket().Iter(t.Context(), id.String()+"/", func(string) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	if exists(old) || !exists(partial) || !exists(kept) {
		t.Errorf("old %v, partial %v, kept %v", exists(old), exists(partial), exists(kept))
	}
	w.now = time.Now().Add(25 * time.Hour)
	clean()
	if exists(partial) || !exists(kept) {
		t.Errorf("a day later: partial %v, kept %v", exists(partial), exists(kept))
	}
}

func TestADeletedTenantLeavesNothingBehind(t *testing.T) {
	w := newWorld(t)
	w.replica(0, 2, nil)
	w.replica(0, 2, nil)
	if err := block.WriteTenantDeletion(t.Context(), w.tenantBucket(), block.TenantDeletion{DeletionTime: w.now.Unix()}); err != nil {
		t.Fatal(err)
	}
	c := w.compactor()
	marked := func() bool {
		d, err := block.ReadTenantDeletion(t.Context(), w.tenantBucket())
		return err == nil && d != nil
	}
	elsewhere := "known"
	unanswered := errors.New("the bucket does not answer")
	c.deps.Forget = func(_ context.Context, id tenant.ID) error {
		if id != "t1" || !marked() {
			t.Errorf("tenant %s forgotten, marked %v", id, marked())
		}
		if unanswered == nil {
			elsewhere = ""
		}
		return unanswered
	}
	if err := errors.Join(c.Compact(t.Context()), c.CleanUp(t.Context())); err != nil {
		t.Fatal(err)
	}
	d, err := block.ReadTenantDeletion(t.Context(), w.tenantBucket())
	if err != nil || d == nil || d.FinishedTime == 0 || len(w.index()) != 0 {
		t.Fatalf("%+v, %v; %d blocks", d, err, len(w.index()))
	}
	w.now = w.now.Add(7 * time.Hour)
	if err := c.CleanUp(t.Context()); err == nil || !marked() {
		t.Errorf("what is known elsewhere is not deleted: %v, marked %v", err, marked())
	}
	unanswered = nil
	if err := c.CleanUp(t.Context()); err != nil || elsewhere != "" {
		t.Fatal(err, elsewhere)
	}
	n := 0
	if err := w.bkt.Iter(t.Context(), "", func(string) error { n++; return nil }, objstore.WithRecursiveIter()); err != nil || n != 0 {
		t.Errorf("%d objects are left, %v", n, err)
	}
}

func TestJobsOfOthersAreLeftToThem(t *testing.T) {
	w := newWorld(t)
	w.replica(0, 2, nil)
	w.replica(0, 2, nil)
	c := w.compactor()
	var asked []string
	c.deps.Owns = func(_ tenant.ID, key string) (bool, error) { asked = append(asked, key); return key == anyJob, nil }
	if err := c.Compact(t.Context()); err != nil || len(w.index()) != 2 {
		t.Errorf("%d blocks, %v", len(w.index()), err)
	}
	if asked = slices.Compact(asked); len(asked) != 2 || !strings.HasPrefix(asked[1], "merge-") {
		t.Errorf("asked for %v", asked)
	}
}

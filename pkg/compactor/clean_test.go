package compactor

import (
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// indexed reads the tenant's bucket index.
func (w *world) indexed() *block.BucketIndex {
	w.t.Helper()
	idx, err := block.ReadBucketIndex(w.t.Context(), w.tenantBucket())
	if err != nil {
		w.t.Fatal(err)
	}
	return idx
}

// TestTheIndexNeverNamesABlockThatCleaningUpDeleted lets retention end blocks that are to be deleted at once,
// and kills cleaning up at every write.
func TestTheIndexNeverNamesABlockThatCleaningUpDeleted(t *testing.T) {
	for kill := int64(0); ; kill++ {
		w := newWorld(t)
		c := w.compactor()
		c.cfg.DeletionDelay = 0
		w.replica(0, 2, nil)
		w.replica(0, 2, nil)
		kept := w.replica(20, 2, nil)
		if err := c.CleanUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.limits = limits.CompactorBlocksRetentionPeriod.With(w.limits, 990*time.Hour)
		w.bkt.left.Store(kill)
		w.bkt.on.Store(true)
		err := c.CleanUp(t.Context())
		w.bkt.on.Store(false)
		for _, b := range w.indexed().Overlapping(-1<<60, 1<<60) {
			if _, err := block.ReadMeta(t.Context(), w.tenantBucket(), b.ID); err != nil {
				t.Errorf("killed at write %d: queries are told of a block that is gone: %v", kill, err)
			}
		}
		done := err == nil
		for range 2 { // what was cut off is done by the next rounds
			if err := c.CleanUp(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if idx := w.indexed(); len(idx.Blocks) != 1 || idx.Blocks[0].ID != kept || len(idx.DeletionMarks) != 0 {
			t.Errorf("killed at write %d, then tried again: %+v", kill, idx)
		}
		left := 0
		if err := w.tenantBucket().Iter(t.Context(), "", func(name string) error {
			if _, err := ulid.ParseStrict(path.Base(name)); err == nil {
				left++
			}
			return nil
		}); err != nil || left != 1 {
			t.Errorf("killed at write %d, then tried again: %d blocks are in the bucket, %v", kill, left, err)
		}
		if done {
			return
		}
	}
}

// TestTheIndexTellsWhatOperatorsDidToBlocks does to blocks what people do, by calls and by hand.
func TestTheIndexTellsWhatOperatorsDidToBlocks(t *testing.T) {
	w := newWorld(t)
	w.limits = limits.ResultsCacheTTLForOutOfOrder.With(limits.ResultsCacheTTL.With(w.limits, 24*time.Hour), time.Hour)
	w.replica(0, 2, nil) // retention ends it
	var ids []ulid.ULID
	for i := range 3 {
		ids = append(ids, w.replica(int64(24+24*i), 2, nil)) // each alone in its day
	}
	w.replica(120, 2, oneOf(0)) // these two are merged
	w.replica(120, 2, oneOf(1))
	c := w.compactor()
	round := func() {
		t.Helper()
		w.now = w.now.Add(15 * time.Minute)
		if err := c.CleanUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	tells := func(what string, hours ...int64) {
		t.Helper()
		all := w.indexed().Altered
		if len(all) < told {
			t.Fatalf("%s: %+v, of which %d were there", what, all, told)
		}
		var got []int64
		for _, a := range all[told:] {
			got = append(got, a.MinTime/hour)
			if at := time.Unix(a.At, 0); at.After(w.now) || w.now.Sub(at) > 15*time.Minute {
				t.Errorf("%s: told as of %s at %s", what, at, w.now)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(hours) {
			t.Errorf("%s: hours %v are altered, want %v", what, got, hours)
		}
		told = len(all)
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	own, ctx := w.tenantBucket(), t.Context()
	round()
	tells("new blocks")
	w.limits = limits.CompactorBlocksRetentionPeriod.With(w.limits, w.now.Sub(time.UnixMilli(10*hour)))
	do(c.Compact(ctx))
	round()
	if marks := w.indexed().DeletionMarks; len(marks) != 3 {
		t.Fatalf("marks %+v, want those of one block that is too old and of two that were merged", marks)
	}
	tells("compaction and retention")
	do(c.MarkForDeletion(ctx, "t1", ids[0], "a call"))
	tells("a mark by a call", 24)
	round()
	tells("a round after a call")
	do(c.UnmarkForDeletion(ctx, "t1", ids[0]))
	tells("a mark that a call takes back", 24)
	do(block.MarkForDeletion(ctx, own, ids[1], w.now, "by hand"))
	do(func() error { _, err := block.Delete(ctx, own, ids[2]); return err }())
	round()
	tells("a mark and a deletion by hand", 48, 72)
	do(block.UnmarkForDeletion(ctx, own, ids[1]))
	round()
	tells("a mark that is taken back by hand", 48)
	do(block.MarkForDeletion(ctx, own, ids[1], w.now, "by hand, again"))
	round()
	tells("a mark by hand", 48)
	w.now = w.now.Add(13 * time.Hour)
	round()
	tells("deletions that were due")
	w.now = w.now.Add(14 * time.Hour)
	round()
	if all := w.indexed().Altered; len(all) != 0 {
		t.Errorf("no answer is kept for a day and two hours, and still told: %+v", all)
	}
}

// TestALostIndexMayHideWhatOperatorsDid damages the index: what was done to blocks before is not known.
func TestALostIndexMayHideWhatOperatorsDid(t *testing.T) {
	w := newWorld(t)
	w.replica(20, 2, nil)
	c := w.compactor()
	if err := c.CleanUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.indexed().Altered; len(got) != 0 {
		t.Errorf("a whole index tells %+v", got)
	}
	if err := w.tenantBucket().Upload(t.Context(), block.BucketIndexFile, strings.NewReader("damaged")); err != nil {
		t.Fatal(err)
	}
	if err := c.CleanUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.indexed().Altered; len(got) != 1 || got[0].MinTime > 0 || got[0].MaxTime < w.now.UnixMilli() || got[0].At != w.now.Unix() {
		t.Errorf("an index that was made anew tells %+v, want all times", got)
	}
}

// TestOldCopiesOfMetaFilesGoOnceADay looks after blocks that are gone, and after those that are not.
func TestOldCopiesOfMetaFilesGoOnceADay(t *testing.T) {
	w := newWorld(t)
	gone, kept := w.replica(20, 2, nil), w.replica(22, 2, nil)
	c := w.compactor()
	copies := func() (out []string) {
		t.Helper()
		if err := w.tenantBucket().Iter(t.Context(), block.DebugMetasDir+"/", func(name string) error {
			out = append(out, path.Base(name))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	round := func(after time.Duration) {
		t.Helper()
		w.now = w.now.Add(after)
		if err := c.CleanUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.now = time.Now() // by which blocks have their names
	round(0)
	if _, err := block.Delete(t.Context(), w.tenantBucket(), gone); err != nil {
		t.Fatal(err)
	}
	round(debugMetaAge - 48*time.Hour)
	if got := copies(); len(got) != 2 {
		t.Errorf("before its time: %v, want both copies", got)
	}
	round(72 * time.Hour)
	if got := copies(); len(got) != 1 || got[0] != kept.String()+".json" {
		t.Errorf("after its time: %v, want that of %s", got, kept)
	}
}

package compactor

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestMarksAreSetAndTakenBack(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(0, 2, oneOf(0)), w.replica(0, 2, oneOf(1))
	c := w.compactor()
	if err := c.CleanUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := func() int {
		t.Helper()
		idx, err := block.ReadBucketIndex(t.Context(), w.tenantBucket())
		do(err)
		return len(idx.Overlapping(-1<<60, 1<<60))
	}
	do(c.MarkNoCompact(t.Context(), "t1", a, "looks odd"))
	if jobs, err := c.Plan(t.Context(), "t1"); err != nil || len(jobs) != 0 {
		t.Errorf("jobs with a block set aside: %v, %v", jobs, err)
	}
	do(c.UnmarkNoCompact(t.Context(), "t1", a))
	if jobs, err := c.Plan(t.Context(), "t1"); err != nil || len(jobs) != 1 {
		t.Errorf("jobs with the block back: %v, %v", jobs, err)
	}
	do(c.MarkForDeletion(t.Context(), "t1", b, "by mistake"))
	if n := seen(); n != 1 {
		t.Errorf("%d blocks are queried, want 1 at once", n)
	}
	do(c.UnmarkForDeletion(t.Context(), "t1", b))
	if n := seen(); n != 2 {
		t.Errorf("%d blocks are queried, want 2 at once", n)
	}
	w.now = w.now.Add(24 * time.Hour)
	do(c.CleanUp(t.Context()))
	w.whole("after the delay of a deletion that was taken back")
	if err := c.MarkForDeletion(t.Context(), "t1", ulid.MustNewDefault(w.now), ""); errs.KindOf(err) != errs.NotFound {
		t.Errorf("mark of a block that is not there: %v, want NotFound", err)
	}
}

func TestTheBacklogIsEstimatedByHowLongJobsTook(t *testing.T) {
	w := newWorld(t)
	c := w.compactor()
	if d := c.Estimate(1 << 30); d != 0 {
		t.Errorf("before any job: %s, want unknown", d)
	}
	c.pace.add(100, 10*time.Second)
	c.pace.add(300, 30*time.Second)
	c.deps.Peers = func() int { return 5 }
	if d := c.Estimate(1000); d != 10*time.Second { // 10 bytes/s, 2 jobs at a time, 5 compactors
		t.Errorf("estimate %s, want 10s", d)
	}
}

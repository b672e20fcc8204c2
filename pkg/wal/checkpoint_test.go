package wal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// emitAll is a checkpoint of recs.
func emitAll(recs ...string) func(func([]byte) error) error {
	return func(emit func([]byte) error) error {
		for _, rec := range recs {
			if err := emit([]byte(rec)); err != nil {
				return err
			}
		}
		return nil
	}
}

func (r *rig) checkpoint(t testing.TB, before int, recs ...string) {
	t.Helper()
	if err := r.Checkpoint(t.Context(), before, emitAll(recs...)); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
}

func TestACheckpointReplacesSegmentsAndOlderCheckpoints(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	r.put(t, "a", "b")
	r.cutNow(t)
	r.put(t, "c")
	r.checkpoint(t, 1, "b")
	r.cutNow(t)
	r.put(t, "d")
	size := r.Bytes()
	r.checkpoint(t, 2, "b", "c")
	if first, last := r.Segments(); first != 2 || last != 2 {
		t.Errorf("segments %d to %d, want 2 to 2", first, last)
	}
	files, _ := d.List("")
	if len(files) != 2 || files[1].name != "checkpoint.00000001" || r.Bytes() != files[0].bytes+files[1].bytes || r.Bytes() >= size {
		t.Errorf("files %+v, %d bytes", files, r.Bytes())
	}
	if r.metric(t, "checkpoint_creations_total") != 2 || r.metric(t, "wal_truncations_total") != 2 {
		t.Errorf("checkpoints %v, truncations %v", r.metric(t, "checkpoint_creations_total"), r.metric(t, "wal_truncations_total"))
	}
	next, got, stats := replayed(t, d.survive(func(synced bool) bool { return synced }))
	equal(t, "replay", got, []string{"b", "c", "d"})
	if stats.Corruptions != 0 {
		t.Errorf("stats %+v", stats)
	}
	next.put(t, "e")
	next.checkpoint(t, 3)
	_, got, stats = replayed(t, next.tune.disk.(*memDisk).clone())
	equal(t, "replay after an empty checkpoint", got, []string{"e"})
	if stats.Corruptions != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestACheckpointOfOpenOrReplacedSegmentsIsInvalid(t *testing.T) {
	r, _, _ := replayed(t, newMemDisk())
	r.put(t, "a")
	r.cutNow(t)
	r.put(t, "b")
	for _, before := range []int{-1, 0, 2} {
		if err := r.Checkpoint(t.Context(), before, emitAll()); errs.KindOf(err) != errs.Invalid {
			t.Errorf("before %d: %v, want invalid", before, err)
		}
	}
	n := r.cutNow(t)
	r.checkpoint(t, n, "a", "b")
	if err := r.Checkpoint(t.Context(), n-1, emitAll()); errs.KindOf(err) != errs.Invalid {
		t.Errorf("older than the last: %v, want invalid", err)
	}
}

// TestACrashAtAnyPointOfACheckpointLosesNothing copies the disk after every single operation, both
// as a killed process and as a power cut leave it.
func TestACrashAtAnyPointOfACheckpointLosesNothing(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	recs := numbered(0, 40)
	r.put(t, recs[:10]...)
	r.checkpoint(t, r.cutNow(t), recs[:10]...)
	r.put(t, recs[10:30]...)
	n := r.cutNow(t)
	r.put(t, recs[30:]...)
	type crash struct {
		at   string
		disk *memDisk
	}
	var crashes []crash
	rng := rand.New(rand.NewPCG(5, 6))
	d.after = func(op, name string) {
		at := fmt.Sprintf("%d: after %s %s", len(crashes), op, name)
		crashes = append(crashes, crash{at, d.surviveLocked(func(bool) bool { return true })})
		for range 20 {
			crashes = append(crashes, crash{at + ", power cut", d.surviveLocked(func(synced bool) bool { return synced || rng.IntN(2) == 0 })})
		}
	}
	r.checkpoint(t, n, recs[:30]...)
	d.mu.Lock()
	d.after = nil
	d.mu.Unlock()
	if len(crashes) < 9*21 {
		t.Fatalf("only %d crash points", len(crashes))
	}
	for _, c := range crashes {
		after, got, stats := replayed(t, c.disk)
		equal(t, c.at, got, recs)
		if stats.Corruptions != 0 {
			t.Errorf("%s: %+v", c.at, stats)
		}
		files, _ := c.disk.List("")
		for _, f := range files {
			if strings.HasSuffix(f.name, tempSuffix) {
				t.Errorf("%s: %s remains", c.at, f.name)
			}
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFailedCheckpointChangesNothing(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		op   string
		kind errs.Kind
	}{{"open", errs.Unavailable}, {"write", errs.Unavailable}, {"sync", errs.Unavailable}, {"close", errs.Unavailable},
		{"rename", errs.Unavailable}, {"syncdir", errs.Unavailable}, {"callback", errs.Internal}, {"cancel", errs.Canceled}} {
		t.Run(c.op, func(t *testing.T) {
			d := newMemDisk()
			r, _, _ := replayed(t, d)
			r.put(t, "a", "b")
			n := r.cutNow(t)
			failing(d, syscall.ENOSPC, c.op)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := r.Checkpoint(ctx, n, func(emit func([]byte) error) error {
				switch c.op {
				case "callback":
					return boom
				case "cancel":
					cancel()
				}
				return errors.Join(emit([]byte("a")), emit([]byte("b")))
			})
			if errs.KindOf(err) != c.kind || r.metric(t, "checkpoint_creations_failed_total") != 1 {
				t.Fatalf("checkpoint: %v (%v), want %v", err, errs.KindOf(err), c.kind)
			}
			d.setFault(nil)
			_, got, _ := replayed(t, d.survive(func(synced bool) bool { return synced }))
			equal(t, "replay", got, []string{"a", "b"})
			r.checkpoint(t, n, "a", "b")
			r.put(t, "c")
			_, got, _ = replayed(t, d.clone())
			equal(t, "replay after the next", got, []string{"a", "b", "c"})
		})
	}
}

func TestWhatCannotBeRemovedIsNotReplayedAndRemovedLater(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	r.put(t, "a")
	r.checkpoint(t, r.cutNow(t), "a")
	r.put(t, "b")
	n := r.cutNow(t)
	failing(d, syscall.EIO, "remove")
	r.checkpoint(t, n, "a", "b")
	if r.metric(t, "wal_truncations_failed_total") != 1 || r.metric(t, "checkpoint_deletions_failed_total") != 1 {
		t.Errorf("failures are not counted: %s", r.logs)
	}
	d.setFault(nil)
	_, got, _ := replayed(t, d.clone())
	equal(t, "replay", got, []string{"a", "b"})
	r.put(t, "c")
	r.checkpoint(t, r.cutNow(t), "a", "b", "c")
	if files, _ := d.List(""); len(files) != 1 {
		t.Errorf("files %+v, want the checkpoint alone", files)
	}
}

func TestADamagedCheckpointIsReported(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	r.put(t, "x")
	n := r.cutNow(t)
	var recs []string
	for i := range 20 { // 300 KiB each, so that there are several blocks
		recs = append(recs, fmt.Sprint(i)+string(incompressible(300<<10)))
	}
	r.checkpoint(t, n, recs...)
	r.put(t, "tail")
	at := offsets(t, d.files["checkpoint.00000000"])
	for name, c := range map[string]struct {
		damage func(f *memFile)
		lost   []int
	}{
		"flipped block":     {func(f *memFile) { f.data[at[1]+100] ^= 1 }, []int{3, 4, 5}},
		"header":            {func(f *memFile) { f.data[3] ^= 1 }, nil},
		"cut at a block":    {func(f *memFile) { f.data = f.data[:at[len(at)-3]] }, []int{18, 19}},
		"cut in a block":    {func(f *memFile) { f.data = f.data[:at[len(at)-3]+77] }, []int{18, 19}},
		"without its end":   {func(f *memFile) { f.data = f.data[:at[len(at)-2]] }, nil},
		"zero-filled":       {func(f *memFile) { zero(f.data) }, numbers(20)},
		"nothing in it":     {func(f *memFile) { f.data = nil }, numbers(20)},
		"not even a header": {func(f *memFile) { f.data = f.data[:7] }, numbers(20)},
	} {
		damaged := d.clone()
		c.damage(damaged.files["checkpoint.00000000"])
		_, got, stats := replayed(t, damaged)
		if want := append(without(recs, c.lost...), "tail"); !slices.Equal(got, want) {
			t.Errorf("%s: %d records, want %d", name, len(got), len(want))
		}
		if stats.Corruptions == 0 || stats.Damages[0].File != "checkpoint.00000000" {
			t.Errorf("%s: %+v, want the checkpoint reported", name, stats)
		}
	}
}

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestCloseEndsARunningCheckpoint(t *testing.T) {
	r, _, _ := replayed(t, newMemDisk())
	r.put(t, "a")
	n := r.cutNow(t)
	started, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- r.Checkpoint(t.Context(), n, func(emit func([]byte) error) error {
			close(started)
			big := make([]byte, 1<<20)
			for {
				if err := emit(big); err != nil {
					return err
				}
			}
		})
	}()
	<-started
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; errs.KindOf(err) != errs.Unavailable {
		t.Errorf("checkpoint: %v, want unavailable", err)
	}
}

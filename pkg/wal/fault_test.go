package wal

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// failing makes every operation named in ops fail with err until it is switched off.
func failing(d *memDisk, err error, ops ...string) {
	d.setFault(func(op, _ string) error {
		if slices.Contains(ops, op) {
			return err
		}
		return nil
	})
}

func TestAFullDiskFailsItsBatchesAndHealsByItself(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	r.put(t, numbered(0, 50)...)
	d.setSpace(100)
	big := string(incompressible(4000))
	for range 5 {
		_, err := r.Append([]byte(big)).Wait(t.Context())
		if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), r.dir) || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("append to a full disk: %v; want unavailable, the directory and the cause", err)
		}
	}
	if n := r.metric(t, "wal_writes_failed_total"); n != 5 {
		t.Errorf("failed writes %v, want 5", n)
	}
	if n := strings.Count(r.logs.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors logged, want 1: %s", n, r.logs)
	}
	r.put(t, "small enough")
	d.setSpace(1 << 20)
	r.put(t, big, "more")
	if !strings.Contains(r.logs.String(), "written again") {
		t.Errorf("recovery is not logged: %s", r.logs)
	}
	_, got, stats := replayed(t, d.survive(func(synced bool) bool { return synced }))
	equal(t, "replay", got, append(numbered(0, 50), "small enough", big, "more"))
	if stats.Corruptions != 0 || stats.TornBytes != 0 {
		t.Errorf("stats %+v, want no damage", stats)
	}
}

func incompressible(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// TestAFailedBatchIsNotReplayed fails each operation in turn, alone and with the truncation that
// would clean up after it.
func TestAFailedBatchIsNotReplayed(t *testing.T) {
	for _, ops := range [][]string{{"write"}, {"write", "truncate"}, {"sync"}, {"sync", "truncate"}, {"sync", "truncate", "close"}} {
		t.Run(strings.Join(ops, "+"), func(t *testing.T) {
			d := newMemDisk()
			r, _, _ := replayed(t, d)
			var want []string
			for round := range 6 {
				recs := numbered(round*10, round*10+10)
				r.put(t, recs...)
				want = append(want, recs...)
				failing(d, syscall.EIO, ops...)
				for range 3 {
					if _, err := r.Append([]byte("failed")).Wait(t.Context()); errs.KindOf(err) != errs.Unavailable {
						t.Fatalf("append: %v, want unavailable", err)
					}
				}
				d.setFault(nil)
			}
			r.put(t, "end")
			want = append(want, "end")
			for name, after := range map[string]*memDisk{"crash": d.clone(), "power cut": d.cut(rand.New(rand.NewPCG(3, 4)))} {
				_, got, stats := replayed(t, after)
				equal(t, name, got, want)
				if stats.Corruptions != 0 {
					t.Errorf("%s: %+v, want no corruption", name, stats)
				}
			}
		})
	}
}

func TestAFailedSyncNeverReusesItsSegment(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	before := r.put(t, "a")
	failing(d, syscall.EIO, "sync")
	if _, err := r.Append([]byte("b")).Wait(t.Context()); err == nil {
		t.Fatal("a failed sync was acknowledged")
	}
	d.setFault(nil)
	if after := r.put(t, "c"); after != before+1 {
		t.Errorf("segment %d after a failed sync of %d", after, before)
	}
}

func TestADisownedTailStaysDisownedOverACrash(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	r.put(t, "a")
	failing(d, syscall.EIO, "sync", "truncate")
	if _, err := r.Append([]byte("failed")).Wait(t.Context()); err == nil {
		t.Fatal("a failed sync was acknowledged")
	}
	writes := 0
	d.setFault(func(op, _ string) error {
		if op == "write" {
			writes++
		}
		if op == "write" && writes > 1 { // the header of the next segment gets through, no block does
			return syscall.EIO
		}
		return nil
	})
	if _, err := r.Append([]byte("failed too")).Wait(t.Context()); err == nil {
		t.Fatal("a failed write was acknowledged")
	}
	for _, want := range [][]string{{"a"}, {"a", "0"}, {"a", "0", "1"}} {
		next, got, stats := replayed(t, d.clone())
		equal(t, "replay", got, want)
		if stats.Corruptions != 0 {
			t.Errorf("%+v", stats)
		}
		next.put(t, string(rune('0'+len(want)-1)))
		d = next.tune.disk.(*memDisk)
	}
}

func TestASegmentThatCannotBeCreatedIsTriedAgain(t *testing.T) {
	for _, op := range []string{"open", "write", "sync", "syncdir"} {
		for _, removes := range []bool{true, false} {
			d := newMemDisk()
			r, _, _ := replayed(t, d)
			ops := []string{op}
			if !removes {
				ops = append(ops, "remove")
			}
			failing(d, syscall.EDQUOT, ops...)
			for range 3 {
				if _, err := r.Append([]byte("failed")).Wait(t.Context()); errs.KindOf(err) != errs.Unavailable {
					t.Fatalf("%s: %v, want unavailable", op, err)
				}
			}
			d.setFault(nil)
			r.put(t, "a", "b")
			_, got, stats := replayed(t, d.survive(func(synced bool) bool { return synced }))
			equal(t, op, got, []string{"a", "b"})
			if stats.Corruptions != 0 {
				t.Errorf("%s: %+v", op, stats)
			}
		}
	}
}

func TestAShortWriteIsAFailedWrite(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, shortDisk{d})
	r.put(t, "a")
	d.setFault(func(op, _ string) error {
		if op == "write" {
			return errShort
		}
		return nil
	})
	if _, err := r.Append([]byte("b")).Wait(t.Context()); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "short write") {
		t.Fatalf("short write: %v", err)
	}
	d.setFault(nil)
	r.put(t, "c")
	_, got, _ := replayed(t, d.clone())
	equal(t, "replay", got, []string{"a", "c"})
}

// errShort makes a shortDisk write less without an error.
var errShort = syscall.EINTR

type shortDisk struct{ *memDisk }

func (d shortDisk) Open(path string, flag int) (file, error) {
	f, err := d.memDisk.Open(path, flag)
	return shortFile{f}, err
}

type shortFile struct{ file }

func (f shortFile) WriteAt(b []byte, off int64) (int, error) {
	n, _ := f.file.WriteAt(b, off)
	return n, nil
}

func TestAFailedBatchFailsOnlyItself(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	r.put(t, "a")
	var syncs atomic.Int64
	hold := make(chan struct{})
	d.setFault(func(op, _ string) error {
		if op != "sync" {
			return nil
		}
		if syncs.Add(1) == 1 {
			<-hold
			return syscall.EIO
		}
		return nil
	})
	failed := r.Append([]byte("b"))
	waitFor(t, func() bool { return syncs.Load() == 1 })
	fine := []Ticket{r.Append([]byte("c")), r.Append([]byte("d"))}
	close(hold)
	if _, err := failed.Wait(t.Context()); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("failed batch: %v", err)
	}
	for _, ticket := range fine {
		if _, err := ticket.Wait(t.Context()); err != nil {
			t.Errorf("batch after it: %v", err)
		}
	}
	_, got, _ := replayed(t, d.clone())
	equal(t, "replay", got, []string{"a", "c", "d"})
}

func TestWithoutSyncAFailedSyncOfAClosedSegmentIsReported(t *testing.T) {
	d := newMemDisk()
	r := openOn(t, d, t.TempDir(), false)
	r.replay(t)
	r.put(t, "a")
	var syncs atomic.Int64
	d.setFault(func(op, _ string) error {
		if op == "sync" {
			syncs.Add(1)
			return syscall.EIO
		}
		return nil
	})
	r.cutNow(t)
	waitFor(t, func() bool { return syncs.Load() == 1 })
	d.setFault(nil)
	r.put(t, "b")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r.metric(t, "wal_writes_failed_total") != 1 {
		t.Errorf("failed writes %v, want 1: %s", r.metric(t, "wal_writes_failed_total"), r.logs)
	}
}

func TestOpenSaysWhyTheDiskIsNotUsable(t *testing.T) {
	d := newMemDisk()
	failing(d, syscall.EIO, "list")
	dir := t.TempDir()
	_, err := open(dir, Options{}, smallTuning(d))
	if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), dir) {
		t.Fatalf("open: %v", err)
	}
	d.setFault(nil)
	openOn(t, d, dir, true) // the lock was released
}

package wal

import (
	"syscall"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// end returns the end of the log.
func (r *rig) end(t testing.TB) Position {
	t.Helper()
	p, err := r.End()
	if err != nil {
		t.Fatalf("end: %v", err)
	}
	return p
}

// closed closes the log.
func (r *rig) closed(t testing.TB) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestALogThatEndsWhereItIsSaidToGoesOnWithoutAReplay(t *testing.T) {
	for _, sync := range []bool{true, false} {
		d := newMemDisk()
		r := openOn(t, d, t.TempDir(), sync)
		r.replay(t)
		var want []string
		for round := range 4 {
			recs := numbered(round*100, round*100+(round%3)*50) // in round 0 and 3 none
			if len(recs) > 0 {
				r.put(t, recs...)
			}
			want = append(want, recs...)
			p := r.end(t)
			r.closed(t)
			r = openOn(t, d, t.TempDir(), sync)
			if !r.EndsAt(p) {
				t.Fatalf("round %d: the log does not end at %+v", round, p)
			}
			if err := r.Resume(p); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if err := r.Resume(p); errs.KindOf(err) != errs.Conflict {
				t.Errorf("resumed twice: %v", err)
			}
		}
		r.put(t, "end")
		_, got, stats := replayed(t, d.survive(func(synced bool) bool { return synced || !sync }))
		equal(t, "replay", got, append(want, "end"))
		if stats.Corruptions != 0 || stats.MissingSegments != 0 || stats.TornBytes != 0 {
			t.Errorf("%+v, want nothing missing", stats)
		}
	}
}

func TestALogThatWentOnDoesNotEndWhereItEndedBefore(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	r.put(t, "a")
	p := r.end(t)
	r.put(t, "b") // in the same segment
	r.closed(t)
	r = openOn(t, d, t.TempDir(), true)
	if r.EndsAt(p) || errs.KindOf(r.Resume(p)) != errs.Conflict {
		t.Error("the log ends before its last record")
	}
	r.replay(t)
	q := r.end(t) // an empty segment follows
	r.closed(t)
	r = openOn(t, d, t.TempDir(), true)
	if r.EndsAt(p) || !r.EndsAt(q) {
		t.Error("the log does not end in its last segment")
	}
	other := q
	other.Salt++
	if r.EndsAt(other) {
		t.Error("the log of another passes for this one")
	}
	if (Position{}) == q || r.EndsAt(Position{}) {
		t.Error("the log ends nowhere")
	}
	_, got, _ := replayed(t, d.clone())
	equal(t, "replay", got, []string{"a", "b"})
}

func TestTheEndOfALogThatCannotBeWrittenIsNotKnown(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	failing(d, syscall.ENOSPC, "open")
	if _, err := r.End(); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("end: %v", err)
	}
	d.setFault(nil)
	r.put(t, "a")
	if p := r.end(t); p.Sequence != 1 {
		t.Errorf("%+v, want one block before it", p)
	}
}

func TestADisownedTailStaysDisownedOverAResume(t *testing.T) {
	d := newMemDisk()
	r, _, _ := replayed(t, d)
	r.put(t, "a")
	failing(d, syscall.EIO, "sync", "truncate")
	if _, err := r.Append([]byte("failed")).Wait(t.Context()); err == nil {
		t.Fatal("a failed sync was acknowledged")
	}
	d.setFault(nil)
	p := r.end(t)
	r.closed(t)
	r = openOn(t, d, t.TempDir(), true)
	if err := r.Resume(p); err != nil {
		t.Fatal(err)
	}
	r.put(t, "b")
	_, got, stats := replayed(t, d.clone())
	equal(t, "replay", got, []string{"a", "b"})
	if stats.Corruptions != 0 {
		t.Errorf("%+v", stats)
	}
}

package ruler

import (
	"testing"
	"testing/synctest"
	"time"
)

const recording = `name: g
interval: 10s
query_offset: 0s
rules:
- record: answer
  expr: vector(42)
`

func TestWhatARuleRecordsIsStoredAtEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.ruler(t, "a", nil)
		stop := start(t, r)
		put(t, r, recording)
		time.Sleep(time.Minute)
		stop()
		times := w.store.times(t, "answer")
		if len(times) < 5 || len(times) > 6 {
			t.Fatalf("%d samples in a minute, want 5 or 6", len(times))
		}
		for i := 1; i < len(times); i++ {
			if d := times[i] - times[i-1]; d < 9999 || d > 10001 {
				t.Errorf("samples %d and %d are %d ms apart", i-1, i, d)
			}
		}
	})
}

func TestADeletedGroupIsMarkedStaleAndAMovedOneIsNot(t *testing.T) {
	for _, deleted := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			r := w.ruler(t, "a", nil)
			stop := start(t, r)
			put(t, r, recording)
			time.Sleep(35 * time.Second)
			before := len(w.store.times(t, "answer"))
			if deleted {
				if err := r.DeleteGroup(t.Context(), "t", "ns", "g"); err != nil {
					t.Fatal(err)
				}
			} else {
				w.setAlive("b")
			}
			time.Sleep(time.Minute)
			want := before
			if deleted {
				want++ // the stale marker
			}
			if got := len(w.store.times(t, "answer")); got != want {
				t.Errorf("deleted %v: %d samples, want %d", deleted, got, want)
			}
			stop()
		})
	}
}

func TestAFailedRulersGroupsGoOnWithoutAGapOrADouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.setAlive("a", "b")
		a, b := w.ruler(t, "a", nil), w.ruler(t, "b", nil)
		stopA, stopB := start(t, a), start(t, b)
		for _, name := range []string{"g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"} {
			put(t, a, "name: "+name+"\ninterval: 10s\nquery_offset: 0s\nrules:\n- record: "+name+"_value\n  expr: vector(1)\n")
		}
		time.Sleep(time.Minute)
		stopA() // its place stays in the ring, as after a kill
		time.Sleep(35 * time.Second)
		w.setAlive("b")
		time.Sleep(time.Minute)
		stopB()
		for _, name := range []string{"g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"} {
			times := w.store.times(t, name+"_value")
			if len(times) < 13 {
				t.Errorf("%s: %d samples", name, len(times))
			}
			for i := 1; i < len(times); i++ {
				if d := times[i] - times[i-1]; d < 9999 || d > 10001 {
					t.Errorf("%s: samples %d and %d are %d ms apart", name, i-1, i, d)
				}
			}
		}
		for sample, n := range w.store.writes {
			if n > 1 {
				t.Errorf("%s was written %d times", sample, n)
			}
		}
	})
}

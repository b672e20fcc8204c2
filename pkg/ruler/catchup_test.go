package ruler

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

func TestWhatCouldNotBeStoredForTheMomentIsMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.ruler(t, "a", nil)
		stop := start(t, r)
		put(t, r, recording)
		time.Sleep(35 * time.Second)
		w.store.setDown(true)
		time.Sleep(40 * time.Second)
		w.store.setDown(false)
		time.Sleep(35 * time.Second)
		stop()
		times := w.store.times(t, "answer")
		if len(times) < 10 {
			t.Fatalf("%d samples", len(times))
		}
		for i := 1; i < len(times); i++ {
			if d := times[i] - times[i-1]; d < 9999 || d > 10001 {
				t.Errorf("samples %d and %d are %d ms apart", i-1, i, d)
			}
		}
		for sample, n := range w.store.writes {
			if n > 1 {
				t.Errorf("%s was written %d times", sample, n)
			}
		}
	})
}

// TestAGroupThatIsTooSlowDoesNotFallBehindMoreAndMore: what it misses is made up for in part only, or its
// alerts would be evaluated ever more seldom.
func TestAGroupThatIsTooSlowDoesNotFallBehindMoreAndMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.slow = 12 * time.Second
		r := w.ruler(t, "a", nil)
		stop := start(t, r)
		put(t, r, recording)
		time.Sleep(time.Hour)
		groups, err := r.List(t.Context(), "t", &rulerpb.GroupsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(time.Unix(0, groups[0].EvaluatedNs)); age > time.Minute {
			t.Errorf("the last evaluation was %s ago", age)
		}
		stop()
	})
}

package integration

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// askEach asks every question of every gateway at once, compares the answers, and returns how long the slowest took.
func (r *readers) askEach(ctx context.Context, t *testing.T, what string) time.Duration {
	t.Helper()
	begin := time.Now()
	var wg sync.WaitGroup
	for _, base := range r.bases() {
		for i := range r.questions {
			wg.Go(func() {
				q := &r.questions[i]
				if got, err := q.ask(ctx, base); err != nil || got != q.want {
					t.Errorf("%s: %s %v answered %.300s, %v", what, q.path, q.form, got, err)
				}
			})
		}
	}
	wg.Wait()
	took := time.Since(begin)
	t.Logf("%s: all was answered within %s", what, took.Round(time.Millisecond))
	return took
}

// TestOneProcessOfTheReadPathThatHangsFailsNoRead freezes one of two of each kind, alone, and asks before
// anybody can know of it. A dead connection is found after 15 s, by whoever is at its other end: no read takes much
// longer, those that follow take no time, and none fails.
func TestOneProcessOfTheReadPathThatHangsFailsNoRead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 5*time.Minute)
	c, r := twoOfEach(ctx, t)
	r.askEach(ctx, t, "at rest")
	for _, name := range []string{"query-frontend-a", "query-scheduler-a", "querier-a"} {
		n := c.Node(name)
		must(t, n.Signal(syscall.SIGSTOP))
		if took := r.askEach(ctx, t, name+" hangs"); took > 30*time.Second {
			t.Errorf("while %s hung a read took %s", name, took)
		}
		r.askEach(ctx, t, name+" still hangs")
		must(t, n.Signal(syscall.SIGCONT))
		r.askEach(ctx, t, name+" goes on")
		must(t, harness.Poll(ctx, n.Ready))
	}
}

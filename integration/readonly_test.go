package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAReadOnlyIngesterIsReadAndNotWrittenTo has one of four ingesters be prepared for its removal
// under load, and take that back.
func TestAReadOnlyIngesterIsReadAndNotWrittenTo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	nodes := []harness.Spec{{Name: "front", Target: "distributor,querier"}}
	for k := range 4 {
		nodes = append(nodes, harness.Spec{Name: fmt.Sprintf("ingester-%d", k), Target: "ingester"})
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Files: true, Flags: []string{"-distributor.ingestion-rate-limit=0"}})
	front, chosen := c.Node("front"), c.Node("ingester-2")
	j := newJournal("team-a", func() []string { return []string{front.URL("")} })
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { j.run(load, 2) })
	defer func() { stop(); wg.Wait() }()
	got := func() float64 {
		return scrape(ctx, t, chosen.URL("/metrics"), "amphora_ingester_ingested_samples_total")
	}
	takes := func(what string) {
		t.Helper()
		before := got()
		eventually(ctx, t, what, func() error {
			if now := got(); now <= before {
				return fmt.Errorf("%g samples, as before", now)
			}
			return nil
		})
	}
	change := func(method string) int64 {
		t.Helper()
		r := call(ctx, t, method, chosen.URL("/ingester/prepare-instance-ring-downscale"), nil)
		var since struct{ Timestamp int64 }
		if err := json.Unmarshal([]byte(r.body), &since); err != nil || r.status != 200 {
			t.Fatalf("%s answered %s (%v)", method, r, err)
		}
		return since.Timestamp
	}
	takes("samples at first")
	begin := time.Now().Unix()
	since := change(http.MethodPost)
	if since < begin || since > time.Now().Unix() {
		t.Errorf("read-only since %d, want about %d", since, begin)
	}
	pause(ctx, t, 1100*time.Millisecond)
	if again := change(http.MethodPost); again != since || change(http.MethodGet) != since {
		t.Errorf("read-only since %d when asked for again, want %d", again, since)
	}
	eventually(ctx, t, "pushes to turn to others", func() error {
		before, sent := got(), acked(j)
		pause(ctx, t, 2*time.Second)
		if now := got(); now != before {
			return fmt.Errorf("%g samples in two seconds", now-before)
		}
		if now := acked(j); now <= sent {
			return fmt.Errorf("%d samples acknowledged, as before", now)
		}
		return nil
	})
	if r := call(ctx, t, http.MethodGet, chosen.URL("/ready"), nil); r.status != 200 {
		t.Errorf("a read-only ingester is not ready: %s", r)
	}
	j.verify(ctx, t, front.URL(""))
	if left := change(http.MethodDelete); left != 0 {
		t.Errorf("after the end of the mode the timestamp is %d", left)
	}
	takes("samples again")
	stop()
	wg.Wait()
	j.verify(ctx, t, front.URL(""))
}

// acked is the number of samples acknowledged so far.
func acked(j *journal) int {
	n, _ := j.count()
	return n
}

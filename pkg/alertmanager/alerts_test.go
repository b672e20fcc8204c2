package alertmanager

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// TestManyTenantsAreAskedForTheFirstTimeAtOnce: the API of each is made then, of one schema.
func TestManyTenantsAreAskedForTheFirstTimeAtOnce(t *testing.T) {
	c := newFleet(t, 1)
	var wg sync.WaitGroup
	for i := range 6 {
		id := tenant.ID(fmt.Sprint("t", i))
		c.put(t, id, "http://127.0.0.1:1")
		for range 2 {
			wg.Go(func() {
				c.done(t, id, "POST", "/api/v2/alerts", `[{"labels":{"alertname":"a","tenant":"`+string(id)+`"}}]`)
				if body := c.done(t, id, "GET", "/api/v2/alerts", ""); strings.Count(body, `"tenant":"`) != 1 || !strings.Contains(body, `"tenant":"`+string(id)+`"`) {
					t.Errorf("%s: %s", id, body)
				}
				if body := c.done(t, id, "GET", "/api/v2/status", ""); !strings.Contains(body, "receiver: r") {
					t.Errorf("%s: %s", id, body)
				}
			})
		}
	}
	wg.Wait()
}

// told is the alerts as a replica tells them: each fired for an hour up to end, and was looked at then.
func told(n int, end time.Time) *pb.State {
	out := &pb.State{}
	for i := range n {
		out.Alerts = append(out.Alerts, &pb.Alert{Labels: map[string]string{"alertname": fmt.Sprint("a", i)},
			StartsAt: end.Add(-time.Hour).UnixNano(), EndsAt: end.UnixNano(), UpdatedAt: end.UnixNano()})
	}
	return out
}

// TestWhatAReplicaToldEarlierDoesNotReplaceWhatIsNewer: in one message, and when two replicas tell at the same
// moment.
func TestWhatAReplicaToldEarlierDoesNotReplaceWhatIsNewer(t *testing.T) {
	c := newFleet(t, 1)
	c.put(t, "t", "http://127.0.0.1:1")
	in, err := c.nodes["am-0"].instance(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	newest := time.Now().Add(10 * time.Hour).UTC()
	check := func(want time.Time) {
		t.Helper()
		for _, a := range told(n, want).Alerts {
			got, err := in.alerts.Get(fromWire(a).Fingerprint())
			if err != nil {
				t.Fatal(err)
			}
			if !got.UpdatedAt.Equal(want) {
				t.Fatalf("%s is from %s, want %s", got.Name(), got.UpdatedAt, want)
			}
		}
	}
	both := told(n, newest)
	both.Alerts = append(both.Alerts, told(n, newest.Add(-3*time.Hour)).Alerts...)
	if err := in.merge(t.Context(), both); err != nil {
		t.Fatal(err)
	}
	check(newest)
	// Two replicas tell of the alerts, each time something newer. What is kept must only ever become newer.
	kept := in.alerts.Subscribe("test")
	defer kept.Close()
	const times = 100
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := next.Add(1); i <= times; i = next.Add(1) {
				if err := in.merge(t.Context(), told(n, newest.Add(time.Duration(i)*2*time.Hour))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	last, ended, before := newest.Add(times*2*time.Hour), 0, map[string]time.Time{}
	for a := range kept.Next() {
		name, at := a.Data.Name(), a.Data.UpdatedAt
		if !at.After(before[name]) {
			t.Fatalf("what was told of %s at %s replaced what is from %s", name, at, before[name])
		}
		before[name] = at
		if at.Equal(last) {
			ended++
		}
		if ended == n {
			break
		}
	}
	wg.Wait()
}

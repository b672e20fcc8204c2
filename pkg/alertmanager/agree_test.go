package alertmanager

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/nflog/nflogpb"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// TestReplicasThatMissedWhatCameInSayNothingWrong: one that was dead when an alert came again thinks that
// the alert has ended, and one that was dead when it ended that it fires.
func TestReplicasThatMissedWhatCameInSayNothingWrong(t *testing.T) {
	for _, last := range []string{"am-0", "am-1"} { // who alone hears the last
		t.Run(last, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var told []string
			var at []time.Time
			s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				var in struct{ Status string }
				body, _ := io.ReadAll(r.Body)
				_ = json.Unmarshal(body, &in)
				mu.Lock()
				defer mu.Unlock()
				told, at = append(told, in.Status), append(at, time.Now())
			}))
			t.Cleanup(s.Close)
			heard := func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(told) }
			c := newFleet(t, 2)
			c.put(t, "t", s.URL)
			post := func(end time.Time, to ...string) {
				t.Helper()
				for _, name := range to {
					body := fmt.Sprintf(`[{"labels":{"alertname":"a"},"endsAt":%q}]`, end.UTC().Format(time.RFC3339Nano))
					out, err := c.nodes[name].HandleRequest(tenant.Inject(t.Context(), "t"), &pb.Request{Method: "POST", Uri: "/api/v2/alerts", Body: []byte(body), Headers: asJSON()})
					if err != nil || out.GetStatus() != 200 {
						t.Fatalf("%v, %v", out, err)
					}
				}
			}
			// The one that hears nothing more thinks that it ends soon.
			early := time.Now().Add(12 * time.Second) // a machine with much to do needs some until it is notified
			post(early, "am-0", "am-1")
			eventually(t, "it is notified", func() bool { return len(heard()) > 0 })
			end := early.Add(4 * time.Second)
			post(end, last)
			eventually(t, "its end is notified", func() bool { return slices.Contains(heard(), "resolved") })
			<-time.After(2 * time.Second) // groups flush several times
			mu.Lock()
			if !slices.Equal(told, []string{"firing", "resolved"}) || at[1].Before(end) {
				t.Errorf("%s hears the last: told %v at %v, and it ended at %s", last, told, at, end)
			}
			mu.Unlock()
			// It fires again, and one alone hears that it ended.
			post(time.Now().Add(time.Hour), "am-0", "am-1")
			eventually(t, "it is notified again", func() bool { return len(heard()) == 3 })
			post(time.Now().Add(-time.Millisecond), last)
			eventually(t, "its second end is notified", func() bool { return len(heard()) == 4 })
			<-time.After(3 * time.Second)
			if got := heard(); !slices.Equal(got, []string{"firing", "resolved", "firing", "resolved"}) {
				t.Errorf("%s hears the last: told %v", last, got)
			}
		})
	}
}

// TestAnAlertThatEndsWhileOthersGoFirstDoesNotFireAnew: a replica looks at its alerts, and then waits for
// those before it, who may tell of the end meanwhile.
func TestAnAlertThatEndsWhileOthersGoFirstDoesNotFireAnew(t *testing.T) {
	c := newFleet(t, 1)
	c.put(t, "t", "http://127.0.0.1:1")
	in, err := c.nodes["am-0"].instance(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	over := &alert.Alert{Alert: model.Alert{Labels: model.LabelSet{"alertname": "over"}, StartsAt: time.Now().Add(-time.Minute), EndsAt: time.Now().Add(-time.Second)}, UpdatedAt: time.Now().Add(-time.Minute)}
	if err := in.alerts.Put(t.Context(), over); err != nil {
		t.Fatal(err)
	}
	seen := *over
	seen.EndsAt = time.Time{} // as a group shows those that fire
	to := &nflogpb.Receiver{GroupName: "r", Integration: "x"}
	ask := func(looked time.Time) bool {
		return in.outdated(notify.WithNow(t.Context(), looked), to, "g", []*alert.Alert{&seen})
	}
	before := time.Now().Add(-2 * time.Second)
	if ask(before) {
		t.Error("what nobody was told is held back")
	}
	if err := in.notified.Log(to, "g", nil, []uint64{1}, nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	if !ask(before) || ask(time.Now().Add(time.Second)) {
		t.Error("its end was told after the look at it, and only then")
	}
}

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// receiver is a webhook that remembers how often it was told of each alert.
type receiver struct {
	url string

	mu     sync.Mutex // guards what follows
	firing map[string]int
	times  map[string][]time.Time
	ended  map[string]int
	status int // of answers; 0: 200
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{times: map[string][]time.Time{}, firing: map[string]int{}, ended: map[string]int{}}
	s := httptest.NewServer(http.HandlerFunc(r.take))
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

func (r *receiver) take(w http.ResponseWriter, req *http.Request) {
	var in struct {
		Alerts []struct {
			Status string            `json:"status"`
			Labels map[string]string `json:"labels"`
		} `json:"alerts"`
	}
	err := json.NewDecoder(req.Body).Decode(&in)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || r.status != 0 {
		w.WriteHeader(max(r.status, http.StatusBadRequest))
		return
	}
	for _, a := range in.Alerts {
		if a.Status == "firing" {
			r.firing[a.Labels["alertname"]]++
			r.times[a.Labels["alertname"]] = append(r.times[a.Labels["alertname"]], time.Now())
		} else {
			r.ended[a.Labels["alertname"]]++
		}
	}
}

// told returns how often the webhook was told that an alert fires, and that it ended.
func (r *receiver) told(name string) (firing, ended int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.firing[name], r.ended[name]
}

// once polls until the webhook was told of an alert, and fails if it was told more often than once.
func (r *receiver) once(ctx context.Context, t *testing.T, names ...string) {
	t.Helper()
	must(t, harness.Poll(ctx, func(context.Context) error {
		var missing []string
		for _, name := range names {
			if n, _ := r.told(name); n == 0 {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("%d of %d alerts not notified: %.200s", len(missing), len(names), strings.Join(missing, " "))
		}
		return nil
	}))
	r.never(t, 2, names...)
}

// never fails if the webhook was told of an alert n times or more.
func (r *receiver) never(t *testing.T, n int, names ...string) {
	t.Helper()
	for _, name := range names {
		if got, _ := r.told(name); got >= n {
			r.mu.Lock()
			t.Errorf("%s was notified %d times: %v", name, got, r.times[name])
			r.mu.Unlock()
		}
	}
}

// definitionFor is the configuration of an alertmanager that notifies one receiver of every alert by itself.
func definitionFor(receiver string, lines ...string) []byte {
	out := "template_files: {}\nalertmanager_config: |\n  route:\n    receiver: r\n    group_by: [alertname]\n    group_wait: 200ms\n    group_interval: 2s\n    repeat_interval: 1h\n" +
		"  receivers:\n  - name: r\n" + receiver
	for _, l := range lines {
		out += "  " + l + "\n"
	}
	return []byte(out)
}

func webhook(at string) string { return "    webhook_configs:\n    - url: " + at + "\n" }

// fire posts alerts of a tenant.
func fire(ctx context.Context, base, tenant string, end time.Time, names ...string) error {
	var alerts []map[string]any
	for _, name := range names {
		a := map[string]any{"labels": map[string]string{"alertname": name}, "annotations": map[string]string{"summary": "test"}, "generatorURL": "http://prometheus.example/graph?g0.expr=up"}
		if !end.IsZero() {
			a["endsAt"] = end.UTC().Format(time.RFC3339Nano)
		}
		alerts = append(alerts, a)
	}
	body, err := json.Marshal(alerts)
	if err != nil {
		return err
	}
	r, err := try(ctx, http.MethodPost, base+"/alertmanager/api/v2/alerts", body, "X-Scope-OrgID", tenant, "Content-Type", "application/json")
	if err == nil && r.status != http.StatusOK {
		err = errors.New(r.String())
	}
	return err
}

// alertsOf lists the names of a tenant's alerts.
func alertsOf(ctx context.Context, t *testing.T, base, tenant string, params url.Values) []string {
	t.Helper()
	r := call(ctx, t, http.MethodGet, base+"/alertmanager/api/v2/alerts?"+params.Encode(), nil, "X-Scope-OrgID", tenant)
	var list []struct{ Labels map[string]string }
	if err := json.Unmarshal([]byte(r.body), &list); err != nil || r.status != http.StatusOK {
		t.Fatalf("alerts: %s, %v", r, err)
	}
	var out []string
	for _, a := range list {
		out = append(out, a.Labels["alertname"])
	}
	slices.Sort(out)
	return out
}

// TestAlertsReachAReceiverOnce configures an alertmanager, sends alerts, breaks the configuration and
// kills the process, and finds every alert notified once.
func TestAlertsReachAReceiverOnce(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	hook := newReceiver(t)
	put := func(tenant string, data []byte) reply {
		return call(ctx, t, http.MethodPost, n.URL("/api/v1/alerts"), data, "X-Scope-OrgID", tenant)
	}
	get := func(tenant string) reply {
		return call(ctx, t, http.MethodGet, n.URL("/api/v1/alerts"), nil, "X-Scope-OrgID", tenant)
	}
	if r := get("one"); r.status != http.StatusNotFound {
		t.Errorf("before any configuration: %s", r)
	}
	good := definitionFor(webhook(hook.url))
	if r := put("one", good); r.status != http.StatusCreated {
		t.Fatalf("put: %s", r)
	}
	if r := get("one"); r.status != http.StatusOK || r.body != string(good) {
		t.Errorf("not byte for byte: %s", r)
	}
	must(t, fire(ctx, n.URL(""), "one", time.Time{}, "a"))
	must(t, fire(ctx, n.URL(""), "two", time.Time{}, "of-two")) // has no configuration
	hook.once(ctx, t, "a")
	if r := put("one", definitionFor(webhook("http://x"), "no_such_key: 1")); r.status != http.StatusBadRequest || !strings.Contains(r.body, "line 11") {
		t.Errorf("wrong configuration: %s", r)
	}
	if r := get("one"); r.body != string(good) {
		t.Errorf("after a wrong one: %s", r)
	}
	must(t, fire(ctx, n.URL(""), "one", time.Time{}, "b"))
	hook.once(ctx, t, "b")
	if got := alertsOf(ctx, t, n.URL(""), "one", url.Values{"filter": {`alertname=~"a|b"`}}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("alerts of one: %v", got)
	}
	if got := alertsOf(ctx, t, n.URL(""), "two", nil); !slices.Equal(got, []string{"of-two"}) {
		t.Errorf("alerts of two: %v", got)
	}
	// What is known to have been notified is stored within a second or two.
	pause(ctx, t, 3*time.Second)
	must(t, n.Kill())
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	must(t, fire(ctx, n.URL(""), "one", time.Time{}, "a", "b", "c"))
	hook.once(ctx, t, "c")
	pause(ctx, t, 3*time.Second)
	hook.never(t, 2, "a", "b", "c")
	hook.never(t, 1, "of-two")
	must(t, fire(ctx, n.URL(""), "one", time.Now(), "a"))
	must(t, harness.Poll(ctx, func(context.Context) error {
		if _, n := hook.told("a"); n != 1 {
			return fmt.Errorf("told %d times that a ended", n)
		}
		return nil
	}))
	if r := call(ctx, t, http.MethodDelete, n.URL("/api/v1/alerts"), nil, "X-Scope-OrgID", "one"); r.status != http.StatusOK {
		t.Errorf("delete: %s", r)
	}
	if r := get("one"); r.status != http.StatusNotFound {
		t.Errorf("after deletion: %s", r)
	}
}

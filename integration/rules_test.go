package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// mailbox is an Alertmanager that keeps what it is sent.
type mailbox struct {
	*httptest.Server
	mu  sync.Mutex // guards got
	got []postedAlert
}

type postedAlert struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	GeneratorURL        string
	tenant, path        string
	at                  time.Time
}

func newMailbox(t *testing.T) *mailbox {
	m := &mailbox{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var list []postedAlert
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &list)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, a := range list {
			a.tenant, a.path, a.at = r.Header.Get("X-Scope-OrgID"), r.URL.Path, time.Now()
			m.got = append(m.got, a)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

// find returns the last alert that ok accepts.
func (m *mailbox) find(ok func(postedAlert) bool) (postedAlert, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.got) - 1; i >= 0; i-- {
		if ok(m.got[i]) {
			return m.got[i], true
		}
	}
	return postedAlert{}, false
}

// setGroup puts a rule group.
func setGroup(ctx context.Context, t *testing.T, base, tenant, namespace, group string) {
	t.Helper()
	if r := call(ctx, t, "POST", base+"/prometheus/config/v1/rules/"+namespace, []byte(group), "X-Scope-OrgID", tenant); r.status != http.StatusAccepted {
		t.Fatalf("rules not taken: %s", r)
	}
}

// hasValue polls until an expression of a tenant has want as the value of its only series.
func hasValue(ctx context.Context, t *testing.T, base, tenant, expr, want string) {
	t.Helper()
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		a, err := ask(ctx, base+"/prometheus", tenant, "query", url.Values{"query": {expr}})
		if err != nil {
			return err
		}
		if r := a.Data.Result; len(r) != 1 || len(r[0].Value) != 2 || r[0].Value[1] != want {
			return fmt.Errorf("%s is %v, want %s", expr, r, want)
		}
		return nil
	}))
}

func TestRulesRecordSeriesAndSendAlerts(t *testing.T) {
	ctx := bounded(t, 90*time.Second)
	box := newMailbox(t)
	n := everything(ctx, t, "-ruler.alertmanager-url="+box.URL+"/alertmanager", "-ruler.external.url=http://grafana.example", "-ruler.evaluation-delay-duration=0s")
	base := n.URL("")
	stored(t, pushV1(ctx, t, base, "shop", floats(time.Now(), 3, "__name__", "orders", "site", "a"), floats(time.Now(), 4, "__name__", "orders", "site", "b")))
	setGroup(ctx, t, base, "shop", "sales%2Fhourly", `name: totals
interval: 1s
rules:
- record: site:orders:sum
  expr: sum(orders)
  labels: {level: all}
- alert: ManyOrders
  expr: site:orders:sum > 5
  for: 2s
  labels: {severity: "info {{ $value }}"}
  annotations: {summary: "{{ $labels.level }}"}
`)
	hasValue(ctx, t, base, "shop", "site:orders:sum", "7")
	hasValue(ctx, t, base, "shop", `ALERTS{alertstate="firing"}`, "1")
	var a postedAlert
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		var ok bool
		if a, ok = box.find(func(postedAlert) bool { return true }); !ok {
			return fmt.Errorf("no alert came")
		}
		return nil
	}))
	if a.tenant != "shop" || a.path != "/alertmanager/api/v2/alerts" || a.Labels["alertname"] != "ManyOrders" || a.Labels["severity"] != "info 7" ||
		a.Labels["level"] != "all" || a.Annotations["summary"] != "all" || !strings.HasPrefix(a.GeneratorURL, "http://grafana.example/graph?g0.expr=") {
		t.Errorf("alert %+v", a)
	}
	if r := call(ctx, t, "GET", base+"/prometheus/api/v1/rules", nil, "X-Scope-OrgID", "other"); !strings.Contains(r.body, `"groups":[]`) {
		t.Errorf("another tenant sees %s", r)
	}
	if r := call(ctx, t, "GET", base+"/prometheus/api/v1/rules?type=alert", nil, "X-Scope-OrgID", "shop"); !strings.Contains(r.body, `"state":"firing"`) || strings.Contains(r.body, "recording") {
		t.Errorf("rules: %s", r)
	}
	// Resolved alerts are sent at once.
	stored(t, pushV1(ctx, t, base, "shop", floats(time.Now(), 0, "__name__", "orders", "site", "a"), floats(time.Now(), 0, "__name__", "orders", "site", "b")))
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		if _, ok := box.find(func(a postedAlert) bool { return !a.EndsAt.After(a.at) }); !ok {
			return fmt.Errorf("the alert does not resolve")
		}
		return nil
	}))
	if r := call(ctx, t, "DELETE", base+"/prometheus/config/v1/rules/sales%2Fhourly", nil, "X-Scope-OrgID", "shop"); r.status != http.StatusAccepted {
		t.Errorf("delete: %s", r)
	}
	if r := call(ctx, t, "GET", base+"/prometheus/config/v1/rules", nil, "X-Scope-OrgID", "shop"); r.status != http.StatusOK || r.body != "{}\n" {
		t.Errorf("after the delete: %s", r)
	}
}

// scrapeHas says whether the metrics at a URL have a line.
func scrapeHas(ctx context.Context, t *testing.T, url, line string) bool {
	t.Helper()
	return strings.Contains(call(ctx, t, "GET", url, nil).body, line)
}

// countOf counts a part of a text.
func countOf(text, part string) int { return strings.Count(text, part) }

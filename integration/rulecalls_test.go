package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// loadedGroup is a group as mimirtool writes it.
const loadedGroup = `name: latency
interval: 1s
query_offset: 0s
labels:
    team: shop
rules:
    - record: job:requests:rate5m
      expr: sum by (job) (rate(requests_total[5m]))
      labels:
        level: job
    - alert: Slow
      expr: histogram_quantile(0.99, sum by (le) (rate(latency_seconds_bucket[5m]))) > 0.5
      for: 10m
      keep_firing_for: 1m
      labels:
        severity: page
      annotations:
        summary: '{{ $labels.job }} takes {{ $value | humanizeDuration }}'
`

// TestMimirtoolAndGrafanaShapedCallsOfRules sends what these tools send, as they were recorded.
func TestMimirtoolAndGrafanaShapedCallsOfRules(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	// Nobody looks for changes but who is told of them.
	n := everything(ctx, t, "-ruler.poll-interval=10m", "-ruler.protected-namespaces=locked", "-ruler.evaluation-delay-duration=0s")
	tool := func(method, path, body string, headers ...string) reply {
		t.Helper()
		return call(ctx, t, method, n.URL(path), []byte(body), append([]string{"X-Scope-OrgID", "shop", "User-Agent", "mimirtool/3.0.3"}, headers...)...)
	}
	for _, prefix := range []string{"/prometheus/config/v1/rules", "/api/v1/rules"} { // the second with --use-legacy-routes
		// rules load: each group is asked for, and put if it is not there or another.
		if r := tool("GET", prefix+"/a%2Fb.yaml/latency", ""); r.status != http.StatusNotFound || !strings.Contains(r.body, "group does not exist") {
			t.Errorf("before the load: %s", r)
		}
		if r := tool("POST", prefix+"/a%2Fb.yaml", loadedGroup, "Content-Type", "application/yaml"); r.status != http.StatusAccepted {
			t.Fatalf("load: %s", r)
		}
		if r := tool("GET", prefix+"/a%2Fb.yaml/latency", ""); r.status != http.StatusOK || r.body != loadedGroup {
			t.Errorf("get is not what was loaded, byte for byte: %s", r)
		}
		// rules diff and rules list.
		r := tool("GET", prefix, "")
		var all map[string][]yaml.Node
		if err := yaml.Unmarshal([]byte(r.body), &all); err != nil || len(all) != 1 || len(all["a/b.yaml"]) != 1 {
			t.Fatalf("list: %s", r)
		}
		if text, err := yaml.Marshal(&all["a/b.yaml"][0]); err != nil || string(text) != loadedGroup {
			t.Errorf("diff after load is not empty: %s, %v", text, err)
		}
		// rules delete, rules delete-namespace.
		if r := tool("DELETE", prefix+"/a%2Fb.yaml/latency", ""); r.status != http.StatusAccepted {
			t.Errorf("delete: %s", r)
		}
		if r := tool("DELETE", prefix+"/a%2Fb.yaml", ""); r.status != http.StatusNotFound {
			t.Errorf("delete-namespace of what is gone: %s", r)
		}
	}
	if r := tool("POST", "/prometheus/config/v1/rules/locked", loadedGroup); r.status != http.StatusForbidden || !strings.Contains(r.body, "namespace is protected, no modification allowed") {
		t.Errorf("a protected namespace: %s", r)
	}
	if r := tool("POST", "/prometheus/config/v1/rules/locked", loadedGroup, "X-Mimir-Ruler-Override-Namespace-Protection", "locked"); r.status != http.StatusAccepted {
		t.Errorf("a protected namespace, meant: %s", r)
	}
	// Grafana looks at what there is, and puts JSON.
	if r := tool("GET", "/prometheus/api/v1/status/buildinfo", ""); !strings.Contains(r.body, `"ruler_config_api":"true"`) {
		t.Errorf("build information: %s", r)
	}
	for i := range 5 {
		body := fmt.Sprintf(`{"name":"g%d","interval":"1s","rules":[{"record":"value%d","expr":"vector(%d)"},{"alert":"A%d","expr":"vector(1)","for":"0s","labels":{"severity":"info"},"annotations":{}}]}`, i, i, i, i)
		if r := tool("POST", "/prometheus/config/v1/rules/grafana?subtype=mimir", body, "Content-Type", "application/json"); r.status != http.StatusAccepted {
			t.Fatalf("put as JSON: %s", r)
		}
	}
	for i := range 5 {
		hasValue(ctx, t, n.URL(""), "shop", "value"+strconv.Itoa(i), strconv.Itoa(i))
	}
	pages(ctx, t, n, 6)
	preview(ctx, t, tool)
	wholeSet(t, tool)
}

// pages walks through all groups two at a time.
func pages(ctx context.Context, t *testing.T, n *harness.Node, want int) {
	t.Helper()
	var names []string
	for token := ""; ; {
		params := url.Values{"group_limit": {"2"}}
		if token != "" {
			params.Set("group_next_token", token)
		}
		r := call(ctx, t, "GET", n.URL("/prometheus/api/v1/rules?"+params.Encode()), nil, "X-Scope-OrgID", "shop")
		var page struct {
			Data struct {
				Groups         []struct{ Name, File string }
				GroupNextToken string
			}
		}
		if err := json.Unmarshal([]byte(r.body), &page); err != nil || len(page.Data.Groups) > 2 {
			t.Fatalf("page: %s", r)
		}
		for _, g := range page.Data.Groups {
			names = append(names, g.File+"/"+g.Name)
		}
		if token = page.Data.GroupNextToken; token == "" {
			break
		}
	}
	if len(names) != want {
		t.Errorf("pages have %v, want %d groups", names, want)
	}
}

// wholeSet replaces all rules at once.
func wholeSet(t *testing.T, tool func(method, path, body string, headers ...string) reply) {
	t.Helper()
	const path = "/prometheus/config/v1/rules"
	before := tool("GET", path, "")
	tag := before.header.Get("ETag")
	next := "grafana:\n- name: g0\n  rules:\n  - {record: value0, expr: vector(9)}\n" + "locked:" + strings.SplitN(before.body, "locked:", 2)[1]
	if r := tool("PUT", path+"?dry_run=true", next); r.status != http.StatusOK || !strings.Contains(r.body, `"changed":["grafana/g0"]`) || !strings.Contains(r.body, `"unchanged":["locked/latency"]`) {
		t.Errorf("dry run: %s", r)
	}
	if r := tool("PUT", path, next, "If-Match", `"other"`); r.status != http.StatusConflict {
		t.Errorf("another version: %s", r)
	}
	if r := tool("PUT", path, "{}", "If-Match", tag); r.status != http.StatusForbidden {
		t.Errorf("without the protected namespace: %s", r)
	}
	if r := tool("GET", path, ""); r.body != before.body {
		t.Errorf("refusals changed it: %s", r)
	}
	if r := tool("PUT", path, next, "If-Match", tag); r.status != http.StatusAccepted || r.header.Get("ETag") == tag {
		t.Errorf("replace: %s", r)
	}
}

// preview asks what rules would have done.
func preview(ctx context.Context, t *testing.T, tool func(method, path, body string, headers ...string) reply) {
	t.Helper()
	file := "groups:\n- name: p\n  interval: 1s\n  rules:\n  - {alert: Was, expr: value1 == 1, for: 1s}\n  - {record: twice, expr: value1 * 2}\n"
	must(t, harness.Poll(ctx, func(context.Context) error {
		r := tool("POST", "/prometheus/api/v1/rules/preview?start=5m", file)
		if r.status != http.StatusOK || !strings.Contains(r.body, `"fired":1`) || !strings.Contains(r.body, `"alertname":"Was"`) || !strings.Contains(r.body, `"__name__":"twice"`) {
			return fmt.Errorf("preview: %s", r)
		}
		return nil
	}))
	if r := tool("POST", "/prometheus/api/v1/rules/preview?start=tomorrow", file); r.status != http.StatusBadRequest {
		t.Errorf("preview from no time: %s", r)
	}
	if r := tool("GET", "/prometheus/config/v1/rules/p", ""); r.body != "{}\n" {
		t.Errorf("a preview was stored: %s", r)
	}
}

// sincePoint is a sample of ALERTS_FOR_STATE: when it was written, and since when the alert was active, in seconds.
type sincePoint struct{ at, since float64 }

func (p sincePoint) pending() float64 { return p.at - p.since }

// since returns all samples that say since when an alert is active.
func since(ctx context.Context, base, tenant, alert string) (out []sincePoint, err error) {
	a, err := ask(ctx, base+"/prometheus", tenant, "query", url.Values{"query": {`ALERTS_FOR_STATE{alertname="` + alert + `"}[10m]`}})
	if err != nil {
		return nil, err
	}
	for _, r := range a.Data.Result {
		for _, v := range r.Values {
			at, isTime := v[0].(float64)
			text, isText := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if !isTime || !isText || err != nil {
				return nil, fmt.Errorf("a sample is %v", v)
			}
			out = append(out, sincePoint{at, value})
		}
	}
	return out, nil
}

// TestAlertsAreGeneratedAsPrometheusDoes follows one alert from pending to its end, through a kill of the
// process, as Prometheus's compliance test of alert generators does.
func TestAlertsAreGeneratedAsPrometheusDoes(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	box := newMailbox(t)
	n := everything(ctx, t, "-ruler.alertmanager-url="+box.URL, "-ruler.external.url=http://grafana.example", "-ruler.evaluation-delay-duration=0s",
		"-ruler.for-grace-period=1s", "-ruler.resend-delay=2s", "-ruler.external-labels={cluster: eu}")
	base := n.URL("")
	gauge := func(v float64) {
		stored(t, pushV1(ctx, t, base, "shop", floats(time.Now(), v, "__name__", "load", "host", "h")))
	}
	gauge(5)
	setGroup(ctx, t, base, "shop", "ns", `name: g
interval: 1s
rules:
- alert: Loaded
  expr: load > 1
  for: 15s
  keep_firing_for: 4s
  labels: {severity: page}
  annotations: {summary: "load {{ $value }} on {{ $labels.host }} of {{ $externalLabels.cluster }}"}
`)
	hasValue(ctx, t, base, "shop", `ALERTS{alertname="Loaded",alertstate="pending",severity="page",host="h",cluster=""}`, "1")
	active := func() (state string, at time.Time) {
		t.Helper()
		r := call(ctx, t, "GET", base+"/prometheus/api/v1/alerts", nil, "X-Scope-OrgID", "shop")
		var out struct {
			Data struct {
				Alerts []struct {
					State    string
					ActiveAt time.Time
				}
			}
		}
		if err := json.Unmarshal([]byte(r.body), &out); err != nil {
			t.Fatal(err)
		}
		if len(out.Data.Alerts) == 0 {
			return "", time.Time{}
		}
		return out.Data.Alerts[0].State, out.Data.Alerts[0].ActiveAt
	}
	until := func(want string) time.Time {
		t.Helper()
		var at time.Time
		must(t, harness.Poll(ctx, func(context.Context) error {
			var state string
			if state, at = active(); state != want {
				return fmt.Errorf("the alert is %q, want %q", state, want)
			}
			return nil
		}))
		return at
	}
	until("pending")
	pendingFor := func() (samples []sincePoint) {
		t.Helper()
		harness.Need(t, harness.Poll(ctx, func(context.Context) (err error) {
			samples, err = since(ctx, base, "shop", "Loaded")
			if err == nil && (len(samples) == 0 || samples[len(samples)-1].pending() < 4) {
				err = fmt.Errorf("samples %v, want it pending for 4 s", samples)
			}
			return err
		}))
		return samples
	}
	pendingFor()
	must(t, n.Kill())
	killed := time.Now()
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	at := until("firing")
	hasValue(ctx, t, base, "shop", `ALERTS{alertname="Loaded",alertstate="firing"}`, "1")
	// It went on being pending where it was, as if no time had passed in between.
	samples := pendingFor()
	k := slices.IndexFunc(samples, func(p sincePoint) bool { return p.at > float64(killed.UnixMilli())/1000 })
	if k <= 0 || samples[k].pending() < samples[k-1].pending()-1 || samples[k].since < samples[k-1].since || samples[len(samples)-1].since != samples[k].since {
		t.Errorf("after a kill at %s sample %d of %v does not go on where the last one was", seconds(killed.UnixMilli()), k, samples)
	}
	if k >= 0 && at.Unix() != int64(samples[k].since) {
		t.Errorf("it is active since %s, and its samples say since %g", at, samples[k].since)
	}
	sent := func(n int) (out []postedAlert) {
		t.Helper()
		must(t, harness.Poll(ctx, func(context.Context) error {
			box.mu.Lock()
			defer box.mu.Unlock()
			if out = box.got; len(out) < n {
				return fmt.Errorf("%d alerts came", len(out))
			}
			return nil
		}))
		return out
	}
	for i, a := range sent(3) {
		if a.Labels["cluster"] != "eu" || a.Annotations["summary"] != "load 5 on h of eu" || a.GeneratorURL != "http://grafana.example/graph?g0.expr=load+%3E+1&g0.tab=1" {
			t.Errorf("alert %+v", a)
		}
		// Four times the longer one of interval and resend delay, less what the way takes.
		if d := a.EndsAt.Sub(a.at); d > 8*time.Second+time.Second {
			t.Errorf("alert %d ends in %s", i, d)
		}
	}
	down := time.Now()
	gauge(0)
	must(t, harness.Poll(ctx, func(context.Context) error {
		if _, ok := box.find(func(a postedAlert) bool { return !a.EndsAt.After(a.at) && a.at.After(down) }); !ok {
			return fmt.Errorf("the alert does not resolve")
		}
		return nil
	}))
	end, _ := box.find(func(a postedAlert) bool { return !a.EndsAt.After(a.at) && a.at.After(down) })
	if d := end.EndsAt.Sub(down); d < 3*time.Second {
		t.Errorf("it ended %s after its cause, and is kept firing for 4s", d)
	}
	until("")
}

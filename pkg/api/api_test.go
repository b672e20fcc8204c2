package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

type fakes struct {
	tenant tenant.ID
	push   func(context.Context) error
}

func (f *fakes) Push(ctx context.Context, id tenant.ID, _ *remotewrite.Request) (remotewrite.Written, error) {
	f.tenant = id
	if f.push != nil {
		return remotewrite.Written{}, f.push(ctx)
	}
	return remotewrite.Written{}, nil
}
func (*fakes) Usage(context.Context, tenant.ID) (admin.Usage, error) { return admin.Usage{}, nil }
func (*fakes) AllUsage(context.Context) (admin.AllUsage, error)      { return admin.AllUsage{}, nil }
func (*fakes) Flush(context.Context, []tenant.ID, bool) (admin.FlushJob, error) {
	return admin.FlushJob{State: "done"}, nil
}
func (*fakes) FlushJob(context.Context, string) (admin.FlushJob, error) { return admin.FlushJob{}, nil }
func (*fakes) Shutdown(context.Context) error                           { return nil }
func (*fakes) On() bool                                                 { return false }
func (*fakes) Set(context.Context, bool) error                          { return nil }
func (*fakes) Reset(context.Context) error                              { return nil }
func (*fakes) Since() time.Time                                         { return time.Time{} }
func (*fakes) Tenants(context.Context) ([]admin.TenantInfo, error)      { return nil, nil }
func (*fakes) Tenant(context.Context, tenant.ID) (admin.TenantInfo, error) {
	return admin.TenantInfo{}, nil
}
func (*fakes) Stop(context.Context, string, bool) error { return nil }
func (*fakes) RecentSeries(context.Context, bool, []*labels.Matcher, func(labels.Labels) error) error {
	return nil
}
func (*fakes) DropRules(tenant.ID, string, []string) (string, error) { return "", nil }
func (*fakes) Running(context.Context, bool) (any, annotations.Annotations, error) {
	return nil, nil, nil
}
func (*fakes) Explain(context.Context, string, prom.Window, bool) (any, error) {
	return nil, nil
}
func (*fakes) ServeHTTP(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ring") }
func (*fakes) yaml(mode string) ([]byte, error)                 { return []byte("mode: " + mode), nil }

// everything is a process that runs every service, with f behind it.
func everything(t testing.TB, f *fakes) Deps {
	t.Helper()
	db := teststorage.New(t)
	reg := prometheus.NewRegistry()
	eng, err := engine.New(engine.Config{Timeout: time.Minute, MaxSamples: 1000, LookbackDelta: time.Minute, MaxConcurrent: 1}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = eng.Close() })
	return Deps{
		Registerer: reg, CostDeps: CostDeps{Costs: http.NotFoundHandler(), CostsPath: "/costs"}, Metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}),
		Ruler:  noRules{}.deps(),
		Limits: func(tenant.ID) limits.View { return limits.View{} },
		Pusher: f, Usage: f, Elected: func() admin.Elected { return admin.Elected{} },
		Read:     &prom.Backends{Engine: eng, Storage: db, Exemplars: db.DB, Overseer: f, Series: f, Usage: noUsage{f}},
		Ingester: &IngesterDeps{Flusher: f, PrepareShutdown: f, PrepareDownscale: f, UnregisterOnShutdown: f, Tenants: f, HeadMetrics: http.NotFoundHandler()},
		Build:    admin.BuildInfo{Version: "1.2.3"},
		Ready:    func(context.Context) error { return nil },
		Services: func() []admin.Service { return nil },
		Callers:  CallerDeps{func(http.ResponseWriter, *http.Request) error { return nil }, func(http.ResponseWriter, *http.Request) error { return nil }},
		Console:  func(http.ResponseWriter, *http.Request) error { return nil },
		Config:   f.yaml, RuntimeConfig: f.yaml,
		Blocks: BlockDeps{Uploads: noBlocks{}, Deletions: noBlocks{}, SeriesDeletions: noBlocks{}, Planner: noBlocks{}, Stored: noBlocks{},
			Marks: noBlocks{}, StoreShutdown: f, History: noBlocks{}},
		Memberlist: f,
		Rings:      Rings{IngesterRing: oneMember{}, DistributorRing: oneMember{}, StoreGatewayRing: oneMember{}, CompactorRing: oneMember{}, SchedulerRing: oneMember{}, FrontendRing: oneMember{}},
		Alertmanager: &AlertmanagerDeps{
			Serve: func(w http.ResponseWriter, _ *http.Request, path string) error {
				_, err := io.WriteString(w, path)
				return err
			},
			Definition: func(http.ResponseWriter, *http.Request) error { return nil },
			Grafana:    func(http.ResponseWriter, *http.Request, string) error { return nil },
			Ring:       oneMember{}, Pages: noAlerts{},
			Tenants:        func(context.Context) []admin.AlertTenant { return nil },
			Configurations: func(context.Context) ([]byte, error) { return nil, nil },
			DeleteTenant:   func(context.Context, tenant.ID) error { return nil },
		},
		Control: noCalls{},
	}
}

// noUsage knows of nothing that was asked for.
type noUsage struct{ *fakes }

func (noUsage) Usage(context.Context, tenant.ID, prom.Inventory, prom.UsageAsk) (any, error) {
	return struct{}{}, nil
}

// oneMember is a ring.
type oneMember struct{}

func (oneMember) Members(context.Context) ([]admin.RingMember, error) {
	return []admin.RingMember{{ID: "one"}}, nil
}
func (oneMember) Forget(context.Context, string) error { return nil }

// noAlerts is an alertmanager without alerts.
type noAlerts struct{}

func (noAlerts) Alerts(context.Context, tenant.ID, []string) (admin.Alerts, error) {
	return admin.Alerts{}, nil
}
func (noAlerts) Silence(context.Context, tenant.ID, string, time.Duration, string, string) error {
	return nil
}
func (noAlerts) Expire(context.Context, tenant.ID, string) error { return nil }

// noCalls is a control plane without anything in it.
type noCalls struct{}

func (noCalls) Operation(string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, "{}")
		return err
	}
}

// noBlocks is an empty bucket.
type noBlocks struct{}

func (noBlocks) StartUpload(context.Context, tenant.ID, ulid.ULID, io.Reader) error { return nil }
func (noBlocks) UploadFile(context.Context, tenant.ID, ulid.ULID, string, int64, io.Reader) error {
	return nil
}
func (noBlocks) FinishUpload(context.Context, tenant.ID, ulid.ULID) error { return nil }
func (noBlocks) UploadResult(context.Context, tenant.ID, ulid.ULID) (string, string, error) {
	return "complete", "", nil
}
func (noBlocks) Estimate(int64) time.Duration                                        { return 0 }
func (noBlocks) MarkNoCompact(context.Context, tenant.ID, ulid.ULID, string) error   { return nil }
func (noBlocks) UnmarkNoCompact(context.Context, tenant.ID, ulid.ULID) error         { return nil }
func (noBlocks) MarkForDeletion(context.Context, tenant.ID, ulid.ULID, string) error { return nil }
func (noBlocks) UnmarkForDeletion(context.Context, tenant.ID, ulid.ULID) error       { return nil }
func (noBlocks) History(context.Context, tenant.ID, int) (prom.Cardinality, error) {
	return prom.Cardinality{}, nil
}
func (noBlocks) DeleteSeries(context.Context, tenant.ID, []string, time.Time, time.Time) error {
	return nil
}
func (noBlocks) CancelSeriesDeletion(context.Context, tenant.ID, string) error { return nil }
func (noBlocks) SeriesDeletions(context.Context, tenant.ID) ([]prom.SeriesDeletion, error) {
	return nil, nil
}
func (noBlocks) DeleteTenant(context.Context, tenant.ID) error          { return nil }
func (noBlocks) TenantDeleted(context.Context, tenant.ID) (bool, error) { return true, nil }
func (noBlocks) Tenants(context.Context) ([]tenant.ID, error)           { return nil, nil }
func (noBlocks) PlannedJobs(context.Context, tenant.ID) ([]admin.CompactionJob, error) {
	return nil, nil
}
func (noBlocks) Blocks(context.Context, tenant.ID) ([]admin.StoredBlock, time.Time, error) {
	return nil, time.Time{}, nil
}

func defaults(t testing.TB) Config {
	t.Helper()
	var cfg Config
	s := config.NewSet()
	s.Mount("api", &cfg)
	cfg.Tenancy.Declare(s)
	cfg.Ingest.Protocols.Declare(s)
	return cfg
}

func newAPI(t testing.TB, cfg Config, deps Deps) *API {
	t.Helper()
	a, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func get(h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

// target returns a request path that matches rt.
func target(rt Route) string {
	return strings.NewReplacer("{$}", "", "{name}", "job", "{tenant}", "t1", "{profile}", "heap", "{namespace}", "ns", "{group}", "g").Replace(rt.Path)
}

func TestEveryRouteIsDeniedWithoutTheRight(t *testing.T) {
	deps := everything(t, &fakes{})
	var asked Action
	deps.Allow = func(_ *http.Request, action Action) error {
		asked = action
		return errs.New(errs.Denied, "not allowed to %s", action)
	}
	a := newAPI(t, defaults(t), deps)
	if len(a.Mounted()) != len(Routes) {
		t.Fatalf("%d of %d routes are mounted", len(a.Mounted()), len(Routes))
	}
	for _, rt := range a.Mounted() {
		for method := range strings.SplitSeq(rt.Methods, ",") {
			asked = ""
			rec := get(a, method, target(rt), "X-Scope-OrgID", "t1")
			if rec.Code != http.StatusForbidden || asked != rt.ActionOf(method) {
				t.Errorf("%s %s: status %d, asked for %q, want %q", method, rt.Path, rec.Code, asked, rt.Action)
			}
		}
	}
}

func TestEveryRouteIsDescribed(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9_]+$`)
	var doc strings.Builder
	if err := WriteDoc(&doc); err != nil {
		t.Fatal(err)
	}
	for _, rt := range Routes {
		if rt.Action == "" || rt.Service == "" || rt.Methods == "" || !strings.HasSuffix(rt.Doc, ".") {
			t.Errorf("%s: action %q, service %q, methods %q, doc %q", rt.Path, rt.Action, rt.Service, rt.Methods, rt.Doc)
		}
		if !label.MatchString(rt.Label()) {
			t.Errorf("%s: label %q", rt.Path, rt.Label())
		}
		if rt.Service != Control && (rt.Style == Write || strings.HasPrefix(string(rt.Action), "aps:")) && rt.Tenancy == NoTenant {
			t.Errorf("%s: reads or writes data of no tenant", rt.Path)
		}
		if row := "`" + strings.TrimSuffix(rt.Path, "{$}") + "` | `" + string(rt.Action) + "`"; !strings.Contains(doc.String(), row) {
			t.Errorf("the reference lacks %s", row)
		}
	}
}

// TestRouteLabelsAreThoseOfDashboards: panels select these exact values.
func TestRouteLabelsAreThoseOfDashboards(t *testing.T) {
	labels := map[string]string{}
	for _, rt := range Routes {
		labels[rt.Path] = rt.Label()
	}
	for path, want := range map[string]string{
		"/api/v1/push": "api_v1_push", "/prometheus/api/v1/query_range": "prometheus_api_v1_query_range", "/ready": "ready", "/metrics": "metrics",
		"/prometheus/api/v1/label/{name}/values": "prometheus_api_v1_label_name_values", "/debug/pprof/{profile}": "debug_pprof", "/{$}": "root",
	} {
		if labels[path] != want {
			t.Errorf("%s: label %q, want %q", path, labels[path], want)
		}
	}
}

func TestOnlyWhatRunsIsMounted(t *testing.T) {
	a := newAPI(t, defaults(t), Deps{Ready: func(context.Context) error { return errs.New(errs.Internal, "ring: joining") }})
	for path, want := range map[string]int{"/-/healthy": 200, "/ready": 503, "/api/v1/push": 404, "/prometheus/api/v1/query": 404, "/ingester/flush": 404, "/metrics": 404, "/config": 404, "/memberlist": 404, "/debug/pprof/": 200} {
		if rec := get(a, "GET", path, "X-Scope-OrgID", "t1"); rec.Code != want {
			t.Errorf("%s: status %d, want %d", path, rec.Code, want)
		}
	}
	body := get(a, "GET", "/").Body.String()
	if !strings.Contains(body, `href="/ready"`) || strings.Contains(body, "/memberlist") || strings.Contains(body, "/config") {
		t.Errorf("index: %s", body)
	}
	for _, rt := range newAPI(t, defaults(t), everything(t, &fakes{})).Mounted() {
		if rt.Link != "" && !rt.allows("GET") {
			t.Errorf("%s: linked but not readable", rt.Path)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	a := newAPI(t, defaults(t), everything(t, &fakes{}))
	for _, c := range []struct {
		method, path string
		status       int
		allow, want  string
	}{
		{"GET", "/nothing", 404, "", "there is nothing at /nothing\n"},
		{"GET", "/prometheus/api/v1/nothing", 404, "", `{"status":"error","errorType":"not_found","error":"there is nothing at /prometheus/api/v1/nothing"}`},
		{"GET", "/api/v1/push", 405, "POST", "method not allowed\n"},
		{"DELETE", "/prometheus/api/v1/query", 405, "GET, POST", "method not allowed\n"},
		{"POST", "/prometheus/api/v1/metadata", 405, "GET", "method not allowed\n"},
		{"BREW", "/ready", 405, "GET", "method not allowed\n"},
		{"HEAD", "/ready", 200, "", ""},
	} {
		rec := get(a, c.method, c.path, "X-Scope-OrgID", "t1")
		if rec.Code != c.status || rec.Header().Get("Allow") != c.allow || c.want != "" && rec.Body.String() != c.want {
			t.Errorf("%s %s: %d, allow %q, %q", c.method, c.path, rec.Code, rec.Header().Get("Allow"), rec.Body)
		}
	}
}

func TestTheTenantComesFromTheHeader(t *testing.T) {
	f := &fakes{}
	deps := everything(t, f)
	cfg := defaults(t)
	strict := newAPI(t, cfg, deps)
	deps.Registerer, deps.Federation = prometheus.NewRegistry(), 2
	federated := newAPI(t, cfg, deps)
	deps.Registerer = prometheus.NewRegistry()
	cfg.Tenancy.Enabled = false
	off := newAPI(t, cfg, deps)
	body := string(s2.EncodeSnappy(nil, []byte("x")))
	for _, c := range []struct {
		name         string
		a            *API
		path, header string
		status       int
		want         string
	}{
		{"none", strict, "/api/v1/push", "", 401, "no org id\n"},
		{"none, reading", strict, "/prometheus/api/v1/labels", "", 401, "no org id\n"},
		{"one", strict, "/api/v1/push", "team-a", 200, ""},
		{"bad", strict, "/api/v1/push", "a/b", 400, "unsupported character"},
		{"reserved", strict, "/api/v1/push", "..", 400, "reserved"},
		{"two", strict, "/api/v1/push", "a|b", 422, "multiple tenant IDs"},
		{"the same twice", strict, "/api/v1/push", "a|a", 200, ""},
		{"two, reading", strict, "/prometheus/api/v1/labels", "a|b", 422, `"errorType":"execution"`},
		{"two, federated", federated, "/prometheus/api/v1/labels", "a|b", 200, `"data":[]`},
		{"two pushing, federated", federated, "/api/v1/push", "a|b", 422, "multiple tenant IDs"},
		{"off", off, "/api/v1/push", "ignored", 200, ""},
	} {
		r := httptest.NewRequest("POST", c.path, strings.NewReader(body))
		if c.header != "" {
			r.Header.Set("X-Scope-OrgID", c.header)
		}
		rec := httptest.NewRecorder()
		c.a.ServeHTTP(rec, r)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.name, rec.Code, rec.Body, c.status, c.want)
		}
	}
	if f.tenant != "anonymous" {
		t.Errorf("without tenancy the push was for %q", f.tenant)
	}
}

func TestAPanicIsAnsweredLoggedAndCounted(t *testing.T) {
	var log bytes.Buffer
	deps := everything(t, &fakes{push: func(context.Context) error { panic("secret detail") }})
	deps.Log = slog.New(slog.NewTextHandler(&log, nil))
	a := newAPI(t, defaults(t), deps)
	r := httptest.NewRequest("POST", "/api/v1/push", bytes.NewReader(s2.EncodeSnappy(nil, []byte("x"))))
	r.Header.Set("X-Scope-OrgID", "t1")
	rec := httptest.NewRecorder()
	a.ServeHTTP(rec, r)
	if rec.Code != 500 || strings.Contains(rec.Body.String(), "secret") || rec.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if !strings.Contains(log.String(), "secret detail") || !strings.Contains(log.String(), "stack=") {
		t.Errorf("log: %s", log.String())
	}
	if n := testutil.ToFloat64(a.metrics.panics); n != 1 {
		t.Errorf("%v panics counted", n)
	}
}

func TestRequestsAreMeasuredByRoute(t *testing.T) {
	deps := everything(t, &fakes{})
	cfg := defaults(t)
	cfg.PrometheusPrefix = "/metrics-api"
	a := newAPI(t, cfg, deps)
	if rec := get(a, "GET", "/metrics-api/api/v1/query?query=1", "X-Scope-OrgID", "t1"); rec.Code != 200 {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	get(a, "GET", "/prometheus/api/v1/query?query=1", "X-Scope-OrgID", "t1")
	get(a, "POST", "/api/v1/push")
	text := get(a, "GET", "/metrics").Body.String()
	for _, want := range []string{
		`amphora_request_duration_seconds_count{method="GET",route="prometheus_api_v1_query",status_code="200",ws="false"} 1`,
		`amphora_request_duration_seconds_count{method="GET",route="other",status_code="404",ws="false"} 1`,
		`amphora_request_duration_seconds_count{method="POST",route="api_v1_push",status_code="401",ws="false"} 1`,
		`amphora_inflight_requests{method="GET",route="metrics"} 1`,
		`amphora_inflight_requests{method="POST",route="api_v1_push"} 0`,
		`amphora_response_message_bytes_count{method="GET",route="prometheus_api_v1_query"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	problems, err := testutil.GatherAndLint(deps.Registerer.(*prometheus.Registry), "amphora_request_duration_seconds", "amphora_panics_total", "amphora_api_query_expression_bytes")
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestOtherSitesCannotSteerAnOperatorsBrowser(t *testing.T) {
	a := newAPI(t, defaults(t), everything(t, &fakes{}))
	for _, c := range []struct {
		method, path, site string
		status             int
	}{
		{"POST", "/ingester/shutdown", "cross-site", 403},
		{"POST", "/ingester/shutdown", "same-origin", 204},
		{"POST", "/ingester/shutdown", "", 204}, // curl
		{"GET", "/ingester/flush", "cross-site", 403},
		{"GET", "/ingester/flush", "none", 200},
		{"POST", "/ingester/ring", "cross-site", 403},
		{"GET", "/services", "cross-site", 200},
	} {
		var headers []string
		if c.site != "" {
			headers = []string{"Sec-Fetch-Site", c.site}
		}
		if rec := get(a, c.method, c.path, headers...); rec.Code != c.status {
			t.Errorf("%s %s from %q: %d, want %d", c.method, c.path, c.site, rec.Code, c.status)
		}
	}
}

// TestGrafanaFindsAPrometheus makes the calls of Grafana's data source test and query editor.
func TestGrafanaFindsAPrometheus(t *testing.T) {
	srv := httptest.NewServer(newAPI(t, defaults(t), everything(t, &fakes{})))
	defer srv.Close()
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/prometheus/api/v1/query", "query=1%2B1&time=4", `{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}`},
		{"GET", "/prometheus/api/v1/query?query=1%2B1&time=4", "", `{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}`},
		{"GET", "/prometheus/api/v1/status/buildinfo", "", `"version":"1.2.3"`},
		{"GET", "/api/v1/status/buildinfo", "", `"features":{}`},
		{"GET", "/prometheus/api/v1/labels?start=1&end=2", "", `{"status":"success","data":[]}`},
		{"GET", "/prometheus/api/v1/label/__name__/values", "", `{"status":"success","data":[]}`},
		{"GET", "/prometheus/api/v1/metadata", "", `{"status":"success","data":{}}`},
		{"POST", "/prometheus/api/v1/series", "match%5B%5D=up", `{"status":"success","data":[]}`},
	} {
		r, err := http.NewRequest(c.method, srv.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Scope-OrgID", "t1")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %s: %d %s %v", c.method, c.path, resp.StatusCode, body, err)
		}
	}
}

// TestABrowserAtTheAddressOfADataSourceFindsTheConsole: people try the address that they gave Grafana.
func TestABrowserAtTheAddressOfADataSourceFindsTheConsole(t *testing.T) {
	for _, prefix := range []string{"/prometheus", "/metrics-api"} {
		cfg := defaults(t)
		cfg.PrometheusPrefix = prefix
		a := newAPI(t, cfg, everything(t, &fakes{}))
		for _, method := range []string{"GET", "HEAD"} {
			for _, path := range []string{prefix, prefix + "/"} {
				rec := get(a, method, path)
				if rec.Code != http.StatusFound || rec.Header().Get("Location") != "/console/" {
					t.Errorf("%s %s: %d to %q", method, path, rec.Code, rec.Header().Get("Location"))
				}
			}
		}
		if rec := get(a, "GET", prefix+"/nothing"); rec.Code != http.StatusNotFound {
			t.Errorf("%s/nothing: %d", prefix, rec.Code)
		}
		deps := everything(t, &fakes{})
		deps.Console = nil
		if rec := get(newAPI(t, cfg, deps), "GET", prefix+"/"); rec.Code != http.StatusNotFound {
			t.Errorf("without a console: %d", rec.Code)
		}
	}
}

// TestAnAnswerThatFailsInTheMiddleIsCut: the client must not take a part for the whole.
func TestAnAnswerThatFailsInTheMiddleIsCut(t *testing.T) {
	deps := everything(t, &fakes{})
	a := newAPI(t, defaults(t), deps)
	rt := Route{Methods: "GET", Path: "/x", Action: Open, Service: Any, bind: func(*API) Handler { return nil }}
	srv := httptest.NewServer(a.serve(rt, "x", func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
		return errs.New(errs.Unavailable, "storage went away")
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/x")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("the client saw a whole answer")
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for _, prefix := range []string{"prometheus", "/a/", "/{x}", "/a b", "//a"} {
		cfg := defaults(t)
		cfg.PrometheusPrefix = prefix
		if _, err := New(cfg, Deps{}); err == nil {
			t.Errorf("prefix %q is accepted", prefix)
		}
	}
	cfg := defaults(t)
	cfg.PrometheusPrefix = ""
	if rec := get(newAPI(t, cfg, everything(t, &fakes{})), "GET", "/"); rec.Code != 200 || !strings.Contains(rec.Body.String(), `href="/ready"`) {
		t.Errorf("no prefix: the index is answered %d", rec.Code)
	}
	if rec := get(newAPI(t, cfg, everything(t, &fakes{})), "GET", "/api/v1/query?query=1", "X-Scope-OrgID", "t1"); rec.Code != 200 {
		t.Errorf("no prefix: %d", rec.Code)
	}
	cfg.Tenancy = TenancyConfig{NoAuthTenant: "a/b"}
	if _, err := New(cfg, Deps{}); err == nil {
		t.Error("a bad tenant for requests without one is accepted")
	}
}

func BenchmarkServe(b *testing.B) {
	deps := everything(b, &fakes{})
	a := newAPI(b, defaults(b), deps)
	body := s2.EncodeSnappy(nil, make([]byte, 10_000))
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/api/v1/push", bytes.NewReader(body))
		r.Header.Set("X-Scope-OrgID", "t1")
		a.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// TestEveryOperationOfAmazonsModelHasItsRoute compares methods and paths; anomaly detectors are not served.
func TestEveryOperationOfAmazonsModelHasItsRoute(t *testing.T) {
	data, err := os.ReadFile("../control/testdata/operations.json")
	if err != nil {
		t.Fatal(err)
	}
	var model struct {
		Operations map[string]struct{ Method, URI string }
	}
	if err := json.Unmarshal(data, &model); err != nil {
		t.Fatal(err)
	}
	routed := map[string]string{}
	for _, r := range controlRoutes() {
		if name, ok := strings.CutPrefix(string(r.Action), "aps:"); ok && !strings.HasPrefix(r.Path, "/api/") {
			routed[name] = r.Methods + " " + strings.Replace(r.Path, "...", "", 1)
		}
	}
	if len(model.Operations) != 44 {
		t.Errorf("the model has %d operations", len(model.Operations))
	}
	for name, o := range model.Operations {
		want := o.Method + " " + o.URI
		if strings.Contains(name, "AnomalyDetector") {
			want = ""
		}
		if routed[name] != want {
			t.Errorf("%s is at %q, want %q", name, routed[name], want)
		}
	}
}

func TestCallsOfTheControlPlaneAreToldApartByMethod(t *testing.T) {
	a := newAPI(t, defaults(t), everything(t, &fakes{}))
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"POST", "/workspaces", 200, ""},
		{"GET", "/workspaces", 200, ""},
		{"PATCH", "/workspaces", 405, "UnknownOperationException"},
		{"DELETE", "/workspaces/ws-1", 200, ""},
		{"GET", "/workspaces/ws-1/rulegroupsnamespaces/a%2Fb%20c", 200, ""},
		{"GET", "/tags/arn%3Aaws%3Aaps%3Aus-east-1%3A123456789012%3Aworkspace%2Fws-1", 200, ""},
		{"GET", "/tags/arn:aws:aps:us-east-1:123456789012:workspace/ws-1", 200, ""},
		{"GET", "/workspaces/ws-1/nonsense", 404, "UnknownOperationException"},
	} {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || w.Header().Get("X-Amzn-Errortype") != c.code {
			t.Errorf("%s %s: %d %q %s; want %d %q", c.method, c.path, w.Code, w.Header().Get("X-Amzn-Errortype"), w.Body, c.status, c.code)
		}
		if c.code != "" && w.Header().Get("X-Amzn-Requestid") == "" {
			t.Errorf("%s %s: no request id", c.method, c.path)
		}
	}
}

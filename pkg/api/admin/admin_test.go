package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// call answers a request and renders an error as its status and text.
func call(h Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r = r.WithContext(tenant.Inject(r.Context(), "t1"))
	rec := httptest.NewRecorder()
	mux := http.NewServeMux()
	serve := func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			w.WriteHeader(errs.HTTPStatus(err))
			_, _ = w.Write([]byte(err.Error()))
		}
	}
	mux.HandleFunc("/tsdb/{tenant}", serve)
	mux.HandleFunc("/debug/pprof/{profile}", serve)
	mux.HandleFunc("/", serve)
	mux.ServeHTTP(rec, r)
	return rec
}

// TestPagesCannotBeMadeToRunScripts: what a tenant or a peer chose is shown as text.
func TestPagesCannotBeMadeToRunScripts(t *testing.T) {
	const evil = `<script>alert(1)</script>`
	usage := fakeUsage{AllUsage{Tenants: []TenantUsage{{Tenant: evil}}, Missing: []string{evil}}}
	list := fakeList{{Tenant: evil, Details: []Detail{{evil, evil}}}}
	for name, h := range map[string]Handler{
		"index":     Index([]Group{{evil, []Link{{"javascript:alert(1)", evil, evil}}}}),
		"services":  Services(func() []Service { return []Service{{evil, evil, evil}} }),
		"all usage": AllUserStats(usage),
		"tenants":   Tenants(list),
		"tenant":    Tenant(list),
	} {
		target := "/"
		if name == "tenant" {
			target = "/tsdb/a"
		}
		rec := call(h, "GET", target, "")
		body := rec.Body.String()
		if rec.Code != 200 || strings.Contains(body, "<script") || strings.Contains(body, `href="javascript`) || !strings.Contains(body, "script&gt;") {
			t.Errorf("%s: %d %s", name, rec.Code, body)
		}
		for header, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Content-Type": "text/html; charset=utf-8"} {
			if got := rec.Header().Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
		if csp := rec.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s: policy %q", name, csp)
		}
	}
}

type fakeUsage struct{ all AllUsage }

func (f fakeUsage) Usage(_ context.Context, id tenant.ID) (Usage, error) {
	if id != "t1" {
		return Usage{}, errs.New(errs.NotFound, "no tenant %s", id)
	}
	return Usage{IngestionRate: 1.5, NumSeries: 3, APIIngestionRate: 1, RuleIngestionRate: 0.5, ActiveSeries: 2}, nil
}

func (f fakeUsage) AllUsage(context.Context) (AllUsage, error) { return f.all, nil }

type fakeList []TenantInfo

func (f fakeList) Tenants(context.Context) ([]TenantInfo, error) { return f, nil }

func (f fakeList) Tenant(_ context.Context, id tenant.ID) (TenantInfo, error) {
	if id == "missing" {
		return TenantInfo{}, errs.New(errs.NotFound, "no tenant %s", id)
	}
	return f[0], nil
}

func TestFactsAreAnsweredAsJSON(t *testing.T) {
	ready := errors.New("ingester is joining")
	for _, c := range []struct {
		h      Handler
		target string
		status int
		want   string
	}{
		{UserStats(fakeUsage{}), "/", 200, `{"ingestionRate":1.5,"numSeries":3,"APIIngestionRate":1,"RuleIngestionRate":0.5,"activeSeries":2}`},
		{UserStats(fakeUsage{}), "/?count_method=active", 200, `{"ingestionRate":1.5,"numSeries":2,"APIIngestionRate":1,"RuleIngestionRate":0.5,"activeSeries":2}`},
		{UserStats(fakeUsage{}), "/?count_method=most", 400, `count_method`},
		{AllUserStats(fakeUsage{}), "/", 200, `{"tenants":[]}`},
		{AllUserStats(fakeUsage{AllUsage{Tenants: []TenantUsage{{Tenant: "a"}}, Missing: []string{"i-1"}}}), "/", 200,
			`{"tenants":[{"userID":"a","ingestionRate":0,"numSeries":0,"APIIngestionRate":0,"RuleIngestionRate":0,"activeSeries":0}],"missing":["i-1"]}`},
		{Services(func() []Service { return []Service{{Name: "ingester", State: "Running"}} }), "/", 200, `[{"name":"ingester","state":"Running"}]`},
		{Build(BuildInfo{Version: "1.0", GoVersion: "go", Features: map[string]string{"ruler_config_api": "false"}}), "/", 200,
			`{"status":"success","data":{"application":"Amphora","version":"1.0","revision":"","branch":"","buildUser":"","buildDate":"","goVersion":"go","features":{"ruler_config_api":"false"}}}`},
		{Empty(struct{}{}), "/", 200, `{"status":"success","data":{}}`},
		{UserLimits(func(id tenant.ID) any { return map[string]any{"of": id} }), "/", 200, `{"of":"t1"}`},
		{Tenant(fakeList{}), "/tsdb/missing", 404, `no tenant missing`},
		{Tenant(fakeList{}), "/tsdb/a%2Fb", 400, `unsupported character`},
		{Ready(func(context.Context) error { return nil }), "/", 200, "ready\n"},
		{Ready(func(context.Context) error { return ready }), "/", 503, "ingester is joining"},
		{Healthy(), "/", 200, "healthy\n"},
		{Config(func(mode string) ([]byte, error) { return []byte("mode: " + mode), nil }, "diff"), "/?mode=diff", 200, "mode: diff"},
		{Config(func(mode string) ([]byte, error) { return []byte("mode: " + mode), nil }, "diff"), "/?mode=x", 400, `unknown mode "x"`},
		{Profile(), "/debug/pprof/cmdline", 404, "not shown"},
		{Profile(), "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{Profile(), "/debug/pprof/nothing", 404, "Unknown profile"},
	} {
		rec := call(c.h, "GET", c.target, "", "Accept", "application/json")
		if body := rec.Body.String(); rec.Code != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.target, rec.Code, body, c.status, c.want)
		}
	}
}

type fakeIngester struct {
	flushed  []tenant.ID
	waited   bool
	shut     bool
	on       bool
	since    time.Time
	failWith error
}

func (f *fakeIngester) Flush(_ context.Context, ids []tenant.ID, wait bool) (FlushJob, error) {
	f.flushed, f.waited = ids, wait
	job := FlushJob{ID: "J1", State: FlushRunning, Tenants: ids}
	if wait {
		job.State, job.Blocks = "done", 3
	}
	return job, f.failWith
}

func (f *fakeIngester) FlushJob(_ context.Context, id string) (FlushJob, error) {
	if id != "J1" {
		return FlushJob{}, errs.New(errs.NotFound, "no flush %s", id)
	}
	return FlushJob{ID: "J1", State: "failed", Error: "bucket away"}, nil
}
func (f *fakeIngester) Shutdown(context.Context) error { f.shut = true; return f.failWith }
func (f *fakeIngester) On() bool                       { return f.on }
func (f *fakeIngester) Set(_ context.Context, on bool) error {
	f.on, f.since = on, time.Time{}
	if on {
		f.since = time.Unix(1700000000, 0)
	}
	return f.failWith
}
func (f *fakeIngester) Reset(context.Context) error { f.on = true; return nil }
func (f *fakeIngester) Since() time.Time            { return f.since }

func TestSwitchesOfTheIngester(t *testing.T) {
	f := &fakeIngester{}
	calls := map[string]Handler{"shutdown": PrepareShutdown(f), "downscale": PrepareDownscale(f), "unregister": UnregisterOnShutdown(f), "partition": NoPartitions()}
	for _, c := range []struct {
		of, method, body string
		status           int
		want             string
	}{
		{"shutdown", "GET", "", 200, "unset\n"},
		{"shutdown", "POST", "", 204, ""},
		{"shutdown", "GET", "", 200, "set\n"},
		{"shutdown", "DELETE", "", 204, ""},
		{"downscale", "GET", "", 200, `{"timestamp":0}`},
		{"downscale", "POST", "", 200, `{"timestamp":1700000000}`},
		{"downscale", "GET", "", 200, `{"timestamp":1700000000}`},
		{"downscale", "DELETE", "", 200, `{"timestamp":0}`},
		{"partition", "GET", "", 405, "no partition"},
		{"partition", "POST", "", 405, "no partition"},
		{"unregister", "GET", "", 200, `{"unregister":false}`},
		{"unregister", "PUT", `{"unregister":true}`, 200, `{"unregister":true}`},
		{"unregister", "PUT", `{"unregister":false}`, 200, `{"unregister":false}`},
		{"unregister", "DELETE", "", 200, `{"unregister":true}`},
		{"unregister", "PUT", `{}`, 400, "the body must be"},
		{"unregister", "PUT", `{"unregister":true} x`, 400, "the body must be"},
		{"unregister", "PUT", `{"unregister":true,"more":1}`, 400, "unknown field"},
		{"unregister", "PUT", `{"unregister":` + strings.Repeat(" ", 2000) + `true}`, 413, "larger than"},
	} {
		rec := call(calls[c.of], c.method, "/", c.body)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s %s %.30s: %d %s, want %d %s", c.method, c.of, c.body, rec.Code, rec.Body, c.status, c.want)
		}
	}
}

func TestFlushNamesTenantsAndWaits(t *testing.T) {
	f := &fakeIngester{}
	if rec := call(Flush(f), "POST", "/?tenant=a&tenant=b&wait=true", ""); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"job":"J1","state":"done","tenants":["a","b"]`) || !slices.Equal(f.flushed, []tenant.ID{"a", "b"}) || !f.waited {
		t.Errorf("%d, flushed %v, waited %v", rec.Code, f.flushed, f.waited)
	}
	if rec := call(Flush(f), "GET", "/", ""); rec.Code != 202 || !strings.Contains(rec.Body.String(), `"state":"running"`) || f.flushed != nil || f.waited {
		t.Errorf("%d, flushed %v, waited %v", rec.Code, f.flushed, f.waited)
	}
	for _, bad := range []string{"/?wait=maybe", "/?tenant=a/b"} {
		if rec := call(Flush(f), "POST", bad, ""); rec.Code != 400 {
			t.Errorf("%s: %d", bad, rec.Code)
		}
	}
	f.failWith = errs.New(errs.Unavailable, "bucket away")
	if rec := call(Flush(f), "POST", "/?wait=true", ""); rec.Code != 503 || !strings.Contains(rec.Body.String(), "flush J1: bucket away") {
		t.Errorf("failed flush: %d %s", rec.Code, rec.Body)
	}
	if rec := call(Flush(f), "GET", "/?job=J1", ""); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"state":"failed"`) {
		t.Errorf("an earlier flush: %d %s", rec.Code, rec.Body)
	}
	if rec := call(Flush(f), "GET", "/?job=J2", ""); rec.Code != 404 {
		t.Errorf("an unknown flush: %d", rec.Code)
	}
	f.failWith = nil
	if rec := call(Shutdown(f), "POST", "/", ""); rec.Code != 204 || !f.shut {
		t.Errorf("shutdown: %d", rec.Code)
	}
}

func TestElectedReplicasAsPageAndJSON(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	h := ElectedReplicas(func() Elected {
		return Elected{Enabled: true, Clusters: []ElectedReplica{{Tenant: "a", Cluster: "<eu>", Replica: "p-0", ElectedAt: at, LastSeen: at, Elections: 3}}}
	})
	for accept, want := range map[string]string{
		"text/html": "<td>&lt;eu&gt;</td><td>p-0</td><td>2026-05-01T12:00:00Z</td><td>2026-05-01T12:00:00Z</td><td></td><td class=\"n\">3</td>",
		"application/json": `{"enabled":true,"elected":[{"userID":"a","cluster":"\u003ceu\u003e","replica":"p-0","electedAt":"2026-05-01T12:00:00Z",` +
			`"electedLastSeenTime":"2026-05-01T12:00:00Z","electedChanges":3}]}`,
	} {
		r, rec := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		r.Header.Set("Accept", accept)
		if err := h(rec, r); err != nil || !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%s: %v\n%s", accept, err, rec.Body)
		}
	}
}

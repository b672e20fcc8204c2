package gateway

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/identity"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const accounts = `
accounts:
  - id: "000000000000"
    root_keys: [{id: AKIDROOT0001, secret: root-secret-root-secret}]
    users:
      - name: writer
        policies: [AmazonPrometheusRemoteWriteAccess]
        keys: [{id: AKIDWRITER01, secret: writer-secret-writer}]
      - name: reader
        keys: [{id: AKIDREADER01, secret: reader-secret-reader}]
        tokens:
          - {id: t1, secret: reader-token-reader, workspace: ws-1}
        inline:
          q: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: ["aps:Query*", "aps:Get*"], Resource: "arn:aws:aps:*:*:workspace/ws-1"}]}
      - name: nobody
        keys: [{id: AKIDNOBODY01, secret: nobody-secret-nobody}]
  - id: "111111111111"
    root_keys: [{id: AKIDOTHER001, secret: other-secret-other-1}]
`

func table1() []Route {
	return []Route{
		{Methods: "GET", Path: "/ready", Action: Open},
		{Methods: "GET", Path: "/config", Action: "amphora:Admin"},
		{Methods: "POST", Path: "/api/v1/push", Action: "aps:RemoteWrite", Tenants: 1},
		{Methods: "GET,POST", Path: "/prometheus/api/v1/query", Action: "aps:QueryMetrics", Tenants: 2, Style: Prom, Selectable: true},
		{Methods: "GET", Path: "/prometheus/api/v1/label/{name}/values", Action: "aps:GetLabels", Tenants: 2, Style: Prom},
		{Methods: "GET", Path: "/prometheus/federate", Action: "aps:QueryMetrics", Tenants: 2},
		{Methods: "GET", Path: "/prometheus/api/v1/status/buildinfo", Action: Open, Style: Prom},
		{Methods: "GET", Path: "/workspaces", Action: "aps:ListWorkspaces", Style: AWS},
		{Methods: "POST", Path: "/workspaces", Action: "aps:CreateWorkspace", Style: AWS},
		{Methods: "GET", Path: "/workspaces/{workspaceId}", Action: "aps:DescribeWorkspace", Style: AWS},
		{Methods: "PUT", Path: "/workspaces/{workspaceId}/rulegroupsnamespaces/{name}", Action: "aps:PutRuleGroupsNamespace", Style: AWS},
		{Methods: "GET", Path: "/tags/{resourceArn...}", Action: "aps:ListTagsForResource", Style: AWS},
	}
}

// door is a gateway before a handler that tells what it was asked.
type door struct {
	http.Handler
	t *testing.T
}

// told is what reached the handler.
type told struct {
	Method, Path, Query, Tenant, Policy, Body, Auth, Caller string
}

func open(t *testing.T, change func(*Config, *Deps), identities ...string) *door {
	t.Helper()
	return openBefore(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		caller, _ := iam.CallerOf(r.Header)
		_ = json.NewEncoder(w).Encode(told{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("X-Scope-OrgID"),
			strings.Join(r.Header.Values(tenant.PolicyHeader), " "), string(body), r.Header.Get("Authorization"), caller.ARN})
	}), change, identities...)
}

// openBefore is a gateway before another handler.
func openBefore(t *testing.T, next http.Handler, change func(*Config, *Deps), identities ...string) *door {
	t.Helper()
	text := accounts
	for _, other := range identities {
		text = other
	}
	file := filepath.Join(t.TempDir(), "identities.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ids, err := identity.New(t.Context(), identity.Config{File: file, Refresh: time.Minute, Key: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}, identity.Deps{Log: log, Reg: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	set := config.NewSet()
	set.Mount("auth", &cfg)
	cfg.Enabled = true
	deps := Deps{Log: log, Reg: prometheus.NewRegistry(), Routes: table1(), Prefix: "/prometheus", Identities: ids, MaxBodyBytes: 1 << 20}
	if change != nil {
		change(&cfg, &deps)
	}
	g, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return &door{t: t, Handler: g.Before(next)}
}

// credentials of the users above.
func credentials(key string) string {
	return map[string]string{"AKIDROOT0001": "root-secret-root-secret", "AKIDWRITER01": "writer-secret-writer",
		"AKIDREADER01": "reader-secret-reader", "AKIDNOBODY01": "nobody-secret-nobody", "AKIDOTHER001": "other-secret-other-1"}[key]
}

// signed sends a request signed with key.
func (d *door) signed(key, method, path, body string, headers ...string) (*httptest.ResponseRecorder, told) {
	d.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	s := sigv4.Signer{AccessKey: key, Secret: credentials(key), Region: "us-east-1", Service: "aps"}
	if err := s.Sign(r, []byte(body), time.Now()); err != nil {
		d.t.Fatal(err)
	}
	return d.do(r)
}

// try is signed for answers that do not tell what was asked.
func (d *door) try(key, method, path, body string) *httptest.ResponseRecorder {
	d.t.Helper()
	return d.request(key, "aps", method, path, body)
}

// request sends a request signed for a service.
func (d *door) request(key, service, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	d.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	s := sigv4.Signer{AccessKey: key, Secret: credentials(key), Region: "us-east-1", Service: service}
	if err := s.Sign(r, []byte(body), time.Now()); err != nil {
		d.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func (d *door) do(r *http.Request) (*httptest.ResponseRecorder, told) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	var got told
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			d.t.Fatalf("%s: %v", w.Body, err)
		}
	}
	return w, got
}

func (d *door) plain(method, path string, headers ...string) (*httptest.ResponseRecorder, told) {
	r := httptest.NewRequest(method, path, http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return d.do(r)
}

func TestSignedRequestsReachTheirWorkspace(t *testing.T) {
	d := open(t, nil)
	w, got := d.signed("AKIDWRITER01", "POST", "/workspaces/ws-1/api/v1/remote_write", "body", "X-Scope-OrgID", "other", tenant.PolicyHeader, "x", iam.CallerHeader, "x")
	if w.Code != 200 || got.Path != "/api/v1/push" || got.Tenant != "ws-1" || got.Body != "body" || got.Auth != "" || got.Policy != "" || got.Caller != "arn:aws:iam::000000000000:user/writer" {
		t.Errorf("%d %s %+v", w.Code, w.Body, got)
	}
	if _, got := d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/query?query=up", ""); got.Path != "/prometheus/api/v1/query" || got.Query != "query=up" {
		t.Errorf("%+v", got)
	}
	if _, got := d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/federate?match[]=up", ""); got.Path != "/prometheus/federate" || got.Query != "match[]=up" || got.Tenant != "ws-1" {
		t.Errorf("%+v", got)
	}
	if _, got := d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/label/a%2Fb/values", ""); got.Path != "/prometheus/api/v1/label/a%2Fb/values" {
		t.Errorf("%+v", got)
	}
	if _, got := d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/status/buildinfo", ""); got.Path != "/prometheus/api/v1/status/buildinfo" {
		t.Errorf("%+v", got)
	}
}

func TestRefusalsLookAsClientsExpect(t *testing.T) {
	d := open(t, nil)
	for _, c := range []struct {
		key, method, path string
		status            int
		code              string
	}{
		{"AKIDREADER01", "POST", "/workspaces/ws-1/api/v1/remote_write", 403, codeDenied},
		{"AKIDREADER01", "GET", "/workspaces/ws-2/api/v1/query", 403, codeDenied},
		{"AKIDREADER01", "GET", "/workspaces/ws-2/federate", 403, codeDenied},
		{"AKIDWRITER01", "GET", "/workspaces/ws-1/federate", 403, codeDenied},
		{"AKIDROOT0001", "GET", "/workspaces/ws-1/federate/x", 404, "UnknownOperationException"},
		{"AKIDOTHER001", "GET", "/workspaces/ws-1/api/v1/query", 403, codeDenied},
		{"AKIDUNKNOWN1", "GET", "/workspaces/ws-1/api/v1/query", 403, codeUnknown},
		{"AKIDROOT0001", "GET", "/workspaces/ws-1/nothing", 404, "UnknownOperationException"},
		{"AKIDROOT0001", "GET", "/workspaces/ws-1/config", 404, "UnknownOperationException"},
		{"AKIDROOT0001", "GET", "/workspaces/a%2Fb/api/v1/query", 404, "ResourceNotFoundException"},
		{"AKIDOTHER001", "GET", "/config", 403, codeDenied},
	} {
		w, _ := d.signed(c.key, c.method, c.path, "")
		if w.Code != c.status || w.Header().Get("X-Amzn-ErrorType") != c.code || w.Header().Get("X-Amzn-RequestId") == "" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s by %s: %d %v %s", c.method, c.path, c.key, w.Code, w.Header(), w.Body)
		}
	}
	w, _ := d.plain("GET", "/workspaces/ws-1/api/v1/query")
	if w.Code != 403 || !strings.Contains(w.Body.String(), `"message":"Missing Authentication Token"`) {
		t.Errorf("no credentials: %d %s", w.Code, w.Body)
	}
	r := httptest.NewRequest("POST", "/workspaces/ws-1/api/v1/remote_write", strings.NewReader(strings.Repeat("x", 1<<20+1)))
	if err := (sigv4.Signer{AccessKey: "AKIDWRITER01", Secret: credentials("AKIDWRITER01"), Region: "us-east-1", Service: "aps"}).Sign(r, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	if w, _ := d.do(r); w.Code != 413 {
		t.Errorf("too large: %d %s", w.Code, w.Body)
	}
}

func TestOtherSchemesReachTenants(t *testing.T) {
	d := open(t, nil)
	basic := func(key string) string {
		r := httptest.NewRequest("GET", "/", http.NoBody)
		r.SetBasicAuth(key, credentials(key))
		return r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
	}{
		{"basic", "/prometheus/api/v1/query", []string{"Authorization", basic("AKIDREADER01"), "X-Scope-OrgID", "ws-1"}, 200},
		{"basic, other tenant", "/prometheus/api/v1/query", []string{"Authorization", basic("AKIDREADER01"), "X-Scope-OrgID", "ws-2"}, 403},
		{"basic, one of two tenants", "/prometheus/api/v1/query", []string{"Authorization", basic("AKIDREADER01"), "X-Scope-OrgID", "ws-1|ws-2"}, 403},
		{"bearer", "/prometheus/api/v1/query", []string{"Authorization", "Bearer reader-token-reader", "X-Scope-OrgID", "ws-1"}, 200},
		{"bearer bound to its workspace", "/prometheus/api/v1/query", []string{"Authorization", "Bearer reader-token-reader"}, 200},
		{"bearer beyond its workspace", "/prometheus/api/v1/query", []string{"Authorization", "Bearer reader-token-reader", "X-Scope-OrgID", "ws-2"}, 403},
		{"wrong bearer", "/prometheus/api/v1/query", []string{"Authorization", "Bearer x", "X-Scope-OrgID", "ws-1"}, 401},
		{"raw token", "/prometheus/api/v1/query", []string{"Authorization", "reader-token-reader", "X-Scope-OrgID", "ws-1"}, 401},
		{"raw token on an instance", "/instances/ws-1/api/v1/query", []string{"Authorization", "reader-token-reader"}, 200},
		{"raw token on a long address", "/api/v1/prometheus/k/000000000000/ws-1/cn-hangzhou/api/v1/query", []string{"Authorization", "reader-token-reader"}, 200},
		{"raw token that federates an instance", "/instances/ws-1/federate", []string{"Authorization", "reader-token-reader"}, 200},
		{"basic on an instance", "/instances/ws-1/api/v1/query", []string{"Authorization", basic("AKIDREADER01")}, 200},
		{"nothing on an instance", "/instances/ws-1/api/v1/query", nil, 401},
		{"no permission on an instance", "/instances/ws-1/api/v1/query", []string{"Authorization", basic("AKIDNOBODY01")}, 403},
		{"basic on a workspace", "/workspaces/ws-1/api/v1/query", []string{"Authorization", basic("AKIDREADER01")}, 403},
		{"the process", "/config", []string{"Authorization", basic("AKIDROOT0001")}, 200},
		{"the process by another account", "/config", []string{"Authorization", basic("AKIDOTHER001")}, 403},
		{"open", "/ready", nil, 200},
	} {
		w, got := d.plain("GET", c.path, c.headers...)
		if w.Code != c.status || w.Code == 200 && strings.Contains(c.path, "query") && got.Tenant != "ws-1" {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", c.name)
		}
	}
}

func TestTimeoutsOfInstancesAreMilliseconds(t *testing.T) {
	d := open(t, nil)
	token := []string{"Authorization", "reader-token-reader"}
	if _, got := d.plain("GET", "/instances/ws-1/api/v1/query?timeout=1500", token...); got.Query != "timeout=1.5" {
		t.Errorf("number: %+v", got)
	}
	if _, got := d.plain("GET", "/instances/ws-1/api/v1/query?timeout=2m", token...); got.Query != "timeout=2m" {
		t.Errorf("duration: %+v", got)
	}
	r := httptest.NewRequest("POST", "/instances/ws-1/api/v1/query", strings.NewReader("query=up&timeout=1000"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", token[1])
	if _, got := d.do(r); got.Body != "query=up&timeout=1" {
		t.Errorf("form: %+v", got)
	}
	if _, got := d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/query?timeout=1000", ""); got.Query != "timeout=1000" {
		t.Errorf("workspace: %+v", got)
	}
}

func TestEveryRouteIsDeniedWithoutRights(t *testing.T) {
	d := open(t, nil)
	for _, rt := range table1() {
		if rt.Action == Open {
			continue
		}
		path := strings.NewReplacer("{name}", "n", "{workspaceId}", "ws-1", "{resourceArn...}", "arn%3Aaws%3Aaps%3Aus-east-1%3A000000000000%3Aworkspace%2Fws-1").Replace(rt.Path)
		method, _, _ := strings.Cut(rt.Methods, ",")
		w, _ := d.signed("AKIDNOBODY01", method, path, "", "X-Scope-OrgID", "ws-1")
		if w.Code != 403 || w.Header().Get("X-Amzn-ErrorType") != codeDenied || !strings.Contains(w.Body.String(), rt.Action) {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
}

func TestWithoutAuthenticationPathsAreStillUnderstood(t *testing.T) {
	d := open(t, func(c *Config, _ *Deps) { c.Enabled = false })
	if w, got := d.plain("POST", "/workspaces/ws-9/api/v1/remote_write"); w.Code != 200 || got.Path != "/api/v1/push" || got.Tenant != "ws-9" {
		t.Errorf("%d %+v", w.Code, got)
	}
	if _, got := d.plain("GET", "/prometheus/api/v1/query", "X-Scope-OrgID", "a", iam.CallerHeader, "forged"); got.Tenant != "a" || got.Caller != "" {
		t.Errorf("%+v", got)
	}
	if _, got := d.plain("GET", "/workspaces"); got.Caller != "arn:aws:iam::000000000000:root" {
		t.Errorf("%+v", got)
	}
}

func TestForwardedAddressesAreBelievedFromProxiesOnly(t *testing.T) {
	proxies, err := parseNetworks([]string{"10.0.0.0/8", "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		peer, header string
		h            http.Header
		want         origin
	}{
		{"1.2.3.4:5", forwardedFor, http.Header{"X-Forwarded-For": {"9.9.9.9"}, "X-Forwarded-Proto": {"https"}}, origin{"1.2.3.4", false}},
		{"10.1.1.1:5", forwardedFor, http.Header{"X-Forwarded-For": {"8.8.8.8, 9.9.9.9, 10.2.2.2"}, "X-Forwarded-Proto": {"http, https"}}, origin{"9.9.9.9", true}},
		{"192.0.2.1:5", forwardedOne, http.Header{"Forwarded": {`for="[2001:db8::1]:80";proto=https`}}, origin{"2001:db8::1", true}},
		{"10.1.1.1:5", forwardedFor, http.Header{"X-Forwarded-For": {"rubbish"}}, origin{"10.1.1.1", false}},
		// What a client sent through a proxy that sets the other header.
		{"10.1.1.1:5", forwardedFor, http.Header{"X-Forwarded-For": {"9.9.9.9"}, "Forwarded": {"for=10.5.5.5;proto=https"}}, origin{"9.9.9.9", false}},
		{"10.1.1.1:5", forwardedOne, http.Header{"Forwarded": {"for=9.9.9.9"}, "X-Forwarded-For": {"10.5.5.5"}, "X-Forwarded-Proto": {"https"}}, origin{"9.9.9.9", false}},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: c.h}
		if got := proxies.origin(r, c.header); got != c.want {
			t.Errorf("%s %v: %+v, want %+v", c.peer, c.h, got, c.want)
		}
	}
}

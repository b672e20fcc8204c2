package rules

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// backend remembers what it was asked.
type backend struct {
	calls     []string
	asked     *rulerpb.GroupsRequest
	groups    []*rulerpb.Group
	protected string
	off       [2]bool
}

func (b *backend) note(parts ...string) { b.calls = append(b.calls, strings.Join(parts, " ")) }

func (b *backend) Rules(_ context.Context, id tenant.ID, namespace, group string) ([]byte, error) {
	b.note("get", string(id), namespace, group)
	if group == "none" {
		return nil, errs.New(errs.NotFound, "group does not exist")
	}
	return []byte("name: g\n"), nil
}

func (b *backend) SetGroup(_ context.Context, id tenant.ID, namespace string, data []byte) error {
	b.note("set", string(id), namespace, string(data))
	return nil
}

func (b *backend) DeleteGroup(_ context.Context, id tenant.ID, namespace, group string) error {
	b.note("delete", string(id), namespace, group)
	return nil
}

func (b *backend) DeleteNamespace(_ context.Context, id tenant.ID, namespace string) error {
	b.note("delete", string(id), namespace)
	return nil
}

func (b *backend) DeleteAll(_ context.Context, id tenant.ID) error {
	b.note("delete all", string(id))
	return nil
}

func (b *backend) ReplaceAll(ctx context.Context, id tenant.ID, with All, allow func(string) error) (Changes, string, error) {
	for _, namespace := range []string{"ns", "locked"} {
		if err := allow(namespace); err != nil {
			return Changes{}, "", err
		}
	}
	return b.Replace(ctx, id, "", with.Data, with.Expect, with.Trial)
}

func (b *backend) Replace(_ context.Context, id tenant.ID, namespace string, data []byte, expect string, trial bool) (Changes, string, error) {
	b.note("replace", string(id), namespace, string(data), expect, map[bool]string{true: "trial"}[trial])
	return Changes{Added: []string{"new"}}, "v2", nil
}

func (b *backend) Version(context.Context, tenant.ID, string) (string, error) { return "v1", nil }
func (b *backend) Protected(_ tenant.ID, namespace string) bool               { return namespace == b.protected }
func (b *backend) Tenants(context.Context) ([]tenant.ID, error)               { return []tenant.ID{"t", "u"}, nil }

func (b *backend) List(_ context.Context, _ tenant.ID, req *rulerpb.GroupsRequest) ([]*rulerpb.Group, error) {
	b.asked = req
	return b.groups, nil
}

func (b *backend) Evaluated(tenant.ID) (recording, alerting bool) { return !b.off[0], !b.off[1] }

// ask sends a request to a handler at pattern, and returns the error's status if there is one.
func ask(t *testing.T, h func(http.ResponseWriter, *http.Request) error, pattern, method, target, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	rec := httptest.NewRecorder()
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			http.Error(w, err.Error(), errs.HTTPStatus(err))
		}
	})
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	mux.ServeHTTP(rec, r.WithContext(tenant.Inject(r.Context(), "t")))
	return rec.Code, strings.TrimSpace(rec.Body.String()), rec.Header()
}

func TestTheCallsOfToolsAreUnderstood(t *testing.T) {
	const all, ns, one = "/rules", "/rules/{namespace}", "/rules/{namespace}/{group}"
	b := &backend{protected: "locked"}
	a := New(Backends{Store: b, Namespaces: b, Evaluator: b})
	const accepted = `{"status":"success","data":null,"errorType":"","error":""}`
	for _, c := range []struct {
		pattern, method, target, body string
		header                        []string
		status                        int
		answer, call                  string
	}{
		{all, "GET", "/rules", "", nil, 200, "name: g", "get t  "},
		{ns, "GET", "/rules/a%2Fb%20c", "", nil, 200, "name: g", "get t a/b c "},
		{one, "GET", "/rules/a/none", "", nil, 404, "group does not exist", "get t a none"},
		{ns, "POST", "/rules/a%2Fb", "name: g", nil, 202, accepted, "set t a/b name: g"},
		{one, "DELETE", "/rules/..%2Fa/g%3F", "", nil, 202, accepted, "delete t ../a g?"},
		{ns, "DELETE", "/rules/a", "", nil, 202, accepted, "delete t a"},
		{ns, "POST", "/rules/locked", "x", nil, 403, "namespace is protected, no modification allowed", ""},
		{ns, "DELETE", "/rules/locked", "", nil, 403, "namespace is protected, no modification allowed", ""},
		{ns, "GET", "/rules/locked", "", nil, 200, "name: g", "get t locked "},
		{ns, "POST", "/rules/locked", "x", []string{"X-Mimir-Ruler-Override-Namespace-Protection", "other, locked"}, 202, accepted, "set t locked x"},
		{ns, "PUT", "/rules/a", "f", []string{"If-Match", `"v1"`}, 202, `{"status":"success","data":{"added":["new"],"changed":null,"removed":null,"unchanged":null},"errorType":"","error":""}`, "replace t a f v1 "},
		{ns, "PUT", "/rules/a?dry_run=true", "f", nil, 200, `{"status":"success","data":{"added":["new"],"changed":null,"removed":null,"unchanged":null},"errorType":"","error":""}`, "replace t a f  trial"},
		{ns, "PUT", "/rules/a?dry_run=perhaps", "f", nil, 400, `dry_run: "perhaps" is neither true nor false`, ""},
		{ns, "POST", "/rules/a", strings.Repeat("x", maxBodyBytes+1), nil, 413, "the rules are larger than the 1048576 bytes that are allowed", ""},
	} {
		b.calls = nil
		status, answer, header := ask(t, a.Config, c.pattern, c.method, c.target, c.body, c.header...)
		if status != c.status || answer != c.answer || strings.Join(b.calls, "; ") != c.call {
			t.Errorf("%s %s: %d %s, asked %q; want %d %s, %q", c.method, c.target, status, answer, b.calls, c.status, c.answer, c.call)
		}
		if c.method == "GET" && c.pattern == ns && header.Get("ETag") != `"v1"` {
			t.Errorf("%s: ETag %s", c.target, header.Get("ETag"))
		}
	}
}

// listing decodes an answer of Prometheus.
type listing struct {
	Data struct {
		Groups         []struct{ Name, File string }
		GroupNextToken string
	}
	Warnings []string
}

func TestPagesOfGroupsFollowEachOther(t *testing.T) {
	b := &backend{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		b.groups = append(b.groups, &rulerpb.Group{Namespace: "ns", Name: name})
	}
	a := New(Backends{Store: b, Namespaces: b, Evaluator: b})
	token, seen := "", ""
	for range 3 {
		target := "/rules?group_limit=2"
		if token != "" {
			target += "&group_next_token=" + token
		}
		status, body, _ := ask(t, a.List, "/rules", "GET", target, "")
		var l listing
		if err := json.Unmarshal([]byte(body), &l); err != nil || status != 200 {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		for _, g := range l.Data.Groups {
			seen += g.Name
		}
		token = l.Data.GroupNextToken
	}
	if seen != "abcde" || token != "" {
		t.Errorf("pages %s, then the token %q", seen, token)
	}
	for target, want := range map[string]string{
		"/rules?group_limit=x": "valid number", "/rules?group_limit=0": "greater than 0", "/rules?group_next_token=x": "group_limit needs to be present",
		"/rules?group_limit=1&group_next_token=x": "were rule groups changed?", "/rules?type=x": "not supported value", "/rules?exclude_alerts=x": "exclude_alerts",
	} {
		if status, body, _ := ask(t, a.List, "/rules", "GET", target, ""); status != 400 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", target, status, body)
		}
	}
}

func TestGroupsLookAsPrometheusShowsThem(t *testing.T) {
	b := &backend{groups: []*rulerpb.Group{{
		Namespace: "ns", Name: "g", IntervalNs: 60e9, Limit: 5, EvaluationNs: 25e5, EvaluatedNs: 1700000000e9, SourceTenants: []string{"x"},
		Rules: []*rulerpb.Rule{
			{Name: "r", Query: "up", Labels: []*rulerpb.Label{{Name: "a", Value: "b"}}, Health: "err", LastError: "broken", EvaluationNs: 1e6, EvaluatedNs: 1700000000e9},
			{Alerting: true, Name: "A", Query: "up == 0", State: "firing", ForNs: 120e9, KeepFiringForNs: 60e9, Health: "ok",
				Annotations: []*rulerpb.Label{{Name: "s", Value: "t"}}, EvaluatedNs: 1700000000e9,
				Alerts: []*rulerpb.Alert{{State: "firing", Labels: []*rulerpb.Label{{Name: "alertname", Value: "A"}}, Value: 0.5, ActiveNs: 1699999000e9, KeepFiringSinceNs: 1699999900e9}}},
			{Alerting: true, Name: "B", Query: "x", State: "unknown", Health: "unknown"},
			{Name: "bare", Query: "x", Health: "unknown"},
		},
	}}}
	a := New(Backends{Store: b, Namespaces: b, Evaluator: b})
	_, body, _ := ask(t, a.List, "/rules", "GET", "/rules?type=ALERT&rule_name[]=A&rule_group[]=g&file[]=ns&match[]={a=\"b\"}&exclude_alerts=false", "")
	const want = `{"status":"success","data":{"groups":[{"name":"g","file":"ns","rules":[` +
		`{"name":"r","query":"up","labels":{"a":"b"},"health":"err","lastError":"broken","evaluationTime":0.001,"lastEvaluation":"2023-11-14T22:13:20Z","type":"recording"},` +
		`{"state":"firing","name":"A","query":"up == 0","duration":120,"keepFiringFor":60,"labels":{},"annotations":{"s":"t"},"alerts":[` +
		`{"labels":{"alertname":"A"},"annotations":{},"state":"firing","activeAt":"2023-11-14T21:56:40Z","keepFiringSince":"2023-11-14T22:11:40Z","value":"5e-01"}],` +
		`"health":"ok","evaluationTime":0,"lastEvaluation":"2023-11-14T22:13:20Z","type":"alerting"},` +
		`{"state":"unknown","name":"B","query":"x","duration":0,"keepFiringFor":0,"labels":{},"annotations":{},"alerts":[],"health":"unknown","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","type":"alerting"},` +
		`{"name":"bare","query":"x","labels":{},"health":"unknown","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","type":"recording"}],` +
		`"interval":60,"limit":5,"evaluationTime":0.0025,"lastEvaluation":"2023-11-14T22:13:20Z","sourceTenants":["x"],"lastError":"r: broken"}]}}`
	if body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	if r := b.asked; r.Kind != rulerpb.GroupsRequest_ALERTING || len(r.Rules) != 1 || len(r.Groups) != 1 || len(r.Namespaces) != 1 || len(r.Match) != 1 || r.ExcludeAlerts {
		t.Errorf("asked %v", r)
	}
	_, body, _ = ask(t, a.Alerts, "/alerts", "GET", "/alerts", "")
	if !strings.HasPrefix(body, `{"status":"success","data":{"alerts":[{"labels":{"alertname":"A"}`) {
		t.Errorf("alerts: %s", body)
	}
	b.groups = nil
	if _, body, _ = ask(t, a.Alerts, "/alerts", "GET", "/alerts", ""); body != `{"status":"success","data":{"alerts":[]}}` {
		t.Errorf("no alerts: %s", body)
	}
}

func TestWhoHasRulesSwitchedOffIsTold(t *testing.T) {
	b := &backend{off: [2]bool{true, false}}
	a := New(Backends{Store: b, Namespaces: b, Evaluator: b})
	if status, body, _ := ask(t, a.List, "/rules", "GET", "/rules", ""); status != 200 || !strings.Contains(body, `"warnings":["recording rules evaluation is disabled`) {
		t.Errorf("%d %s", status, body)
	}
	b.off[1] = true
	if status, _, _ := ask(t, a.List, "/rules", "GET", "/rules", ""); status != 422 {
		t.Errorf("status %d, want 422", status)
	}
}

func TestOperatorsSeeTheRulesOfAll(t *testing.T) {
	b := &backend{}
	a := New(Backends{Store: b, Namespaces: b, Evaluator: b})
	if _, body, _ := ask(t, a.Tenants, "/tenants", "GET", "/tenants", ""); body != "- t\n- u" {
		t.Errorf("tenants: %s", body)
	}
	if _, body, _ := ask(t, a.AllGroups, "/groups", "GET", "/groups", ""); body != "t:\n    name: g\nu:\n    name: g" {
		t.Errorf("all: %s", body)
	}
	if status, body, _ := ask(t, a.TenantGroups, "/{tenant}", "GET", "/t", ""); status != 200 || body != "name: g" {
		t.Errorf("one: %d %s", status, body)
	}
	if status, _, _ := ask(t, a.TenantGroups, "/{tenant}", "GET", "/a%2Fb", ""); status != 400 {
		t.Errorf("a tenant that cannot be: %d", status)
	}
}

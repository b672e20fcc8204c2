package control

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// plane is several replicas over the same documents.
type plane struct {
	t        *testing.T
	docs     *docstore.Store
	replicas []*Control
	now      time.Time
	purged   []string
	mu       sync.Mutex // guards told
	told     []string   // tenants whose rules changed
	account  string
	cut      *fuse         // of the calls that are made; nil: none
	stricter atomic.Uint64 // than what was stored: every check fails; also the epoch of the limits
}

func newPlane(t *testing.T, cfg Config, replicas int) *plane {
	t.Helper()
	dir := t.TempDir()
	return planeOver(t, cfg, replicas, func() bucket.Conditional {
		b, err := bucket.NewConditionalFilesystem(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		return b
	})
}

// planeOver is a plane whose replicas open the same bucket.
func planeOver(t *testing.T, cfg Config, replicas int, open func() bucket.Conditional) *plane {
	t.Helper()
	p := &plane{t: t, now: time.Now(), account: "123456789012"}
	if cfg.JanitorPeriod == 0 {
		cfg.JanitorPeriod = time.Minute
	}
	for range replicas {
		b := open()
		p.docs = docstore.New(fused{b}, docstore.Prefix, prometheus.NewRegistry())
		p.replicas = append(p.replicas, New(cfg, Deps{
			Documents: p.docs, Region: "us-east-1", Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(),
			Account: func(*http.Request) (string, error) { return p.account, nil },
			RulesKey: func(id tenant.ID, ns string) (string, error) {
				return "rules/" + string(id) + "/" + url.PathEscape(ns), nil
			},
			RulesName: func(key string) (string, bool) {
				name, err := url.PathUnescape(key[strings.LastIndexByte(key, '/')+1:])
				return name, err == nil
			},
			Epoch: func(tenant.ID) uint64 { return p.stricter.Load() },
			CheckRules: func(_ context.Context, _ tenant.ID, _ string, data []byte) error {
				if p.stricter.Load()%2 == 1 {
					return errs.New(errs.Invalid, "over the limit of %s", strings.Repeat("1", 300))
				}
				if bytes.Contains(data, []byte("wrong")) {
					return errs.New(errs.Invalid, "line 1: wrong")
				}
				return nil
			},
			RulesChanged: func(_ context.Context, id tenant.ID) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.told = append(p.told, string(id))
			},
			CheckLimits: limits.Check,
			CheckScrape: func(data []byte) error {
				if bytes.Contains(data, []byte("wrong")) {
					return errs.New(errs.Invalid, "line 1: wrong")
				}
				return nil
			},
			DefinitionKey: func(id tenant.ID) string { return "alerts/" + string(id) },
			CheckDefinition: func(tenant.ID, []byte) error {
				if p.stricter.Load()%2 == 1 {
					return errs.New(errs.Invalid, "no longer allowed")
				}
				return nil
			},
			Purge: func(_ context.Context, id tenant.ID) error { p.purged = append(p.purged, string(id)); return nil },
			Now:   func() time.Time { return p.now },
		}))
	}
	return p
}

// answered is what came back from a call.
type answered struct {
	status int
	code   string
	body   map[string]any
}

func (a answered) at(path ...string) any {
	var v any = a.body
	for _, k := range path {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

func (a answered) text(path ...string) string { s, _ := a.at(path...).(string); return s }

// call makes a call at replica n.
func (p *plane) call(n int, operation, method, path string, body any) answered {
	p.t.Helper()
	ctx := p.t.Context()
	if p.cut != nil {
		ctx = p.cut.lit(ctx)
	}
	return p.callWith(ctx, n, operation, method, path, body)
}

func (p *plane) callWith(ctx context.Context, n int, operation, method, path string, body any) answered {
	p.t.Helper()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			p.t.Fatal(err)
		}
	}
	r := httptest.NewRequestWithContext(ctx, method, "http://amphora.example:8080"+path, bytes.NewReader(data))
	w := httptest.NewRecorder()
	if err := p.replicas[n%len(p.replicas)].Operation(operation)(w, r); err != nil {
		p.t.Fatal(err)
	}
	a := answered{status: w.Code, code: w.Header().Get("X-Amzn-Errortype")}
	if w.Header().Get("X-Amzn-Requestid") == "" {
		p.t.Errorf("%s: no request id", operation)
	}
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
			p.t.Fatalf("%s: %q: %v", operation, w.Body, err)
		}
	}
	if err := deviates(operation, method, path, a); err != nil && ctx.Err() == nil {
		p.t.Errorf("%s is not as Amazon's model has it: %v: %d %q %v", operation, err, a.status, a.code, a.body)
	}
	return a
}

func (p *plane) want(a answered, status int, code string) answered {
	p.t.Helper()
	if a.status != status || a.code != code {
		p.t.Fatalf("answered %d %q %v; want %d %q", a.status, a.code, a.body, status, code)
	}
	return a
}

type m = map[string]any

func (p *plane) create(body m) string {
	p.t.Helper()
	return p.want(p.call(0, "CreateWorkspace", "POST", "/workspaces", body), 202, "").text("workspaceId")
}

func TestAWorkspaceLivesAsAmazonsGuideSays(t *testing.T) {
	p := newPlane(t, Config{PurgeAfter: time.Hour}, 2)
	made := p.want(p.call(0, "CreateWorkspace", "POST", "/workspaces", m{"alias": " team ", "tags": m{"k": "v"}, "clientToken": "a"}), 202, "")
	id := made.text("workspaceId")
	if !strings.HasPrefix(id, "ws-") || made.text("status", "statusCode") != "CREATING" || made.text("arn") != "arn:aws:aps:us-east-1:123456789012:workspace/"+id {
		t.Fatalf("made %v", made.body)
	}
	again := p.call(1, "CreateWorkspace", "POST", "/workspaces", m{"alias": "team", "tags": m{"k": "v"}, "clientToken": "a"})
	if p.want(again, 202, ""); again.text("workspaceId") != id {
		t.Errorf("the same call made %v, too", again.body)
	}
	p.want(p.call(1, "CreateWorkspace", "POST", "/workspaces", m{"alias": "other", "clientToken": "a"}), 409, "ConflictException")
	d := p.want(p.call(1, "DescribeWorkspace", "GET", "/workspaces/"+id, nil), 200, "")
	if d.text("workspace", "alias") != "team" || d.text("workspace", "status", "statusCode") != "ACTIVE" || d.text("workspace", "tags", "k") != "v" ||
		d.text("workspace", "prometheusEndpoint") != "http://amphora.example:8080/workspaces/"+id+"/" {
		t.Errorf("described as %v", d.body)
	}
	if at, ok := d.at("workspace", "createdAt").(float64); !ok || time.Since(time.Unix(int64(at), 0)).Abs() > time.Minute {
		t.Errorf("created at %v", d.at("workspace", "createdAt"))
	}
	p.want(p.call(0, "UpdateWorkspaceAlias", "POST", "/workspaces/"+id+"/alias", m{"alias": "renamed"}), 204, "")
	if d := p.call(1, "DescribeWorkspace", "GET", "/workspaces/"+id, nil); d.text("workspace", "alias") != "renamed" {
		t.Errorf("renamed to %v", d.body)
	}
	if owner, tags, state, err := p.replicas[1].Lookup(t.Context(), id); err != nil || owner != p.account || tags["k"] != "v" || state != "ACTIVE" {
		t.Errorf("looked up as %s %v %s, %v", owner, tags, state, err)
	}
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", "/workspaces/"+id+"/rulegroupsnamespaces", m{"name": "ns", "data": []byte("groups: []")}), 202, "")
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id+"?clientToken=d", nil), 202, "")
	p.want(p.call(1, "DeleteWorkspace", "DELETE", "/workspaces/"+id+"?clientToken=d", nil), 202, "")
	p.want(p.call(1, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 404, "ResourceNotFoundException")
	p.want(p.call(1, "DescribeWorkspace", "GET", "/workspaces/"+id, nil), 404, "ResourceNotFoundException")
	if es, err := p.docs.List(t.Context(), "rules/"); err != nil || len(es) != 0 {
		t.Errorf("rules of the deleted workspace are still there: %v, %v", es, err)
	}
	if _, _, state, err := p.replicas[0].Lookup(t.Context(), id); err != nil || state != "DELETED" {
		t.Errorf("looked up as %s, %v", state, err)
	}
}

func TestADeletedWorkspaceCanBeRestoredUntilItIsPurged(t *testing.T) {
	p := newPlane(t, Config{PurgeAfter: time.Hour}, 1)
	id := p.create(m{"alias": "a"})
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", "/workspaces/"+id+"/rulegroupsnamespaces", m{"name": "a/b c", "data": []byte("groups: []"), "tags": m{"x": "y"}}), 202, "")
	p.want(p.call(0, "CreateAlertManagerDefinition", "POST", "/workspaces/"+id+"/alertmanager/definition", m{"data": []byte("definition")}), 202, "")
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
	if err := p.replicas[0].Restore(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ns := p.want(p.call(0, "DescribeRuleGroupsNamespace", "GET", "/workspaces/"+id+"/rulegroupsnamespaces/a%2Fb%20c", nil), 200, "")
	if ns.text("ruleGroupsNamespace", "data") != base64.StdEncoding.EncodeToString([]byte("groups: []")) || ns.text("ruleGroupsNamespace", "tags", "x") != "y" {
		t.Errorf("restored as %v", ns.body)
	}
	p.want(p.call(0, "DescribeAlertManagerDefinition", "GET", "/workspaces/"+id+"/alertmanager/definition", nil), 200, "")
	if l := p.call(0, "ListWorkspaces", "GET", "/workspaces", nil); len(l.at("workspaces").([]any)) != 1 {
		t.Errorf("listed %v", l.body)
	}
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
	if err := p.replicas[0].cleanAll(t.Context()); err != nil || len(p.purged) != 0 {
		t.Fatalf("purged %v too early, %v", p.purged, err)
	}
	p.now = p.now.Add(2 * time.Hour)
	if err := p.replicas[0].cleanAll(t.Context()); err != nil || len(p.purged) != 1 || p.purged[0] != id {
		t.Fatalf("purged %v, %v; want %s", p.purged, err, id)
	}
	if err := p.replicas[0].cleanAll(t.Context()); err != nil || len(p.purged) != 1 {
		t.Fatalf("purged again: %v, %v", p.purged, err)
	}
	if err := p.replicas[0].Restore(t.Context(), id); errs.KindOf(err) != errs.NotFound {
		t.Fatalf("restored what is purged: %v", err)
	}
}

func TestNamespacesKeepTheirBytes(t *testing.T) {
	p := newPlane(t, Config{}, 2)
	id := p.create(nil)
	base := "/workspaces/" + id + "/rulegroupsnamespaces"
	for _, data := range []string{"groups: []\r\n", "\ufeffgroups: []", "Z3JvdXBzOiBbXQ==", strings.Repeat("#", 1<<20-1)} {
		name := fmt.Sprintf("n%d", len(data))
		p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", base, m{"name": name, "data": []byte(data), "clientToken": name}), 202, "")
		p.want(p.call(1, "CreateRuleGroupsNamespace", "POST", base, m{"name": name, "data": []byte(data), "clientToken": name}), 202, "")
		p.want(p.call(1, "CreateRuleGroupsNamespace", "POST", base, m{"name": name, "data": []byte(data)}), 409, "ConflictException")
		d := p.want(p.call(1, "DescribeRuleGroupsNamespace", "GET", base+"/"+name, nil), 200, "")
		if got, err := base64.StdEncoding.DecodeString(d.text("ruleGroupsNamespace", "data")); err != nil || string(got) != data {
			t.Errorf("%d bytes came back as %d, %v", len(data), len(got), err)
		}
	}
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", base, m{"name": "big", "data": bytes.Repeat([]byte("#"), 1<<20+1)}), 400, "ValidationException")
	bad := p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", base, m{"name": "bad", "data": []byte("wrong")}), 400, "ValidationException")
	if bad.text("reason") != "FIELD_VALIDATION_FAILED" || !strings.Contains(bad.text("message"), "line 1") {
		t.Errorf("refused with %v", bad.body)
	}
	p.want(p.call(0, "PutRuleGroupsNamespace", "PUT", base+"/none", m{"data": []byte("x")}), 404, "ResourceNotFoundException")
	put := p.want(p.call(0, "PutRuleGroupsNamespace", "PUT", base+"/n12", m{"data": []byte("groups:\n"), "clientToken": "p"}), 202, "")
	if put.text("status", "statusCode") != "UPDATING" {
		t.Errorf("put answered %v", put.body)
	}
	p.want(p.call(1, "PutRuleGroupsNamespace", "PUT", base+"/n12", m{"data": []byte("newer"), "clientToken": "q"}), 202, "")
	p.want(p.call(1, "PutRuleGroupsNamespace", "PUT", base+"/n12", m{"data": []byte("groups:\n"), "clientToken": "p"}), 202, "")
	d := p.call(0, "DescribeRuleGroupsNamespace", "GET", base+"/n12", nil)
	if d.text("ruleGroupsNamespace", "data") != base64.StdEncoding.EncodeToString([]byte("newer")) {
		t.Error("a repeated call undid a later one")
	}
	l := p.want(p.call(0, "ListRuleGroupsNamespaces", "GET", base+"?name=n1&maxResults=1", nil), 200, "")
	if ns := l.at("ruleGroupsNamespaces").([]any); len(ns) != 1 || l.text("nextToken") == "" || ns[0].(m)["data"] != nil {
		t.Errorf("listed %v", l.body)
	}
	p.want(p.call(0, "DeleteRuleGroupsNamespace", "DELETE", base+"/n12?clientToken=x", nil), 202, "")
	p.want(p.call(1, "DeleteRuleGroupsNamespace", "DELETE", base+"/n12?clientToken=x", nil), 202, "")
	p.want(p.call(1, "DeleteRuleGroupsNamespace", "DELETE", base+"/n12", nil), 404, "ResourceNotFoundException")
}

func TestListingsGoOnWhereTheyStopped(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	const n = 23
	for i := range n {
		p.create(m{"alias": fmt.Sprintf("a%d", i%2)})
	}
	for _, size := range []int{1, 7, n, n + 1} {
		seen, token := map[string]bool{}, ""
		for {
			l := p.want(p.call(0, "ListWorkspaces", "GET", fmt.Sprintf("/workspaces?maxResults=%d&nextToken=%s", size, token), nil), 200, "")
			for _, w := range l.at("workspaces").([]any) {
				id := w.(m)["workspaceId"].(string)
				if seen[id] {
					t.Fatalf("size %d: %s is listed twice", size, id)
				}
				seen[id] = true
			}
			if token = l.text("nextToken"); token == "" {
				break
			}
		}
		if len(seen) != n {
			t.Errorf("size %d: listed %d of %d", size, len(seen), n)
		}
	}
	first := p.call(0, "ListWorkspaces", "GET", "/workspaces?maxResults=2", nil)
	p.want(p.call(0, "ListWorkspaces", "GET", "/workspaces?alias=a1&nextToken="+first.text("nextToken"), nil), 400, "ValidationException")
	p.want(p.call(0, "ListWorkspaces", "GET", "/workspaces?nextToken=garbage", nil), 400, "ValidationException")
	p.want(p.call(0, "ListWorkspaces", "GET", "/workspaces?maxResults=1001", nil), 400, "ValidationException")
	if l := p.call(0, "ListWorkspaces", "GET", "/workspaces?alias=a1", nil); len(l.at("workspaces").([]any)) != n/2 {
		t.Errorf("filtered: %v", l.body)
	}
	p.account = "999999999999"
	if l := p.call(0, "ListWorkspaces", "GET", "/workspaces", nil); len(l.at("workspaces").([]any)) != 0 {
		t.Errorf("another account sees %v", l.body)
	}
}

func TestRuleFilesAreListedAsTheyWereMadeAndRulersAreToldOfThem(t *testing.T) {
	p := newPlane(t, Config{}, 2)
	id := p.create(nil)
	base := "/workspaces/" + id + "/rulegroupsnamespaces"
	for _, name := range []string{"c", "a", "b"} {
		p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", base, m{"name": name, "data": []byte("groups: []")}), 202, "")
		p.now = p.now.Add(time.Second)
	}
	p.want(p.call(0, "PutRuleGroupsNamespace", "PUT", base+"/c", m{"data": []byte("groups: [] ")}), 202, "")
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", base, m{"name": "d", "data": []byte("wrong")}), 400, "ValidationException")
	names, token := "", ""
	for {
		l := p.want(p.call(1, "ListRuleGroupsNamespaces", "GET", base+"?maxResults=1&nextToken="+token, nil), 200, "")
		for _, n := range l.at("ruleGroupsNamespaces").([]any) {
			names += n.(m)["name"].(string)
		}
		if token = l.text("nextToken"); token == "" {
			break
		}
	}
	if names != "cab" {
		t.Errorf("listed %s", names)
	}
	p.want(p.call(0, "DeleteRuleGroupsNamespace", "DELETE", base+"/a", nil), 202, "")
	p.want(p.call(0, "DeleteRuleGroupsNamespace", "DELETE", base+"/a", nil), 404, "ResourceNotFoundException")
	if len(p.told) != 5 || p.told[4] != id {
		t.Errorf("told %v", p.told)
	}
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
	if len(p.told) != 6 {
		t.Errorf("told %v", p.told)
	}
}

func TestAWorkspaceHasNoMoreRuleFilesThanItMay(t *testing.T) {
	p := newPlane(t, Config{MaxNamespaces: 1}, 1)
	base := "/workspaces/" + p.create(nil) + "/rulegroupsnamespaces"
	one := m{"name": "a", "data": []byte("groups: []"), "clientToken": "x"}
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", base, one), 202, "")
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", base, one), 202, "")
	a := p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", base, m{"name": "b", "data": []byte("groups: []")}), 402, "ServiceQuotaExceededException")
	if a.text("quotaCode") == "" || a.text("serviceCode") != "aps" || a.text("message") != "Limit exceeded. Maximum rule groups namespaces per workspace." {
		t.Errorf("refused with %v", a.body)
	}
}

func TestAListingLeavesOutWhatIsDeletedMeanwhile(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	p.create(m{"alias": "stays"})
	gone := p.create(m{"alias": "goes"})
	if err := p.replicas[0].drop(t.Context(), workspaceKey(gone)); err != nil {
		t.Fatal(err)
	}
	l := p.want(p.call(0, "ListWorkspaces", "GET", "/workspaces", nil), 200, "")
	if ws := l.at("workspaces").([]any); len(ws) != 1 || ws[0].(m)["alias"] != "stays" {
		t.Errorf("listed %v", l.body)
	}
}

func TestTagsHaveTheirRules(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	id := p.create(m{"tags": m{"a": "1"}})
	path := "/tags/" + url.PathEscape("arn:aws:aps:us-east-1:123456789012:workspace/"+id)
	raw := "/tags/arn:aws:aps:us-east-1:123456789012:workspace/" + id
	p.want(p.call(0, "TagResource", "POST", path, m{"tags": m{"a": "2", "b c": ""}}), 200, "")
	p.want(p.call(0, "UntagResource", "DELETE", raw+"?tagKeys=a&tagKeys=none", nil), 200, "")
	if l := p.want(p.call(0, "ListTagsForResource", "GET", raw, nil), 200, ""); fmt.Sprint(l.at("tags")) != "map[b c:]" {
		t.Errorf("tags are %v", l.body)
	}
	p.want(p.call(0, "TagResource", "POST", path, m{"tags": m{"aWs:x": "2"}}), 400, "ValidationException")
	many := m{}
	for i := range 50 {
		many[fmt.Sprint("t", i)] = "v"
	}
	p.want(p.call(0, "TagResource", "POST", path, m{"tags": many}), 400, "ValidationException")
	p.want(p.call(0, "ListTagsForResource", "GET", "/tags/"+url.PathEscape("arn:aws:aps:us-east-1:123456789012:workspace/ws-none"), nil), 404, "ResourceNotFoundException")
	p.want(p.call(0, "ListTagsForResource", "GET", "/tags/nonsense", nil), 400, "ValidationException")
	p.account = "999999999999"
	p.want(p.call(0, "ListTagsForResource", "GET", raw, nil), 404, "ResourceNotFoundException")
	p.want(p.call(0, "DescribeWorkspace", "GET", "/workspaces/"+id, nil), 404, "ResourceNotFoundException")
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 404, "ResourceNotFoundException")
}

func TestAnAccountHasNoMoreWorkspacesThanItMay(t *testing.T) {
	p := newPlane(t, Config{MaxWorkspaces: 2}, 3)
	var wg sync.WaitGroup
	codes := make([]int, 6)
	for i := range codes {
		wg.Go(func() { codes[i] = p.call(i, "CreateWorkspace", "POST", "/workspaces", nil).status })
	}
	wg.Wait()
	made := 0
	for _, c := range codes {
		switch c {
		case 202:
			made++
		case 402:
		default:
			t.Errorf("answered %d", c)
		}
	}
	if made != 2 {
		t.Errorf("made %d, want 2", made)
	}
	a := p.want(p.call(0, "CreateWorkspace", "POST", "/workspaces", nil), 402, "ServiceQuotaExceededException")
	if a.text("message") != "Limit exceeded. Maximum workspaces per account." || a.text("quotaCode") == "" {
		t.Errorf("refused with %v", a.body)
	}
}

func TestAConfigurationBecomesLimits(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	id := p.create(nil)
	path := "/workspaces/" + id + "/configuration"
	p.want(p.call(0, "UpdateWorkspaceConfiguration", "PATCH", path, m{}), 400, "ValidationException")
	p.want(p.call(0, "UpdateWorkspaceConfiguration", "PATCH", path, m{"retentionPeriodInDays": 0}), 400, "ValidationException")
	p.want(p.call(0, "UpdateWorkspaceConfiguration", "PATCH", path, m{"retentionPeriodInDays": 30}), 202, "")
	p.want(p.call(0, "UpdateWorkspaceConfiguration", "PATCH", path, m{"limitsPerLabelSet": []m{{"limits": m{"maxSeries": 5}, "labelSet": m{"team": "a"}}}}), 202, "")
	d := p.want(p.call(0, "DescribeWorkspaceConfiguration", "GET", path, nil), 200, "")
	if d.at("workspaceConfiguration", "retentionPeriodInDays") != 30.0 || d.at("workspaceConfiguration", "limitsPerLabelSet") == nil {
		t.Errorf("configured %v", d.body)
	}
	var applied string
	fail := errors.New("not now")
	l := NewLimits(Config{}, p.docs, limits.Check, func(_ string, data []byte) error { applied = string(data); return fail }, slog.New(slog.DiscardHandler))
	if err := l.refresh(t.Context()); !errors.Is(err, fail) {
		t.Fatalf("refresh: %v", err)
	}
	applied, fail = "", nil
	if err := l.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{id, "compactor_blocks_retention_period: 720h", "max_series: 5", "team: a"} {
		if !strings.Contains(applied, want) {
			t.Errorf("applied %q, which lacks %q", applied, want)
		}
	}
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
	if err := l.refresh(t.Context()); err != nil || applied != "" {
		t.Errorf("after deletion %q is applied, %v", applied, err)
	}
}

func TestLoggingAndPoliciesHaveTheirStates(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	base := "/workspaces/" + p.create(nil)
	group := "arn:aws:logs:us-east-1:123456789012:log-group:/amp:*"
	p.want(p.call(0, "DescribeLoggingConfiguration", "GET", base+"/logging", nil), 404, "ResourceNotFoundException")
	p.want(p.call(0, "UpdateLoggingConfiguration", "PUT", base+"/logging", m{"logGroupArn": group}), 404, "ResourceNotFoundException")
	p.want(p.call(0, "CreateLoggingConfiguration", "POST", base+"/logging", m{"logGroupArn": "nonsense"}), 400, "ValidationException")
	p.want(p.call(0, "CreateLoggingConfiguration", "POST", base+"/logging", m{"logGroupArn": group}), 202, "")
	p.want(p.call(0, "CreateLoggingConfiguration", "POST", base+"/logging", m{"logGroupArn": group}), 409, "ConflictException")
	if d := p.want(p.call(0, "DescribeLoggingConfiguration", "GET", base+"/logging", nil), 200, ""); d.text("loggingConfiguration", "logGroupArn") != group {
		t.Errorf("described as %v", d.body)
	}
	p.want(p.call(0, "DeleteLoggingConfiguration", "DELETE", base+"/logging", nil), 202, "")
	queries := m{"destinations": []m{{"cloudWatchLogs": m{"logGroupArn": group}, "filters": m{"qspThreshold": 0}}}}
	p.want(p.call(0, "CreateQueryLoggingConfiguration", "POST", base+"/logging/query", queries), 202, "")
	p.want(p.call(0, "DescribeQueryLoggingConfiguration", "GET", base+"/logging/query", nil), 200, "")
	p.want(p.call(0, "DeleteQueryLoggingConfiguration", "DELETE", base+"/logging/query", nil), 202, "")
	p.want(p.call(0, "DescribeQueryLoggingConfiguration", "GET", base+"/logging/query", nil), 404, "ResourceNotFoundException")

	doc := `{"Version":"2012-10-17","Statement":[]}`
	put := p.want(p.call(0, "PutResourcePolicy", "PUT", base+"/policy", m{"policyDocument": doc, "revisionId": "NO_POLICY"}), 202, "")
	p.want(p.call(0, "PutResourcePolicy", "PUT", base+"/policy", m{"policyDocument": doc, "revisionId": "NO_POLICY"}), 409, "ConflictException")
	if d := p.want(p.call(0, "DescribeResourcePolicy", "GET", base+"/policy", nil), 200, ""); d.text("policyDocument") != doc || d.text("revisionId") != put.text("revisionId") {
		t.Errorf("described as %v", d.body)
	}
	p.want(p.call(0, "DeleteResourcePolicy", "DELETE", base+"/policy?revisionId=other", nil), 409, "ConflictException")
	p.want(p.call(0, "DeleteResourcePolicy", "DELETE", base+"/policy?revisionId="+put.text("revisionId"), nil), 202, "")
	p.want(p.call(0, "DescribeResourcePolicy", "GET", base+"/policy", nil), 404, "ResourceNotFoundException")
}

func TestBodiesThatAreNoJSONAreRefused(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	for _, body := range []string{"{", "[]", `{"alias":5}`} {
		r := httptest.NewRequest("POST", "/workspaces", strings.NewReader(body))
		w := httptest.NewRecorder()
		if err := p.replicas[0].Operation("CreateWorkspace")(w, r); err != nil || w.Code != 400 || w.Header().Get("X-Amzn-Errortype") != "ValidationException" {
			t.Errorf("%q is answered with %d %s, %v", body, w.Code, w.Body, err)
		}
	}
}

func TestNoWorkspaceHoldsUpTheLimitsOfOthers(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	good, other := p.create(nil), p.create(nil)
	set := func(id string, body m) answered {
		return p.call(0, "UpdateWorkspaceConfiguration", "PATCH", "/workspaces/"+id+"/configuration", body)
	}
	one := m{"limits": m{"maxSeries": 5}, "labelSet": m{"team": "a"}}
	p.want(set(good, m{"retentionPeriodInDays": 36500, "outOfOrderTimeWindowInSeconds": 60, "ruleQueryOffsetInSeconds": 7, "limitsPerLabelSet": []m{one}}), 202, "")
	p.want(set(other, m{"limitsPerLabelSet": []m{one, one}}), 400, "ValidationException")
	p.want(set(other, m{"retentionPeriodInDays": 200000}), 400, "ValidationException")
	_, err := update(t.Context(), p.replicas[0], workspaceKey(other), func(w *workspace, _ bool) (bool, error) {
		days := int64(200000) // more than a duration holds
		w.Settings = &settings{Retention: &days}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	o := limits.NewOverrides(new(limits.Defaults), limits.RuntimeConfig{}, limits.Deps{})
	if err := NewLimits(Config{}, p.docs, limits.Check, o.Overlay, slog.New(slog.DiscardHandler)).refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := o.For(tenant.ID(good))
	if limits.CompactorBlocksRetentionPeriod.Of(v) != 36500*24*time.Hour || limits.OutOfOrderTimeWindow.Of(v) != time.Minute ||
		limits.RulerEvaluationDelay.Of(v) != 7*time.Second || len(limits.LimitsPerLabelSet.Of(v).List()) != 1 {
		t.Errorf("limits of the workspace are not what it configured: %v", o.Tenants())
	}
}

func TestEveryProcessKnowsWhatAWorkspaceWantsToBeLogged(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	id := p.create(nil)
	l := NewLimits(Config{}, p.docs, limits.Check, func(string, []byte) error { return nil }, slog.New(slog.DiscardHandler))
	look := func() (events, queries string, samples int64, ok bool) {
		t.Helper()
		if err := l.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		queries, samples, ok = l.QueryLog(tenant.ID(id))
		return l.LogGroup(id), queries, samples, ok
	}
	if events, _, _, ok := look(); events != "" || ok {
		t.Errorf("events to %q, queries %v", events, ok)
	}
	const group = "arn:aws:logs:us-east-1:123456789012:log-group:g:*"
	p.want(p.call(0, "CreateLoggingConfiguration", "POST", "/workspaces/"+id+"/logging", m{"logGroupArn": group}), 202, "")
	p.want(p.call(0, "CreateQueryLoggingConfiguration", "POST", "/workspaces/"+id+"/logging/query",
		m{"destinations": []m{{"cloudWatchLogs": m{"logGroupArn": group}, "filters": m{"qspThreshold": 500}}}}), 202, "")
	if events, queries, samples, ok := look(); events != group || queries != group || samples != 500 || !ok {
		t.Errorf("events to %q, queries to %q from %d, %v", events, queries, samples, ok)
	}
	p.want(p.call(0, "DeleteQueryLoggingConfiguration", "DELETE", "/workspaces/"+id+"/logging/query", nil), 202, "")
	if events, _, _, ok := look(); events != group || ok {
		t.Errorf("events to %q, queries %v", events, ok)
	}
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
	if events, _, _, _ := look(); events != "" {
		t.Errorf("events of a deleted workspace go to %q", events)
	}
}

package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const patternAccounts = `
accounts:
  - id: "000000000000"
    root_keys: [{id: AKIDROOT0001, secret: root-secret-root-secret}]
    users:
      - name: reader
        keys: [{id: AKIDREADER01, secret: reader-secret-reader}]
        tokens: [{id: t1, secret: bound-token-bound-tok, workspace: team-b}]
        inline:
          q:
            Version: "2012-10-17"
            Statement:
              - {Effect: Allow, Action: ["aps:QueryMetrics", "aps:RemoteWrite"], Resource: "arn:aws:aps:*:*:workspace/team-*"}
              - {Effect: Deny, Action: "aps:*", Resource: "arn:aws:aps:*:*:workspace/team-secret"}
      - name: nobody
        keys: [{id: AKIDNOBODY01, secret: nobody-secret-nobody}]
  - id: "111111111111"
    root_keys: [{id: AKIDOTHER001, secret: other-secret-other-1}]
`

// everyTenant are those that there are in the tests of patterns. One has a name that is itself an expression.
var everyTenant = []tenant.ID{"team-b", "team-a", "team-secret", "ops", "team-.*", "team-a"}

// foreigners owns one workspace of the other account.
type foreigners struct{}

func (foreigners) Lookup(_ context.Context, id string) (string, map[string]string, string, error) {
	switch id {
	case "team-foreign":
		return "111111111111", nil, "ACTIVE", nil
	case "team-broken":
		return "", nil, "", errs.New(errs.Unavailable, "bucket is away")
	}
	return "", nil, "", errs.New(errs.NotFound, "not registered")
}

func (foreigners) Policy(context.Context, string) (string, error) { return "", nil }

func openPatterns(t *testing.T, most int, more ...tenant.ID) *door {
	t.Helper()
	return open(t, func(_ *Config, d *Deps) {
		d.Workspaces = foreigners{}
		d.Patterns = &Patterns{Most: most, Tenants: func(context.Context) ([]tenant.ID, error) { return append(more, everyTenant...), nil }}
	}, patternAccounts)
}

const readPath = "/prometheus/api/v1/query"

// TestAPatternIsTheTenantsThatTheCallerMayRead: what a pattern matches is asked of the policies for each
// tenant, and services are told names alone.
func TestAPatternIsTheTenantsThatTheCallerMayRead(t *testing.T) {
	d := openPatterns(t, 0, "team-foreign")
	for name, tc := range map[string]struct {
		key, pattern, want string
		status             int
	}{
		"some":                       {"AKIDREADER01", "~team-[ab]", "team-a|team-b", 200},
		"all that may be read":       {"AKIDREADER01", "~.*", "team-.*|team-a|team-b", 200},
		"all":                        {"AKIDROOT0001", "~.*", "ops|team-.*|team-a|team-b|team-secret", 200},
		"as a whole":                 {"AKIDREADER01", "~team", "", 403},
		"alternatives as a whole":    {"AKIDROOT0001", "~ops|team-a", "ops|team-a", 200},
		"what is denied":             {"AKIDREADER01", "~team-secret", "", 403},
		"what is foreign":            {"AKIDREADER01", "~team-foreign", "", 403},
		"what there is not":          {"AKIDREADER01", "~team-nowhere", "", 403},
		"no rights":                  {"AKIDNOBODY01", "~.*", "", 403},
		"the owner":                  {"AKIDOTHER001", "~.*", "team-foreign", 200},
		"a name that is a pattern":   {"AKIDREADER01", "team-.*", "team-.*", 200},
		"no expression":              {"AKIDROOT0001", "~(", "", 400},
		"a name after the mark":      {"AKIDROOT0001", "team-a|~ops", "", 400},
		"closing the own group":      {"AKIDREADER01", "~)|(ops", "", 400},
		"a long one":                 {"AKIDROOT0001", "~" + strings.Repeat("a", maxPatternBytes+1), "", 400},
		"flags do not reach outside": {"AKIDROOT0001", "~(?i)OPS", "ops", 200},
	} {
		w, got := d.signed(tc.key, "GET", readPath, "", "X-Scope-OrgID", tc.pattern)
		if w.Code != tc.status || got.Tenant != tc.want {
			t.Errorf("%s: %d for %q, want %d for %q: %s", name, w.Code, got.Tenant, tc.status, tc.want, w.Body)
		}
	}
	// What may not be read and what there is not look the same.
	body := func(pattern string) string {
		w, _ := d.signed("AKIDREADER01", "GET", readPath, "", "X-Scope-OrgID", pattern)
		return w.Body.String()
	}
	if there, not := body("~team-secret"), body("~team-nowhere"); there != not {
		t.Errorf("a tenant is told apart from none: %s and %s", there, not)
	}
	// A token of one workspace is for that one.
	w, got := d.plain("GET", readPath, "Authorization", "Bearer bound-token-bound-tok", "X-Scope-OrgID", "~.*")
	if w.Code != 200 || got.Tenant != "team-b" {
		t.Errorf("a bound token: %d for %q", w.Code, got.Tenant)
	}
	// What acts for one tenant takes no pattern, even if it matches one.
	for key, want := range map[string]int{"AKIDREADER01": 422, "AKIDROOT0001": 422} {
		if w, _ := d.signed(key, "POST", "/api/v1/push", "x", "X-Scope-OrgID", "~team-a"); w.Code != want {
			t.Errorf("a push by a pattern: %d, want %d", w.Code, want)
		}
	}
}

// TestAPatternThatCannotBeDecidedFails: neither an unknown right nor an unknown list leads to a smaller answer.
func TestAPatternThatCannotBeDecidedFails(t *testing.T) {
	if w, _ := openPatterns(t, 0, "team-broken").signed("AKIDREADER01", "GET", readPath, "", "X-Scope-OrgID", "~team-.*"); w.Code != 503 {
		t.Errorf("a tenant whose owner is not known: %d, want 503", w.Code)
	}
	if w, _ := openPatterns(t, 2).signed("AKIDREADER01", "GET", readPath, "", "X-Scope-OrgID", "~.*"); w.Code != 422 {
		t.Errorf("more than the most: %d, want 422", w.Code)
	}
	if w, got := openPatterns(t, 3).signed("AKIDREADER01", "GET", readPath, "", "X-Scope-OrgID", "~.*"); w.Code != 200 {
		t.Errorf("those that may not be read count: %d for %q", w.Code, got.Tenant)
	}
	now, fails, asked := time.Now(), false, 0
	d := open(t, func(_ *Config, deps *Deps) {
		deps.Now = func() time.Time { return now }
		deps.Patterns = &Patterns{Tenants: func(context.Context) ([]tenant.ID, error) {
			if asked++; fails {
				return nil, errs.New(errs.Internal, "no list")
			}
			return everyTenant, nil
		}}
	}, patternAccounts)
	ask := func(want, wantAsked int) {
		t.Helper()
		if w, _ := d.signed("AKIDROOT0001", "GET", readPath, "", "X-Scope-OrgID", "~.*"); w.Code != want || asked != wantAsked {
			t.Errorf("%d after %d lists, want %d after %d: %s", w.Code, asked, want, wantAsked, w.Body)
		}
	}
	ask(200, 1)
	ask(200, 1)
	fails, now = true, now.Add(rosterAge)
	ask(503, 2)
	fails = false
	ask(200, 3)
}

// TestPatternsWithoutAuthentication: the gateway names tenants there, too, and nobody behind sees a pattern.
func TestPatternsWithoutAuthentication(t *testing.T) {
	off := func(patterns bool) *door {
		return open(t, func(c *Config, d *Deps) {
			c.Enabled = false
			if patterns {
				d.Patterns = &Patterns{Most: 4, Tenants: func(context.Context) ([]tenant.ID, error) { return everyTenant, nil }}
			}
		})
	}
	ask := func(d *door, method, path, header string) (*httptest.ResponseRecorder, told) {
		return d.plain(method, path, "X-Scope-OrgID", header)
	}
	d := off(true)
	if w, got := ask(d, "GET", readPath, "~team-[ab]"); w.Code != 200 || got.Tenant != "team-a|team-b" {
		t.Errorf("%d for %q", w.Code, got.Tenant)
	}
	if _, got := ask(d, "GET", readPath, "team-.*"); got.Tenant != "team-.*" {
		t.Errorf("a name became %q", got.Tenant)
	}
	for header, want := range map[string]int{"~nobody": 404, "~.*": 422, "~(": 400} {
		if w, _ := ask(d, "GET", readPath, header); w.Code != want {
			t.Errorf("%s: %d, want %d", header, w.Code, want)
		}
	}
	if w, _ := ask(d, "POST", "/api/v1/push", "~team-a"); w.Code != 422 {
		t.Errorf("a push by a pattern: %d, want 422", w.Code)
	}
	// Switched off, a pattern is what it always was: no tenant ID, which services refuse.
	if _, got := ask(off(false), "GET", readPath, "~.*"); got.Tenant != "~.*" {
		t.Errorf("switched off: %q", got.Tenant)
	}
	if _, err := tenant.ParseMany(patternMark + "a"); errs.KindOf(err) != errs.Invalid || errs.KindOf(err).HTTPStatus() != http.StatusBadRequest {
		t.Errorf("a service reads a pattern as names: %v", err)
	}
}

package gateway

import (
	"net/http"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/audit"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// ledger keeps records in memory.
type ledger struct {
	records []*audit.Record
	full    bool
}

func (l *ledger) Room() error {
	if l.full {
		return errs.New(errs.Unavailable, "full")
	}
	return nil
}

func (l *ledger) Write(r *audit.Record) error { l.records = append(l.records, r); return nil }

func TestCallsOfTheConfigurationAreRecorded(t *testing.T) {
	l := &ledger{}
	d := open(t, func(_ *Config, deps *Deps) { deps.Audit = l })
	d.signed("AKIDROOT0001", "POST", "/workspaces", `{"alias":"a","clientToken":"t","secretThing":"hidden-value"}`, "Content-Type", "application/json")
	d.signed("AKIDNOBODY01", "GET", "/workspaces/ws-1", "")
	d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/query?query=up", "")
	d.plain("GET", "/workspaces/ws-1")
	if len(l.records) != 2 {
		t.Fatalf("%d records", len(l.records))
	}
	made, refused := l.records[0], l.records[1]
	if made.EventName != "CreateWorkspace" || made.ReadOnly || made.UserIdentity.Type != "Root" || made.ErrorCode != "" || !strings.Contains(string(made.RequestParameters), `"alias":"a"`) || len(made.ResponseElements) == 0 {
		t.Errorf("%+v %s", made, made.RequestParameters)
	}
	if strings.Contains(string(made.RequestParameters)+string(made.ResponseElements), "hidden-value\",") || !strings.Contains(string(made.RequestParameters), `"clientToken":"t"`) {
		t.Errorf("secrets: %s", made.RequestParameters)
	}
	if refused.EventName != "DescribeWorkspace" || !refused.ReadOnly || refused.ErrorCode != "AccessDenied" || refused.UserIdentity.UserName != "nobody" || !strings.Contains(string(refused.RequestParameters), "ws-1") {
		t.Errorf("%+v %s", refused, refused.RequestParameters)
	}
	l.full = true
	if w, _ := d.signed("AKIDROOT0001", "POST", "/workspaces", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("no room for the record: %d", w.Code)
	}
}

func TestAccountsHaveAllowances(t *testing.T) {
	d := open(t, func(c *Config, _ *Deps) { c.WorkspaceRate = 3 })
	codes := map[int]int{}
	for range 8 {
		w, _ := d.signed("AKIDROOT0001", "GET", "/workspaces", "")
		codes[w.Code]++
		if w.Code == 429 && (w.Header().Get("X-Amzn-ErrorType") != codeThrottled || w.Header().Get("Retry-After") == "") {
			t.Errorf("%v %s", w.Header(), w.Body)
		}
	}
	if codes[200] < 3 || codes[429] < 3 {
		t.Errorf("%v", codes)
	}
	if w, _ := d.signed("AKIDOTHER001", "GET", "/workspaces", ""); w.Code != 200 {
		t.Errorf("another account: %d %s", w.Code, w.Body)
	}
}

func TestWhoGuessesIsSlowedDown(t *testing.T) {
	d := open(t, func(c *Config, _ *Deps) { c.FailedLogins = 5 })
	last := 0
	for range 10 {
		w, _ := d.plain("GET", "/prometheus/api/v1/query", "Authorization", "Bearer wrong", "X-Scope-OrgID", "ws-1")
		last = w.Code
	}
	if last != 429 {
		t.Errorf("after ten wrong tokens: %d", last)
	}
	if w, _ := d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/query", ""); w.Code != 200 {
		t.Errorf("another id from the same address: %d", w.Code)
	}
}

func TestSelectorsTravelToTheRoute(t *testing.T) {
	text := strings.Replace(accounts, `"aps:Get*"], Resource: "arn:aws:aps:*:*:workspace/ws-1"}`, `"aps:Get*"], Resource: "*", Condition: {StringEquals: {"amphora:LabelSelector": "{a=\"x|y,z\"}"}}}`, 1)
	if text == accounts {
		t.Fatal("the example has changed")
	}
	d := open(t, nil, text)
	_, got := d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/query", "")
	if got.Policy != "ws-1:%7Ba%3D%22x%7Cy%2Cz%22%7D" {
		t.Errorf("%q", got.Policy)
	}
	if w, _ := d.signed("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/label/a/values", ""); w.Code != 403 {
		t.Errorf("a route that cannot be held: %d %s", w.Code, w.Body)
	}
}

func TestSTSAnswersAsClientsParseIt(t *testing.T) {
	d := open(t, nil)
	r := d.request("AKIDREADER01", "sts", "POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", "Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if r.Code != 200 || !strings.Contains(r.Body.String(), "<GetCallerIdentityResult><Arn>arn:aws:iam::000000000000:user/reader</Arn>") || !strings.HasPrefix(r.Header().Get("Content-Type"), "text/xml") {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	for _, c := range []struct {
		key, service, form, code string
		status                   int
	}{
		{"AKIDREADER01", "aps", "Action=GetCallerIdentity", "SignatureDoesNotMatch", 403},
		{"AKIDNOSUCH01", "sts", "Action=GetCallerIdentity", "InvalidClientTokenId", 403},
		{"AKIDREADER01", "sts", "Action=Nothing", "InvalidAction", 400},
		{"AKIDREADER01", "sts", "Action=AssumeRole&RoleArn=arn:aws:iam::000000000000:role/none&RoleSessionName=ss", "AccessDenied", 403},
		{"AKIDREADER01", "sts", "Action=AssumeRole&RoleArn=x", "ValidationError", 400},
		{"AKIDREADER01", "sts", "Action=AssumeRoleWithWebIdentity&WebIdentityToken=x", "InvalidIdentityToken", 400},
	} {
		r := d.request(c.key, c.service, "POST", "/", c.form, "Content-Type", "application/x-www-form-urlencoded")
		if r.Code != c.status || !strings.Contains(r.Body.String(), "<Code>"+c.code+"</Code>") {
			t.Errorf("%s: %d %s", c.form, r.Code, r.Body)
		}
	}
}

func TestCallsOfTheTokenServiceAreRecorded(t *testing.T) {
	l := &ledger{}
	d := open(t, func(_ *Config, deps *Deps) { deps.Audit = l }, strings.Replace(accounts, "    users:\n      - name: writer", `    roles:
      - name: ops
        trust: {Version: "2012-10-17", Statement: {Effect: Allow, Action: "sts:AssumeRole", Principal: {AWS: "arn:aws:iam::000000000000:user/reader"}}}
    users:
      - name: writer`, 1))
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	role := "&Version=2011-06-15&RoleSessionName=night&RoleArn=arn:aws:iam::000000000000:role/ops"
	made := d.request("AKIDREADER01", "sts", "POST", "/", "Action=AssumeRole"+role, form...)
	d.request("AKIDWRITER01", "sts", "POST", "/", "Action=AssumeRole"+role, form...)
	d.request("AKIDREADER01", "sts", "POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", form...)
	d.request("AKIDNOSUCH01", "sts", "POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", form...)
	if len(l.records) != 3 {
		t.Fatalf("%d records: %s", len(l.records), made.Body)
	}
	ok, no, who := l.records[0], l.records[1], l.records[2]
	if ok.EventSource != "sts.amazonaws.com" || ok.EventName != "AssumeRole" || ok.ReadOnly || ok.UserIdentity.UserName != "reader" ||
		!strings.Contains(string(ok.RequestParameters), `"roleSessionName":"night"`) || !strings.Contains(string(ok.ResponseElements), `"accessKeyId":"ASIA`) {
		t.Errorf("%+v %s %s", ok, ok.RequestParameters, ok.ResponseElements)
	}
	_, rest, _ := strings.Cut(made.Body.String(), "<SecretAccessKey>")
	secret, _, _ := strings.Cut(rest, "<")
	_, rest, _ = strings.Cut(rest, "<SessionToken>")
	token, _, _ := strings.Cut(rest, "<")
	if text := string(ok.ResponseElements); secret == "" || token == "" || strings.Contains(text, secret) || strings.Contains(text, token) {
		t.Errorf("secrets in %s", text)
	}
	if no.ErrorCode != "AccessDenied" || no.UserIdentity.UserName != "writer" || len(no.ResponseElements) > 0 {
		t.Errorf("%+v", no)
	}
	if who.EventName != "GetCallerIdentity" || !who.ReadOnly {
		t.Errorf("%+v", who)
	}
	l.full = true
	if w := d.request("AKIDREADER01", "sts", "POST", "/", "Action=AssumeRole"+role, form...); w.Code != http.StatusServiceUnavailable {
		t.Errorf("no room for the record: %d", w.Code)
	}
}

func TestDeniedCallsUseTheAllowance(t *testing.T) {
	l := &ledger{}
	d := open(t, func(c *Config, deps *Deps) { c.WorkspaceRate, deps.Audit = 3, l })
	for range 20 {
		d.signed("AKIDNOBODY01", "GET", "/workspaces", "")
	}
	if len(l.records) == 0 || len(l.records) > 15 {
		t.Errorf("%d records of 20 calls that are denied", len(l.records))
	}
}

package gateway

import (
	"context"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// registry is workspaces in memory: account, team tag and policy.
type registry map[string][3]string

func (r registry) Lookup(_ context.Context, id string) (string, map[string]string, string, error) {
	w, ok := r[id]
	if !ok {
		return "", nil, "", errs.New(errs.NotFound, "none")
	}
	return w[0], map[string]string{"team": w[1]}, "ACTIVE", nil
}

func (r registry) Policy(_ context.Context, id string) (string, error) { return r[id][2], nil }

const (
	here, there = "000000000000", "111111111111"
	// sharing lets the root of the other account and the user nobody read.
	sharing = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111111111111:root","arn:aws:iam::000000000000:user/nobody"]},
		"Action":["aps:QueryMetrics","aps:DescribeWorkspace"],"Resource":"arn:aws:aps:us-east-1:000000000000:workspace/ws-shared"}]}`
	denying = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"aps:QueryMetrics","Resource":"*"}]}`
)

func withRegistry(c *Config, d *Deps) {
	c.WorkspaceRate = 0
	d.Workspaces = registry{"ws-1": {here, "a"}, "ws-2": {here, "b"}, "ws-far": {there, "a"}, "ws-shared": {here, "a", sharing},
		"ws-denied": {here, "a", denying}, "ws-broken": {here, "a", "{"}}
}

func TestOtherAccountsWorkspacesLookAsIfThereWereNone(t *testing.T) {
	d := open(t, withRegistry)
	for _, path := range []string{"/api/v1/query", ""} {
		far, _ := d.signed("AKIDROOT0001", "GET", "/workspaces/ws-far"+path, "")
		none, _ := d.signed("AKIDROOT0001", "GET", "/workspaces/ws-no"+path, "")
		if path != "" && (far.Code != 404 || far.Body.String() != none.Body.String()) || far.Code != none.Code {
			t.Errorf("%q of another account: %d %s; that does not exist: %d %s", path, far.Code, far.Body, none.Code, none.Body)
		}
		far, _ = d.signed("AKIDNOBODY01", "GET", "/workspaces/ws-far"+path, "")
		none, _ = d.signed("AKIDNOBODY01", "GET", "/workspaces/ws-no"+path, "")
		if far.Code != 403 || strings.Contains(far.Body.String(), there) || strings.ReplaceAll(far.Body.String(), "ws-far", "ws-no") != none.Body.String() {
			t.Errorf("%q without rights: %d %s; that does not exist: %d %s", path, far.Code, far.Body, none.Code, none.Body)
		}
	}
	far, _ := d.signed("AKIDROOT0001", "GET", "/prometheus/api/v1/query", "", "X-Scope-OrgID", "ws-far")
	if far.Code != 403 || strings.Contains(far.Body.String(), there) {
		t.Errorf("by header: %d %s", far.Code, far.Body)
	}
}

func TestResourcePoliciesLetInAndKeepOut(t *testing.T) {
	d := open(t, withRegistry)
	for _, c := range []struct {
		key, path string
		status    int
	}{
		{"AKIDNOBODY01", "/workspaces/ws-shared/api/v1/query", 200},
		{"AKIDOTHER001", "/workspaces/ws-shared/api/v1/query", 200}, // both accounts allow it
		{"AKIDOTHER001", "/workspaces/ws-1/api/v1/query", 404},
		{"AKIDNOBODY01", "/workspaces/ws-1/api/v1/query", 403},
		{"AKIDNOBODY01", "/workspaces/ws-shared/api/v1/label/a/values", 403},
		{"AKIDNOBODY01", "/workspaces/ws-shared", 403}, // counts for samples only
		{"AKIDROOT0001", "/workspaces/ws-denied/api/v1/query", 403},
		{"AKIDROOT0001", "/workspaces/ws-denied/api/v1/label/a/values", 200},
		{"AKIDROOT0001", "/workspaces/ws-broken/api/v1/query", 403},
	} {
		if w, _ := d.signed(c.key, "GET", c.path, ""); w.Code != c.status {
			t.Errorf("%s by %s: %d %s, want %d", c.path, c.key, w.Code, w.Body, c.status)
		}
	}
}

const tagging = `
accounts:
  - id: "000000000000"
    users:
      - name: reader
        keys: [{id: AKIDREADER01, secret: reader-secret-reader}]
        inline:
          q:
            Version: "2012-10-17"
            Statement:
              - {Effect: Allow, Action: ["aps:CreateWorkspace", "aps:TagResource"], Resource: "*", Condition: {StringEquals: {"aws:RequestTag/team": a}, "ForAllValues:StringEquals": {"aws:TagKeys": [team, env]}}}
              - {Effect: Allow, Action: "aps:UntagResource", Resource: "*", Condition: {"ForAllValues:StringEquals": {"aws:TagKeys": [env]}}}
              - {Effect: Allow, Action: "aps:CreateRuleGroupsNamespace", Resource: "arn:aws:aps:*:*:rulegroupsnamespace/ws-1/mine*"}
              - {Effect: Allow, Action: "aps:ListTagsForResource", Resource: "*"}
              - {Effect: Deny, Action: "aps:*", Resource: "arn:aws:aps:us-east-1:000000000000:workspace/ws-2"}
              - {Effect: Deny, Action: "aps:*Tag*", Resource: "*", Condition: {StringEquals: {"aws:ResourceTag/team": b}}}
`

func TestConditionsAreAboutTheTagsOfTheCall(t *testing.T) {
	d := open(t, func(c *Config, deps *Deps) {
		withRegistry(c, deps)
		deps.Routes = append(table1(),
			Route{Methods: "POST", Path: "/workspaces/{workspaceId}/rulegroupsnamespaces", Action: "aps:CreateRuleGroupsNamespace", Style: AWS},
			Route{Methods: "POST", Path: "/tags/{resourceArn...}", Action: "aps:TagResource", Style: AWS},
			Route{Methods: "DELETE", Path: "/tags/{resourceArn...}", Action: "aps:UntagResource", Style: AWS})
	}, tagging)
	tags := func(id string) string { return "/tags/arn%3Aaws%3Aaps%3Aus-east-1%3A000000000000%3A" + id }
	for _, c := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"tagged", "POST", "/workspaces", `{"tags":{"team":"a","env":"x"}}`, 200},
		{"tagged otherwise", "POST", "/workspaces", `{"tags":{"team":"b"}}`, 403},
		{"twice, the last counts", "POST", "/workspaces", `{"tags":{"team":"a"},"Tags":{"team":"b"}}`, 403},
		{"a tag too many", "POST", "/workspaces", `{"tags":{"team":"a","x":"y"}}`, 403},
		{"without tags", "POST", "/workspaces", `{}`, 403},
		{"no JSON", "POST", "/workspaces", `{"tags":`, 403},
		{"tag", "POST", tags("workspace%2Fws-1"), `{"tags":{"team":"a"}}`, 200},
		{"tag otherwise", "POST", tags("workspace%2Fws-1"), `{"tags":{"env":"a"}}`, 403},
		{"untag", "DELETE", tags("workspace%2Fws-1") + "?tagKeys=env", "", 200},
		{"untag another", "DELETE", tags("workspace%2Fws-1") + "?tagKeys=env&tagKeys=team", "", 403},
		{"a rule file", "POST", "/workspaces/ws-1/rulegroupsnamespaces", `{"name":"mine-1"}`, 200},
		{"another rule file", "POST", "/workspaces/ws-1/rulegroupsnamespaces", `{"name":"yours"}`, 403},
		{"of another workspace", "POST", "/workspaces/ws-2/rulegroupsnamespaces", `{"name":"mine-1"}`, 403},
		{"list", "GET", tags("workspace%2Fws-1"), "", 200},
		{"list what is denied", "GET", tags("workspace%2Fws-2"), "", 403},
		{"list what is denied, in another way", "GET", "/tags/arn:aws-x:aps:eu-west-1:000000000000:workspace/ws-2", "", 403},
		{"list what its tags deny", "GET", tags("rulegroupsnamespace%2Fws-2%2Fx"), "", 403},
	} {
		w := d.try("AKIDREADER01", c.method, c.path, c.body)
		if w.Code != c.status || c.status == 200 && c.body != "" && !strings.Contains(w.Body.String(), strings.Trim(strings.ReplaceAll(c.body, `"`, `\"`), "{}")) {
			t.Errorf("%s: %d %s, want %d and the body", c.name, w.Code, w.Body, c.status)
		}
	}
}

package control

import (
	"context"
	"strings"
	"testing"
)

// states returns the states of the rule file and of the definition of a workspace at replica n, and that of the rule
// file in the listing.
func (p *plane) states(n int, id string) (described, listed, definition answered) {
	p.t.Helper()
	described = p.want(p.call(n, "DescribeRuleGroupsNamespace", "GET", "/workspaces/"+id+"/rulegroupsnamespaces/n", nil), 200, "")
	listed = p.want(p.call(n, "ListRuleGroupsNamespaces", "GET", "/workspaces/"+id+"/rulegroupsnamespaces", nil), 200, "")
	definition = p.want(p.call(n, "DescribeAlertManagerDefinition", "GET", "/workspaces/"+id+"/alertmanager/definition", nil), 200, "")
	return described, listed, definition
}

func TestAStoredDocumentThatIsNotAllowedAnyMoreSaysSoAtEveryReplica(t *testing.T) {
	type m = map[string]any
	p := newPlane(t, Config{}, 3)
	id := p.want(p.call(0, "CreateWorkspace", "POST", "/workspaces", m{}), 202, "").text("workspaceId")
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", "/workspaces/"+id+"/rulegroupsnamespaces", m{"name": "n", "data": []byte("a")}), 202, "")
	p.want(p.call(0, "CreateAlertManagerDefinition", "POST", "/workspaces/"+id+"/alertmanager/definition", m{"data": []byte("a")}), 202, "")

	check := func(code string) {
		t.Helper()
		for n := range p.replicas {
			described, listed, definition := p.states(n, id)
			one, _ := listed.at("ruleGroupsNamespaces").([]any)
			if len(one) != 1 {
				t.Fatalf("listing: %v", listed.body)
			}
			first, _ := one[0].(m)
			for what, status := range map[string]any{
				"rules":      described.at("ruleGroupsNamespace", "status"),
				"listing":    first["status"],
				"definition": definition.at("alertManagerDefinition", "status"),
			} {
				s, _ := status.(m)
				reason, _ := s["statusReason"].(string)
				if s["statusCode"] != code || (code == active) != (reason == "") || len([]rune(reason)) > maxReason {
					t.Errorf("replica %d: %s: status %v, want %s", n, what, s, code)
				}
				if what == "rules" && code != active && !strings.HasPrefix(reason, "over the limit") {
					t.Errorf("the reason is %q", reason)
				}
			}
			if text := described.text("ruleGroupsNamespace", "data"); text == "" {
				t.Error("the text of a failed document is not told")
			}
		}
	}
	check(active)
	p.stricter.Add(1)
	check("CREATION_FAILED")
	p.want(p.call(0, "PutRuleGroupsNamespace", "PUT", "/workspaces/"+id+"/rulegroupsnamespaces/n", m{"data": []byte("b")}), 400, "ValidationException")
	p.stricter.Add(1)
	check(active)
	p.want(p.call(0, "PutRuleGroupsNamespace", "PUT", "/workspaces/"+id+"/rulegroupsnamespaces/n", m{"data": []byte("b")}), 202, "")
	p.want(p.call(0, "PutAlertManagerDefinition", "PUT", "/workspaces/"+id+"/alertmanager/definition", m{"data": []byte("b")}), 202, "")
	check(active)
	p.stricter.Add(1)
	check("UPDATE_FAILED")
}

func TestADocumentThatAnotherToolSpoiltIsNotActive(t *testing.T) {
	type m = map[string]any
	p := newPlane(t, Config{}, 2)
	id := p.want(p.call(0, "CreateWorkspace", "POST", "/workspaces", m{}), 202, "").text("workspaceId")
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", "/workspaces/"+id+"/rulegroupsnamespaces", m{"name": "n", "data": []byte("a")}), 202, "")
	p.want(p.call(0, "ListRuleGroupsNamespaces", "GET", "/workspaces/"+id+"/rulegroupsnamespaces", nil), 200, "")
	if _, err := p.docs.Overwrite(context.Background(), "rules/"+id+"/n", []byte("wrong")); err != nil {
		t.Fatal(err)
	}
	for n := range p.replicas {
		a := p.want(p.call(n, "DescribeRuleGroupsNamespace", "GET", "/workspaces/"+id+"/rulegroupsnamespaces/n", nil), 200, "")
		if s := a.at("ruleGroupsNamespace", "status"); s.(m)["statusCode"] != "CREATION_FAILED" || s.(m)["statusReason"] != "line 1: wrong" {
			t.Errorf("replica %d: %v", n, s)
		}
	}
}

func TestAConfigurationThatProcessesLeaveOutIsFailed(t *testing.T) {
	type m = map[string]any
	p := newPlane(t, Config{}, 2)
	id := p.want(p.call(0, "CreateWorkspace", "POST", "/workspaces", m{}), 202, "").text("workspaceId")
	status := func() m {
		s, _ := p.want(p.call(1, "DescribeWorkspaceConfiguration", "GET", "/workspaces/"+id+"/configuration", nil), 200, "").at("workspaceConfiguration", "status").(m)
		return s
	}
	p.want(p.call(0, "UpdateWorkspaceConfiguration", "PATCH", "/workspaces/"+id+"/configuration", m{"retentionPeriodInDays": 30}), 202, "")
	if s := status(); s["statusCode"] != active {
		t.Errorf("status %v", s)
	}
	// As a version with other rules may have stored it.
	_, err := update(context.Background(), p.replicas[0], workspaceKey(id), func(w *workspace, _ bool) (bool, error) {
		set := labelSet{Labels: map[string]string{"a": "b"}}
		set.Limits.MaxSeries = 1
		w.Settings.LabelSets = []labelSet{set, set}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := status(); s["statusCode"] != "UPDATE_FAILED" || s["statusReason"] == nil {
		t.Errorf("status %v", s)
	}
}

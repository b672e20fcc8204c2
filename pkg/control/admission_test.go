package control

import (
	"net/http"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestAnAccountIsHeldToItsCallsWhereNoGatewayStandsBefore(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	left := map[string]int{"aps:CreateWorkspace": 1, "aps:ListWorkspaces": 2}
	p.replicas[0].deps.Allow = func(account, action string) error {
		if account != p.account {
			t.Errorf("the allowance of %s is used", account)
		}
		if left[action]--; left[action] < 0 {
			return errs.New(errs.RateLimited, "Rate exceeded")
		}
		return nil
	}
	if made := p.call(0, "CreateWorkspace", "POST", "/workspaces", nil); made.status != http.StatusAccepted {
		t.Fatalf("%+v", made)
	}
	if again := p.call(0, "CreateWorkspace", "POST", "/workspaces", nil); again.status != http.StatusTooManyRequests || again.code != "ThrottlingException" || again.text("message") == "" {
		t.Errorf("%+v", again)
	}
	listed := p.call(0, "ListWorkspaces", "GET", "/workspaces", nil)
	if all, _ := listed.at("workspaces").([]any); listed.status != http.StatusOK || len(all) != 1 {
		t.Errorf("a call that was throttled did something: %+v", listed)
	}
}

func TestWorkspacesAndScrapersOfAnAccountHaveTheirOwnQuotas(t *testing.T) {
	p := newPlane(t, Config{MaxWorkspaces: 1, MaxScrapers: 1}, 2)
	made := p.call(0, "CreateWorkspace", "POST", "/workspaces", map[string]any{"clientToken": "one"})
	scraper := map[string]any{"clientToken": "one", "scrapeConfiguration": map[string]any{"configurationBlob": "YQ=="}, "destination": map[string]any{"ampConfiguration": map[string]any{"workspaceArn": made.text("arn")}},
		"source": map[string]any{"eksConfiguration": map[string]any{"clusterArn": "arn:aws:eks:us-east-1:123456789012:cluster/c", "subnetIds": []string{"subnet-1"}}}}
	first := p.call(1, "CreateScraper", "POST", "/scrapers", scraper)
	if made.status != http.StatusAccepted || first.status != http.StatusAccepted {
		t.Fatalf("%+v %+v", made, first)
	}
	if again := p.call(0, "CreateScraper", "POST", "/scrapers", scraper); again.text("scraperId") != first.text("scraperId") {
		t.Errorf("the same client token: %+v", again)
	}
	if again := p.call(1, "CreateWorkspace", "POST", "/workspaces", map[string]any{"clientToken": "one"}); again.text("workspaceId") != made.text("workspaceId") {
		t.Errorf("the same client token: %+v", again)
	}
	scraper["clientToken"] = "two"
	for name, r := range map[string]answered{
		"Limit exceeded. Maximum scrapers per account.":   p.call(0, "CreateScraper", "POST", "/scrapers", scraper),
		"Limit exceeded. Maximum workspaces per account.": p.call(0, "CreateWorkspace", "POST", "/workspaces", nil),
	} {
		if r.status != http.StatusPaymentRequired || r.code != "ServiceQuotaExceededException" || r.text("message") != name {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestAScrapeConfigurationThatIsEncodedTwiceRunsAndStaysAsItWasPut(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	made := p.call(0, "CreateWorkspace", "POST", "/workspaces", nil)
	const once, twice = "c2NyYXBlX2NvbmZpZ3M6IFtd", "YzJOeVlYQmxYMk52Ym1acFozTTZJRnRk" // scrape_configs: []
	scraper := p.call(0, "CreateScraper", "POST", "/scrapers", map[string]any{"scrapeConfiguration": map[string]any{"configurationBlob": twice}, "destination": map[string]any{"ampConfiguration": map[string]any{"workspaceArn": made.text("arn")}},
		"source": map[string]any{"eksConfiguration": map[string]any{"clusterArn": "arn:aws:eks:us-east-1:123456789012:cluster/c", "subnetIds": []string{"subnet-1"}}}})
	if scraper.status != http.StatusAccepted {
		t.Fatalf("%+v", scraper)
	}
	shown := p.call(0, "DescribeScraper", "GET", "/scrapers/"+scraper.text("scraperId"), nil)
	if got := shown.text("scraper", "scrapeConfiguration", "configurationBlob"); got != twice {
		t.Errorf("described as %q", got)
	}
	for text, want := range map[string]string{once: "scrape_configs: []", "scrape_configs: []": "scrape_configs: []", "abc": "abc", "": ""} {
		if got := string(plain([]byte(text))); got != want {
			t.Errorf("%q is run as %q", text, got)
		}
	}
}

// TestARepeatedCallSaysThatItsWorkspaceIsGone: who repeats a call because the answer was lost is told what became of
// the workspace meanwhile, and not that something is being made in it.
func TestARepeatedCallSaysThatItsWorkspaceIsGone(t *testing.T) {
	p := newPlane(t, Config{}, 2)
	id := p.create(m{"alias": "a"})
	base := "/workspaces/" + id
	calls := []func() answered{
		func() answered {
			return p.call(1, "CreateRuleGroupsNamespace", "POST", base+"/rulegroupsnamespaces", m{"name": "a", "data": []byte("groups: []"), "clientToken": "one"})
		},
		func() answered {
			return p.call(1, "CreateAlertManagerDefinition", "POST", base+"/alertmanager/definition", m{"data": []byte("definition"), "clientToken": "two"})
		},
		func() answered {
			return p.call(1, "PutAlertManagerDefinition", "PUT", base+"/alertmanager/definition", m{"data": []byte("another"), "clientToken": "three"})
		},
		func() answered {
			return p.call(1, "DeleteRuleGroupsNamespace", "DELETE", base+"/rulegroupsnamespaces/a?clientToken=four", nil)
		},
	}
	for range 2 { // each once more while the workspace is there
		for _, call := range calls {
			p.want(call(), 202, "")
		}
	}
	p.want(p.call(0, "DeleteWorkspace", "DELETE", base+"?clientToken=five", nil), 202, "")
	for i, call := range calls {
		if a := p.want(call(), 404, "ResourceNotFoundException"); a.text("resourceType") != workspaceKind || a.text("resourceId") != id {
			t.Errorf("call %d is about %v", i, a.body)
		}
	}
	p.want(p.call(1, "DeleteWorkspace", "DELETE", base+"?clientToken=five", nil), 202, "")
}

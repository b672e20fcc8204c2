package control

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

//go:embed testdata/operations.json
var amazonsModel []byte

// modelled is what Amazon's model says of one operation.
type modelled struct {
	Method  string   `json:"method"`
	URI     string   `json:"uri"`
	Status  int      `json:"status"`
	Body    bool     `json:"body"`
	Answers []string `json:"answers"` // members that are always there
	Errors  []string `json:"errors"`
}

// theModel reads the facts of Amazon's model that an answer is held to.
var theModel = sync.OnceValues(func() (map[string]modelled, map[string]struct {
	Status  int      `json:"status"`
	Members []string `json:"members"`
},
) {
	var all struct {
		Operations map[string]modelled `json:"operations"`
		Errors     map[string]struct {
			Status  int      `json:"status"`
			Members []string `json:"members"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(amazonsModel, &all); err != nil {
		panic(err)
	}
	return all.Operations, all.Errors
})

// deviates says what is in an answer that Amazon's model does not have. Every call of every test is held to it.
func deviates(operation, method, path string, a answered) error {
	operations, faults := theModel()
	o, ok := operations[operation]
	if !ok {
		return fmt.Errorf("no operation")
	}
	if a.code == "" {
		if a.status != o.Status {
			return fmt.Errorf("status %d, not %d", a.status, o.Status)
		}
		for _, member := range o.Answers {
			if a.at(strings.Split(member, ".")...) == nil {
				return fmt.Errorf("no member %s", member)
			}
		}
		template := regexp.MustCompile(`\\\{[A-Za-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(o.URI), `[^/]+`)
		if strings.HasPrefix(o.URI, "/tags/") {
			template = "/tags/.+" // as the guide has it, with the ARN as it is
		}
		bare, _, _ := strings.Cut(path, "?")
		if method != o.Method || !regexp.MustCompile("^"+template+"$").MatchString(bare) {
			return fmt.Errorf("%s %s is not %s %s", method, path, o.Method, o.URI)
		}
		return nil
	}
	f, known := faults[a.code]
	// That there is a configuration already has no code of its own among those of the two.
	there := a.code == "ConflictException" && strings.HasPrefix(operation, "Create") && strings.HasSuffix(operation, "LoggingConfiguration")
	switch {
	case !known || !slices.Contains(o.Errors, a.code) && !there && a.code != "InternalServerException":
		return fmt.Errorf("error %s, which is none of %v", a.code, o.Errors)
	case f.Status != a.status:
		return fmt.Errorf("%s has status %d, not %d", a.code, a.status, f.Status)
	}
	for _, member := range f.Members {
		if a.body[member] == nil {
			return fmt.Errorf("%s without %s", a.code, member)
		}
	}
	return nil
}

// walked is one call of a walk through all operations. {w}, {s} and {arn} are what was made before.
type walked struct {
	operation, path string
	body            m
}

// wholeWalk calls every operation so that it succeeds.
func wholeWalk() []walked {
	const group = "arn:aws:logs:us-east-1:123456789012:log-group:g:*"
	const w, rules, definition = "/workspaces/{w}", "/workspaces/{w}/rulegroupsnamespaces", "/workspaces/{w}/alertmanager/definition"
	queries := m{"destinations": []m{{"cloudWatchLogs": m{"logGroupArn": group}, "filters": m{"qspThreshold": 0}}}}
	data := func() m { return m{"data": []byte("groups: []")} }
	return []walked{
		{"DescribeWorkspace", w, nil},
		{"ListWorkspaces", "/workspaces", nil},
		{"UpdateWorkspaceAlias", w + "/alias", m{"alias": "b"}},
		{"CreateRuleGroupsNamespace", rules, m{"name": "n", "data": []byte("groups: []")}},
		{"PutRuleGroupsNamespace", rules + "/n", data()},
		{"DescribeRuleGroupsNamespace", rules + "/n", nil},
		{"ListRuleGroupsNamespaces", rules, nil},
		{"DeleteRuleGroupsNamespace", rules + "/n", nil},
		{"CreateAlertManagerDefinition", definition, data()},
		{"PutAlertManagerDefinition", definition, data()},
		{"DescribeAlertManagerDefinition", definition, nil},
		{"DeleteAlertManagerDefinition", definition, nil},
		{"TagResource", "/tags/{arn}", m{"tags": m{"a": "b"}}},
		{"ListTagsForResource", "/tags/{arn}", nil},
		{"UntagResource", "/tags/{arn}?tagKeys=a", nil},
		{"CreateLoggingConfiguration", w + "/logging", m{"logGroupArn": group}},
		{"UpdateLoggingConfiguration", w + "/logging", m{"logGroupArn": group}},
		{"DescribeLoggingConfiguration", w + "/logging", nil},
		{"DeleteLoggingConfiguration", w + "/logging", nil},
		{"CreateQueryLoggingConfiguration", w + "/logging/query", queries},
		{"UpdateQueryLoggingConfiguration", w + "/logging/query", queries},
		{"DescribeQueryLoggingConfiguration", w + "/logging/query", nil},
		{"DeleteQueryLoggingConfiguration", w + "/logging/query", nil},
		{"UpdateWorkspaceConfiguration", w + "/configuration", m{"retentionPeriodInDays": 1}},
		{"DescribeWorkspaceConfiguration", w + "/configuration", nil},
		{"PutResourcePolicy", w + "/policy", m{"policyDocument": `{"Version":"2012-10-17","Statement":[]}`}},
		{"DescribeResourcePolicy", w + "/policy", nil},
		{"DeleteResourcePolicy", w + "/policy", nil},
		{"DescribeScraper", "/scrapers/{s}", nil},
		{"ListScrapers", "/scrapers", nil},
		{"UpdateScraper", "/scrapers/{s}", m{"alias": "b"}},
		{"GetDefaultScraperConfiguration", "/scraperconfiguration", nil},
		{"UpdateScraperLoggingConfiguration", "/scrapers/{s}/logging-configuration", m{"loggingDestination": m{"cloudWatchLogs": m{"logGroupArn": group}}}},
		{"DescribeScraperLoggingConfiguration", "/scrapers/{s}/logging-configuration", nil},
		{"DeleteScraperLoggingConfiguration", "/scrapers/{s}/logging-configuration", nil},
		{"DeleteScraper", "/scrapers/{s}", nil},
		{"DeleteWorkspace", w, nil},
	}
}

// TestEveryOperationAnswersAsAmazonsModelSays calls every operation of the model so that it succeeds, for what does not
// exist, and with a body that is none. What call itself checks are statuses, members, codes and methods.
func TestEveryOperationAnswersAsAmazonsModelSays(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	operations, _ := theModel()
	id := p.create(m{"alias": "a"})
	scraper := p.want(p.call(0, "CreateScraper", "POST", "/scrapers", withScraper(id, "c")), 202, "").text("scraperId")
	put := func(path, w, s string) string {
		arn := url.PathEscape("arn:aws:aps:us-east-1:123456789012:workspace/" + w)
		return strings.NewReplacer("{w}", w, "{s}", s, "{arn}", arn).Replace(path)
	}
	seen := map[string]bool{"CreateWorkspace": true, "CreateScraper": true}
	for _, c := range wholeWalk() {
		o := operations[c.operation]
		seen[c.operation] = true
		if strings.Contains(c.path, "{") {
			p.want(p.call(0, c.operation, o.Method, put(c.path, "ws-none", "s-none"), c.body), 404, "ResourceNotFoundException")
		}
		p.want(p.call(0, c.operation, o.Method, put(c.path, id, scraper), c.body), o.Status, "")
		if !o.Body {
			continue
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequest(o.Method, put(c.path, id, scraper), strings.NewReader("{"))
		if err := p.replicas[0].Operation(c.operation)(w, r); err != nil || w.Code != 400 || !strings.Contains(w.Body.String(), `"reason":"CANNOT_PARSE"`) {
			t.Errorf("%s with half a body: %d %s %v", c.operation, w.Code, w.Body, err)
		}
	}
	for name := range operations {
		if served := p.replicas[0].Operation(name) != nil; served == strings.Contains(name, "AnomalyDetector") || served != seen[name] {
			t.Errorf("%s is served: %t, and was walked: %t", name, served, seen[name])
		}
	}
}

package control

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// scraperBody is what makes a scraper that writes into workspace.
func scraperBody(p *plane, workspace string, more m) m {
	body := m{
		"scrapeConfiguration": m{"configurationBlob": []byte("scrape_configs: []\r\n")},
		"source":              m{"eksConfiguration": m{"clusterArn": "arn:aws:eks:us-east-1:123456789012:cluster/c", "subnetIds": []string{"subnet-1"}}},
		"destination":         m{"ampConfiguration": m{"workspaceArn": "arn:aws:aps:us-east-1:" + p.account + ":workspace/" + workspace}},
	}
	for k, v := range more {
		if body[k] = v; v == nil {
			delete(body, k)
		}
	}
	return body
}

func (p *plane) scraperState(id string) (code, reason string) {
	p.t.Helper()
	d := p.want(p.call(1, "DescribeScraper", "GET", "/scrapers/"+id, nil), 200, "")
	return d.text("scraper", "status", "statusCode"), d.text("scraper", "statusReason")
}

func TestAScraperLivesAsTheModelSays(t *testing.T) {
	p := newPlane(t, Config{}, 2)
	ws := p.create(nil)
	made := p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, m{"alias": "a", "tags": m{"k": "v"}, "clientToken": "t"})), 202, "")
	id := made.text("scraperId")
	if !strings.HasPrefix(id, "s-") || made.text("status", "statusCode") != "CREATING" || made.text("arn") != "arn:aws:aps:us-east-1:123456789012:scraper/"+id || made.text("tags", "k") != "v" {
		t.Fatalf("made %v", made.body)
	}
	again := p.want(p.call(1, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, m{"alias": "a", "tags": m{"k": "v"}, "clientToken": "t"})), 202, "")
	if again.text("scraperId") != id {
		t.Errorf("the same call made %v, too", again.body)
	}
	p.want(p.call(1, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, m{"alias": "b", "clientToken": "t"})), 409, "ConflictException")
	d := p.want(p.call(1, "DescribeScraper", "GET", "/scrapers/"+id, nil), 200, "")
	if d.text("scraper", "scrapeConfiguration", "configurationBlob") != base64.StdEncoding.EncodeToString([]byte("scrape_configs: []\r\n")) ||
		d.text("scraper", "source", "eksConfiguration", "clusterArn") == "" || d.text("scraper", "destination", "ampConfiguration", "workspaceArn") == "" ||
		d.text("scraper", "roleArn") == "" || d.at("scraper", "createdAt") == nil || d.at("scraper", "lastModifiedAt") == nil {
		t.Errorf("described as %v", d.body)
	}
	list := NewScrapers(p.docs, NewDirectory(p.docs))
	run, err := list.List(t.Context())
	if err != nil || len(run) != 1 || run[0].ID != id || run[0].Workspace != ws || run[0].Applied {
		t.Fatalf("to run: %+v, %v", run, err)
	}
	report := func(revision, problem string) {
		t.Helper()
		if err := list.Report(t.Context(), id, revision, problem); err != nil {
			t.Fatal(err)
		}
	}
	report(run[0].Revision, "no such thing")
	if code, reason := p.scraperState(id); code != "CREATION_FAILED" || reason != "no such thing" {
		t.Errorf("is %s: %s", code, reason)
	}
	report(run[0].Revision, "")
	if code, _ := p.scraperState(id); code != "ACTIVE" {
		t.Errorf("is %s", code)
	}
	updated := p.want(p.call(1, "UpdateScraper", "PUT", "/scrapers/"+id, m{"scrapeConfiguration": m{"configurationBlob": []byte("newer")}, "clientToken": "u"}), 202, "")
	if updated.text("status", "statusCode") != "UPDATING" || updated.text("scraperId") != id {
		t.Errorf("updated: %v", updated.body)
	}
	if code, _ := p.scraperState(id); code != "UPDATING" {
		t.Errorf("is %s", code)
	}
	report(run[0].Revision, "") // that was of the older revision
	if code, _ := p.scraperState(id); code != "UPDATING" {
		t.Errorf("is %s", code)
	}
	if run, err = list.List(t.Context()); err != nil || len(run) != 1 || string(run[0].Config) != "newer" {
		t.Fatalf("to run: %+v, %v", run, err)
	}
	report(run[0].Revision, strings.Repeat("long ", 100))
	if code, reason := p.scraperState(id); code != "UPDATE_FAILED" || len(reason) != maxReason {
		t.Errorf("is %s: %s", code, reason)
	}
	gone := p.want(p.call(0, "DeleteScraper", "DELETE", "/scrapers/"+id+"?clientToken=d", nil), 202, "")
	if gone.text("status", "statusCode") != "DELETING" || gone.text("scraperId") != id {
		t.Errorf("deleted: %v", gone.body)
	}
	p.want(p.call(1, "DeleteScraper", "DELETE", "/scrapers/"+id+"?clientToken=d", nil), 202, "")
	p.want(p.call(1, "DeleteScraper", "DELETE", "/scrapers/"+id, nil), 404, "ResourceNotFoundException")
	p.want(p.call(1, "DescribeScraper", "GET", "/scrapers/"+id, nil), 404, "ResourceNotFoundException")
	if run, err = list.List(t.Context()); err != nil || len(run) != 0 {
		t.Errorf("to run: %+v, %v", run, err)
	}
}

func TestADeletionOfAScraperThatWasCutShortIsFinished(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	id := p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, p.create(nil), nil)), 202, "").text("scraperId")
	_, err := update(t.Context(), p.replicas[0], scraperKey(id), func(d *scraperDoc, _ bool) (bool, error) {
		d.State = deleting
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := p.scraperState(id); code != "DELETING" {
		t.Errorf("is %s", code)
	}
	if err := p.replicas[0].cleanAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.want(p.call(0, "DescribeScraper", "GET", "/scrapers/"+id, nil), 404, "ResourceNotFoundException")
	if l := p.call(0, "ListScrapers", "GET", "/scrapers", nil); len(l.at("scrapers").([]any)) != 0 {
		t.Errorf("listed %v", l.body)
	}
}

func TestScrapersOfAWorkspaceThatIsGoneDoNotRun(t *testing.T) {
	p := newPlane(t, Config{PurgeAfter: time.Hour}, 2)
	ws := p.create(nil)
	id := p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, nil)), 202, "").text("scraperId")
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+ws, nil), 202, "")
	run, err := NewScrapers(p.docs, NewDirectory(p.docs)).List(t.Context())
	if err != nil || len(run) != 0 {
		t.Errorf("to run: %+v, %v", run, err)
	}
	if _, reason := p.scraperState(id); !strings.Contains(reason, "does not exist") {
		t.Errorf("reason %q", reason)
	}
	if err := p.replicas[0].Restore(t.Context(), ws); err != nil {
		t.Fatal(err)
	}
	if run, err = NewScrapers(p.docs, NewDirectory(p.docs)).List(t.Context()); err != nil || len(run) != 1 {
		t.Errorf("to run: %+v, %v", run, err)
	}
}

func TestWrongScrapersAreRefused(t *testing.T) {
	p := newPlane(t, Config{MaxScrapers: 1}, 1)
	ws := p.create(nil)
	for name, more := range map[string]m{
		"no configuration":    {"scrapeConfiguration": nil},
		"wrong configuration": {"scrapeConfiguration": m{"configurationBlob": []byte("wrong")}},
		"empty configuration": {"scrapeConfiguration": m{}},
		"no source":           {"source": nil},
		"two sources":         {"source": m{"eksConfiguration": m{}, "vpcConfiguration": m{}}},
		"no subnets":          {"source": m{"vpcConfiguration": m{"securityGroupIds": []string{"sg-1"}}}},
		"wrong subnet":        {"source": m{"vpcConfiguration": m{"securityGroupIds": []string{"sg-1"}, "subnetIds": []string{"x"}}}},
		"no destination":      {"destination": nil},
		"other destination":   {"destination": m{"cloudWatchConfiguration": m{"datasetArn": "x"}}},
		"strange destination": {"destination": m{"ampConfiguration": m{"workspaceArn": "x"}}},
		"exporter":            {"exporters": []m{{"openSearchConfiguration": m{}}}},
		"alias":               {"alias": "-"},
		"role":                {"roleConfiguration": m{"sourceRoleArn": "x"}},
		"tag":                 {"tags": m{"aws:x": "y"}},
		"token":               {"clientToken": "a b"},
	} {
		t.Run(name, func(t *testing.T) {
			p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, more)), 400, "ValidationException")
		})
	}
	p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, "ws-none", nil)), 404, "ResourceNotFoundException")
	foreign := m{"destination": m{"ampConfiguration": m{"workspaceArn": "arn:aws:aps:us-east-1:999999999999:workspace/" + ws}}}
	p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, foreign)), 404, "ResourceNotFoundException")
	id := p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, nil)), 202, "").text("scraperId")
	p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, nil)), 402, "ServiceQuotaExceededException")
	p.account = "999999999999"
	for _, c := range [][3]string{{"DescribeScraper", "GET", ""}, {"UpdateScraper", "PUT", ""}, {"DeleteScraper", "DELETE", ""}, {"DescribeScraperLoggingConfiguration", "GET", "/logging-configuration"}} {
		p.want(p.call(0, c[0], c[1], "/scrapers/"+id+c[2], nil), 404, "ResourceNotFoundException")
	}
	// A workspace of the caller's own does not make the scraper of another account the caller's.
	p.want(p.call(0, "ListTagsForResource", "GET", "/tags/arn:aws:aps:us-east-1:123456789012:scraper/"+id, nil), 404, "ResourceNotFoundException")
}

func TestScrapersAreListedByFilters(t *testing.T) {
	p := newPlane(t, Config{}, 2)
	one, two := p.create(nil), p.create(nil)
	for i := range 5 {
		ws := one
		if i > 2 {
			ws = two
		}
		p.want(p.call(i, "CreateScraper", "POST", "/scrapers", scraperBody(p, ws, m{"alias": fmt.Sprint("a", i)})), 202, "")
	}
	aliases := func(query string) string {
		t.Helper()
		var out []string
		for token := ""; ; {
			l := p.want(p.call(1, "ListScrapers", "GET", "/scrapers?maxResults=2&"+query+"&nextToken="+url.QueryEscape(token), nil), 200, "")
			for _, s := range l.at("scrapers").([]any) {
				if s.(m)["scrapeConfiguration"] != nil {
					t.Errorf("a listing has configurations")
				}
				out = append(out, s.(m)["alias"].(string))
			}
			if token = l.text("nextToken"); token == "" {
				return strings.Join(out, " ")
			}
		}
	}
	arn := "arn:aws:aps:us-east-1:123456789012:workspace/"
	for query, want := range map[string]string{
		"":                  "a0 a1 a2 a3 a4",
		"alias=a1&alias=a4": "a1 a4",
		"alias=a1&alias=a4&destinationArn=" + arn + two: "a4",
		"status=CREATING&destinationArn=" + arn + one:   "a0 a1 a2",
		"status=ACTIVE": "",
		"sourceArn=" + url.QueryEscape("arn:aws:eks:us-east-1:123456789012:cluster/c"): "a0 a1 a2 a3 a4",
		"sourceArn=x": "",
	} {
		if got := aliases(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	p.want(p.call(0, "ListScrapers", "GET", "/scrapers?name=x", nil), 400, "ValidationException")
	p.want(p.call(0, "ListScrapers", "GET", "/scrapers?alias=", nil), 400, "ValidationException")
	first := p.call(0, "ListScrapers", "GET", "/scrapers?maxResults=2", nil)
	p.want(p.call(0, "ListScrapers", "GET", "/scrapers?alias=a1&nextToken="+first.text("nextToken"), nil), 400, "ValidationException")
}

func TestScrapersHaveTagsAndALog(t *testing.T) {
	p := newPlane(t, Config{}, 2)
	id := p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraperBody(p, p.create(nil), nil)), 202, "").text("scraperId")
	tags := "/tags/" + url.PathEscape("arn:aws:aps:us-east-1:123456789012:scraper/"+id)
	p.want(p.call(0, "TagResource", "POST", tags, m{"tags": m{"a": "1", "b": "2"}}), 200, "")
	p.want(p.call(1, "UntagResource", "DELETE", tags+"?tagKeys=a", nil), 200, "")
	if l := p.want(p.call(0, "ListTagsForResource", "GET", tags, nil), 200, ""); fmt.Sprint(l.at("tags")) != "map[b:2]" {
		t.Errorf("tags %v", l.body)
	}
	logs := "/scrapers/" + id + "/logging-configuration"
	group := "arn:aws:logs:us-east-1:123456789012:log-group:g:*"
	p.want(p.call(0, "DescribeScraperLoggingConfiguration", "GET", logs, nil), 404, "ResourceNotFoundException")
	p.want(p.call(0, "DeleteScraperLoggingConfiguration", "DELETE", logs, nil), 404, "ResourceNotFoundException")
	p.want(p.call(0, "UpdateScraperLoggingConfiguration", "PUT", logs, m{"loggingDestination": m{"cloudWatchLogs": m{"logGroupArn": "x"}}}), 400, "ValidationException")
	p.want(p.call(0, "UpdateScraperLoggingConfiguration", "PUT", logs, m{"loggingDestination": m{"cloudWatchLogs": m{"logGroupArn": group}}, "scraperComponents": []m{{"type": "X"}}}), 400, "ValidationException")
	put := p.want(p.call(0, "UpdateScraperLoggingConfiguration", "PUT", logs, m{"loggingDestination": m{"cloudWatchLogs": m{"logGroupArn": group}},
		"scraperComponents": []m{{"type": "COLLECTOR", "config": m{"options": m{"a": "b"}}}}}), 202, "")
	if put.text("status", "statusCode") != "CREATING" {
		t.Errorf("put: %v", put.body)
	}
	d := p.want(p.call(1, "DescribeScraperLoggingConfiguration", "GET", logs, nil), 200, "")
	if parts, err := json.Marshal(d.at("scraperComponents")); err != nil || string(parts) != `[{"config":{"options":{"a":"b"}},"type":"COLLECTOR"}]` || d.text("loggingDestination", "cloudWatchLogs", "logGroupArn") != group {
		t.Errorf("described as %v, %v", d.body, err)
	}
	run, err := NewScrapers(p.docs, NewDirectory(p.docs)).List(t.Context())
	if err != nil || len(run) != 1 || !slices.Equal(run[0].Logs, []string{"COLLECTOR"}) || run[0].LogGroup != group {
		t.Errorf("to run: %+v, %v", run, err)
	}
	p.want(p.call(0, "DeleteScraperLoggingConfiguration", "DELETE", logs+"?clientToken=x", nil), 202, "")
	p.want(p.call(1, "DeleteScraperLoggingConfiguration", "DELETE", logs+"?clientToken=x", nil), 202, "")
	if c := p.want(p.call(0, "GetDefaultScraperConfiguration", "GET", "/scraperconfiguration", nil), 200, ""); c.text("configuration") != base64.StdEncoding.EncodeToString(defaultScrape) {
		t.Errorf("default %v", c.body)
	}
}

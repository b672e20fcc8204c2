package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/amp/types"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// target serves a metric.
func target(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("# HELP things Things.\n# TYPE things gauge\nthings{kind=\"x\"} 5\n"))
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// createScraper makes a scraper of one target for a new workspace, which is returned with its id.
func createScraper(ctx context.Context, t *testing.T, client *amp.Client, at string) (workspace, id string) {
	t.Helper()
	w, err := client.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{})
	must(t, err)
	made, err := client.CreateScraper(ctx, &amp.CreateScraperInput{
		Alias: aws.String("mine"), Tags: map[string]string{"k": "v"},
		ScrapeConfiguration: &types.ScrapeConfigurationMemberConfigurationBlob{Value: []byte("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs: [{job_name: j, static_configs: [{targets: [\"" + at + "\"]}]}]\n")},
		Source:              &types.SourceMemberEksConfiguration{Value: types.EksConfiguration{ClusterArn: aws.String("arn:aws:eks:us-east-1:123456789012:cluster/c"), SubnetIds: []string{"subnet-1"}}},
		Destination:         &types.DestinationMemberAmpConfiguration{Value: types.AmpConfiguration{WorkspaceArn: w.Arn}},
	})
	must(t, err)
	if made.Status.StatusCode != types.ScraperStatusCodeCreating {
		t.Errorf("made %v", made.Status)
	}
	return *w.WorkspaceId, *made.ScraperId
}

// sampleAge is how old the newest sample of the target is, at most a minute.
func sampleAge(ctx context.Context, n *harness.Node, workspace string) (time.Duration, error) {
	v, err := instant(ctx, n, workspace, "time() - max(timestamp(things))")
	if err != nil || len(v) == 0 {
		return time.Minute, errors.Join(err, fmt.Errorf("%d series", len(v)))
	}
	return time.Duration(v[0] * float64(time.Second)), nil
}

// instant returns the values of the answer to a query.
func instant(ctx context.Context, n *harness.Node, id, query string) ([]float64, error) {
	body, err := harness.Get(ctx, n.URL("/prometheus/api/v1/query?query="+url.QueryEscape(query)), "X-Scope-OrgID", id)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Value []any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	var out []float64
	for _, r := range answer.Data.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func scraperFlags() []string {
	return []string{"-scraper.allowed-networks=127.0.0.0/8", "-scraper.min-interval=1s", "-scraper.poll-interval=1s", "-scraper.ring.heartbeat-period=500ms", "-scraper.ring.heartbeat-timeout=3s"}
}

// TestAmazonsSDKManagesScrapers makes one, reads what it scraped, changes it and deletes it.
func TestAmazonsSDKManagesScrapers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: harness.OneProcess(), Flags: scraperFlags()})
	n := c.Nodes()[0]
	client := workspaces(n.URL(""), 3)
	workspace, id := createScraper(ctx, t, client, target(t))
	must(t, amp.NewScraperActiveWaiter(client, func(o *amp.ScraperActiveWaiterOptions) { o.MinDelay, o.MaxDelay = 100*time.Millisecond, time.Second }).
		Wait(ctx, &amp.DescribeScraperInput{ScraperId: &id}, time.Minute))
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		_, err := sampleAge(ctx, n, workspace)
		return err
	}))
	d, err := client.DescribeScraper(ctx, &amp.DescribeScraperInput{ScraperId: &id})
	must(t, err)
	if *d.Scraper.Alias != "mine" || d.Scraper.Tags["k"] != "v" || !strings.HasSuffix(*d.Scraper.Arn, ":scraper/"+id) || d.Scraper.RoleArn == nil || d.Scraper.Source == nil {
		t.Errorf("described as %+v", d.Scraper)
	}
	_, err = client.TagResource(ctx, &amp.TagResourceInput{ResourceArn: d.Scraper.Arn, Tags: map[string]string{"x": "y"}})
	must(t, err)
	l, err := client.ListScrapers(ctx, &amp.ListScrapersInput{Filters: map[string][]string{"alias": {"other", "mine"}, "status": {"ACTIVE"}}})
	must(t, err)
	if len(l.Scrapers) != 1 || len(l.Scrapers[0].Tags) != 2 {
		t.Errorf("listed %+v", l.Scrapers)
	}
	// One that reaches for the machine itself: neither files nor addresses.
	_, err = client.UpdateScraper(ctx, &amp.UpdateScraperInput{ScraperId: &id, ScrapeConfiguration: &types.ScrapeConfigurationMemberConfigurationBlob{
		Value: []byte("scrape_configs: [{job_name: j, bearer_token_file: /etc/passwd, static_configs: [{targets: [x]}]}]")}})
	if bad := new(types.ValidationException); !errors.As(err, &bad) || !strings.Contains(*bad.Message, "bearer_token_file") {
		t.Errorf("a file of the server: %v", err)
	}
	_, err = client.DeleteScraper(ctx, &amp.DeleteScraperInput{ScraperId: &id})
	must(t, err)
	must(t, amp.NewScraperDeletedWaiter(client).Wait(ctx, &amp.DescribeScraperInput{ScraperId: &id}, time.Minute))
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		if v, err := instant(ctx, n, workspace, "things"); err != nil || len(v) > 0 {
			return errors.Join(err, fmt.Errorf("%v are still there", v))
		}
		return nil
	}))
}

// TestAScraperMovesWhenItsProcessDies kills the process that runs a scraper, and starts it again.
func TestAScraperMovesWhenItsProcessDies(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	nodes := []harness.Spec{{Name: "core", Target: "ingester,distributor,querier,store-gateway,control"}, {Name: "scraper-1", Target: "scraper"}, {Name: "scraper-2", Target: "scraper"}}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Replicas: 1, Flags: scraperFlags()})
	core := c.Node("core")
	workspace, id := createScraper(ctx, t, workspaces(core.URL(""), 3), target(t))
	fresh := func(ctx context.Context) error {
		age, err := sampleAge(ctx, core, workspace)
		if err == nil && age > 3*time.Second {
			err = fmt.Errorf("the newest sample is %s old", age)
		}
		return err
	}
	must(t, harness.Poll(ctx, fresh))
	runs := func() *harness.Node {
		t.Helper()
		var found *harness.Node
		must(t, harness.Poll(ctx, func(ctx context.Context) error {
			found = nil
			for _, n := range c.Running() {
				if n == core {
					continue
				}
				text, err := harness.Get(ctx, n.URL("/metrics"))
				if err != nil {
					return err
				}
				if !strings.Contains(string(text), "amphora_scraper_running 1") {
					continue
				}
				if found != nil {
					return fmt.Errorf("%s and %s run %s", found.Spec.Name, n.Spec.Name, id)
				}
				found = n
			}
			if found == nil {
				return errors.New("nobody runs it")
			}
			return nil
		}))
		return found
	}
	first := runs()
	must(t, first.Kill())
	began := time.Now()
	other := runs()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		age, err := sampleAge(ctx, core, workspace)
		if err == nil && age > time.Since(began) {
			err = errors.New("the newest sample is of the dead process")
		}
		return err
	}))
	t.Logf("%s took over from %s and had samples after %s", other.Spec.Name, first.Spec.Name, time.Since(began))
	if other == first {
		t.Error("the dead process runs it")
	}
	must(t, first.Restart())
	must(t, c.WaitReady(ctx))
	must(t, harness.Poll(ctx, func(context.Context) error { // it returns to its owner, and runs in one process again
		if n := runs(); n != first {
			return fmt.Errorf("%s runs it", n.Spec.Name)
		}
		return nil
	}))
	must(t, harness.Poll(ctx, fresh))
}

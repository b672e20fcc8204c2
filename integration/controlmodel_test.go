package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/amp/types"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// owned is what a caller knows of a workspace that it alone changes, or of a scraper.
type owned struct {
	alias      string
	tags       map[string]string
	definition string            // empty: none
	rules      map[string]string // text by name
}

// caller is who makes calls, with what it knows.
type caller struct {
	t                   *testing.T
	nodes               []*harness.Node
	rnd                 *rand.Rand
	calls               *atomic.Int64
	workspaces, scraper map[string]*owned // by id
	n                   int
}

// TestNoCallOfTheControlPlaneIsLostWhenReplicasAreKilled makes a thousand random calls at three replicas, by many
// callers at the same time, and compares every answer with what its caller did before.
func TestNoCallOfTheControlPlaneIsLostWhenReplicasAreKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 8*time.Minute)
	shared := filepath.Join(t.TempDir(), "bucket")
	var nodes []harness.Spec
	for i := range 3 {
		nodes = append(nodes, harness.Spec{Name: fmt.Sprint("control-", i), Target: "control"})
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Files: true,
		Flags: []string{"-blocks-storage.filesystem.dir=" + shared, "-control.max-scrapers-per-account=0"}})

	const many, rivals, least, leastKills = 20, 4, 1000, 15
	var wg sync.WaitGroup
	var calls, kills atomic.Int64
	callers := make([]*caller, many)
	fought := newRivalry(ctx, t, c.Nodes(), rivals)
	for _, r := range fought {
		wg.Go(func() {
			for (calls.Load() < least || kills.Load() < leastKills) && ctx.Err() == nil && !t.Failed() {
				if int64(r.n) >= rivalCalls*(kills.Load()+1) {
					select {
					case <-ctx.Done():
					case <-time.After(10 * time.Millisecond):
					}
					continue
				}
				calls.Add(1)
				r.step(ctx)
			}
		})
	}
	for n := range many {
		m := &caller{t: t, nodes: c.Nodes(), rnd: rand.New(rand.NewPCG(uint64(n), 1)), calls: &calls, workspaces: map[string]*owned{}, scraper: map[string]*owned{}}
		callers[n] = m
		wg.Go(func() {
			for (calls.Load() < least || kills.Load() < leastKills) && ctx.Err() == nil && !t.Failed() {
				m.step(ctx)
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	victims := rand.New(rand.NewPCG(7, 7))
	for going := true; going; {
		select {
		case <-done:
			going = false
		case <-time.After(100 * time.Millisecond):
			n := c.Nodes()[victims.IntN(3)]
			must(t, errors.Join(n.Kill(), n.Start(), n.WaitReady(ctx)))
			kills.Add(1)
		}
	}
	must(t, c.WaitReady(ctx))
	t.Logf("%d calls, %d kills", calls.Load(), kills.Load())
	if calls.Load() < least || kills.Load() < leastKills {
		t.Errorf("%d calls and %d kills are too few", calls.Load(), kills.Load())
	}
	checkRivalry(t, fought)
	wanted, scrapers := map[string]*owned{fought[0].workspace: {alias: "rivals"}}, map[string]*owned{}
	for _, m := range callers {
		maps.Copy(wanted, m.workspaces)
		maps.Copy(scrapers, m.scraper)
	}
	for _, n := range c.Nodes() {
		compareAll(ctx, t, n, wanted, scrapers)
	}
}

// compareAll compares what a replica lists with what callers know.
func compareAll(ctx context.Context, t *testing.T, n *harness.Node, workspacesWanted, scrapersWanted map[string]*owned) {
	t.Helper()
	client := workspaces(n.URL(""), 5)
	got := map[string]string{}
	for p := amp.NewListWorkspacesPaginator(client, &amp.ListWorkspacesInput{MaxResults: aws.Int32(7)}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		must(t, err)
		for _, w := range page.Workspaces {
			got[*w.WorkspaceId] = *w.Alias
		}
	}
	for p := amp.NewListScrapersPaginator(client, &amp.ListScrapersInput{MaxResults: aws.Int32(7)}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		must(t, err)
		for _, s := range page.Scrapers {
			got[*s.ScraperId] = *s.Alias
		}
	}
	if want := len(workspacesWanted) + len(scrapersWanted); len(got) != want {
		t.Errorf("%s lists %d workspaces and scrapers, want %d", n.Spec.Name, len(got), want)
	}
	for _, all := range []map[string]*owned{workspacesWanted, scrapersWanted} {
		for id, o := range all {
			if alias, ok := got[id]; !ok || alias != o.alias {
				t.Errorf("%s: %s has alias %q, want %q", n.Spec.Name, id, alias, o.alias)
			}
		}
	}
}

// anyReplica makes a call at one replica after the other until one answers, as a client of a load
// balancer would: the same call, with the same token.
func (m *caller) anyReplica(ctx context.Context, what string, call func(*amp.Client) error) bool {
	m.calls.Add(1)
	var err error
	for ctx.Err() == nil {
		if err = call(workspaces(m.nodes[m.rnd.IntN(len(m.nodes))].URL(""), 1)); err == nil {
			return true
		}
		if finalAnswer(err) {
			break
		}
	}
	m.t.Errorf("%s: %v", what, errors.Join(err, ctx.Err()))
	return false
}

// finalAnswer says whether the answer of a call is final.
func finalAnswer(err error) bool {
	missing, there, bad, quota := new(types.ResourceNotFoundException), new(types.ConflictException), new(types.ValidationException), new(types.ServiceQuotaExceededException)
	return errors.As(err, &missing) || errors.As(err, &there) || errors.As(err, &bad) || errors.As(err, &quota)
}

func pick[V any](m *caller, from map[string]V) string {
	ids := slices.Sorted(maps.Keys(from))
	return ids[m.rnd.IntN(len(ids))]
}

// step makes one random call.
func (m *caller) step(ctx context.Context) {
	m.n++
	token := aws.String(fmt.Sprintf("%d-%d", m.rnd.Uint64(), m.n))
	if len(m.workspaces) == 0 || m.rnd.IntN(8) == 0 {
		alias := fmt.Sprint("alias", m.n)
		m.anyReplica(ctx, "create", func(c *amp.Client) error {
			out, err := c.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Alias: &alias, ClientToken: token})
			if err == nil {
				m.workspaces[*out.WorkspaceId] = &owned{alias: alias, tags: map[string]string{}, rules: map[string]string{}}
			}
			return err
		})
		return
	}
	id := pick(m, m.workspaces)
	switch o := m.workspaces[id]; m.rnd.IntN(9) {
	case 0:
		m.deleteWorkspace(ctx, id, token)
	case 1:
		m.rename(ctx, id, token)
	case 2, 3:
		m.retag(ctx, id, o)
	case 4:
		m.define(ctx, id, o, token)
	case 5:
		m.changeRules(ctx, id, o, token)
	case 6:
		m.changeScraper(ctx, id, token)
	default:
		m.compare(ctx, id, o)
	}
}

func (m *caller) deleteWorkspace(ctx context.Context, id string, token *string) {
	if m.anyReplica(ctx, "delete "+id, func(c *amp.Client) error {
		_, err := c.DeleteWorkspace(ctx, &amp.DeleteWorkspaceInput{WorkspaceId: &id, ClientToken: token})
		return err
	}) {
		delete(m.workspaces, id)
	}
}

func (m *caller) rename(ctx context.Context, id string, token *string) {
	alias := fmt.Sprint("alias", m.n)
	if m.anyReplica(ctx, "rename "+id, func(c *amp.Client) error {
		_, err := c.UpdateWorkspaceAlias(ctx, &amp.UpdateWorkspaceAliasInput{WorkspaceId: &id, Alias: &alias, ClientToken: token})
		return err
	}) {
		m.workspaces[id].alias = alias
	}
}

// arnOf names a workspace of the operator's account.
func arnOf(workspace string) *string {
	return aws.String("arn:aws:aps:us-east-1:000000000000:workspace/" + workspace)
}

// retag sets one tag or takes one away.
func (m *caller) retag(ctx context.Context, id string, o *owned) {
	arn, key := arnOf(id), fmt.Sprint("k", m.rnd.IntN(3))
	if m.rnd.IntN(3) == 0 {
		if m.anyReplica(ctx, "untag "+id, func(c *amp.Client) error {
			_, err := c.UntagResource(ctx, &amp.UntagResourceInput{ResourceArn: arn, TagKeys: []string{key}})
			return err
		}) {
			delete(o.tags, key)
		}
		return
	}
	value := fmt.Sprint(m.n)
	if m.anyReplica(ctx, "tag "+id, func(c *amp.Client) error {
		_, err := c.TagResource(ctx, &amp.TagResourceInput{ResourceArn: arn, Tags: map[string]string{key: value}})
		return err
	}) {
		o.tags[key] = value
	}
}

// define makes, replaces or deletes the alert manager definition.
func (m *caller) define(ctx context.Context, id string, o *owned, token *string) {
	text := fmt.Sprintf("# %d\nalertmanager_config: |\n  route: {receiver: a}\n  receivers: [{name: a}]\n", m.n)
	switch {
	case o.definition == "":
		if m.anyReplica(ctx, "define "+id, func(c *amp.Client) error {
			_, err := c.CreateAlertManagerDefinition(ctx, &amp.CreateAlertManagerDefinitionInput{WorkspaceId: &id, Data: []byte(text), ClientToken: token})
			return err
		}) {
			o.definition = text
		}
	case m.rnd.IntN(3) == 0:
		if m.anyReplica(ctx, "undefine "+id, func(c *amp.Client) error {
			_, err := c.DeleteAlertManagerDefinition(ctx, &amp.DeleteAlertManagerDefinitionInput{WorkspaceId: &id, ClientToken: token})
			return err
		}) {
			o.definition = ""
		}
	default:
		if m.anyReplica(ctx, "redefine "+id, func(c *amp.Client) error {
			_, err := c.PutAlertManagerDefinition(ctx, &amp.PutAlertManagerDefinitionInput{WorkspaceId: &id, Data: []byte(text), ClientToken: token})
			return err
		}) {
			o.definition = text
		}
	}
}

// changeRules makes, replaces or deletes a rule file.
func (m *caller) changeRules(ctx context.Context, id string, o *owned, token *string) {
	name := fmt.Sprint("n", m.rnd.IntN(3))
	text := fmt.Sprintf("groups:\n- name: g\n  rules:\n  - record: a\n    expr: vector(%d)\n", m.n)
	switch {
	case o.rules[name] == "":
		if m.anyReplica(ctx, "make rules "+id, func(c *amp.Client) error {
			_, err := c.CreateRuleGroupsNamespace(ctx, &amp.CreateRuleGroupsNamespaceInput{WorkspaceId: &id, Name: &name, Data: []byte(text), ClientToken: token})
			return err
		}) {
			o.rules[name] = text
		}
	case m.rnd.IntN(3) == 0:
		if m.anyReplica(ctx, "delete rules "+id, func(c *amp.Client) error {
			_, err := c.DeleteRuleGroupsNamespace(ctx, &amp.DeleteRuleGroupsNamespaceInput{WorkspaceId: &id, Name: &name, ClientToken: token})
			return err
		}) {
			delete(o.rules, name)
		}
	default:
		if m.anyReplica(ctx, "replace rules "+id, func(c *amp.Client) error {
			_, err := c.PutRuleGroupsNamespace(ctx, &amp.PutRuleGroupsNamespaceInput{WorkspaceId: &id, Name: &name, Data: []byte(text), ClientToken: token})
			return err
		}) {
			o.rules[name] = text
		}
	}
}

func scrapeText(n int) *types.ScrapeConfigurationMemberConfigurationBlob {
	return &types.ScrapeConfigurationMemberConfigurationBlob{Value: fmt.Appendf(nil, "scrape_configs: [{job_name: j, static_configs: [{targets: [\"h:%d\"]}]}]", n)}
}

// changeScraper makes, changes, compares or deletes a scraper.
func (m *caller) changeScraper(ctx context.Context, workspace string, token *string) {
	alias := fmt.Sprint("alias", m.n)
	if len(m.scraper) == 0 || m.rnd.IntN(4) == 0 {
		m.anyReplica(ctx, "create a scraper", func(c *amp.Client) error {
			out, err := c.CreateScraper(ctx, &amp.CreateScraperInput{Alias: &alias, ClientToken: token, ScrapeConfiguration: scrapeText(m.n),
				Source:      &types.SourceMemberVpcConfiguration{Value: types.VpcConfiguration{SecurityGroupIds: []string{"sg-1"}, SubnetIds: []string{"subnet-1"}}},
				Destination: &types.DestinationMemberAmpConfiguration{Value: types.AmpConfiguration{WorkspaceArn: arnOf(workspace)}}})
			if err == nil {
				m.scraper[*out.ScraperId] = &owned{alias: alias, definition: string(scrapeText(m.n).Value)}
			}
			return err
		})
		return
	}
	id := pick(m, m.scraper)
	switch o := m.scraper[id]; m.rnd.IntN(3) {
	case 0:
		if m.anyReplica(ctx, "delete scraper "+id, func(c *amp.Client) error {
			_, err := c.DeleteScraper(ctx, &amp.DeleteScraperInput{ScraperId: &id, ClientToken: token})
			return err
		}) {
			delete(m.scraper, id)
		}
	case 1:
		if m.anyReplica(ctx, "change scraper "+id, func(c *amp.Client) error {
			_, err := c.UpdateScraper(ctx, &amp.UpdateScraperInput{ScraperId: &id, Alias: &alias, ScrapeConfiguration: scrapeText(m.n), ClientToken: token})
			return err
		}) {
			o.alias, o.definition = alias, string(scrapeText(m.n).Value)
		}
	default:
		m.anyReplica(ctx, "describe scraper "+id, func(c *amp.Client) error {
			out, err := c.DescribeScraper(ctx, &amp.DescribeScraperInput{ScraperId: &id})
			if err != nil {
				return err
			}
			blob, _ := out.Scraper.ScrapeConfiguration.(*types.ScrapeConfigurationMemberConfigurationBlob)
			if *out.Scraper.Alias != o.alias || blob == nil || string(blob.Value) != o.definition {
				m.t.Errorf("scraper %s is %+v, want %+v: a stale read", id, out.Scraper, o)
			}
			return nil
		})
	}
}

// compare reads everything of a workspace.
func (m *caller) compare(ctx context.Context, id string, o *owned) {
	m.anyReplica(ctx, "describe "+id, func(c *amp.Client) error {
		out, err := c.DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: &id})
		if err == nil && (*out.Workspace.Alias != o.alias || !maps.Equal(out.Workspace.Tags, o.tags)) {
			m.t.Errorf("%s has alias %q and tags %v, want %+v: a stale read", id, *out.Workspace.Alias, out.Workspace.Tags, o)
		}
		return err
	})
	m.anyReplica(ctx, "describe the definition of "+id, func(c *amp.Client) error {
		text := ""
		out, err := c.DescribeAlertManagerDefinition(ctx, &amp.DescribeAlertManagerDefinitionInput{WorkspaceId: &id})
		if missing := new(types.ResourceNotFoundException); errors.As(err, &missing) {
			err = nil
		} else if err == nil {
			text = string(out.AlertManagerDefinition.Data)
		}
		if err == nil && text != o.definition {
			m.t.Errorf("%s has the definition %q, want %q: a stale read", id, text, o.definition)
		}
		return err
	})
	m.anyReplica(ctx, "list the rules of "+id, func(c *amp.Client) error {
		out, err := c.ListRuleGroupsNamespaces(ctx, &amp.ListRuleGroupsNamespacesInput{WorkspaceId: &id})
		if err != nil {
			return err
		}
		if len(out.RuleGroupsNamespaces) != len(o.rules) {
			m.t.Errorf("%s has %d rule files, want %d: a stale read", id, len(out.RuleGroupsNamespaces), len(o.rules))
		}
		return nil
	})
	if len(o.rules) == 0 {
		return
	}
	name := pick(m, o.rules)
	m.anyReplica(ctx, "describe rules of "+id, func(c *amp.Client) error {
		out, err := c.DescribeRuleGroupsNamespace(ctx, &amp.DescribeRuleGroupsNamespaceInput{WorkspaceId: &id, Name: &name})
		if err == nil && string(out.RuleGroupsNamespace.Data) != o.rules[name] {
			m.t.Errorf("%s has rules %q, want %q: a stale read", id, out.RuleGroupsNamespace.Data, o.rules[name])
		}
		return err
	})
}

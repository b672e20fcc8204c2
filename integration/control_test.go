package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/amp/types"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// workspaces returns a client of the control plane at base, of Amazon's SDK.
func workspaces(base string, tries int) *amp.Client {
	return amp.New(amp.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(base), RetryMaxAttempts: tries,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "not checked on loopback", ""),
	})
}

const oneRuleFile = "groups:\r\n- name: g\r\n  rules:\r\n  - record: a:b\r\n    expr: sum(up)\r\n"

// TestAmazonsSDKManagesWorkspaces walks through what users of Amazon's service do.
func TestAmazonsSDKManagesWorkspaces(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 2*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: harness.OneProcess()})
	base := c.Nodes()[0].URL("")
	client := workspaces(base, 3)

	made, err := client.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Alias: aws.String("team"), Tags: map[string]string{"k": "v"}})
	must(t, err)
	id := made.WorkspaceId
	must(t, amp.NewWorkspaceActiveWaiter(client).Wait(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: id}, time.Minute))
	w, err := client.DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: id})
	must(t, err)
	if want := base + "/workspaces/" + *id + "/"; *w.Workspace.PrometheusEndpoint != want || *w.Workspace.Alias != "team" || time.Since(*w.Workspace.CreatedAt) > time.Minute {
		t.Errorf("described as %+v; want endpoint %s", w.Workspace, want)
	}
	_, err = client.DescribeLoggingConfiguration(ctx, &amp.DescribeLoggingConfigurationInput{WorkspaceId: id})
	if missing := new(types.ResourceNotFoundException); !errors.As(err, &missing) || *missing.ResourceId != *id {
		t.Errorf("logging that nobody configured: %v", err)
	}

	name := aws.String("a/b c")
	_, err = client.CreateRuleGroupsNamespace(ctx, &amp.CreateRuleGroupsNamespaceInput{WorkspaceId: id, Name: name, Data: []byte(oneRuleFile)})
	must(t, err)
	_, err = client.CreateRuleGroupsNamespace(ctx, &amp.CreateRuleGroupsNamespaceInput{WorkspaceId: id, Name: name, Data: []byte(oneRuleFile)})
	if there := new(types.ConflictException); !errors.As(err, &there) {
		t.Errorf("made twice: %v", err)
	}
	_, err = client.PutRuleGroupsNamespace(ctx, &amp.PutRuleGroupsNamespaceInput{WorkspaceId: id, Name: name, Data: []byte("groups: [{name: g, rules: [{record: a, expr: 1+}]}]")})
	if bad := new(types.ValidationException); !errors.As(err, &bad) || bad.Reason != types.ValidationExceptionReasonFieldValidationFailed || !strings.Contains(*bad.Message, "parse error") {
		t.Errorf("a wrong rule: %v", err)
	}
	ns, err := client.DescribeRuleGroupsNamespace(ctx, &amp.DescribeRuleGroupsNamespaceInput{WorkspaceId: id, Name: name})
	must(t, err)
	if string(ns.RuleGroupsNamespace.Data) != oneRuleFile || *ns.RuleGroupsNamespace.Name != *name {
		t.Errorf("described as %+v", ns.RuleGroupsNamespace)
	}
	_, err = client.TagResource(ctx, &amp.TagResourceInput{ResourceArn: ns.RuleGroupsNamespace.Arn, Tags: map[string]string{"x": "y"}})
	must(t, err)
	tags, err := client.ListTagsForResource(ctx, &amp.ListTagsForResourceInput{ResourceArn: ns.RuleGroupsNamespace.Arn})
	must(t, err)
	if len(tags.Tags) != 1 || tags.Tags["x"] != "y" {
		t.Errorf("tagged %v", tags.Tags)
	}

	for range 4 {
		_, err := client.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{})
		must(t, err)
	}
	seen := 0
	for p := amp.NewListWorkspacesPaginator(client, &amp.ListWorkspacesInput{MaxResults: aws.Int32(2)}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		must(t, err)
		seen += len(page.Workspaces)
	}
	if seen != 5 {
		t.Errorf("listed %d workspaces, want 5", seen)
	}
	_, err = client.DeleteWorkspace(ctx, &amp.DeleteWorkspaceInput{WorkspaceId: id})
	must(t, err)
	must(t, amp.NewWorkspaceDeletedWaiter(client).Wait(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: id}, time.Minute))
}

// TestTheAWSCommandLineWorks runs the commands of Amazon's guide.
func TestTheAWSCommandLineWorks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	cli, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("!!!!!!!! the aws command is not installed: its calls are not tested")
	}
	ctx := bounded(t, 5*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: harness.OneProcess()})
	dir := t.TempDir()
	for name, text := range map[string]string{
		"rules.yaml":  oneRuleFile,
		"alerts.yaml": "alertmanager_config: |\n  route:\n    receiver: default\n  receivers:\n  - name: default\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(ctx, cli, append([]string{"amp", "--endpoint-url", c.Nodes()[0].URL(""), "--output", "text"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=none", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=")
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("aws amp %s: %v\n%s", strings.Join(args, " "), err, &complaints)
		}
		return strings.TrimSpace(string(out))
	}
	id := run("create-workspace", "--alias", "a", "--query", "workspaceId")
	run("create-rule-groups-namespace", "--workspace-id", id, "--name", "n", "--data", "fileb://rules.yaml")
	run("create-alert-manager-definition", "--workspace-id", id, "--data", "fileb://alerts.yaml")
	if got := run("describe-alert-manager-definition", "--workspace-id", id, "--query", "alertManagerDefinition.status.statusCode"); got != "ACTIVE" {
		t.Errorf("definition is %s", got)
	}
	arn := run("describe-workspace", "--workspace-id", id, "--query", "workspace.arn")
	run("tag-resource", "--resource-arn", arn, "--tags", "a=b")
	if got := run("list-tags-for-resource", "--resource-arn", arn, "--query", "tags.a"); got != "b" {
		t.Errorf("tag is %s", got)
	}
	run("delete-workspace", "--workspace-id", id)
	if got := run("list-workspaces", "--query", "length(workspaces)"); got != "0" {
		t.Errorf("%s workspaces are left", got)
	}
}

// aliases is what a writer knows of the workspaces that it alone changes.
type aliases map[string]string // alias by id

// TestNoCallOfTheControlPlaneIsLostWhenReplicasAreKilled makes random calls at three replicas and
// compares every answer with what the caller did before.
func TestNoCallOfTheControlPlaneIsLostWhenReplicasAreKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	shared := filepath.Join(t.TempDir(), "bucket")
	var nodes []harness.Spec
	for i := range 3 {
		nodes = append(nodes, harness.Spec{Name: fmt.Sprint("control-", i), Target: "control"})
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Files: true, Flags: []string{"-blocks-storage.filesystem.dir=" + shared}})

	const writers, each = 8, 40
	var wg sync.WaitGroup
	models := make([]aliases, writers)
	for n := range writers {
		models[n] = aliases{}
		wg.Go(func() { models[n].work(ctx, t, c.Nodes(), rand.New(rand.NewPCG(uint64(n), 1)), each) })
	}
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	kills := 0
	for going := true; going; {
		select {
		case <-done:
			going = false
		case <-time.After(700 * time.Millisecond):
			n := c.Nodes()[kills%3]
			must(t, n.Kill())
			must(t, n.Restart())
			kills++
		}
	}
	must(t, c.WaitReady(ctx))
	t.Logf("%d calls or more, %d kills", writers*each, kills)
	want := map[string]string{}
	for _, m := range models {
		for id, alias := range m {
			want[id] = alias
		}
	}
	for _, n := range c.Nodes() {
		got := map[string]string{}
		for p := amp.NewListWorkspacesPaginator(workspaces(n.URL(""), 3), &amp.ListWorkspacesInput{}); p.HasMorePages(); {
			page, err := p.NextPage(ctx)
			must(t, err)
			for _, w := range page.Workspaces {
				got[*w.WorkspaceId] = *w.Alias
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s lists %d workspaces, want %d", n.Spec.Name, len(got), len(want))
		}
		for id, alias := range want {
			if got[id] != alias {
				t.Errorf("%s: %s has alias %q, want %q", n.Spec.Name, id, got[id], alias)
			}
		}
	}
}

// anyReplica makes a call at one replica after the other until one answers, as a client of a load
// balancer would: the same call, with the same token.
func anyReplica(ctx context.Context, nodes []*harness.Node, rnd *rand.Rand, call func(*amp.Client) error) error {
	var err error
	for ctx.Err() == nil {
		if err = call(workspaces(nodes[rnd.IntN(len(nodes))].URL(""), 1)); err == nil || finalAnswer(err) {
			return err
		}
	}
	return errors.Join(err, ctx.Err())
}

// finalAnswer says whether the answer of a call is final.
func finalAnswer(err error) bool {
	missing, there, bad := new(types.ResourceNotFoundException), new(types.ConflictException), new(types.ValidationException)
	return errors.As(err, &missing) || errors.As(err, &there) || errors.As(err, &bad)
}

func (m aliases) work(ctx context.Context, t *testing.T, nodes []*harness.Node, rnd *rand.Rand, calls int) {
	ids := func() []string {
		var out []string
		for id := range m {
			out = append(out, id)
		}
		slices.Sort(out)
		return out
	}
	for n := range calls {
		token, alias := aws.String(fmt.Sprintf("%d-%d", rnd.Uint64(), n)), fmt.Sprint("alias", n)
		known := ids()
		if len(known) == 0 || rnd.IntN(4) == 0 {
			var id string
			err := anyReplica(ctx, nodes, rnd, func(c *amp.Client) error {
				out, err := c.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Alias: &alias, ClientToken: token})
				if err == nil {
					id = *out.WorkspaceId
				}
				return err
			})
			if err != nil {
				t.Errorf("create: %v", err)
				return
			}
			m[id] = alias
			continue
		}
		id := known[rnd.IntN(len(known))]
		switch rnd.IntN(4) {
		case 0:
			err := anyReplica(ctx, nodes, rnd, func(c *amp.Client) error {
				_, err := c.DeleteWorkspace(ctx, &amp.DeleteWorkspaceInput{WorkspaceId: &id, ClientToken: token})
				return err
			})
			if err != nil {
				t.Errorf("delete %s: %v", id, err)
				return
			}
			delete(m, id)
		case 1:
			err := anyReplica(ctx, nodes, rnd, func(c *amp.Client) error {
				_, err := c.UpdateWorkspaceAlias(ctx, &amp.UpdateWorkspaceAliasInput{WorkspaceId: &id, Alias: &alias, ClientToken: token})
				return err
			})
			if err != nil {
				t.Errorf("rename %s: %v", id, err)
				return
			}
			m[id] = alias
		default:
			err := anyReplica(ctx, nodes, rnd, func(c *amp.Client) error {
				out, err := c.DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: &id})
				if err == nil && *out.Workspace.Alias != m[id] {
					t.Errorf("%s has alias %q, want %q: a stale read", id, *out.Workspace.Alias, m[id])
				}
				return err
			})
			if err != nil {
				t.Errorf("describe %s: %v", id, err)
				return
			}
		}
	}
}

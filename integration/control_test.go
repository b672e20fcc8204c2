package integration

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	clis := []string{cli}
	if _, err := os.Stat(debiansAWS); err == nil && cli != debiansAWS {
		clis = append(clis, debiansAWS)
	}
	ctx := bounded(t, 8*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: harness.OneProcess()})
	dir := t.TempDir()
	for name, text := range map[string]string{
		"rules.yaml":   oneRuleFile,
		"rules.base64": base64.StdEncoding.EncodeToString([]byte(oneRuleFile)),
		"alerts.yaml":  "alertmanager_config: |\n  route:\n    receiver: default\n  receivers:\n  - name: default\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	for _, cli := range clis {
		call := func(args ...string) (string, error) {
			cmd := exec.CommandContext(ctx, cli, append([]string{"amp", "--endpoint-url", c.Nodes()[0].URL(""), "--output", "text"}, args...)...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=none", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=")
			var complaints bytes.Buffer
			cmd.Stderr = &complaints
			out, err := cmd.Output()
			if err != nil {
				err = fmt.Errorf("%s amp %s: %w\n%s", cli, strings.Join(args, " "), err, &complaints)
			}
			return strings.TrimSpace(string(out)), err
		}
		walkTheGuide(t, awsCommand{t, call})
	}
}

// debiansAWS is where Debian's package has the command line, which another may be before.
const debiansAWS = "/usr/bin/aws"

// awsCommand runs commands of aws amp.
type awsCommand struct {
	t    *testing.T
	call func(args ...string) (string, error)
}

func (c awsCommand) run(args ...string) string {
	c.t.Helper()
	out, err := c.call(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c awsCommand) says(want string, args ...string) {
	c.t.Helper()
	if got := c.run(args...); got != want {
		c.t.Errorf("aws amp %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

// knows says whether the command line has a command: one that it has wants parameters.
func (c awsCommand) knows(command string) bool {
	_, err := c.call(command)
	if err == nil || !strings.Contains(err.Error(), "nvalid choice") {
		return true
	}
	c.t.Logf("!!!!!!!! this aws has no %s, which is not tested with it", command)
	return false
}

// walkTheGuide runs every command of Amazon's guide for workspaces, rules, definitions and tags, and those for
// logging and configuration that came later.
func walkTheGuide(t *testing.T, c awsCommand) {
	t.Helper()
	run, says := c.run, c.says
	id := run("create-workspace", "--alias", "my-first-workspace", "--tags", "k=v", "--query", "workspaceId")
	run("wait", "workspace-active", "--workspace-id", id)
	says("my-first-workspace", "describe-workspace", "--workspace-id", id, "--query", "workspace.alias")
	says(id, "list-workspaces", "--alias", "my-first", "--query", "workspaces[0].workspaceId")
	run("update-workspace-alias", "--workspace-id", id, "--alias", "renamed")
	says("1", "list-workspaces", "--alias", "ren", "--query", "length(workspaces)")

	run("create-rule-groups-namespace", "--workspace-id", id, "--name", "n", "--data", "fileb://rules.yaml")
	run("create-rule-groups-namespace", "--workspace-id", id, "--name", "twice", "--data", "fileb://rules.base64", "--tags", "a=b")
	run("put-rule-groups-namespace", "--workspace-id", id, "--name", "n", "--data", "fileb://rules.yaml")
	says(base64.StdEncoding.EncodeToString([]byte(oneRuleFile)), "describe-rule-groups-namespace", "--workspace-id", id, "--name", "n", "--query", "ruleGroupsNamespace.data")
	says("1\n1", "list-rule-groups-namespaces", "--workspace-id", id, "--page-size", "1", "--query", "length(ruleGroupsNamespaces)")
	run("delete-rule-groups-namespace", "--workspace-id", id, "--name", "n")

	run("create-alert-manager-definition", "--workspace-id", id, "--data", "fileb://alerts.yaml")
	run("put-alert-manager-definition", "--workspace-id", id, "--data", "fileb://alerts.yaml")
	says("ACTIVE", "describe-alert-manager-definition", "--workspace-id", id, "--query", "alertManagerDefinition.status.statusCode")
	run("delete-alert-manager-definition", "--workspace-id", id)

	arn := run("describe-workspace", "--workspace-id", id, "--query", "workspace.arn")
	run("tag-resource", "--resource-arn", arn, "--tags", "a=b,c=d")
	run("untag-resource", "--resource-arn", arn, "--tag-keys", "c", "k")
	says("b", "list-tags-for-resource", "--resource-arn", arn, "--query", "tags.a")
	says("1", "list-tags-for-resource", "--resource-arn", arn, "--query", "length(keys(tags))")

	const group = "arn:aws:logs:us-east-1:123456789012:log-group:g:*"
	run("create-logging-configuration", "--workspace-id", id, "--log-group-arn", group)
	run("update-logging-configuration", "--workspace-id", id, "--log-group-arn", group)
	says(group, "describe-logging-configuration", "--workspace-id", id, "--query", "loggingConfiguration.logGroupArn")
	run("delete-logging-configuration", "--workspace-id", id)
	walkWhatCameLater(t, c, id, arn, group)

	run("delete-workspace", "--workspace-id", id)
	run("wait", "workspace-deleted", "--workspace-id", id)
	says("0", "list-workspaces", "--query", "length(workspaces)")
}

// walkWhatCameLater runs the commands for limits of workspaces, query logging, resource policies and scrapers. An older
// command line that lacks some of them says so, and is not held to them.
func walkWhatCameLater(t *testing.T, c awsCommand, id, arn, group string) {
	t.Helper()
	run, says := c.run, c.says
	if c.knows("update-workspace-configuration") {
		run("update-workspace-configuration", "--workspace-id", id, "--retention-period-in-days", "30")
		says("30", "describe-workspace-configuration", "--workspace-id", id, "--query", "workspaceConfiguration.retentionPeriodInDays")
	}
	if c.knows("create-query-logging-configuration") {
		queries := "cloudWatchLogs={logGroupArn=" + group + "},filters={qspThreshold="
		run("create-query-logging-configuration", "--workspace-id", id, "--destinations", queries+"7}")
		run("update-query-logging-configuration", "--workspace-id", id, "--destinations", queries+"8}")
		says("8", "describe-query-logging-configuration", "--workspace-id", id, "--query", "queryLoggingConfiguration.destinations[0].filters.qspThreshold")
		run("delete-query-logging-configuration", "--workspace-id", id)
	}
	if c.knows("put-resource-policy") {
		policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"aps:QueryMetrics","Resource":"` + arn + `"}]}`
		revision := run("put-resource-policy", "--workspace-id", id, "--policy-document", policy, "--query", "revisionId")
		says(revision, "describe-resource-policy", "--workspace-id", id, "--query", "revisionId")
		says(policy, "describe-resource-policy", "--workspace-id", id, "--query", "policyDocument")
		run("delete-resource-policy", "--workspace-id", id, "--revision-id", revision)
	}
	if !c.knows("create-scraper") {
		return
	}
	if text, err := base64.StdEncoding.DecodeString(run("get-default-scraper-configuration", "--query", "configuration")); err != nil || !strings.Contains(string(text), "scrape_configs") {
		t.Errorf("the default configuration of a scraper is %q, %v", text, err)
	}
	source := "eksConfiguration={clusterArn=arn:aws:eks:us-east-1:123456789012:cluster/c,subnetIds=[subnet-1]}"
	blob := "configurationBlob=" + base64.StdEncoding.EncodeToString([]byte("scrape_configs: [{job_name: j, static_configs: [{targets: [\"h.invalid:1\"]}]}]"))
	scraper := run("create-scraper", "--alias", "first", "--scrape-configuration", blob, "--source", source, "--destination", "ampConfiguration={workspaceArn="+arn+"}", "--query", "scraperId")
	run("wait", "scraper-active", "--scraper-id", scraper)
	if c.knows("update-scraper") {
		run("update-scraper", "--scraper-id", scraper, "--alias", "second")
		run("wait", "scraper-active", "--scraper-id", scraper)
		says("second", "describe-scraper", "--scraper-id", scraper, "--query", "scraper.alias")
	}
	if c.knows("update-scraper-logging-configuration") {
		run("update-scraper-logging-configuration", "--scraper-id", scraper, "--logging-destination", "cloudWatchLogs={logGroupArn="+group+"}", "--scraper-components", "type=COLLECTOR")
		says("COLLECTOR", "describe-scraper-logging-configuration", "--scraper-id", scraper, "--query", "scraperComponents[0].type")
		run("delete-scraper-logging-configuration", "--scraper-id", scraper)
	}
	says("1", "list-scrapers", "--filters", "status=ACTIVE", "--query", "length(scrapers)")
	says("0", "list-scrapers", "--filters", "alias=other", "--query", "length(scrapers)")
	says("DELETING", "delete-scraper", "--scraper-id", scraper, "--query", "status.statusCode")
	run("wait", "scraper-deleted", "--scraper-id", scraper)
}

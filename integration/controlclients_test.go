package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/amp/types"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// scriptOfJS does with Amazon's SDK for JavaScript what users do, and prints what it sees.
const scriptOfJS = `
import { AmpClient, CreateWorkspaceCommand, DescribeWorkspaceCommand, UpdateWorkspaceAliasCommand, CreateRuleGroupsNamespaceCommand, DescribeRuleGroupsNamespaceCommand,
  DeleteWorkspaceCommand, TagResourceCommand, ListTagsForResourceCommand, DescribeLoggingConfigurationCommand, CreateScraperCommand, DeleteScraperCommand,
  paginateListWorkspaces, waitUntilWorkspaceActive, waitUntilWorkspaceDeleted } from "@aws-sdk/client-amp";
const client = new AmpClient({ region: "us-east-1", endpoint: process.argv[2], credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "none" } });
const want = (what, got, wanted) => { if (got !== wanted) { throw new Error(what + " is " + got + ", want " + wanted); } };
const { workspaceId, arn } = await client.send(new CreateWorkspaceCommand({ alias: "js", tags: { k: "v" } }));
await waitUntilWorkspaceActive({ client, maxWaitTime: 60 }, { workspaceId });
await client.send(new UpdateWorkspaceAliasCommand({ workspaceId, alias: "renamed" }));
const { workspace } = await client.send(new DescribeWorkspaceCommand({ workspaceId }));
want("alias", workspace.alias, "renamed");
want("createdAt", workspace.createdAt instanceof Date && Math.abs(Date.now() - workspace.createdAt) < 600000, true);
const data = new TextEncoder().encode("groups:\r\n- name: g\r\n  rules: [{record: a, expr: b}]\r\n");
await client.send(new CreateRuleGroupsNamespaceCommand({ workspaceId, name: "a/b c", data }));
const { ruleGroupsNamespace } = await client.send(new DescribeRuleGroupsNamespaceCommand({ workspaceId, name: "a/b c" }));
want("data", new TextDecoder().decode(ruleGroupsNamespace.data), new TextDecoder().decode(data));
await client.send(new TagResourceCommand({ resourceArn: ruleGroupsNamespace.arn, tags: { x: "y" } }));
want("tag", (await client.send(new ListTagsForResourceCommand({ resourceArn: ruleGroupsNamespace.arn }))).tags.x, "y");
try {
  await client.send(new DescribeLoggingConfigurationCommand({ workspaceId }));
  throw new Error("there is a logging configuration");
} catch (e) {
  want("error", e.name, "ResourceNotFoundException");
  want("resourceId", e.resourceId, workspaceId);
}
const made = await client.send(new CreateScraperCommand({
  scrapeConfiguration: { configurationBlob: new TextEncoder().encode("scrape_configs: [{job_name: j, static_configs: [{targets: [\"h.invalid:1\"]}]}]") },
  source: { eksConfiguration: { clusterArn: "arn:aws:eks:us-east-1:123456789012:cluster/c", subnetIds: ["subnet-1"] } },
  destination: { ampConfiguration: { workspaceArn: arn } } }));
want("scraper", (await client.send(new DeleteScraperCommand({ scraperId: made.scraperId }))).status.statusCode, "DELETING");
let n = 0;
for await (const page of paginateListWorkspaces({ client, pageSize: 1 }, {})) { n += page.workspaces.length; }
want("workspaces", n, 1);
await client.send(new DeleteWorkspaceCommand({ workspaceId }));
await waitUntilWorkspaceDeleted({ client, maxWaitTime: 60 }, { workspaceId });
console.log("done");
`

// TestAmazonsSDKForJavaScriptWorks installs the SDK from npm's registry.
func TestAmazonsSDKForJavaScriptWorks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	npm, err := exec.LookPath("npm")
	node, nerr := exec.LookPath("node")
	if err != nil || nerr != nil {
		t.Skip("!!!!!!!! npm and node are not installed: Amazon's SDK for JavaScript is not tested")
	}
	ctx := bounded(t, 5*time.Minute)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"private": true, "type": "module"}`), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "walk.js"), []byte(scriptOfJS), 0o600))
	install := exec.CommandContext(ctx, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "@aws-sdk/client-amp@3.1048.0")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("!!!!!!!! @aws-sdk/client-amp cannot be installed, it is not tested: %v\n%.500s", err, out)
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: harness.OneProcess()})
	walk := exec.CommandContext(ctx, node, "walk.js", c.Nodes()[0].URL(""))
	walk.Dir = dir
	if out, err := walk.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("done")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// await polls as Terraform does: any state but those of pending and the one wanted is an error. A resource that is
// missing has the state "".
func await(ctx context.Context, t *testing.T, what, want, pending string, state func() (string, error)) {
	t.Helper()
	must(t, harness.Poll(ctx, func(context.Context) error {
		s, err := state()
		if missing := new(types.ResourceNotFoundException); errors.As(err, &missing) {
			s, err = "", nil
		}
		switch {
		case err != nil:
			return harness.Giveup(fmt.Errorf("%s: %w", what, err))
		case s == want:
			return nil
		case s == pending:
			return fmt.Errorf("%s is %q", what, s)
		}
		return harness.Giveup(fmt.Errorf("%s is %q, which is neither %q nor %q", what, s, pending, want))
	}))
}

// TestTerraformsCallsWorkWhileReplicasComeAndGo makes the calls of an apply, a refresh, a change and a destroy through a
// gateway before three replicas, of which one is killed between any two.
func TestTerraformsCallsWorkWhileReplicasComeAndGo(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 5*time.Minute)
	shared := filepath.Join(t.TempDir(), "bucket")
	var nodes []harness.Spec
	for i := range 3 {
		nodes = append(nodes, harness.Spec{Name: fmt.Sprint("control-", i), Target: "control"})
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: nodes, Files: true, Flags: []string{"-blocks-storage.filesystem.dir=" + shared}})
	var upstreams []string
	replicas := c.Nodes()
	for _, n := range replicas {
		upstreams = append(upstreams, "control="+n.URL(""))
	}
	door, err := c.Add(harness.Spec{Name: "gateway", Target: "gateway", Flags: []string{"-gateway.upstreams=" + strings.Join(upstreams, ",")}})
	must(t, err)
	must(t, c.WaitReady(ctx))
	client := workspaces(door.URL(""), 8)
	turn := 0
	// lose kills one replica and has the one killed before back, so that two are there at any time.
	lose := func() {
		must(t, c.WaitReady(ctx))
		n := replicas[turn%len(replicas)]
		must(t, n.Kill())
		if turn > 0 {
			must(t, replicas[(turn-1)%len(replicas)].Restart())
		}
		turn++
	}

	made, err := client.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Alias: aws.String("tf"), Tags: map[string]string{"k": "v"}})
	must(t, err)
	id := made.WorkspaceId
	lose()
	workspaceState := func() (string, error) {
		out, err := client.DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: id})
		if err != nil {
			return "", err
		}
		return string(out.Workspace.Status.StatusCode), nil
	}
	await(ctx, t, "workspace", "ACTIVE", "CREATING", workspaceState)
	_, err = client.DescribeLoggingConfiguration(ctx, &amp.DescribeLoggingConfigurationInput{WorkspaceId: id})
	if missing := new(types.ResourceNotFoundException); !errors.As(err, &missing) {
		t.Errorf("logging of a new workspace: %v", err)
	}
	tags, err := client.ListTagsForResource(ctx, &amp.ListTagsForResourceInput{ResourceArn: made.Arn})
	must(t, err)
	if tags.Tags["k"] != "v" || len(tags.Tags) != 1 {
		t.Errorf("tags %v", tags.Tags)
	}
	rules := &rulesResource{client: client, workspace: id, name: aws.String("n")}
	_, err = client.CreateRuleGroupsNamespace(ctx, &amp.CreateRuleGroupsNamespaceInput{WorkspaceId: id, Name: rules.name, Data: []byte(oneRuleFile)})
	must(t, err)
	lose()
	rules.settled(ctx, t, "CREATING", oneRuleFile)
	const alerts = "alertmanager_config: |\r\n  route:\r\n    receiver: default\r\n  receivers:\r\n  - name: default\r\n"
	_, err = client.CreateAlertManagerDefinition(ctx, &amp.CreateAlertManagerDefinitionInput{WorkspaceId: id, Data: []byte(alerts)})
	must(t, err)
	lose()
	definitionState := func() (string, error) {
		out, err := client.DescribeAlertManagerDefinition(ctx, &amp.DescribeAlertManagerDefinitionInput{WorkspaceId: id})
		if err != nil {
			return "", err
		}
		if string(out.AlertManagerDefinition.Data) != alerts {
			return "", fmt.Errorf("definition %q", out.AlertManagerDefinition.Data)
		}
		return string(out.AlertManagerDefinition.Status.StatusCode), nil
	}
	await(ctx, t, "definition", "ACTIVE", "CREATING", definitionState)
	_, err = client.UpdateWorkspaceConfiguration(ctx, &amp.UpdateWorkspaceConfigurationInput{WorkspaceId: id, RetentionPeriodInDays: aws.Int32(30)})
	must(t, err)
	lose()
	await(ctx, t, "configuration", "ACTIVE", "UPDATING", func() (string, error) {
		out, err := client.DescribeWorkspaceConfiguration(ctx, &amp.DescribeWorkspaceConfigurationInput{WorkspaceId: id})
		if err != nil {
			return "", err
		}
		if *out.WorkspaceConfiguration.RetentionPeriodInDays != 30 {
			return "", fmt.Errorf("retention %d", *out.WorkspaceConfiguration.RetentionPeriodInDays)
		}
		return string(out.WorkspaceConfiguration.Status.StatusCode), nil
	})

	// A change.
	_, err = client.UpdateWorkspaceAlias(ctx, &amp.UpdateWorkspaceAliasInput{WorkspaceId: id, Alias: aws.String("other")})
	must(t, err)
	lose()
	await(ctx, t, "workspace", "ACTIVE", "UPDATING", workspaceState)
	_, err = client.TagResource(ctx, &amp.TagResourceInput{ResourceArn: made.Arn, Tags: map[string]string{"x": "y"}})
	must(t, err)
	lose()
	_, err = client.UntagResource(ctx, &amp.UntagResourceInput{ResourceArn: made.Arn, TagKeys: []string{"k"}})
	must(t, err)
	changed := strings.Replace(oneRuleFile, "a:b", "a:c", 1)
	_, err = client.PutRuleGroupsNamespace(ctx, &amp.PutRuleGroupsNamespaceInput{WorkspaceId: id, Name: rules.name, Data: []byte(changed)})
	must(t, err)
	lose()
	rules.settled(ctx, t, "UPDATING", changed)

	// A destroy.
	_, err = client.DeleteRuleGroupsNamespace(ctx, &amp.DeleteRuleGroupsNamespaceInput{WorkspaceId: id, Name: rules.name})
	must(t, err)
	lose()
	await(ctx, t, "rules", "", "DELETING", rules.state(ctx, changed))
	_, err = client.DeleteAlertManagerDefinition(ctx, &amp.DeleteAlertManagerDefinitionInput{WorkspaceId: id})
	must(t, err)
	lose()
	await(ctx, t, "definition", "", "DELETING", definitionState)
	_, err = client.DeleteWorkspace(ctx, &amp.DeleteWorkspaceInput{WorkspaceId: id})
	must(t, err)
	lose()
	await(ctx, t, "workspace", "", "DELETING", workspaceState)
	must(t, c.WaitReady(ctx))
	t.Logf("%d replicas killed", turn)
}

// rulesResource is a rule file as Terraform manages it.
type rulesResource struct {
	client          *amp.Client
	workspace, name *string
}

func (r *rulesResource) state(ctx context.Context, want string) func() (string, error) {
	return func() (string, error) {
		out, err := r.client.DescribeRuleGroupsNamespace(ctx, &amp.DescribeRuleGroupsNamespaceInput{WorkspaceId: r.workspace, Name: r.name})
		if err != nil {
			return "", err
		}
		if string(out.RuleGroupsNamespace.Data) != want {
			return "", fmt.Errorf("rules are %q, want %q", out.RuleGroupsNamespace.Data, want)
		}
		return string(out.RuleGroupsNamespace.Status.StatusCode), nil
	}
}

func (r *rulesResource) settled(ctx context.Context, t *testing.T, pending, want string) {
	t.Helper()
	await(ctx, t, "rules", "ACTIVE", pending, r.state(ctx, want))
}

// send makes a call of Mimir's API and returns the answer.
func send(ctx context.Context, t *testing.T, method, url, id, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	must(t, err)
	req.Header.Set("X-Scope-OrgID", id)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	out, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(out)
}

// TestAmazonsAndMimirsAPIsAreOfTheSameDocuments changes rules and definitions by one API and reads them by the other, and
// sees that a changed rule is evaluated at once.
func TestAmazonsAndMimirsAPIsAreOfTheSameDocuments(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: harness.OneProcess(), Flags: []string{"-ruler.poll-interval=10m"}})
	n := c.Nodes()[0]
	client := workspaces(n.URL(""), 3)
	w, err := client.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{})
	must(t, err)
	id := w.WorkspaceId

	// From Amazon's to Mimir's, once as it is and once encoded twice.
	file := "groups:\n- name: mine\n  interval: 1s\n  rules:\n  - record: from:amazon\n    expr: vector(7)\n"
	for name, data := range map[string]string{"plain": file, "twice": base64.StdEncoding.EncodeToString([]byte(strings.Replace(file, "amazon", "twice", 1)))} {
		_, err = client.CreateRuleGroupsNamespace(ctx, &amp.CreateRuleGroupsNamespaceInput{WorkspaceId: id, Name: &name, Data: []byte(data)})
		must(t, err)
		if status, text := send(ctx, t, "GET", n.URL("/prometheus/config/v1/rules/"+name), *id, ""); status != 200 || !strings.Contains(text, "name: mine") {
			t.Errorf("%s rules by Mimir's API: %d %s", name, status, text)
		}
		out, err := client.DescribeRuleGroupsNamespace(ctx, &amp.DescribeRuleGroupsNamespaceInput{WorkspaceId: id, Name: &name})
		must(t, err)
		if string(out.RuleGroupsNamespace.Data) != data {
			t.Errorf("%s rules came back as %q", name, out.RuleGroupsNamespace.Data)
		}
	}
	for _, metric := range []string{"from:amazon", "from:twice"} {
		must(t, harness.Poll(ctx, func(ctx context.Context) error {
			v, err := instant(ctx, n, *id, metric)
			if err != nil || len(v) != 1 || v[0] != 7 {
				return errors.Join(err, fmt.Errorf("%s is %v", metric, v))
			}
			return nil
		}))
	}
	// From Mimir's to Amazon's.
	if status, text := send(ctx, t, "POST", n.URL("/prometheus/config/v1/rules/theirs"), *id, "name: g\nrules:\n- record: from:mimir\n  expr: vector(1)\n"); status/100 != 2 {
		t.Fatalf("rules by Mimir's API: %d %s", status, text)
	}
	out, err := client.DescribeRuleGroupsNamespace(ctx, &amp.DescribeRuleGroupsNamespaceInput{WorkspaceId: id, Name: aws.String("theirs")})
	must(t, err)
	if !strings.Contains(string(out.RuleGroupsNamespace.Data), "from:mimir") {
		t.Errorf("by Amazon's API: %q", out.RuleGroupsNamespace.Data)
	}
	l, err := client.ListRuleGroupsNamespaces(ctx, &amp.ListRuleGroupsNamespacesInput{WorkspaceId: id})
	must(t, err)
	var names []string // in the order of their times, of which those that the store knows are whole seconds
	for _, r := range l.RuleGroupsNamespaces {
		names = append(names, *r.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"plain", "theirs", "twice"}) {
		t.Errorf("listed %q", names)
	}
	_, err = client.DeleteRuleGroupsNamespace(ctx, &amp.DeleteRuleGroupsNamespaceInput{WorkspaceId: id, Name: aws.String("theirs")})
	must(t, err)
	if status, text := send(ctx, t, "GET", n.URL("/prometheus/config/v1/rules/theirs/g"), *id, ""); status != 404 {
		t.Errorf("deleted rules by Mimir's API: %d %s", status, text)
	}

	// The definition.
	const definition = "alertmanager_config: |\n  route:\n    receiver: %s\n  receivers:\n  - name: %[1]s\n"
	_, err = client.CreateAlertManagerDefinition(ctx, &amp.CreateAlertManagerDefinitionInput{WorkspaceId: id, Data: fmt.Appendf(nil, definition, "amazons")})
	must(t, err)
	if status, text := send(ctx, t, "GET", n.URL("/api/v1/alerts"), *id, ""); status != 200 || !strings.Contains(text, "amazons") {
		t.Errorf("definition by Mimir's API: %d %s", status, text)
	}
	if status, text := send(ctx, t, "POST", n.URL("/api/v1/alerts"), *id, fmt.Sprintf(definition, "mimirs")); status/100 != 2 {
		t.Fatalf("definition by Mimir's API: %d %s", status, text)
	}
	d, err := client.DescribeAlertManagerDefinition(ctx, &amp.DescribeAlertManagerDefinitionInput{WorkspaceId: id})
	must(t, err)
	if !strings.Contains(string(d.AlertManagerDefinition.Data), "mimirs") {
		t.Errorf("by Amazon's API: %q", d.AlertManagerDefinition.Data)
	}
	encoded := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, definition, "encoded"))
	_, err = client.PutAlertManagerDefinition(ctx, &amp.PutAlertManagerDefinitionInput{WorkspaceId: id, Data: []byte(encoded)})
	must(t, err)
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		if status, text := send(ctx, t, "GET", n.URL("/alertmanager/api/v2/receivers"), *id, ""); status != 200 || !strings.Contains(text, "encoded") {
			return fmt.Errorf("receivers of a definition that is encoded twice: %d %s", status, text)
		}
		return nil
	}))
}

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// guarded starts everything in one process that asks who calls, with identities from text.
func guarded(ctx context.Context, t *testing.T, text string, flags ...string) *harness.Node {
	t.Helper()
	file := filepath.Join(t.TempDir(), "identities.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return everything(ctx, t, append(busyFlags(), append([]string{"-auth.enabled", "-auth.identity-file=" + file, "-auth.workspace-api-rate=0"}, flags...)...)...)
}

// owner is Amazon's SDK with the keys of who may do everything.
func owner(n *harness.Node) *amp.Client {
	return amp.New(amp.Options{Region: "us-east-1", BaseEndpoint: aws.String(n.URL("")),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDOWNER001", "owner-secret-owner", "")})
}

// workspaceOf makes a workspace of a team and returns its id.
func workspaceOf(ctx context.Context, t *testing.T, n *harness.Node, team string) string {
	t.Helper()
	made, err := owner(n).CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Tags: map[string]string{"team": team}})
	must(t, err)
	return *made.WorkspaceId
}

// pushSigned writes one sample of a metric to a workspace.
func pushSigned(ctx context.Context, t *testing.T, n *harness.Node, workspace string, series ...prompb.TimeSeries) {
	t.Helper()
	raw, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	must(t, err)
	send := func() reply {
		return signedCall(ctx, t, keyOf("WRITER"), "POST", n.URL("/workspaces/"+workspace+"/api/v1/remote_write"), string(snappy.Encode(nil, raw)),
			"Content-Encoding", "snappy", "Content-Type", typeV1)
	}
	r := send()
	r.again = send
	stored(t, r)
}

// keyOf is the signer of a user of the identities in these tests.
func keyOf(name string) sigv4.Signer {
	id := map[string]string{"WRITER": "AKIDWRITER01", "OWNER": "AKIDOWNER001", "READER": "AKIDREADER01", "NOBODY": "AKIDNOBODY01", "HELD": "AKIDHELD0001", "FREE": "AKIDFREE0001"}[name]
	lower := strings.ToLower(name)
	return sigv4.Signer{AccessKey: id, Secret: lower + "-secret-" + lower, Region: "us-east-1", Service: "aps"}
}

// signedCall sends a signed request.
func signedCall(ctx context.Context, t *testing.T, by sigv4.Signer, method, url, body string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	must(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	must(t, by.Sign(r, []byte(body), time.Now()))
	out, err := sent(r)
	must(t, err)
	return out
}

// TestRealClientsSignTheirCalls has the clients that people use call a process that asks who they are.
func TestRealClientsSignTheirCalls(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	n := guarded(ctx, t, gatewayIdentities)
	id := workspaceOf(ctx, t, n, "a")
	pushSigned(ctx, t, n, id, floats(time.Now(), 42, "__name__", "answer", "job", "x y"))
	for name, f := range map[string]func(context.Context, *testing.T, *harness.Node, string){
		"Go SDK": goSDKSigns, "aws": awsSigns, "curl": curlSigns, "OpenTelemetry collector": collectorSigns, "JavaScript SDK": javaScriptSigns, "Grafana": grafanaSigns,
	} {
		t.Run(name, func(t *testing.T) { f(ctx, t, n, id) })
	}
}

func goSDKSigns(ctx context.Context, t *testing.T, n *harness.Node, _ string) {
	client := owner(n)
	made, err := client.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Alias: aws.String("go"), Tags: map[string]string{"team": "a"}})
	must(t, err)
	id, name := made.WorkspaceId, aws.String("a/b c")
	must(t, amp.NewWorkspaceActiveWaiter(client).Wait(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: id}, time.Minute))
	_, err = client.CreateRuleGroupsNamespace(ctx, &amp.CreateRuleGroupsNamespaceInput{WorkspaceId: id, Name: name, Data: []byte(oneRuleFile)})
	must(t, err)
	read, err := client.DescribeRuleGroupsNamespace(ctx, &amp.DescribeRuleGroupsNamespaceInput{WorkspaceId: id, Name: name})
	must(t, err)
	if string(read.RuleGroupsNamespace.Data) != oneRuleFile {
		t.Errorf("the rule file came back as %q", read.RuleGroupsNamespace.Data)
	}
	_, err = client.TagResource(ctx, &amp.TagResourceInput{ResourceArn: read.RuleGroupsNamespace.Arn, Tags: map[string]string{"k": "v"}})
	must(t, err)
	tags, err := client.ListTagsForResource(ctx, &amp.ListTagsForResourceInput{ResourceArn: read.RuleGroupsNamespace.Arn})
	if err != nil || tags.Tags["k"] != "v" {
		t.Errorf("tags: %v %v", tags, err)
	}
	reader := amp.New(amp.Options{Region: "us-east-1", BaseEndpoint: aws.String(n.URL("")),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDREADER01", "reader-secret-reader", "")})
	_, err = reader.DeleteWorkspace(ctx, &amp.DeleteWorkspaceInput{WorkspaceId: id})
	if denied := new(types.AccessDeniedException); !errors.As(err, &denied) || !strings.Contains(err.Error(), "is not authorized to perform: aps:DeleteWorkspace") {
		t.Errorf("deleted by who may read: %v", err)
	}
	_, err = client.DeleteWorkspace(ctx, &amp.DeleteWorkspaceInput{WorkspaceId: id})
	must(t, err)
	must(t, amp.NewWorkspaceDeletedWaiter(client).Wait(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: id}, time.Minute))
}

// program runs one of the system's programs with the owner's keys in its environment; t is skipped without it.
func program(ctx context.Context, t *testing.T, name, user string, args ...string) (out string, status int) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		harness.Need(t, fmt.Errorf("%s is not installed: %w", name, harness.ErrNoTool))
	}
	key := keyOf(user)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+key.AccessKey, "AWS_SECRET_ACCESS_KEY="+key.Secret, "AWS_SESSION_TOKEN=", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || !cmd.ProcessState.Exited() {
		t.Fatalf("%s %q: %v\n%s", name, args, err, text)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func awsSigns(ctx context.Context, t *testing.T, n *harness.Node, _ string) {
	cli := func(user, want string, args ...string) {
		t.Helper()
		out, status := program(ctx, t, "aws", user, append([]string{"--endpoint-url", n.URL(""), "--output", "json"}, args...)...)
		if (status == 0) != !strings.Contains(want, "Exception") && !strings.Contains(want, "InvalidClientTokenId") || !strings.Contains(out, want) {
			t.Errorf("aws %q ended with %d, want %q:\n%s", args, status, want, out)
		}
	}
	out, status := program(ctx, t, "aws", "OWNER", "--endpoint-url", n.URL(""), "amp", "create-workspace", "--alias", "cli", "--tags", "team=a", "--query", "workspaceId", "--output", "text")
	id := strings.TrimSpace(out)
	if status != 0 {
		t.Fatalf("create-workspace: %s", out)
	}
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	must(t, os.WriteFile(rules, []byte(oneRuleFile), 0o600))
	arn := "arn:aws:aps:us-east-1:000000000000:workspace/" + id
	cli("OWNER", "", "amp", "wait", "workspace-active", "--workspace-id", id)
	cli("OWNER", `"statusCode"`, "amp", "create-rule-groups-namespace", "--workspace-id", id, "--name", "a b", "--data", "fileb://"+rules)
	cli("OWNER", `"a b"`, "amp", "list-rule-groups-namespaces", "--workspace-id", id)
	cli("OWNER", "", "amp", "tag-resource", "--resource-arn", arn, "--tags", "x=y z")
	cli("OWNER", `"y z"`, "amp", "list-tags-for-resource", "--resource-arn", arn)
	cli("OWNER", "", "amp", "untag-resource", "--resource-arn", arn, "--tag-keys", "x", "team")
	cli("OWNER", "", "amp", "put-resource-policy", "--workspace-id", id, "--policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/reader"},"Action":"aps:GetLabels","Resource":"`+arn+`"}]}`)
	cli("OWNER", "ValidationException", "amp", "put-resource-policy", "--workspace-id", id, "--policy-document", `{"Statement":[{"Effect":"Maybe"}]}`)
	cli("READER", "AccessDeniedException", "amp", "describe-workspace", "--workspace-id", id)
	cli("READER", "AccessDeniedException", "amp", "list-tags-for-resource", "--resource-arn", arn)
	cli("OWNER", "ResourceNotFoundException", "amp", "list-tags-for-resource", "--resource-arn", arn+"x")
	cli("OWNER", "ResourceNotFoundException", "amp", "describe-workspace", "--workspace-id", "ws-none")
	cli("OWNER", `"Arn": "arn:aws:iam::000000000000:user/owner"`, "sts", "get-caller-identity")
	cli("OWNER", "", "amp", "delete-workspace", "--workspace-id", id)
	cli("OWNER", "", "amp", "wait", "workspace-deleted", "--workspace-id", id)
}

func curlSigns(ctx context.Context, t *testing.T, n *harness.Node, id string) {
	if help, _ := program(ctx, t, "curl", "READER", "--help", "all"); !strings.Contains(help, "--aws-sigv4") {
		harness.Need(t, fmt.Errorf("this curl cannot sign: %w", harness.ErrNoTool))
	}
	curl := func(user, want string, args ...string) {
		t.Helper()
		key := keyOf(user)
		out, status := program(ctx, t, "curl", user, append([]string{"-sS", "--aws-sigv4", "aws:amz:us-east-1:aps", "--user", key.AccessKey + ":" + key.Secret}, args...)...)
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("curl %q ended with %d, want %s:\n%s", args, status, want, out)
		}
	}
	base := n.URL("/workspaces/" + id + "/api/v1")
	curl("READER", `"42"`, base+"/query?query=answer")
	curl("READER", `"42"`, base+"/query?query=answer%7Bjob%3D%22x%20y%22%7D&z=1&a=2")
	curl("READER", `"42"`, "-d", "query=answer", base+"/query")
	curl("READER", `"x y"`, base+"/label/job/values")
	curl("READER", "AccessDeniedException", n.URL("/workspaces/"+id))
	curl("READER", "InvalidSignatureException", "--user", "AKIDREADER01:wrong", base+"/query?query=answer")
}

func collectorSigns(ctx context.Context, t *testing.T, n *harness.Node, id string) {
	c, err := harness.StartCollector(ctx, harness.TestLog(t), harness.CollectorOptions{
		Dir: t.TempDir(), Environment: []string{"AWS_ACCESS_KEY_ID=AKIDWRITER01", "AWS_SECRET_ACCESS_KEY=writer-secret-writer", "AWS_EC2_METADATA_DISABLED=true"},
		Extensions: map[string]any{"sigv4auth": map[string]any{"region": "us-east-1", "service": "aps"}},
		Exporters: map[string]any{"prometheusremotewrite": map[string]any{"endpoint": n.URL("/workspaces/" + id + "/api/v1/remote_write"), "auth": map[string]any{"authenticator": "sigv4auth"},
			"tls": map[string]any{"insecure": true}}},
	})
	if c != nil {
		t.Cleanup(func() {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("log of the collector ends:\n%s", c.Tail())
			}
		})
	}
	harness.Need(t, err)
	r := call(ctx, t, "POST", c.Metrics, otlpBody(t, shopMetrics(time.Now())), "Content-Type", "application/x-protobuf")
	if r.status != 200 {
		t.Fatalf("the collector answers %s", r)
	}
	query := n.URL("/workspaces/" + id + "/api/v1/query?query=http_requests_total")
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		if r := signedCall(ctx, t, keyOf("READER"), "GET", query, ""); r.status != 200 || !strings.Contains(r.body, `"42"`) {
			return fmt.Errorf("not there yet: %s", r)
		}
		return nil
	}))
}

const javaScript = `
const { AmpClient, CreateWorkspaceCommand, DescribeWorkspaceCommand, ListWorkspacesCommand, DeleteWorkspaceCommand, CreateRuleGroupsNamespaceCommand,
  DescribeRuleGroupsNamespaceCommand, ListTagsForResourceCommand, UntagResourceCommand, waitUntilWorkspaceActive, waitUntilWorkspaceDeleted } = require("@aws-sdk/client-amp");
const client = (accessKeyId, secretAccessKey) => new AmpClient({ region: "us-east-1", endpoint: process.argv[2], credentials: { accessKeyId, secretAccessKey } });
(async () => {
  const owner = client("AKIDOWNER001", "owner-secret-owner");
  const { workspaceId, arn } = await owner.send(new CreateWorkspaceCommand({ alias: "js", tags: { team: "a", "k/1": "v w" } }));
  await waitUntilWorkspaceActive({ client: owner, maxWaitTime: 60 }, { workspaceId });
  const w = (await owner.send(new DescribeWorkspaceCommand({ workspaceId }))).workspace;
  if (w.alias !== "js" || !(w.createdAt instanceof Date)) throw new Error("described as " + JSON.stringify(w));
  const data = Buffer.from("groups: [{name: g, rules: [{record: a, expr: b}]}]\n");
  await owner.send(new CreateRuleGroupsNamespaceCommand({ workspaceId, name: "a/b c", data }));
  const read = await owner.send(new DescribeRuleGroupsNamespaceCommand({ workspaceId, name: "a/b c" }));
  if (Buffer.compare(Buffer.from(read.ruleGroupsNamespace.data), data)) throw new Error("other data");
  await owner.send(new UntagResourceCommand({ resourceArn: arn, tagKeys: ["k/1", "none"] }));
  const { tags } = await owner.send(new ListTagsForResourceCommand({ resourceArn: arn }));
  if (Object.keys(tags).join() !== "team") throw new Error("tags " + JSON.stringify(tags));
  if (!(await owner.send(new ListWorkspacesCommand({ alias: "js" }))).workspaces.length) throw new Error("not listed");
  const refused = async (name, status, call) => {
    try { await call(); } catch (e) { if (e.name !== name || e.$metadata.httpStatusCode !== status || !e.$metadata.requestId) throw new Error("refused with " + e.name + " " + JSON.stringify(e.$metadata)); return; }
    throw new Error("not refused with " + name);
  };
  await refused("AccessDeniedException", 403, () => client("AKIDREADER01", "reader-secret-reader").send(new DeleteWorkspaceCommand({ workspaceId })));
  await refused("InvalidSignatureException", 403, () => client("AKIDREADER01", "wrong").send(new ListWorkspacesCommand({})));
  await refused("UnrecognizedClientException", 403, () => client("AKIDNOSUCH01", "wrong").send(new ListWorkspacesCommand({})));
  await owner.send(new DeleteWorkspaceCommand({ workspaceId }));
  await waitUntilWorkspaceDeleted({ client: owner, maxWaitTime: 60 }, { workspaceId });
  console.log("all of it");
})().catch(e => { console.error(e); process.exit(1); });
`

// javaScriptSDK is the package that the test installs, once for all runs on a machine.
const javaScriptSDK = "@aws-sdk/client-amp@3.1048.0"

func javaScriptSigns(ctx context.Context, t *testing.T, n *harness.Node, _ string) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		harness.Need(t, fmt.Errorf("npm is not installed: %w", harness.ErrNoTool))
	}
	cache, err := os.UserCacheDir()
	must(t, err)
	dir := filepath.Join(cache, "amphora-tests", strings.NewReplacer("/", "-", "@", "-").Replace(javaScriptSDK))
	if _, err := os.Stat(filepath.Join(dir, "installed")); err != nil {
		must(t, os.MkdirAll(dir, 0o755))
		out, err := exec.CommandContext(ctx, npm, "install", "--prefix", dir, "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", javaScriptSDK).CombinedOutput()
		if err != nil {
			harness.Need(t, fmt.Errorf("npm install %s: %w: %w\n%s", javaScriptSDK, err, harness.ErrNoTool, out))
		}
		must(t, os.WriteFile(filepath.Join(dir, "installed"), nil, 0o600))
	}
	script := filepath.Join(dir, fmt.Sprintf("client-%d.js", os.Getpid())) // beside the packages, where node looks for them
	must(t, os.WriteFile(script, []byte(javaScript), 0o600))
	t.Cleanup(func() { _ = os.Remove(script) })
	if out, status := program(ctx, t, "node", "OWNER", script, n.URL("")); status != 0 || !strings.Contains(out, "all of it") {
		t.Errorf("node ended with %d:\n%s", status, out)
	}
}

// grafanaSigns sends what Grafana's data sources send, signed and with a user and a tenant.
func grafanaSigns(ctx context.Context, t *testing.T, n *harness.Node, id string) {
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	reader := keyOf("READER")
	now := time.Now()
	span := url.Values{"start": {seconds(now.Add(-time.Hour).UnixMilli())}, "end": {seconds(now.Add(time.Minute).UnixMilli())}}.Encode()
	for name, send := range map[string]func(method, path, body string) reply{
		"signed": func(method, path, body string) reply {
			// Grafana signs the host and the date only, and puts its own headers on afterwards.
			r, err := http.NewRequestWithContext(ctx, method, n.URL("/workspaces/"+id+path), strings.NewReader(body))
			must(t, err)
			must(t, reader.Sign(r, []byte(body), time.Now()))
			r.Header.Set("Content-Type", form[1])
			out, err := sent(r)
			must(t, err)
			return out
		},
		"with user and tenant": func(method, path, body string) reply {
			r, err := http.NewRequestWithContext(ctx, method, n.URL("/prometheus"+path), strings.NewReader(body))
			must(t, err)
			r.SetBasicAuth(reader.AccessKey, reader.Secret)
			r.Header.Set("Content-Type", form[1])
			r.Header.Set("X-Scope-OrgID", id)
			out, err := sent(r)
			must(t, err)
			return out
		},
	} {
		for _, c := range []struct{ method, path, body, want string }{
			{"POST", "/api/v1/query", "query=1%2B1&time=4", `"resultType":"scalar","result":[4,"2"]`},
			{"GET", "/api/v1/status/buildinfo", "", `"status":"success"`},
			{"POST", "/api/v1/query_range", "query=answer&step=15&" + span, `"42"`},
			{"POST", "/api/v1/query", "query=answer", `"42"`},
			{"POST", "/api/v1/labels?" + span, "", `"job"`},
			{"GET", "/api/v1/label/job/values?" + span, "", `"x y"`},
			{"POST", "/api/v1/label/job/values?" + span, "", `"x y"`},
			{"GET", "/api/v1/series?match%5B%5D=answer&match%5B%5D=%7Ba%3D~%22a%2Fb%22%2Cx%21%3D%22%22%7D&" + span, "", `"answer"`},
			{"GET", "/api/v1/metadata", "", `"status":"success"`},
			{"GET", "/api/v1/rules", "", "aps:ListRules"}, // who has no right to see rules is told so
		} {
			if r := send(c.method, c.path, c.body); !strings.Contains(r.body, c.want) {
				t.Errorf("%s: %s %s: %s, want %s", name, c.method, c.path, r, c.want)
			}
		}
	}
	if r := signedCall(ctx, t, reader, "GET", n.URL("/workspaces/ws-none/api/v1/query?query=1"), ""); r.status != 403 {
		t.Errorf("a workspace that is none, which tags let nobody use: %s", r)
	}
	if r := signedCall(ctx, t, keyOf("OWNER"), "GET", n.URL("/workspaces/ws-none/api/v1/query?query=1"), ""); r.status != 404 || !strings.Contains(r.body, "Workspace not found") {
		t.Errorf("a workspace that is none: %s", r)
	}
}

package integration

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// builtTool is amphoratool, built once for all tests.
var builtTool struct {
	once sync.Once
	path string
	err  error
}

// tool runs amphoratool against a process as a tenant and expects a status.
type tool struct {
	path, address, tenant string
}

// buildTool builds amphoratool before a test begins to count its time.
func buildTool(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	builtTool.once.Do(func() {
		builtTool.path = filepath.Join(filepath.Dir(binary(context.Background(), t)), "amphoratool")
		out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", builtTool.path, "../cmd/amphoratool").CombinedOutput()
		if err != nil {
			t.Logf("%s", out)
		}
		builtTool.err = err
	})
	must(t, builtTool.err)
}

func newTool(n *harness.Node, tenant string) tool {
	return tool{builtTool.path, n.URL(""), tenant}
}

// run expects the command to succeed and want to be part of what it prints.
func (a tool) run(ctx context.Context, t *testing.T, want string, args ...string) string {
	t.Helper()
	out, status := a.try(ctx, t, args...)
	if status != 0 || !strings.Contains(out, want) {
		t.Errorf("amphoratool %s ended with %d, want %q:\n%s", strings.Join(args, " "), status, want, out)
	}
	return out
}

// try runs the command with the address and the tenant in its environment, where mimirtool has them.
func (a tool) try(ctx context.Context, t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.CommandContext(ctx, a.path, args...)
	cmd.Env = append(os.Environ(), "MIMIR_ADDRESS="+a.address, "MIMIR_TENANT_ID="+a.tenant)
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || !cmd.ProcessState.Exited() {
		t.Fatalf("amphoratool %q: %v\n%s", args, err, text)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// file writes a file of a test.
func file(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const someRules = `namespace: web
groups:
- name: latency
  interval: 30s
  rules:
  - record: job:latency:mean
    expr: "sum   by (job) (latency_sum) /  sum by (job) (latency_count)"
  - alert: Slow
    expr: job:latency:mean > 3
    for: 5m
    labels: {severity: page}
---
namespace: db
groups:
- name: space
  rules:
  - alert: Full
    expr: free_bytes < 1e9
`

func TestTheToolKeepsRulesLikeTheirFiles(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	a := newTool(n, "team")
	dir := t.TempDir()
	rules := file(t, dir, "rules.yaml", someRules)

	a.run(ctx, t, "2 changed", "rules", "lint", rules)
	a.run(ctx, t, "0 changed", "rules", "lint", rules)
	a.run(ctx, t, "", "rules", "check", "--strict", rules)
	a.run(ctx, t, "create web/latency", "rules", "diff", rules)
	a.run(ctx, t, "2 rule groups of 2 namespaces", "rules", "load", rules)
	a.run(ctx, t, "no changes detected", "rules", "diff", rules)
	a.run(ctx, t, "latency", "rules", "list")
	a.run(ctx, t, `"rulegroup": "space"`, "rules", "list", "--format", "json")
	a.run(ctx, t, "alert: Full", "rules", "get", "db", "space")
	// What print writes is what load reads.
	a.run(ctx, t, "web.yaml", "rules", "print", "--output-dir", filepath.Join(dir, "printed"))
	a.run(ctx, t, "no changes detected", "rules", "diff", "--rule-dirs", filepath.Join(dir, "printed"))

	changed := file(t, dir, "changed.yaml", strings.Replace(strings.Split(someRules, "---")[0], "> 3", "> 4", 1))
	a.run(ctx, t, "update web/latency", "rules", "diff", changed)
	a.run(ctx, t, "no changes detected", "rules", "diff", "--namespaces-regex", "elsewhere", changed)
	a.run(ctx, t, "0 created, 1 updated, 1 deleted", "rules", "sync", changed)
	a.run(ctx, t, "no changes detected", "rules", "diff", changed)
	a.run(ctx, t, "", "rules", "delete", "web", "latency")
	if out := a.run(ctx, t, "Namespace", "rules", "list"); strings.Contains(out, "latency") {
		t.Errorf("the group is still there: %s", out)
	}
	if out, status := a.try(ctx, t, "rules", "get", "web", "latency"); status == 0 {
		t.Errorf("a group that is gone was printed: %s", out)
	}
	if out, status := a.try(ctx, t, "rules", "load", file(t, dir, "bad.yaml", "groups: [{name: x, rules: [{record: r, expr: 'sum('}]}]")); status == 0 || !strings.Contains(out, `group "x"`) {
		t.Errorf("rules that cannot be parsed were loaded: %s", out)
	}
}

func TestTheToolPutsAndGetsTheConfigurationOfAnAlertmanager(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	a := newTool(n, "team")
	dir := t.TempDir()
	config := file(t, dir, "am.yaml", "templates: [t.tmpl]\nroute: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
	tmpl := file(t, dir, "t.tmpl", `{{ define "hello" }}hello {{ .Status }}{{ end }}`)

	a.run(ctx, t, "valid", "alertmanager", "verify", config, tmpl)
	if out, status := a.try(ctx, t, "alertmanager", "verify", config); status == 0 {
		t.Errorf("a template is missing: %s", out)
	}
	a.run(ctx, t, "hello firing", "alertmanager", "render", "--template.glob", tmpl, "--template.text", `{{ template "hello" . }}`)
	a.run(ctx, t, "", "alertmanager", "load", config, tmpl)
	a.run(ctx, t, "receiver: nobody", "alertmanager", "get")
	a.run(ctx, t, "t.tmpl", "alertmanager", "get", "--output-dir", filepath.Join(dir, "got"))
	if got, err := os.ReadFile(filepath.Join(dir, "got", "t.tmpl")); err != nil || !strings.Contains(string(got), "hello") {
		t.Errorf("%q, %v", got, err)
	}
	a.run(ctx, t, "", "alertmanager", "delete")
	if out, status := a.try(ctx, t, "alertmanager", "get"); status == 0 {
		t.Errorf("the configuration is still there: %s", out)
	}
	a.run(ctx, t, "the same alerts", "alerts", "verify")
}

func TestTheToolBringsThePastOfAPrometheus(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 3*time.Minute)
	n := everything(ctx, t, "-compactor.block-upload-enabled=true")
	a := newTool(n, "team")
	at := time.Now().Add(-24 * time.Hour).Truncate(2 * time.Hour)
	data := prometheusData(ctx, t, at)

	a.run(ctx, t, "2 series", "migrate", "prometheus", "--dry-run", data)
	a.run(ctx, t, "2 uploaded, 0 there already, 0 failed", "migrate", "prometheus", "--head", "--sleep-time", "200ms", data)
	a.run(ctx, t, "0 uploaded, 1 there already", "migrate", "prometheus", "--sleep-time", "200ms", data)
	for expr, when := range map[string]time.Time{"sum(past)": at.Add(30 * time.Minute), "sum(recent)": at.Add(3*time.Hour + 30*time.Minute)} {
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			a, err := ask(ctx, n.URL("/prometheus"), "team", "query", url.Values{"query": {expr}, "time": {seconds(when.UnixMilli())}})
			if err == nil && (len(a.Data.Result) != 1 || a.Data.Result[0].Value[1] != "6") {
				err = fmt.Errorf("%s is %v, want 6", expr, a.Data.Result)
			}
			return err
		}))
	}
}

// prometheusData is the data directory of a Prometheus that stopped: one block and a write-ahead log.
func prometheusData(ctx context.Context, t *testing.T, at time.Time) string {
	t.Helper()
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(harness.TestLog(t), dir, tsdb.DefaultBlockDuration)
	must(t, err)
	add := func(app storage.Appender, name, job string, from time.Time) {
		for i := range 60 {
			_, err := app.Append(0, labels.FromStrings("__name__", name, "job", job), from.Add(time.Duration(i)*time.Minute).UnixMilli(), 3)
			must(t, err)
		}
		must(t, app.Commit())
	}
	add(w.Appender(ctx), "past", "a", at)
	add(w.Appender(ctx), "past", "b", at)
	_, err = w.Flush(ctx)
	must(t, err)
	must(t, w.Close())
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0
	db, err := tsdb.Open(dir, harness.TestLog(t), nil, opts, nil)
	must(t, err)
	add(db.Appender(ctx), "recent", "a", at.Add(3*time.Hour))
	add(db.Appender(ctx), "recent", "b", at.Add(3*time.Hour))
	must(t, db.Close())
	return dir
}

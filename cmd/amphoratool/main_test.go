package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
)

// ofMimir are commands as scripts for mimirtool and query-tee have them, each with all its flags. FILE exists.
const ofMimir = `
rules list --format=json --disable-color --backend=mimir --use-legacy-routes --mimir-http-prefix=/prometheus
rules print --disable-color --output-dir=rules
rules get --disable-color --output-dir=rules namespace group
rules load FILE FILE --use-legacy-routes --mimir-http-prefix=/prometheus
rules delete namespace group
rules delete-namespace namespace
rules diff --rule-files=FILE --rule-dirs=. --namespaces=a,b --disable-color --verbose
rules diff --ignored-namespaces=a FILE
rules sync --rule-files=FILE --namespaces-regex=a.* --concurrency=4
rules sync --rule-dirs=. --ignored-namespaces-regex=a.*
rules lint -n FILE
rules prepare -i -l cluster --label-excluded-rule-groups=a,b FILE
rules check --strict FILE
alertmanager get --output-dir=out --disable-color
alertmanager load FILE FILE --utf8-strict-mode
alertmanager delete
alertmanager verify FILE FILE --utf8-strict-mode
alertmanager render --template.glob=FILE --template.text=x --template.type=html --template.data=FILE
alertmanager migrate-utf8 FILE
alerts verify --ignore-alerts=A --source-label=prometheus --grace-period=2 --frequency=1
analyze grafana --address=http://grafana --key=k --folder-title=a --read-timeout=1m --output=FILE
analyze dashboard --output=FILE FILE
analyze ruler --output=FILE
analyze rule-file --output=FILE FILE
analyze prometheus --prometheus-http-prefix=/prometheus --grafana-metrics-file=FILE --ruler-metrics-file=FILE --concurrency=4 --read-timeout=1m --output=FILE
remote-read stats --selector=up --from=2026-01-01T00:00:00Z --to=2026-01-02T00:00:00Z --read-size-limit=1024 --use-chunks --read-timeout=1m --remote-read-path=/api/v1/read
remote-read dump --selector=up
remote-read export --selector=up --tsdb-path=. --block-duration=24h
backfill --sleep-time=1s .
acl generate-header --id=a --rule={env="dev"}
config convert --yaml-file=FILE --flags-file=FILE --yaml-out=FILE --flags-out=FILE --update-defaults --include-defaults --verbose --gem
bucket-validation --object-count=10 --report-every=5 --test-runs=1 --prefix=p --retries-on-error=1 --bucket-config=-backend=filesystem
promql format --pretty up
validate alerts-file --verbose --set-exit-code FILE
runtime-config validate --config-file=FILE
loadgen --write-url=http://a --series-name=a --active-series=1 --scrape-interval=1s --parallelism=1 --batch-size=1 --write-timeout=1s --query-url=http://a --query=up --query-parallelism=1 --query-timeout=1s --query-duration=1h --metrics-listen-address=:0
version
query-tee -backend.endpoints=http://a,http://b -backend.preferred=a -backend.read-timeout=1m -server.http-service-address= -server.http-service-port=1 -server.metrics-port=2 -server.path-prefix=/prometheus -proxy.compare-responses=true -proxy.value-comparison-tolerance 0.1 -proxy.compare-skip-recent-samples=1m -proxy.passthrough-non-registered-routes -proxy.add-missing-time-parameter-to-instant-queries=false
`

// ofCalls are flags of every command that calls a server.
const ofCalls = " --address=http://a --id=t --user=u --key=k --tls-ca-path=a --tls-cert-path=a --tls-key-path=a --tls-insecure-skip-verify --extra-headers=a=b --log.level=debug"

func TestCommandsOfMimirsToolsAreUnderstood(t *testing.T) {
	file, err := filepath.Abs("main_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.TrimSpace(ofMimir)) {
		for _, calls := range []string{"rules list", "rules sync", "alertmanager get", "alerts verify", "analyze ruler", "analyze prometheus", "remote-read dump", "backfill"} {
			if strings.HasPrefix(line, calls+" ") {
				line = strings.TrimSpace(line) + ofCalls
			}
		}
		var out bytes.Buffer
		app, ended := application(&cli.Env{In: &out, Out: &out, Err: &out, Getenv: func(string) string { return "" }})
		if _, err := app.Parse(twoDashes(strings.Fields(strings.ReplaceAll(line, "FILE", file)))); err != nil || *ended > 0 {
			t.Errorf("%s: %v %s", line, err, out.String())
		}
	}
}

// TestVariablesOfMimirtoolAreRead: those that begin with AMPHORA_ win.
func TestVariablesOfMimirtoolAreRead(t *testing.T) {
	env := map[string]string{"MIMIR_HTTP_PREFIX": "/theirs", "MIMIR_USE_LEGACY_ROUTES": "true", "MIMIR_TENANT_ID": "theirs", "AMPHORA_TENANT_ID": "ours"}
	app, _ := application(&cli.Env{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Getenv: func(name string) string { return env[name] }})
	rules := app.GetCommand("rules")
	for flag, want := range map[string]string{"mimir-http-prefix": "/theirs", "use-legacy-routes": "true", "id": "ours"} {
		if got := rules.GetFlag(flag).Model().Default; len(got) != 1 || got[0] != want {
			t.Errorf("--%s is %q by default, want %q", flag, got, want)
		}
	}
}

// TestWhatIsThereIsSaidPlainly: a version without the help behind it, an empty list as a list, and a directory that
// does not exist instead of an empty bucket in its place.
func TestWhatIsThereIsSaidPlainly(t *testing.T) {
	empty, missing := t.TempDir(), filepath.Join(t.TempDir(), "mistyped")
	tool := func(args ...string) (string, error) {
		var out bytes.Buffer
		e := &cli.Env{In: &out, Out: &out, Err: &out, Getenv: func(string) string { return "" }}
		err := run(t.Context(), e, args)
		return out.String(), err
	}
	if out, err := tool("--version"); err != nil || !strings.HasPrefix(out, "amphoratool ") || strings.Count(out, "\n") != 1 {
		t.Errorf("--version: %q, %v", out, err)
	}
	if out, err := tool("bucket", "ls", "--output=json", "--backend=filesystem", "--filesystem.dir="+empty); err != nil || out != "[]\n" {
		t.Errorf("an empty bucket: %q, %v", out, err)
	}
	for _, verb := range []string{"ls", "verify", "tenants"} {
		if out, err := tool("bucket", verb, "--backend=filesystem", "--filesystem.dir="+missing); err == nil || !strings.Contains(err.Error(), "--filesystem.dir") {
			t.Errorf("%s of a directory that does not exist: %q, %v", verb, out, err)
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a command that looks made the directory that it was to look into")
	}
}

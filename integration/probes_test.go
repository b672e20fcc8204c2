package integration

import (
	"bytes"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTheBinaryAnswersTheProbesOfItsPods holds paths and ports that the chart and the jsonnet library give to
// Kubernetes against the binary: what it answers, and where it listens by default.
func TestTheBinaryAnswersTheProbesOfItsPods(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	chart, lib := read(t, "operations/helm/amphora/templates/_pod.tpl"), read(t, "operations/jsonnet/amphora/pod.libsonnet")

	probes := regexp.MustCompile(`(\w+Probe):\s+httpGet: \{path: (\S+), port: ([\w-]+)(?:\{\{ if \$served \}\}, scheme: HTTPS\{\{ end \}\})?\}`).FindAllStringSubmatch(chart, -1)
	if len(probes) != 3 || strings.Count(chart, "Probe:") != 3 {
		t.Fatalf("the chart has %d probes, of which %d are understood, want 3", strings.Count(chart, "Probe:"), len(probes))
	}
	ofLib := map[string]string{}
	for _, m := range regexp.MustCompile(`(\w+Probe): probe\('([^']+)'\)`).FindAllStringSubmatch(lib, -1) {
		ofLib[m[1]] = m[2]
	}
	for _, p := range probes {
		name, path, port := p[1], p[2], p[3]
		if r := call(ctx, t, http.MethodGet, n.URL(path), nil); r.status != http.StatusOK {
			t.Errorf("%s asks %s, which is answered with %s", name, path, r)
		}
		if port != "http-metrics" || ofLib[name] != path {
			t.Errorf("%s asks port %s and %s, that of the jsonnet library %q", name, port, path, ofLib[name])
		}
	}

	cmd := exec.CommandContext(ctx, binary(ctx, t), "-config.check")
	var effective, said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &effective, &said, t.TempDir()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	for port, setting := range map[string]string{"http-metrics": "http_listen_port", "grpc": "grpc_listen_port", "gossip": "bind_port"} {
		m := regexp.MustCompile(`\b` + setting + `: (\d+)`).FindStringSubmatch(effective.String())
		if m == nil {
			t.Errorf("the configuration in force does not have %s:\n%s", setting, effective.String())
			continue
		}
		if want := "{name: " + port + ", containerPort: " + m[1] + "}"; !strings.Contains(chart, want) {
			t.Errorf("the binary listens at %s for %s, and the chart does not have %s", m[1], port, want)
		}
	}
}

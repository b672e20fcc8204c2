package integration

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rulesAction runs what operations/rules-action runs in a workflow, with the variables of a step. It
// returns what was printed, what the outputs are, and the status.
func rulesAction(ctx context.Context, t *testing.T, env ...string) (printed, outputs string, status int) {
	t.Helper()
	run, err := filepath.Abs("../operations/rules-action/run")
	must(t, err)
	to := filepath.Join(t.TempDir(), "outputs")
	cmd := exec.CommandContext(ctx, "bash", run)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "AMPHORATOOL=" + builtTool.path, "GITHUB_OUTPUT=" + to}, env...)
	text, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Exited()) {
		t.Fatalf("%v: %s", err, text)
	}
	b, err := os.ReadFile(to)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text), string(b), cmd.ProcessState.ExitCode()
}

func TestTheRulesActionKeepsRulesLikeTheFilesOfARepository(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	dir := t.TempDir()
	file(t, dir, "rules.yaml", someRules)
	broken := t.TempDir()
	file(t, broken, "rules.yaml", "namespace: x\ngroups: [{name: x, rules: [{record: r, expr: 'sum('}]}]")

	with := []string{"INPUT_ADDRESS=" + n.URL(""), "INPUT_TENANT_ID=team", "INPUT_RULES_DIR=" + dir}
	// As workflows for Mimir have it.
	mimir := []string{"MIMIR_ADDRESS=" + n.URL(""), "MIMIR_TENANT_ID=team", "RULES_DIR=" + dir}
	for _, step := range []struct {
		action string
		env    []string
		status int
		want   string // in what is printed and in the output detailed
	}{
		{"lint", with, 0, "2 changed"},
		{"lint", mimir, 0, "0 changed"},
		{"check", with, 0, ""},
		{"check", []string{"INPUT_RULES_DIR=" + broken}, 1, `group "x"`},
		{"prepare", append([]string{"INPUT_LABEL=zone", "LABEL_EXCLUDED_RULE_GROUPS=space"}, with...), 0, ""},
		{"diff", append([]string{"INPUT_NAMESPACES=web"}, with...), 0, "create web/latency"},
		{"sync", append([]string{"NAMESPACES_REGEX=we."}, mimir...), 0, "1 created, 0 updated, 0 deleted"},
		{"diff", with, 0, "create db/space"},
		{"sync", with, 0, "1 created, 0 updated, 0 deleted"},
		{"diff", with, 0, "no changes detected"},
		{"print", with, 0, "by (job, zone)"},
		{"diff", append([]string{"INPUT_ADDRESS=http://127.0.0.1:1"}, with[1:]...), 1, "127.0.0.1:1"},
	} {
		printed, outputs, status := rulesAction(ctx, t, append([]string{"INPUT_ACTION=" + step.action}, step.env...)...)
		if status != step.status || !strings.Contains(printed, step.want) || !strings.Contains(outputs, step.want) || !strings.HasPrefix(outputs, "detailed<<end-") || !strings.Contains(outputs, "\nsummary<<end-") {
			t.Errorf("%s %q ended with %d, want %d and %q:\n%s\noutputs:\n%s", step.action, step.env, status, step.status, step.want, printed, outputs)
		}
		if failed := strings.Contains(printed, "::error "); failed != (status != 0) {
			t.Errorf("%s ended with %d, and the workflow's page shows an error: %v", step.action, status, failed)
		}
	}
	for want, env := range map[string][]string{
		"no action": nil, "no action delete": {"ACTION=delete"}, "needs the address": {"ACTION=sync"}, "exclude each other": append([]string{"ACTION=sync", "NAMESPACES=a", "INPUT_IGNORED_NAMESPACES=b"}, with...),
	} {
		if printed, _, status := rulesAction(ctx, t, env...); status != 1 || !strings.Contains(printed, want) {
			t.Errorf("with %q it ended with %d, want %q:\n%s", env, status, want, printed)
		}
	}
}

package integration

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestTheToolRecordsThePastOfRules brings samples and native histograms of yesterday to a tenant, records rules
// over them, and finds what the rules would have recorded. A second time changes nothing. Unit tests of a rule run
// here and there. Queries may see a block a minute late: the process starts anew to see it now.
func TestTheToolRecordsThePastOfRules(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 3*time.Minute)
	n := everything(ctx, t, "-compactor.block-upload-enabled=true")
	a := newTool(n, "team")
	at := time.Now().Add(-24 * time.Hour).Truncate(2 * time.Hour)
	a.run(ctx, t, "1 uploaded, 0 there already, 0 failed", "migrate", "prometheus", "--sleep-time", "200ms", prometheusData(ctx, t, at))
	a.run(ctx, t, "1 uploaded, 0 there already, 0 failed", "migrate", "prometheus", "--sleep-time", "200ms", histogramsOfThePast(ctx, t, at))
	found := func(expr string, when time.Time, want string) {
		t.Helper()
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			a, err := ask(ctx, n.URL("/prometheus"), "team", "query", url.Values{"query": {expr}, "time": {seconds(when.UnixMilli())}})
			if err == nil && (len(a.Data.Result) != 1 || a.Data.Result[0].Value[1] != want) {
				err = fmt.Errorf("%s is %v, want %s", expr, a.Data.Result, want)
			}
			return err
		}))
	}
	found("sum(past)", at.Add(30*time.Minute), "6")
	dir := t.TempDir()
	rules := file(t, dir, "rules.yaml", "groups:\n- name: g\n  interval: 1m\n  rules:\n  - record: past:sum\n    expr: sum(past)\n    labels: {kind: backfilled}\n")
	args := []string{"rules", "backfill", "--sleep-time", "200ms", "--start", at.Format(time.RFC3339), "--end", at.Add(time.Hour).Format(time.RFC3339)}
	histograms := file(t, dir, "histograms.yaml", "groups:\n- name: h\n  interval: 1m\n  rules:\n  - record: took:sum\n    expr: sum(took)\n")
	a.run(ctx, t, "1 uploaded", append(args, rules)...)
	a.run(ctx, t, "1 uploaded", append(args, histograms)...)
	must(t, n.Restart())
	harness.Need(t, n.WaitReady(ctx))
	found(`past:sum{kind="backfilled"}`, at.Add(30*time.Minute), "6")
	found(`count_over_time(past:sum[3h])`, at.Add(2*time.Hour), "60")
	a.run(ctx, t, "there already", append(args, rules)...)
	same(ctx, t, n, "team", "took:sum", "sum(took)", url.Values{"time": {seconds(at.Add(30 * time.Minute).UnixMilli())}})
	found(`count_over_time(took:sum[3h])`, at.Add(2*time.Hour), "60")

	a.run(ctx, t, "", "rules", "load", rules)
	tests := "rule_files: [%s]\ntests:\n- input_series: [{series: past, values: 1x10}]\n  promql_expr_test:\n  - {expr: 'past:sum', eval_time: 5m, exp_samples: [{labels: 'past:sum{kind=\"backfilled\"}', value: %d}]}\n"
	a.run(ctx, t, "1 tests passed", "rules", "test", file(t, dir, "here.yaml", fmt.Sprintf(tests, "rules.yaml", 1)))
	a.run(ctx, t, "1 tests passed", "rules", "test", "--server", file(t, dir, "there.yaml", fmt.Sprintf(tests, "rules", 1)))
	if out, status := a.try(ctx, t, "rules", "test", "--server", file(t, dir, "wrong.yaml", fmt.Sprintf(tests, "rules", 2))); status == 0 || !strings.Contains(out, "expected:") {
		t.Errorf("a wrong test ended with %d: %s", status, out)
	}
}

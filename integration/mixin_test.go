package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// mixinExpressions are those of the compiled mixin, by where they stand.
func mixinExpressions(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, name := range []string{"alerts.yaml", "rules.yaml"} {
		var f struct {
			Groups []struct {
				Rules []struct{ Alert, Record, Expr string }
			}
		}
		data, err := os.ReadFile("../operations/mixin/" + name)
		must(t, err)
		must(t, yaml.Unmarshal(data, &f))
		for _, g := range f.Groups {
			for _, r := range g.Rules {
				out[name+": "+r.Alert+r.Record] = []string{r.Expr}
			}
		}
	}
	boards, err := filepath.Glob("../operations/mixin/dashboards/*.json")
	must(t, err)
	for _, path := range boards {
		data, err := os.ReadFile(path)
		must(t, err)
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		must(t, json.Unmarshal(data, &d))
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				where := filepath.Base(path) + ": " + p.Title
				out[where] = append(out[where], strings.NewReplacer("$__rate_interval", "5m", "$cluster", ".*", "$namespace", ".*").Replace(q.Expr))
			}
		}
	}
	return out
}

// metricsOf are the names of the metrics in an expression.
func metricsOf(t *testing.T, expr string) []string {
	t.Helper()
	tree, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%v\n%s", err, expr)
	}
	var out []string
	parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			name := v.Name
			for _, m := range v.LabelMatchers {
				if m.Name == model.MetricNameLabel {
					name = m.Value
				}
			}
			out = append(out, name)
		}
		return nil
	})
	return out
}

// addFamilies adds the names of the metrics that a process exposes.
func addFamilies(ctx context.Context, t *testing.T, have map[string]bool, url string, header ...string) {
	t.Helper()
	body, err := harness.Get(ctx, url, header...)
	must(t, err)
	addText(t, have, string(body))
}

func addText(t *testing.T, have map[string]bool, text string) {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	must(t, err)
	for name := range families {
		have[name] = true
	}
}

// worked starts a cluster in which every part has something to do, and has it do that.
func worked(ctx context.Context, t *testing.T) *harness.Cluster {
	t.Helper()
	overrides := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte("overrides: {small: {max_global_series_per_user: 1}}\n"), 0o600))
	c := harness.Start(ctx, t, harness.Options{
		Binary: binary(ctx, t), Files: true, Replicas: 1,
		Flags: []string{"-runtime-config.file=" + overrides, "-ruler.evaluation-delay-duration=0s", "-ruler.alertmanager-url=http://127.0.0.1:1",
			"-distributor.ha-tracker.enable=true", "-distributor.ha-tracker.enable-for-all-users=true",
			"-compactor.compaction-interval=1s", "-compactor.cleanup-interval=1s", "-query-frontend.split-queries-by-interval=1h",
			"-ingester.out-of-order-time-window=1h", "-ingester.max-global-exemplars-per-user=100"},
		Nodes: []harness.Spec{{Name: "all", Target: "all"}, {Name: "querier", Target: "querier"}},
	})
	base := c.Node("all").URL("")
	now := time.Now()
	stored(t, pushV1(ctx, t, base, "team", floats(now, 1, "__name__", "x", "cluster", "c", "__replica__", "a")))
	stored(t, pushV1(ctx, t, base, "team", floats(now, 1, "__name__", "x", "job", "y")))
	if r := pushV1(ctx, t, base, "team", floats(now, 1, "__name__", "x", "cluster", "c", "__replica__", "b")); r.status != http.StatusAccepted {
		t.Errorf("a push of the other replica: %s", r)
	}
	stored(t, pushV1(ctx, t, base, "blocks", floats(now, 1, "__name__", "x")))
	late := floats(now.Add(-10*time.Minute), 1, "__name__", "x", "job", "y")
	late.Exemplars = []prompb.Exemplar{{Labels: pairs("trace_id", "1"), Value: 1, Timestamp: now.UnixMilli()}}
	stored(t, pushV1(ctx, t, base, "team", late))
	if r := pushV1(ctx, t, base, "small", floats(now, 1, "__name__", "x"), floats(now, 1, "__name__", "y")); r.status != http.StatusBadRequest {
		t.Errorf("a push over the limit of series: %s", r)
	}
	if r := call(ctx, t, http.MethodPost, base+"/api/v1/alerts", []byte("alertmanager_config: |\n  route: {receiver: r, group_wait: 1s}\n  receivers: [{name: r, webhook_configs: [{url: 'http://127.0.0.1:1/'}]}]\n"), "X-Scope-OrgID", "team"); r.status != http.StatusCreated {
		t.Errorf("the configuration of the alertmanager: %s", r)
	}
	setGroup(ctx, t, base, "team", "n", "name: g\ninterval: 1s\nrules:\n- {record: y, expr: x}\n- {alert: A, expr: x}\n")
	hasValue(ctx, t, base, "team", `count(y)`, "2")
	alert := fmt.Sprintf(`[{"labels":{"alertname":"B"},"startsAt":%q}]`, now.UTC().Format(time.RFC3339))
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		r, err := try(ctx, http.MethodPost, base+"/alertmanager/api/v2/alerts", []byte(alert), "X-Scope-OrgID", "team", "Content-Type", "application/json")
		if err == nil && r.status != http.StatusOK {
			err = fmt.Errorf("an alert: %s", r)
		}
		return err
	}))
	if r := call(ctx, t, http.MethodPost, base+"/ingester/flush?wait=true", nil); r.status/100 != 2 {
		t.Errorf("flush: %s", r)
	}
	for _, path := range []string{"query_range?query=x&start=%d&end=%d&step=15", "labels?start=%d&end=%d"} {
		if _, err := harness.Get(ctx, base+fmt.Sprintf("/prometheus/api/v1/"+path, now.Add(-24*time.Hour).Unix(), now.Unix()), "X-Scope-OrgID", "team"); err != nil {
			t.Error(err)
		}
	}
	return c
}

// rarely says when there are series of metrics of the mixin that a cluster does not have in which nothing goes wrong and
// whose listeners have no certificates.
func rarely() map[string]string {
	const limit, failure = "something must meet a limit", "something must fail"
	return map[string]string{
		"amphora_acme_certificate_expiry_timestamp_seconds":       "TestACertificateComesFromACA looks at it",
		"amphora_acme_orders_total":                               "TestACertificateComesFromACA looks at it",
		"amphora_alertmanager_notification_rate_limited_total":    limit,
		"amphora_alertmanager_notifications_failed_total":         "retries must last as long as a notification may wait",
		"amphora_compactor_blocks_marked_for_deletion_total":      "blocks must be compacted or grow old",
		"amphora_compactor_blocks_marked_for_no_compaction_total": "a block must be damaged",
		"amphora_continuous_test_writes_failed_total":             failure,
		"amphora_discarded_requests_total":                        limit,
		"amphora_distributor_instance_rejected_requests_total":    limit,
		"amphora_engine_queries_refused_total":                    limit,
		"amphora_ha_tracker_elected_replica_changes_total":        "an elected replica must fall silent",
		"amphora_ingester_instance_rejected_requests_total":       limit,
		"amphora_querier_queries_rejected_total":                  limit,
		"amphora_query_frontend_rejected_queries_total":           limit,
		"amphora_ruler_missed_evaluations_failed_total":           failure,
		"amphora_ruler_missed_evaluations_made_up_total":          failure,
		"amphora_ruler_queries_failed_total":                      failure,
		"amphora_ruler_write_requests_failed_total":               failure,
		"amphora_server_tls_certificate_expiry_timestamp_seconds": "TestACertificateComesFromACA looks at it",
	}
}

func TestEveryMetricOfTheMixinIsExposed(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	c := worked(ctx, t)
	n := c.Node("all")
	credential := filepath.Join(t.TempDir(), "root-credential")
	guarded := everything(ctx, t, "-auth.enabled", "-auth.root-credential-file="+credential)
	root := rootSigner(t, credential)
	made, err := clientOf(guarded, root).CreateWorkspace(ctx, &amp.CreateWorkspaceInput{})
	must(t, err)
	signedGet(ctx, t, guarded.URL("/workspaces/"+*made.WorkspaceId+"/api/v1/query?query=1"), root.AccessKey, root.Secret)
	signedGet(ctx, t, guarded.URL("/workspaces/"+*made.WorkspaceId+"/api/v1/query?query=1"), root.AccessKey, "wrong")
	x := continuously(ctx, t, n, "tester")
	x.counts(ctx, t, "query_result_checks_total", func(v float64) bool { return v > 0 })

	wanted := map[string][]string{} // by metric, where it stands
	for where, exprs := range mixinExpressions(t) {
		for _, expr := range exprs {
			for _, name := range metricsOf(t, expr) {
				if name != "ALERTS" { // of the Prometheus that evaluates the alerts
					wanted[name] = append(wanted[name], where)
				}
			}
		}
	}
	parts := regexp.MustCompile(`_(bucket|sum|count)$`)
	var missing []string
	look := func() []string {
		have := map[string]bool{}
		for _, x := range c.Nodes() {
			addFamilies(ctx, t, have, x.URL("/metrics"))
		}
		addFamilies(ctx, t, have, x.url+"/metrics")
		_, text := signedGet(ctx, t, guarded.URL("/metrics"), root.AccessKey, root.Secret)
		addText(t, have, text)
		return slices.DeleteFunc(slices.Sorted(maps.Keys(wanted)), func(name string) bool {
			return have[name] || have[parts.ReplaceAllString(name, "")] || rarely()[name] != ""
		})
	}
	soon, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_ = harness.Poll(soon, func(context.Context) error { // what is missing is told below
		// Blocks are asked for until each of the queriers has had its turn: those of a tenant whom nobody asked for before
		// there were any, since queriers remember for minutes that there are none.
		if _, err := harness.Get(ctx, n.URL(fmt.Sprintf("/prometheus/api/v1/query?query=x&time=%d", time.Now().Unix())), "X-Scope-OrgID", "blocks", "Cache-Control", "no-store"); err != nil {
			return err
		}
		if missing = look(); len(missing) > 0 {
			return fmt.Errorf("%d metrics are missing", len(missing))
		}
		return nil
	})
	for _, name := range missing {
		t.Errorf("%s is not exposed: %q", name, wanted[name])
	}
	declared, err := os.ReadFile("../docs/reference/metrics.md")
	must(t, err)
	for name := range rarely() {
		if !strings.Contains(string(declared), "| `"+name+"` |") || wanted[name] == nil {
			t.Errorf("%s is excused, but is not declared, or is in no expression", name)
		}
	}
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWhatIsCheckedInIsWhatTheTablesSay(t *testing.T) {
	if err := run(root, true); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Join(root, "operations", "mixin", "dashboards"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(dashboards()) {
		t.Errorf("%d dashboards are checked in, %d are written", len(entries), len(dashboards()))
	}
}

// expressions are all, of dashboards, alerts and rules, as they can be parsed.
func expressions() map[string]string {
	out := map[string]string{}
	for _, d := range dashboards() {
		for _, r := range d.rows {
			for _, p := range r.panels {
				for _, q := range p.queries {
					expr := strings.NewReplacer("$__rate_interval", "5m", "$cluster", ".*", "$namespace", ".*").Replace(q.expr)
					out[expr] = "dashboard " + d.name + ", " + p.title
				}
			}
		}
	}
	for _, a := range alerts() {
		out[a.expr] = "alert " + a.name
	}
	for _, r := range recording() {
		out[r[1]] = "rule " + r[0]
	}
	return out
}

// outside is what other programs and libraries expose, and Prometheus itself.
var outside = regexp.MustCompile(`^(ALERTS|go_.*|process_.*|amphora_(build_info|ring_members|tcp_connections(_limit)?|kv_request_duration_seconds|objstore_bucket_(operations_total|operation_failures_total|operation_duration_seconds)))$`)

func TestEveryMetricOfAnExpressionIsOneThatThereIs(t *testing.T) {
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(read(t, "docs/reference/metrics.md"), -1) {
		known[m[1]], known["amphora_"+m[1]] = true, true
	}
	for expr, where := range expressions() {
		tree, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
		if err != nil {
			t.Errorf("%s: %v\n%s", where, err, expr)
			continue
		}
		parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
			v, ok := n.(*parser.VectorSelector)
			if !ok {
				return nil
			}
			name := v.Name
			for _, m := range v.LabelMatchers {
				if m.Name == model.MetricNameLabel {
					name = m.Value
				}
			}
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			if !known[name] && !known[base] && !outside.MatchString(name) && !outside.MatchString(base) {
				t.Errorf("%s: there is no metric %s", where, name)
			}
			return nil
		})
	}
}

func TestEveryIDOfARefusalAndEveryAlertHasARunbook(t *testing.T) {
	page := read(t, "docs/runbooks.md")
	for _, a := range alerts() {
		if !strings.Contains(page, "## Amphora"+a.name+"\n") {
			t.Errorf("alert %s has no section", a.name)
		}
	}
	var have []string
	for _, e := range ids() {
		if slices.Contains(have, e.id) {
			t.Errorf("%s stands twice", e.id)
		}
		have = append(have, e.id)
	}
	_, table, _ := strings.Cut(read(t, "docs/reference/errors.md"), "## Ids")
	var want []string
	for _, m := range regexp.MustCompile("(?m)^\\| \\[`([a-z0-9-]+)`\\]").FindAllStringSubmatch(table, -1) {
		want = append(want, m[1])
	}
	for _, id := range want {
		if !slices.Contains(have, id) {
			t.Errorf("%s has no text in ids.go", id)
		}
	}
}

// Limits and settings that runbooks name must exist.
func TestRunbooksNameSettingsThatExist(t *testing.T) {
	known := read(t, "docs/reference/config.md") + read(t, "docs/reference/limits.md")
	for _, e := range ids() {
		for _, m := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(e.text, -1) {
			name := m[1]
			if name == "retry_on_http_429" || name == "max_samples_per_send" { // of Prometheus
				continue
			}
			if !strings.Contains(known, name) {
				t.Errorf("%s: there is no setting %s", e.id, name)
			}
		}
	}
}

func TestDashboardsAreWhatGrafanaReads(t *testing.T) {
	for _, d := range dashboards() {
		data, err := d.json()
		if err != nil {
			t.Fatal(err)
		}
		var out struct {
			UID    string
			Panels []struct {
				ID      int
				GridPos struct{ X, W int }
			}
		}
		if err := json.Unmarshal(data, &out); err != nil || len(out.UID) > 40 {
			t.Errorf("%s: %v", d.name, err)
		}
		seen := map[int]bool{}
		for _, p := range out.Panels {
			if seen[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: panel %d", d.name, p.ID)
			}
			seen[p.ID] = true
		}
	}
}

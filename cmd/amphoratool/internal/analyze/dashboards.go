package analyze

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/rulefiles"
)

// dashboard is what the file of used metrics says of one dashboard.
type dashboard struct {
	Slug        string   `json:"slug"`
	UID         string   `json:"uid,omitempty"`
	Title       string   `json:"title"`
	Metrics     []string `json:"metrics"`
	ParseErrors []string `json:"parse_errors"`
}

// inDashboards is the file that says which metrics dashboards use.
type inDashboards struct {
	MetricsUsed    []string            `json:"metricsUsed"`
	OverallMetrics map[string]struct{} `json:"-"`
	Dashboards     []dashboard         `json:"dashboards"`
}

// add looks through one dashboard as Grafana stores it.
func (in *inDashboards) add(data []byte) error {
	var head struct{ Slug, UID, Title string }
	var all any
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	d := dashboard{Slug: head.Slug, UID: head.UID, Title: head.Title, Metrics: []string{}, ParseErrors: []string{}}
	found := map[string]bool{}
	for _, expr := range expressions(all) {
		names, err := rulefiles.Metrics(withoutVariables(expr))
		if err != nil {
			d.ParseErrors = append(d.ParseErrors, fmt.Sprintf("%s: %v", expr, err))
		}
		for _, n := range names {
			found[n] = true
		}
	}
	d.Metrics = append(d.Metrics, slices.Sorted(maps.Keys(found))...)
	in.Dashboards = append(in.Dashboards, d)
	return nil
}

// finish sums the dashboards up.
func (in *inDashboards) finish() {
	all := map[string]bool{}
	for _, d := range in.Dashboards {
		for _, m := range d.Metrics {
			all[m] = true
		}
	}
	in.MetricsUsed = append([]string{}, slices.Sorted(maps.Keys(all))...)
}

// expressions finds what queries there are anywhere in a dashboard: the expressions of panels, and
// those inside the queries of variables.
func expressions(v any) []string {
	var out []string
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			out = append(out, expressions(x)...)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			text, isText := v[name].(string)
			switch {
			case name == "expr" && isText && strings.TrimSpace(text) != "":
				out = append(out, text)
			case (name == "query" || name == "definition") && isText:
				out = append(out, ofVariable(text)...)
			default:
				out = append(out, expressions(v[name])...)
			}
		}
	}
	return out
}

var (
	labelValues = regexp.MustCompile(`^\s*label_values\(\s*(.+)\s*,\s*[a-zA-Z_][a-zA-Z0-9_]*\s*\)\s*$`)
	queryResult = regexp.MustCompile(`^\s*query_result\(\s*(.+)\s*\)\s*$`)
)

// ofVariable is the expression in the query of a variable.
func ofVariable(text string) []string {
	for _, r := range []*regexp.Regexp{labelValues, queryResult} {
		if m := r.FindStringSubmatch(text); m != nil {
			return []string{m[1]}
		}
	}
	return nil
}

var (
	durationVariable = regexp.MustCompile(`\[\s*(\$\{?\w+(:\w+)?\}?|\[\[\w+\]\])\s*(:[^\]]*)?\]`)
	stepVariable     = regexp.MustCompile(`:\s*(\$\{?\w+(:\w+)?\}?)\s*\]`)
	offsetVariable   = regexp.MustCompile(`offset\s+(\$\{?\w+(:\w+)?\}?|\[\[\w+\]\])`)
	knownNumber      = regexp.MustCompile(`\$\{?__(range_ms|range_s|range|interval_ms|interval|rate_interval|from|to)(:\w+)?\}?`)
	anyVariable      = regexp.MustCompile(`\$\{\w+(:\w+)?\}|\$\w+|\[\[\w+\]\]`)
)

// withoutVariables puts something that can be parsed where Grafana puts the values of variables.
func withoutVariables(expr string) string {
	expr = stepVariable.ReplaceAllString(expr, ":1m]")
	expr = durationVariable.ReplaceAllString(expr, "[5m]")
	expr = offsetVariable.ReplaceAllString(expr, "offset 5m")
	expr = knownNumber.ReplaceAllString(expr, "1")
	return anyVariable.ReplaceAllString(expr, "variable")
}

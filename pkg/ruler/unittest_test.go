package ruler

import (
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const unitTest = `
tests:
- input_series: [{series: load, values: 1x10}]
  promql_expr_test: [{expr: double, eval_time: 5m, exp_samples: [{labels: double, value: 2}]}]
`

// TestUnitTestsReadTheRulesOfTheTenantOrTheirOwn: stored ones by the names of namespaces, those that the file
// brings in their place, and nobody else's.
func TestUnitTestsReadTheRulesOfTheTenantOrTheirOwn(t *testing.T) {
	w := newWorld(t)
	r := w.ruler(t, "a", nil)
	put(t, r, "name: g\nrules:\n- record: double\n  expr: load * 2\n")
	for name, c := range map[string]struct {
		head   string
		passed bool
	}{
		"all that is stored": {"", true},
		"named":              {"rule_files: [ns]\n", true},
		"brought as text":    {"rule_files: [x]\nrules:\n  x: |\n    groups: [{name: g, rules: [{record: double, expr: load + load}]}]\n", true},
		"brought instead":    {"rule_files: [ns]\nrules:\n  ns: {groups: [{name: g, rules: [{record: double, expr: load * 3}]}]}\n", false},
	} {
		got, err := r.UnitTest(t.Context(), "t", []byte(c.head+unitTest))
		if err != nil || got.Passed != c.passed {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := r.UnitTest(t.Context(), "other", []byte(unitTest)); err != nil || got.Passed || !strings.Contains(got.Tests[0].Failures[0].Expected[0], "double") {
		t.Errorf("another tenant: %+v, %v", got, err)
	}
	for name, head := range map[string]string{
		"no such namespace": "rule_files: [nobody]\n",
		"wrong rules":       "rules: {x: {groups: [{name: g, rules: [{record: double, expr: '('}]}]}}\n",
		"wrong template":    "rules: {x: {groups: [{name: g, rules: [{alert: a, expr: b, annotations: {x: '{{'}}]}]}}\n",
	} {
		if _, err := r.UnitTest(t.Context(), "t", []byte(head+unitTest)); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

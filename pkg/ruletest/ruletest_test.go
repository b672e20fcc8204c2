package ruletest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func runner() *Runner {
	return &Runner{Parser: parser.NewParser(parser.Options{}), Scheme: model.UTF8Validation, Limits: Limits{Samples: 100_000, Evaluations: 10_000, Time: time.Minute}}
}

const rulesText = `
groups:
- name: g
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
  - alert: Down
    expr: up == 0
    for: 5m
    labels: {severity: page}
    annotations: {summary: '{{ $labels.instance }} of {{ $externalLabels.region }} is down'}
  - record: latency:rate
    expr: rate(latency[5m])
`

const testText = `
evaluation_interval: 1m
rule_files: [rules.yaml]
tests:
- name: a target goes down
  interval: 1m
  external_labels: {region: eu}
  input_series:
  - {series: 'up{job="x",instance="a"}', values: '1x3 0x20'}
  - {series: 'up{job="x",instance="b"}', values: '1x30 _ stale'}
  - {series: 'latency{job="x"}', values: '{{schema:0 sum:1 count:1 buckets:[1]}}+{{schema:0 sum:1 count:1 buckets:[1]}}x20'}
  alert_rule_test:
  - {eval_time: 8m, alertname: Down}
  - eval_time: 9m30s
    alertname: Down
    exp_alerts:
    - exp_labels: {severity: page, instance: a, job: x}
      exp_annotations: {summary: a of eu is down}
  promql_expr_test:
  - expr: job:up:sum
    eval_time: 10m
    exp_samples: [{labels: 'job:up:sum{job="x"}', value: 1}]
  - expr: ALERTS{alertstate="firing"}
    eval_time: 10m
    exp_samples: [{labels: 'ALERTS{alertname="Down",alertstate="firing",instance="a",job="x",severity="page"}', value: 1}]
  - expr: latency:rate * 60
    eval_time: 10m
    exp_samples: [{labels: '{job="x"}', histogram: '{{schema:0 sum:1 count:1 buckets:[1] counter_reset_hint:gauge}}'}]
  - expr: 1 + 1
    eval_time: 0s
    exp_samples: [{labels: '', value: 2}]
`

func run(t *testing.T, test string, files map[string][]byte) (*Report, error) {
	t.Helper()
	f, err := Parse([]byte(test))
	if err != nil {
		return nil, err
	}
	return runner().Run(t.Context(), f, files)
}

// TestRulesAreTestedAsUpstreamTestsThem: alerts by their time of holding, labels and texts; recorded series of
// numbers and of histograms; a start elsewhere in time changes nothing.
func TestRulesAreTestedAsUpstreamTestsThem(t *testing.T) {
	for name, text := range map[string]string{"at the epoch": testText, "at a time": strings.Replace(testText, "- name:", "- start_timestamp: 2026-01-01T00:00:00Z\n  name:", 1)} {
		got, err := run(t, text, map[string][]byte{"rules.yaml": []byte(rulesText)})
		if err != nil || !got.Passed || len(got.Tests) != 1 {
			out, _ := json.MarshalIndent(got, "", " ")
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestHistogramsSayWhatUpstreamSaysOfResets, and times go as far as a duration does.
func TestHistogramsSayWhatUpstreamSaysOfResets(t *testing.T) {
	report, err := run(t, `
evaluation_interval: 100d
rule_files: [rules.yaml]
tests:
- interval: 100d
  input_series:
  - {series: h, values: '{{count:1 sum:1 buckets:[1]}} {{count:2 sum:2 buckets:[2]}} {{count:1 sum:1 buckets:[1]}} {{count:1 sum:1 buckets:[1] counter_reset_hint:gauge}} {{count:1 sum:1 buckets:[1]}} 1 {{count:1 sum:1 buckets:[1]}}'}
  - {series: same, values: '{{count:1 sum:1 buckets:[1]}}x1'}
  - {series: up, values: '0+1x1067'}
  promql_expr_test:
  - {expr: h, eval_time: 0d, exp_samples: [{labels: h, histogram: '{{count:1 sum:1 buckets:[1]}}'}]}
  - {expr: h, eval_time: 100d, exp_samples: [{labels: h, histogram: '{{count:2 sum:2 buckets:[2] counter_reset_hint:not_reset}}'}]}
  - {expr: h, eval_time: 200d, exp_samples: [{labels: h, histogram: '{{count:1 sum:1 buckets:[1] counter_reset_hint:reset}}'}]}
  - {expr: h, eval_time: 300d, exp_samples: [{labels: h, histogram: '{{count:1 sum:1 buckets:[1] counter_reset_hint:gauge}}'}]}
  - {expr: h, eval_time: 400d, exp_samples: [{labels: h, histogram: '{{count:1 sum:1 buckets:[1]}}'}]}
  - {expr: h, eval_time: 600d, exp_samples: [{labels: h, histogram: '{{count:1 sum:1 buckets:[1]}}'}]}
  - {expr: same, eval_time: 0d, exp_samples: [{labels: same, histogram: '{{count:1 sum:1 buckets:[1]}}'}]}
  - {expr: same, eval_time: 100d, exp_samples: [{labels: same, histogram: '{{count:1 sum:1 buckets:[1] counter_reset_hint:not_reset}}'}]}
  - {expr: timestamp(up), eval_time: 106700d, exp_samples: [{value: 9218880000}]}
  - {expr: 'sum:up', eval_time: 106700d, exp_samples: [{labels: 'sum:up', value: 1067}]}
`, map[string][]byte{"rules.yaml": []byte("groups: [{name: g, rules: [{record: 'sum:up', expr: sum(up)}]}]")})
	if err != nil || !report.Passed {
		t.Fatalf("%+v, %v", report, err)
	}
}

func TestDifferencesAreToldWithWhatWasExpectedAndFound(t *testing.T) {
	text := strings.NewReplacer("eval_time: 8m, alertname", "eval_time: 12m, alertname", "value: 1}]\n  - expr: ALERTS", "value: 7}]\n  - expr: ALERTS").Replace(testText)
	got, err := run(t, text, map[string][]byte{"rules.yaml": []byte(rulesText)})
	if err != nil || got.Passed || len(got.Tests[0].Failures) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	a, e := got.Tests[0].Failures[0], got.Tests[0].Failures[1]
	if a.Kind != FailedAlert || a.Name != "Down" || a.At != "12m" || len(a.Expected) != 0 || len(a.Got) != 1 || !strings.Contains(a.Got[0], `instance="a"`) {
		t.Errorf("alert: %+v", a)
	}
	if e.Kind != FailedExpression || e.Expected[0] != `{__name__="job:up:sum", job="x"} 7` || e.Got[0] != `{__name__="job:up:sum", job="x"} 1` {
		t.Errorf("expression: %+v", e)
	}
}

func TestARuleThatFailsIsToldAndEndsItsTest(t *testing.T) {
	got, err := run(t, "tests:\n- input_series: [{series: 'a{x=\"1\"}', values: '1'}, {series: 'a{x=\"2\"}', values: '1'}]\n  promql_expr_test: [{expr: a, eval_time: 5m}]\n",
		map[string][]byte{"r": []byte("groups: [{name: g, rules: [{record: r, expr: 'label_replace(a, \"x\", \"\", \"\", \"\")'}]}]")})
	if err != nil || got.Passed || len(got.Tests[0].Failures) != 1 || got.Tests[0].Failures[0].Kind != FailedEvaluation {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestTestsAreBounded: what would take too much memory or time is refused before it is made.
func TestTestsAreBounded(t *testing.T) {
	files := map[string][]byte{"r": []byte("groups: [{name: g, rules: [{record: r, expr: a}]}]")}
	for name, text := range map[string]string{
		"repetitions":     "tests:\n- input_series: [{series: a, values: '1x999999999'}]\n  promql_expr_test: [{expr: a, eval_time: 0}]\n",
		"many of them":    "tests:\n- input_series: [{series: a, values: '0+1x60000'}, {series: b, values: '_x60000'}]\n  promql_expr_test: [{expr: a, eval_time: 0}]\n",
		"histograms":      "tests:\n- input_series: [{series: a, values: '{{buckets:[" + strings.Repeat("1 ", 1000) + "]}}x5000'}]\n  promql_expr_test: [{expr: a, eval_time: 0}]\n",
		"late expression": "tests:\n- promql_expr_test: [{expr: a, eval_time: 10y}]\n",
		"late alert":      "tests:\n- alert_rule_test: [{alertname: a, eval_time: 10y}]\n",
		"rule's subquery": "tests:\n- input_series: [{series: a, values: 1}]\n  promql_expr_test: [{expr: a, eval_time: 0}]\n",
		"no tests":        "rule_files: [a]\n",
		"unknown field":   "tests: [{intervall: 1m}]\n",
		"no alertname":    "tests: [{alert_rule_test: [{eval_time: 1m}]}]\n",
		"wrong rule":      "tests: [{external_url: '%zz'}]\n",
	} {
		begin := time.Now()
		with := files
		if name == "rule's subquery" {
			with = map[string][]byte{"r": []byte("groups: [{name: g, rules: [{record: r, expr: 'sum_over_time(a[50y:1ms])'}]}]")}
		}
		if _, err := run(t, text, with); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s was refused after %s", name, took)
		}
	}
	f, err := Parse([]byte("tests:\n- promql_expr_test: [{expr: a, eval_time: 1m}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := runner()
	r.Limits.Time = time.Nanosecond
	if _, err := r.Run(t.Context(), f, nil); errs.KindOf(err) != errs.Timeout {
		t.Errorf("without time: %v", err)
	}
}

// FuzzParse: whatever a tenant sends is tested or refused, in bounded time.
func FuzzParse(f *testing.F) {
	f.Add([]byte(testText))
	f.Add([]byte("tests:\n- input_series: [{series: a, values: '1+1x3 stale _x2'}]\n  promql_expr_test: [{expr: a, eval_time: 2m, exp_samples: [{labels: a, value: 3}]}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			return
		}
		r := runner()
		r.Limits = Limits{Samples: 1000, Evaluations: 100, Time: 5 * time.Second}
		_, _ = r.Run(t.Context(), file, map[string][]byte{"rules.yaml": []byte(rulesText)})
	})
}

// TestSubqueriesWithoutEndAreDifferencesAndNoMemory: the engine would take memory for every step.
func TestSubqueriesWithoutEndAreDifferencesAndNoMemory(t *testing.T) {
	for _, expr := range []string{"sum_over_time(a[100y:1ms])", "max_over_time(sum_over_time(a[1h:1ms])[90d:1d])"} {
		got, err := run(t, "tests:\n- input_series: [{series: a, values: 1}]\n  promql_expr_test: [{expr: '"+expr+"', eval_time: 0}]\n", nil)
		if err != nil || got.Passed || !strings.Contains(got.Tests[0].Failures[0].Error, "subqueries") {
			t.Errorf("%s: %+v, %v", expr, got, err)
		}
	}
}

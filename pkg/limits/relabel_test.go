package limits

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"
)

const rules = `
overrides:
  team-a:
    drop_labels: [pod, uid]
    metric_relabel_configs:
      - source_labels: [__name__, job]
        separator: "@"
        regex: go_.*@${1}x
        action: drop
      - &zone
        source_labels: [instance]
        regex: (.*)-(?P<zone>.)
        target_label: zone
        replacement: ${zone}/$1
      - {action: Hashmod, source_labels: [job], modulus: 8, target_label: shard}
      - {action: labeldrop, regex: tmp_.+}
  team-b:
    metric_relabel_configs: [*zone]
`

func TestRelabelRulesReadLikeThoseOfPrometheus(t *testing.T) {
	o, _ := started(t, rules)
	got := MetricRelabelConfigs.Of(o.For("team-a"))
	if drop := DropLabels.Of(o.For("team-a")); len(drop) != 2 {
		t.Errorf("drop_labels = %v", drop)
	}
	var want []relabel.Config
	if err := yaml.Unmarshal([]byte(got.String()), &want); err != nil {
		t.Fatal(err)
	}
	have := got.Rules(model.LegacyValidation)
	if len(have) != 4 || len(want) != 4 {
		t.Fatalf("%d rules, Prometheus reads %d", len(have), len(want))
	}
	for i, c := range have {
		w := want[i]
		if c.NameValidationScheme != model.LegacyValidation || c.Action != w.Action || c.Regex.String() != w.Regex.String() || c.Separator != w.Separator ||
			c.Replacement != w.Replacement || c.TargetLabel != w.TargetLabel || c.Modulus != w.Modulus || len(c.SourceLabels) != len(w.SourceLabels) {
			t.Errorf("rule %d = %+v, Prometheus reads %+v", i, c, w)
		}
	}
	lb := labels.NewBuilder(labels.FromStrings("__name__", "up", "instance", "host-a", "job", "x", "tmp_1", "y"))
	if !relabel.ProcessBuilder(lb, have...) {
		t.Fatal("dropped")
	}
	if got, want := lb.Labels().String(), `{__name__="up", instance="host-a", job="x", shard="6", zone="a/host"}`; got != want {
		t.Errorf("labels = %s, want %s", got, want)
	}
	if one := MetricRelabelConfigs.Of(o.For("team-b")).Rules(model.UTF8Validation); len(one) != 1 || one[0].TargetLabel != "zone" {
		t.Errorf("by alias: %+v", one)
	}
	if none := MetricRelabelConfigs.Of(o.For("team-c")); len(none.Rules(model.UTF8Validation)) != 0 || none.String() != "[]" {
		t.Errorf("without rules: %s", none)
	}
}

func TestRelabelRulesSurviveTheirPages(t *testing.T) {
	o, _ := started(t, rules)
	var page bytes.Buffer
	if err := o.WriteRuntime(&page, "diff"); err != nil {
		t.Fatal(err)
	}
	again, _ := started(t, page.String())
	if a, b := MetricRelabelConfigs.Of(o.For("team-a")).String(), MetricRelabelConfigs.Of(again.For("team-a")).String(); a != b || a == "" {
		t.Errorf("%s\nreads back as\n%s", a, b)
	}
	b, err := json.Marshal(o.For("team-b"))
	if err != nil || !bytes.Contains(b, []byte(`"metric_relabel_configs":[{"action":"replace","regex":"(.*)-(?P\u003czone\u003e.)","replacement":"${zone}/$1","source_labels":["instance"],"target_label":"zone"}]`)) {
		t.Errorf("%v: %s", err, b)
	}
}

func TestAChangeOfRulesIsANewEpoch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "runtime.yaml")
	write(t, file, rules)
	o := NewOverrides(&Defaults{}, RuntimeConfig{Files: []string{file}, Period: time.Second}, Deps{Reg: prometheus.NewRegistry()})
	if err := o.reload(); err != nil {
		t.Fatal(err)
	}
	epoch := o.For("team-b").Epoch()
	write(t, file, rules+"# only a comment\n")
	if err := o.reload(); err != nil || o.For("team-b").Epoch() != epoch {
		t.Errorf("%v: a comment is a new epoch", err)
	}
	write(t, file, strings.Replace(rules, "tmp_.+", "temp_.+", 1))
	if err := o.reload(); err != nil || o.For("team-b").Epoch() == epoch {
		t.Errorf("%v: another regex is no new epoch", err)
	}
}

func TestDefaultRulesComeFromTheFileOrAFlag(t *testing.T) {
	d, _, err := load(t, "limits:\n  metric_relabel_configs:\n  - {action: labeldrop, regex: a}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := MetricRelabelConfigs.Of(NewOverrides(d, RuntimeConfig{}, Deps{}).Defaults()).String(), "[{regex: a, action: labeldrop}]"; got != want {
		t.Errorf("rules = %s, want %s", got, want)
	}
	d, s, err := load(t, "limits:\n  metric_relabel_configs:\n  - {action: labeldrop, regex: a}\n", "-distributor.metric-relabel-configs=[{action: labelkeep, regex: b}]")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := MetricRelabelConfigs.Of(NewOverrides(d, RuntimeConfig{}, Deps{}).Defaults()).String(), "[{regex: b, action: labelkeep}]"; got != want {
		t.Errorf("rules = %s, want %s", got, want)
	}
	var b bytes.Buffer
	if err := s.Print(&b, "diff"); err != nil {
		t.Fatal(err)
	}
	if again, _, err := load(t, b.String()); err != nil || again.value(rowIndex("metric_relabel_configs")).(*Relabeling).String() != "[{regex: b, action: labelkeep}]" {
		t.Errorf("%v: what is printed does not load again:\n%s", err, b.String())
	}
}

func TestMistakesInRulesAreNamedWithTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"{}":                                     "runtime.yaml:4: overrides of tenant t: metric_relabel_configs: wants a list, but has keys of its own",
		"[5]":                                    "runtime.yaml:4: overrides of tenant t: metric_relabel_configs[0]: wants keys below it, but has \"5\"",
		"[~]":                                    "metric_relabel_configs[0]: wants keys below it, but is empty",
		"[{action: drpo}]":                       "runtime.yaml:4: overrides of tenant t: metric_relabel_configs[0].action: \"drpo\" is not one of replace, keep, drop, keepequal, dropequal, hashmod, labelmap, labeldrop, labelkeep, lowercase, uppercase; did you mean \"drop\"?",
		"\n    - action: drop\n    - regexp: a":  "runtime.yaml:6: overrides of tenant t: metric_relabel_configs[1].regexp: unknown key; did you mean \"regex\"?",
		"[{regex: \"(\", action: labeldrop}]":    "metric_relabel_configs[0].regex: error parsing regexp",
		"[{action: hashmod, target_label: x}]":   "metric_relabel_configs[0]: relabel configuration for hashmod requires non-zero modulus",
		"[{action: hashmod, modulus: -1}]":       "metric_relabel_configs[0].modulus:",
		"[{source_labels: a, action: drop}]":     "metric_relabel_configs[0].source_labels: wants a list, but has \"a\"",
		"[{source_labels: [[a]], action: drop}]": "metric_relabel_configs[0].source_labels[0]: wants text, but has a list",
		"[{regex: [a], action: labeldrop}]":      "metric_relabel_configs[0].regex: wants text, but has a list",
	} {
		file := filepath.Join(t.TempDir(), "runtime.yaml")
		write(t, file, "overrides:\n  t:\n    drop_labels: [a]\n    metric_relabel_configs: "+text+"\n")
		o := NewOverrides(&Defaults{}, RuntimeConfig{Files: []string{file}, Period: time.Second}, Deps{Reg: prometheus.NewRegistry()})
		err := services.StartAndAwaitRunning(t.Context(), o)
		if err == nil || !strings.Contains(strings.ReplaceAll(o.FailureCase().Error(), filepath.Dir(file)+string(os.PathSeparator), ""), want) {
			t.Errorf("%s: %v, want %s", text, o.FailureCase(), want)
		}
	}
}

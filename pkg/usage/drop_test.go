package usage

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func zipped(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Bytes()
}

// kept says whether rules keep a metric.
func kept(t *testing.T, rules []*relabel.Config, metric string) bool {
	t.Helper()
	for _, r := range rules {
		if err := r.Validate(model.UTF8Validation); err != nil {
			t.Fatal(err)
		}
	}
	return relabel.ProcessBuilder(labels.NewBuilder(labels.FromStrings("__name__", metric, "job", "x")), rules...)
}

func TestRulesDropWhatIsNamedAndNothingElse(t *testing.T) {
	names := []string{"up", "a.b", `quo"te`, "job:x:rate5m", "näme", "h_bucket", "h_sum", "h_count"}
	for i := range 200 {
		names = append(names, fmt.Sprintf("many_%d", i))
	}
	for form, rules := range map[string]func([]byte) []*relabel.Config{
		FormPrometheus: func(data []byte) []*relabel.Config {
			var x struct {
				Rules []*relabel.Config `yaml:"write_relabel_configs"`
			}
			if err := yaml.Unmarshal(data, &x); err != nil {
				t.Fatal(err)
			}
			return x.Rules
		},
		FormOverrides: func(data []byte) []*relabel.Config {
			var x struct {
				Overrides map[string]struct {
					Rules []*relabel.Config `yaml:"metric_relabel_configs"`
				}
			}
			if err := yaml.Unmarshal(data, &x); err != nil {
				t.Fatal(err)
			}
			return x.Overrides["team-a"].Rules
		},
	} {
		text, err := DropRules("team-a", form, names)
		if err != nil {
			t.Fatal(err)
		}
		all := rules([]byte(text))
		if len(all) != 5 || !strings.Contains(text, "delete the rule") {
			t.Errorf("%s: %d rules\n%s", form, len(all), text)
		}
		for _, n := range names {
			if kept(t, all, n) {
				t.Errorf("%s keeps %s", form, n)
			}
		}
		for _, n := range []string{"up2", "aXb", "many_", "many_1000", "x", "h"} {
			if !kept(t, all, n) {
				t.Errorf("%s drops %s", form, n)
			}
		}
	}
}

func TestACollectorDropsHistogramsWholeOrNotAtAll(t *testing.T) {
	text, err := DropRules("t", FormCollector, []string{"up", "h_bucket", "h_sum", "h_count", "part_bucket", "s", "s_sum", "s_count",
		"used_sum", "used_count", `a"b`, "a$$b"}) // and not used_bucket
	if err != nil {
		t.Fatal(err)
	}
	var x struct {
		Processors map[string]struct {
			Metrics struct{ Metric []string }
		}
	}
	if err := yaml.Unmarshal([]byte(text), &x); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	got := strings.Join(x.Processors["filter/unused"].Metrics.Metric, ",")
	// Collectors take two dollar signs of a configuration for one.
	if want := `name == "a\"b",name == "a$$$$b",name == "h",name == "s",name == "up"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, part := range []string{"part_bucket", "used_sum", "used_count"} {
		if !strings.Contains(text, strconv.Quote(part)+"\n") {
			t.Errorf("%s is not told of:\n%s", part, text)
		}
	}
}

func TestNamesThatCannotBeDroppedAreRefused(t *testing.T) {
	many := make([]string, maxDropped+1)
	for i := range many {
		many[i] = fmt.Sprint("m", i)
	}
	for what, c := range map[string]struct {
		form  string
		names []string
	}{
		"none":           {FormPrometheus, nil},
		"many":           {FormPrometheus, many},
		"empty":          {FormPrometheus, []string{""}},
		"long":           {FormPrometheus, []string{strings.Repeat("x", maxNameBytes+1)}},
		"unknown format": {"toml", []string{"up"}},
	} {
		if _, err := DropRules("t", c.form, c.names); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}

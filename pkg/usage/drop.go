package usage

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// The forms of what drops metrics.
const (
	FormPrometheus = "prometheus" // write_relabel_configs of a Prometheus or an agent
	FormCollector  = "otelcol"    // a processor of an OpenTelemetry collector
	FormOverrides  = "overrides"  // the limit of the tenant, for its operator
)

// maxDropped bounds the names of one call, and perRule those of one rule, for its readers.
const (
	maxDropped = 1000
	perRule    = 50
)

// DropRules returns YAML that drops metrics before they are stored. Errors: Invalid.
func DropRules(id tenant.ID, form string, metrics []string) (string, error) {
	metrics = slices.Compact(slices.Sorted(slices.Values(metrics)))
	if len(metrics) == 0 || len(metrics) > maxDropped {
		return "", errs.New(errs.Invalid, "%d metrics are named in metric[]; between 1 and %d are needed", len(metrics), maxDropped)
	}
	for _, m := range metrics {
		if m == "" || len(m) > maxNameBytes {
			return "", errs.New(errs.Invalid, "a metric[] has %d bytes; it must have from 1 to %d", len(m), maxNameBytes)
		}
	}
	var b strings.Builder
	switch form {
	case "", FormPrometheus:
		b.WriteString("# Below remote_write of the Prometheus that sends these metrics.\n")
		recorded(&b, metrics)
		b.WriteString("write_relabel_configs:\n")
		dropping(&b, "  ", metrics)
	case FormOverrides:
		b.WriteString("# For the operator: in the overrides file. It replaces metric_relabel_configs that the tenant has there.\n")
		recorded(&b, metrics)
		b.WriteString("overrides:\n  " + quoted(string(id)) + ":\n    metric_relabel_configs:\n")
		dropping(&b, "      ", metrics)
	case FormCollector:
		collector(&b, metrics)
	default:
		return "", errs.New(errs.Invalid, "format is %q; it must be %s, %s or %s", form, FormPrometheus, FormCollector, FormOverrides)
	}
	return b.String(), nil
}

// recorded says which names look like those that recording rules make.
func recorded(b *strings.Builder, metrics []string) {
	for _, m := range metrics {
		if strings.Contains(m, ":") {
			b.WriteString("# Names with a colon come from recording rules, by convention: delete the rule instead.\n")
			return
		}
	}
}

func dropping(b *strings.Builder, indent string, metrics []string) {
	for some := range slices.Chunk(metrics, perRule) {
		all := make([]string, len(some))
		for i, m := range some {
			all[i] = regexp.QuoteMeta(m)
		}
		b.WriteString(indent + "- source_labels: [__name__]\n" + indent + "  regex: " + quoted(strings.Join(all, "|")) + "\n" + indent + "  action: drop\n")
	}
}

// collector writes the filter of a collector. It knows a histogram as one metric, so that its parts go together or not at all.
func collector(b *strings.Builder, metrics []string) {
	b.WriteString("# Name the processor in the pipeline of metrics. Names are as they are stored; where the collector has\n" +
		"# them from OpenTelemetry and not from Prometheus, take the original ones.\n")
	var whole, parts []string
	for _, m := range metrics {
		family, part := family(m)
		switch {
		case !part:
			whole = append(whole, m)
		case slices.Contains(metrics, family+"_count") && slices.Contains(metrics, family+"_sum") &&
			(slices.Contains(metrics, family+"_bucket") || slices.Contains(metrics, family)): // a histogram, or a summary
			whole = append(whole, family)
		default:
			parts = append(parts, m)
		}
	}
	for _, m := range parts {
		b.WriteString("# Not here, as it may be a part of a histogram or summary of which the rest is used: " + quoted(m) + "\n")
	}
	slices.Sort(whole)
	b.WriteString("processors:\n  filter/unused:\n    error_mode: ignore\n    metrics:\n      metric:")
	if len(whole) == 0 {
		b.WriteString(" []")
	}
	b.WriteString("\n")
	for _, m := range slices.Compact(whole) {
		b.WriteString("        - " + strings.ReplaceAll(quoted("name == "+quoted(m)), "$", "$$") + "\n") // two are one to collectors
	}
}

// family is the histogram or summary that a metric is a part of, by its name.
func family(metric string) (of string, part bool) {
	for _, end := range []string{"_bucket", "_count", "_sum"} {
		if of, ok := strings.CutSuffix(metric, end); ok {
			return of, true
		}
	}
	return metric, false
}

// quoted is a string of JSON, which is one of YAML and of the collector's language, too.
func quoted(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // of a string it cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}

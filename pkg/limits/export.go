package limits

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// ExportConfig says which limits are metrics; app mounts it as overrides_exporter.
type ExportConfig struct{ Names []string }

// exported are the limits that are metrics unless others are named.
func exported() []string {
	return []string{
		"ingestion_rate", "ingestion_burst_size", "max_global_series_per_user", "max_global_series_per_metric", "max_global_exemplars_per_user",
		"max_fetched_chunks_per_query", "max_fetched_series_per_query", "max_fetched_chunk_bytes_per_query",
		"ruler_max_rules_per_rule_group", "ruler_max_rule_groups_per_tenant",
	}
}

// Declare names the setting.
func (c *ExportConfig) Declare(s *config.Set) {
	s.Strings(&c.Names, "enabled_metrics", exported(), "Limits that the overrides exporter exposes. Each must be a number, a duration or a boolean.").Expert()
}

// Validate refuses names of no limit, and of those that are no numbers.
func (c *ExportConfig) Validate() error {
	for _, name := range c.Names {
		i := rowIndex(name)
		if i < 0 {
			return config.Wrong("enabled_metrics", "there is no limit %q", name)
		}
		if _, ok := number(Table[i].Default); !ok {
			return config.Wrong("enabled_metrics", "the limit %q is no number", name)
		}
	}
	return nil
}

// number is the value of a limit as a metric: durations in seconds, switches as 0 and 1.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	case time.Duration:
		return v.Seconds(), true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	default:
		return 0, false
	}
}

// exporter makes metrics of limits when it is asked.
type exporter struct {
	o                   *Overrides
	rows                []int
	overrides, defaults *prometheus.Desc
}

// Exporter returns the limits named by cfg as metrics: the defaults, and the values of every tenant that has overrides.
func (o *Overrides) Exporter(cfg ExportConfig) prometheus.Collector {
	e := &exporter{
		o:         o,
		overrides: prometheus.NewDesc("amphora_limits_overrides", "A limit of a tenant that has overrides.", []string{"limit_name", "user"}, nil),
		defaults:  prometheus.NewDesc("amphora_limits_defaults", "A limit of tenants that have no other.", []string{"limit_name"}, nil),
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(cfg.Names))) {
		if i := rowIndex(strings.TrimSpace(name)); i >= 0 {
			e.rows = append(e.rows, i)
		}
	}
	return e
}

// Describe implements prometheus.Collector.
func (e *exporter) Describe(out chan<- *prometheus.Desc) {
	out <- e.overrides
	out <- e.defaults
}

// Collect implements prometheus.Collector.
func (e *exporter) Collect(out chan<- prometheus.Metric) {
	state := e.o.state.Load() // one for all, so that what is shown belongs together
	for _, i := range e.rows {
		if v, ok := number(state.base.Value(i)); ok {
			out <- prometheus.MustNewConstMetric(e.defaults, prometheus.GaugeValue, v, Table[i].Name)
		}
		for id, view := range state.tenants {
			if v, ok := number(view.Value(i)); ok {
				out <- prometheus.MustNewConstMetric(e.overrides, prometheus.GaugeValue, v, Table[i].Name, string(id))
			}
		}
	}
}

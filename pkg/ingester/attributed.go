package ingester

import (
	"github.com/prometheus/client_golang/prometheus"
)

// attributedCollector reads the counts of active series by what usage is attributed to. Its labels
// differ from tenant to tenant.
type attributedCollector struct{ ing *Ingester }

func newAttributedCollector(i *Ingester) *attributedCollector { return &attributedCollector{i} }

// Describe makes the collector an unchecked one.
func (c *attributedCollector) Describe(chan<- *prometheus.Desc) {}

// attributionTracker is the value of the label tracker: there is one way of attribution.
const attributionTracker = "cost-attribution"

// Collect sends the counts of now.
func (c *attributedCollector) Collect(ch chan<- prometheus.Metric) {
	rows := reasonRows()
	for _, t := range c.ing.all() {
		by, tuples := t.activity.byTuple()
		if len(by) == 0 {
			continue
		}
		names := []string{"tenant", "tracker"}
		for _, l := range by {
			names = append(names, l.Output)
		}
		desc := func(name, help string) *prometheus.Desc {
			return prometheus.NewDesc("amphora_ingester_"+name, help, names, nil)
		}
		series := desc("attributed_active_series", "Active series by the values that usage is attributed to.")
		histograms := desc("attributed_active_native_histogram_series", "Active series of native histograms by the values that usage is attributed to.")
		buckets := desc("attributed_active_native_histogram_buckets", "Buckets of active native histograms by the values that usage is attributed to.")
		discarded := prometheus.NewDesc("amphora_discarded_attributed_samples_total",
			"Samples refused, by the values that usage is attributed to.", append(names, "reason"), nil)
		for _, x := range tuples {
			values := append([]string{string(t.id), attributionTracker}, x.tuple...)
			gauge := func(d *prometheus.Desc, v int64) {
				ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), values...)
			}
			for why, n := range x.refused {
				ch <- prometheus.MustNewConstMetric(discarded, prometheus.CounterValue, float64(n), append(values, rows[why].name)...)
			}
			if x.active > 0 {
				gauge(series, x.active)
			}
			if x.histograms > 0 {
				gauge(histograms, x.histograms)
				gauge(buckets, x.buckets)
			}
		}
	}
}

package ingester

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/head"
)

// headCollector reads figures of heads when they are scraped, under the names that dashboards know.
type headCollector struct {
	ing *Ingester

	truncationsFailed, damagedChunks, exemplars *prometheus.Desc
	late, blockBytes, symbolBytes               *prometheus.Desc
	exemplarSeries, oldestExemplar              *prometheus.Desc
}

func newHeadCollector(i *Ingester) *headCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("amphora_ingester_tsdb_"+name, help, labels, nil)
	}
	return &headCollector{
		ing:               i,
		truncationsFailed: desc("head_truncations_failed_total", "Cuts after which samples could not be dropped from memory. A rise means that memory grows."),
		damagedChunks:     desc("mmap_chunk_corruptions_total", "Damaged files of closed chunks. A rise points at the disk."),
		exemplars:         desc("exemplar_exemplars_in_storage", "Exemplars kept."),
		late:              desc("out_of_order_samples_appended_total", "Late samples stored.", "user"),
		blockBytes:        desc("storage_blocks_bytes", "Bytes of the tenant's local blocks.", "user"),
		symbolBytes:       desc("symbol_table_size_bytes", "Bytes of the symbol tables of the tenant's local blocks that are open, in memory.", "user"),
		exemplarSeries:    desc("exemplar_series_with_exemplars_in_storage", "Series with exemplars.", "user"),
		oldestExemplar:    desc("exemplar_last_exemplars_timestamp_seconds", "Time of the oldest exemplar kept.", "user"),
	}
}

// Describe makes the collector an unchecked one.
func (c *headCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the figures of now.
func (c *headCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	var faults head.Faults
	if c.ing.readable.Load() { // started
		faults = c.ing.opening.shared.Faults()
	}
	send(c.truncationsFailed, prometheus.CounterValue, faults.TruncationsFailed)
	send(c.damagedChunks, prometheus.CounterValue, faults.DamagedChunks)
	exemplars := 0
	c.ing.eachHead(func(t *tenantHead, s head.Stats) {
		id := string(t.id)
		exemplars += s.Exemplars
		if s.LateSamples > 0 {
			send(c.late, prometheus.CounterValue, float64(s.LateSamples), id)
		}
		if s.Blocks > 0 {
			send(c.blockBytes, prometheus.GaugeValue, float64(s.BlockBytes), id)
		}
		if s.SymbolBytes > 0 {
			send(c.symbolBytes, prometheus.GaugeValue, float64(s.SymbolBytes), id)
		}
		if s.Exemplars > 0 {
			send(c.exemplarSeries, prometheus.GaugeValue, float64(s.ExemplarSeries), id)
			send(c.oldestExemplar, prometheus.GaugeValue, s.OldestExemplar, id)
		}
	})
	send(c.exemplars, prometheus.GaugeValue, float64(exemplars))
}

// eachHead calls do for every open head.
func (i *Ingester) eachHead(do func(*tenantHead, head.Stats)) {
	for _, t := range i.all() {
		if t.enter() {
			do(t, t.head.Stats())
			t.leave()
		}
	}
}

// HeadMetrics returns a collector of the figures of every tenant's head, under the names that they
// have in a Prometheus. It is for a page of its own: the metrics of the process have what matters.
func (i *Ingester) HeadMetrics() prometheus.Collector { return tenantHeads{i} }

type tenantHeads struct{ ing *Ingester }

// Describe makes the collector an unchecked one.
func (c tenantHeads) Describe(chan<- *prometheus.Desc) {}

// headRow is one family of the page.
type headRow struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*tenantHead, head.Stats) float64
}

func headRows() []headRow {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("prometheus_tsdb_"+name, help, []string{"user"}, nil)
	}
	return []headRow{
		{desc("head_series", "Series in memory."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.Series) }},
		{desc("head_series_created_total", "Series that appeared in memory."), counter, func(t *tenantHead, _ head.Stats) float64 { return float64(t.stats.seriesCreated.Load()) }},
		{desc("head_series_removed_total", "Series that left memory."), counter, func(t *tenantHead, _ head.Stats) float64 { return float64(t.stats.seriesRemoved.Load()) }},
		{desc("head_samples_appended_total", "Samples stored."), counter, func(t *tenantHead, _ head.Stats) float64 { return float64(t.stats.samples.Load()) }},
		{desc("head_out_of_order_samples_appended_total", "Late samples stored."), counter, func(_ *tenantHead, s head.Stats) float64 { return float64(s.LateSamples) }},
		{desc("head_min_time", "Oldest time in memory, in milliseconds."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.MinTime) }},
		{desc("head_max_time", "Newest time in memory, in milliseconds."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.MaxTime) }},
		{desc("blocks_loaded", "Local blocks."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.Blocks) }},
		{desc("storage_blocks_bytes", "Bytes of local blocks."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.BlockBytes) }},
		{desc("symbol_table_size_bytes", "Bytes of the symbol tables of local blocks that are open, in memory."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.SymbolBytes) }},
		{desc("exemplar_exemplars_appended_total", "Exemplars stored."), counter, func(t *tenantHead, _ head.Stats) float64 { return float64(t.stats.exemplars.Load()) }},
		{desc("exemplar_exemplars_in_storage", "Exemplars kept."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.Exemplars) }},
		{desc("exemplar_series_with_exemplars_in_storage", "Series with exemplars."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.ExemplarSeries) }},
		{desc("exemplar_last_exemplars_timestamp_seconds", "Time of the oldest exemplar kept."), gauge, func(_ *tenantHead, s head.Stats) float64 { return s.OldestExemplar }},
		{desc("exemplar_max_exemplars", "Exemplars that there is room for."), gauge, func(_ *tenantHead, s head.Stats) float64 { return float64(s.ExemplarsAtMost) }},
	}
}

// Collect sends the figures of now.
func (c tenantHeads) Collect(ch chan<- prometheus.Metric) {
	rows := headRows()
	c.ing.eachHead(func(t *tenantHead, s head.Stats) {
		for _, r := range rows {
			ch <- prometheus.MustNewConstMetric(r.desc, r.kind, r.of(t, s), string(t.id))
		}
	})
}

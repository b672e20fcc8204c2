package ingester

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the ingester. Those with a tenant are read from the tenants when they are scraped:
// a push touches no registry, and they leave with the tenant.
type metrics struct {
	reg prometheus.Registerer

	failedPushes prometheus.Counter
	exemplars    prometheus.Counter
	rejected     *prometheus.CounterVec // reason

	queries          prometheus.Counter
	queriedSeries    prometheus.Histogram
	queriedSamples   prometheus.Histogram
	queriedExemplars prometheus.Histogram

	compactions, compactionsFailed prometheus.Counter
	compactionDuration             prometheus.Histogram
	forcedCompactions              prometheus.Gauge
	earlyCompactions, earlySeries  prometheus.Counter

	uploads, uploadFailures     prometheus.Counter
	lastUpload, oldestUnshipped prometheus.Gauge
}

// newMetrics registers the metrics of i.
func newMetrics(reg prometheus.Registerer, i *Ingester) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_ingester_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "amphora_ingester_" + name, Help: help})
	}
	histogram := func(name, help string, first, factor float64, n int) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "amphora_ingester_" + name, Help: help,
			Buckets:                         prometheus.ExponentialBuckets(first, factor, n),
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: 0})
	}
	m := &metrics{
		reg:          reg,
		failedPushes: counter("push_failures_total", "Frames of which nothing was stored; senders try again."),
		exemplars:    counter("ingested_exemplars_total", "Exemplars stored."),
		rejected: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_ingester_instance_rejected_requests_total",
			Help: "Requests refused because a limit of the process was reached."}, []string{"reason"}),

		queries:          counter("queries_total", "Queries for series, labels and exemplars."),
		queriedSeries:    histogram("queried_series", "Series sent for one query.", 10, 8, 6),
		queriedSamples:   histogram("queried_samples", "Samples in the chunks sent for one query.", 10, 8, 8),
		queriedExemplars: histogram("queried_exemplars", "Exemplars sent for one query.", 10, 5, 5),

		compactions:        counter("tsdb_compactions_total", "Heads cut into blocks."),
		compactionsFailed:  counter("tsdb_compactions_failed_total", "Cuts of heads that failed; memory grows until one succeeds."),
		compactionDuration: histogram("tsdb_compaction_duration_seconds", "Duration of one cut of a head.", 0.01, 4, 9),
		forcedCompactions:  gauge("tsdb_forced_compactions_in_progress", "Heads being cut entirely, because of a flush or an idle tenant."),
		earlyCompactions:   counter("tsdb_early_compactions_total", "Cuts of series that were not active any more, before their time."),
		earlySeries:        counter("tsdb_early_compaction_series_removed_total", "Series that left memory by an early cut."),

		uploads:         counter("shipper_uploads_total", "Tries to upload a block."),
		uploadFailures:  counter("shipper_upload_failures_total", "Uploads of blocks that failed; they are tried again."),
		lastUpload:      gauge("shipper_last_successful_upload_timestamp_seconds", "When a block was uploaded last."),
		oldestUnshipped: gauge("oldest_unshipped_block_timestamp_seconds", "When the oldest block that is not in the bucket was cut; 0 if all are."),
	}
	if reg != nil {
		reg.MustRegister(newTenantCollector(i), newActiveCollector(i), newHeadCollector(i))
	}
	return m
}

// tenantCollector reads what tenants count. It describes nothing up front, because families such
// as amphora_discarded_samples_total have several writers in one process.
type tenantCollector struct {
	ing *Ingester

	memorySeries, memoryTenants, limits *prometheus.Desc
	samples, failures, exemplars        *prometheus.Desc
	created, removed, metadata, maxTime *prometheus.Desc
	discarded                           [3]*prometheus.Desc
	reasons                             [numReasons]reasonRow
}

func newTenantCollector(i *Ingester) *tenantCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("amphora_"+name, help, labels, nil)
	}
	c := &tenantCollector{
		ing:           i,
		memorySeries:  desc("ingester_memory_series", "Series in memory."),
		memoryTenants: desc("ingester_memory_users", "Tenants with recent data."),
		limits:        desc("ingester_instance_limits", "Limits of this process; 0: none.", "limit"),
		samples:       desc("ingester_ingested_samples_total", "Samples stored.", "user"),
		failures:      desc("ingester_ingested_samples_failures_total", "Samples refused.", "user"),
		exemplars:     desc("ingester_tsdb_exemplar_exemplars_appended_total", "Exemplars stored.", "user"),
		created:       desc("ingester_memory_series_created_total", "Series that appeared in memory.", "user"),
		removed:       desc("ingester_memory_series_removed_total", "Series that left memory.", "user"),
		metadata:      desc("ingester_memory_metadata", "Metrics with metadata in memory."),
		maxTime:       desc("ingester_tsdb_head_max_timestamp_seconds", "The newest time of a sample in memory."),
		reasons:       reasonRows(),
	}
	// Words and labels are the distributor's, and the reasons are others: of two writers in one
	// process that differ in a word or agree in all labels, one would be left out of the page.
	c.discarded[refusedSamples] = desc("discarded_samples_total", "Samples refused. A rise means that a tenant loses data.", "reason", "user", "group")
	c.discarded[refusedExemplars] = desc("discarded_exemplars_total", "Exemplars dropped.", "reason", "user")
	c.discarded[refusedMetadata] = desc("discarded_metadata_total", "Metadata refused.", "reason", "user")
	return c
}

// Describe makes the collector an unchecked one.
func (c *tenantCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends what the tenants have counted.
func (c *tenantCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	tenants := c.ing.all()
	gauge(c.memorySeries, float64(c.ing.series.Load()))
	gauge(c.memoryTenants, float64(len(tenants)))
	most := c.ing.instanceLimits()
	gauge(c.limits, most.MaxIngestionRate, "max_ingestion_rate")
	gauge(c.limits, float64(most.MaxTenants), "max_tenants")
	gauge(c.limits, float64(most.MaxSeries), "max_series")
	gauge(c.limits, float64(most.MaxInflightPushRequests), "max_inflight_push_requests")
	gauge(c.limits, float64(most.MaxInflightPushBytes), "max_inflight_push_requests_bytes")
	gauge(c.limits, float64(most.MaxInflightReadRequests), "max_inflight_read_requests")
	metadata, newest := 0, int64(0)
	for _, t := range tenants {
		metadata += t.metadata.size()
		if t.enter() {
			newest = max(newest, t.head.MaxTime())
			t.leave()
		}
		c.collectTenant(ch, t)
	}
	gauge(c.metadata, float64(metadata))
	gauge(c.maxTime, float64(newest)/1000)
}

func (c *tenantCollector) collectTenant(ch chan<- prometheus.Metric, t *tenantHead) {
	id := string(t.id)
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(c.samples, t.stats.samples.Load(), id)
	counter(c.failures, t.stats.failures.Load(), id)
	counter(c.created, t.stats.seriesCreated.Load(), id)
	counter(c.removed, t.stats.seriesRemoved.Load(), id)
	if n := t.stats.exemplars.Load(); n > 0 {
		counter(c.exemplars, n, id)
	}
	for r := range t.stats.refused {
		if n := t.stats.refused[r].Load(); n > 0 {
			row := c.reasons[r]
			if row.of == refusedSamples {
				counter(c.discarded[row.of], n, row.name, id, "")
			} else {
				counter(c.discarded[row.of], n, row.name, id)
			}
		}
	}
	for group, counts := range t.groups.counted() {
		for r, n := range counts {
			if n > 0 {
				counter(c.discarded[refusedSamples], n, c.reasons[r].name, id, group)
			}
		}
	}
}

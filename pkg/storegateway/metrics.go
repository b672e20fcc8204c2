package storegateway

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/block"
)

type metrics struct {
	syncs, syncFailures, rejected, missing prometheus.Counter
	lastSync, tenants                      prometheus.Gauge
	blocks, series, bucketRequests         prometheus.Histogram
	duration                               prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, store *block.Store) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_stores_" + name, Help: help})
	}
	histogram := func(name, help string, first, factor float64, n int) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "amphora_bucket_store_" + name, Help: help,
			Buckets: prometheus.ExponentialBuckets(first, factor, n), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "amphora_bucket_stores_" + name, Help: help})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_bucket_store_blocks_loaded", Help: "Blocks whose index is open."},
		func() float64 { return float64(store.Loaded()) })
	return &metrics{
		syncs:          counter("blocks_syncs_total", "Looks for deleted blocks, one for each tenant."),
		syncFailures:   counter("blocks_sync_failures_total", "Looks that failed; copies of deleted blocks stay a while longer."),
		lastSync:       gauge("blocks_last_successful_sync_timestamp_seconds", "When deleted blocks of all tenants were last looked for without a failure. 0: not yet. Queries do not wait for it."),
		tenants:        gauge("tenants_synced", "Tenants of whose blocks something is kept here, at the last look for deleted ones."),
		rejected:       counter("gate_rejected_total", "Calls that did not get their turn in time; queriers ask another store-gateway."),
		missing:        counter("missing_blocks_total", "Blocks that were asked for and are not in the bucket; queriers then read the bucket index again."),
		blocks:         histogram("series_blocks_queried", "Blocks read for one call.", 1, 4, 8),
		series:         histogram("series_data_fetched", "Series read for one call.", 10, 8, 8),
		bucketRequests: histogram("series_bucket_requests", "Requests to object storage for one call; few if the local copies are large enough.", 1, 3, 10),
		duration:       histogram("series_request_duration_seconds", "Time to answer one call for series.", 0.001, 4, 10),
	}
}

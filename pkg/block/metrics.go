package block

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type storeMetrics struct {
	loads, loadFailures, unloads prometheus.Counter
	corrupted                    prometheus.Counter
	loadDuration                 prometheus.Histogram
}

func newStoreMetrics(reg prometheus.Registerer) *storeMetrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_store_indexheader_" + name, Help: help})
	}
	return &storeMetrics{
		loads:        counter("lazy_load_total", "Indexes of blocks opened because a query needed them."),
		loadFailures: counter("lazy_load_failed_total", "Indexes of blocks that could not be opened; the queries that needed them failed."),
		unloads:      counter("lazy_unload_total", "Indexes of blocks closed because nobody used them."),
		corrupted: f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_store_corrupted_reads_total",
			Help: "Reads of blocks that found them damaged in the bucket; the queries that needed them failed."}),
		loadDuration: f.NewHistogram(prometheus.HistogramOpts{Name: "amphora_bucket_store_indexheader_lazy_load_duration_seconds",
			Help: "Time to open the index of a block, with what has to be fetched for it.", Buckets: prometheus.ExponentialBuckets(0.005, 4, 8),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100}),
	}
}

// indexMetrics are of bucket indexes in memory.
type indexMetrics struct {
	loads, failures, listings prometheus.Counter
	duration                  prometheus.Histogram
}

func newIndexMetrics(reg prometheus.Registerer, x *Indexes) *indexMetrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_index_" + name, Help: help})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_bucket_index_loaded", Help: "Tenants whose bucket index is in memory."}, func() float64 {
		x.mu.Lock()
		defer x.mu.Unlock()
		return float64(len(x.tenants))
	})
	return &indexMetrics{
		loads:    counter("loads_total", "Reads of bucket indexes."),
		failures: counter("load_failures_total", "Reads that failed; an index of up to 15 minutes of age is used instead."),
		listings: counter("listings_total", "Listings of a tenant's blocks because it has no bucket index. Many over a long time mean that no compactor runs."),
		duration: f.NewHistogram(prometheus.HistogramOpts{Name: "amphora_bucket_index_load_duration_seconds", Help: "Time to read a bucket index.",
			Buckets: prometheus.ExponentialBuckets(0.005, 4, 7), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100}),
	}
}

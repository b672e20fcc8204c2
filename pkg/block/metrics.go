package block

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	loads        prometheus.Counter
	loadFailures prometheus.Counter
	drops        prometheus.Counter
	bytes        prometheus.Gauge
	blocks       prometheus.Gauge
	listings     prometheus.Counter
	listFailures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_store_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "amphora_bucket_store_" + name, Help: help})
	}
	return &metrics{
		loads:        counter("block_loads_total", "Blocks copied from object storage. A steady rise means that the cache is too small for the queries."),
		loadFailures: counter("block_load_failures_total", "Blocks that could not be copied or opened; the queries that needed them failed."),
		drops:        counter("block_drops_total", "Local copies dropped to make room."),
		bytes:        gauge("cache_bytes", "Bytes of local copies."),
		blocks:       gauge("blocks_loaded", "Local copies that are open."),
		listings:     counter("blocks_meta_syncs_total", "Listings of a tenant's blocks."),
		listFailures: counter("blocks_meta_sync_failures_total", "Listings that failed; a list of up to 15 minutes of age is used instead."),
	}
}

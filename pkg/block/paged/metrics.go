package paged

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests, failures prometheus.Counter
	fetched, hits      prometheus.Counter
	drops, damaged     prometheus.Counter
	bytes              prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_store_cache_" + name, Help: help})
	}
	return &metrics{
		requests: counter("fetches_total", "Requests to object storage for stretches of blocks."),
		failures: counter("fetch_failures_total", "Fetches that failed for good; the queries that needed them failed."),
		fetched:  counter("fetched_bytes_total", "Bytes of blocks that came from object storage."),
		hits:     counter("hit_bytes_total", "Bytes of blocks that were on the local disk."),
		drops:    counter("drops_total", "Local copies dropped to make room or because their block is gone."),
		damaged:  counter("damaged_pages_total", "Pages of local copies that did not match their checksum after a restart; they are fetched again."),
		bytes: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_bucket_store_cache_bytes",
			Help: "Bytes of local copies of blocks."}),
	}
}

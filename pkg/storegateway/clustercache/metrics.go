package clustercache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests, hits, evicted  prometheus.Counter // of the items held here
	dropped, failures, waits prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, held *shelf) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_bucket_store_cluster_cache_" + name, Help: help})
	}
	gauge := func(name, help string, of func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_bucket_store_cluster_cache_" + name, Help: help}, of)
	}
	gauge("items", "Items of the cluster cache that this store-gateway holds.", func() float64 { n, _ := held.size(); return float64(n) })
	gauge("bytes", "Memory of the items of the cluster cache that this store-gateway holds.", func() float64 { _, n := held.size(); return float64(n) })
	return &metrics{
		requests: counter("requests_total", "Items of its own part that this store-gateway was asked for, by itself and by others."),
		hits:     counter("hits_total", "Items of its own part that this store-gateway was asked for and had."),
		evicted:  counter("evicted_total", "Items that had to go before their time. A rise means that the cache is too small."),
		dropped:  counter("dropped_total", "Items that were not kept: they were too large, memory was short, or their owner was slow or away."),
		failures: counter("peer_failures_total", "Calls to other store-gateways for their part that failed. The one called is then left alone for 5 seconds."),
		waits:    counter("lease_waits_total", "Times that a reader waited because another one was bringing the same item."),
	}
}

package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	queued          *prometheus.GaugeVec
	waited          *prometheus.HistogramVec
	workers         prometheus.Gauge
	discarded       prometheus.Counter
	requeued, lost  prometheus.Counter
	frontendStreams prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_query_scheduler_" + name, Help: help})
	}
	return &metrics{
		queued: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "amphora_query_scheduler_queue_length", Help: "Work that waits for a querier. A rise means too few queriers, or slow ones.",
		}, []string{"class"}),
		waited: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "amphora_query_scheduler_queue_duration_seconds", Help: "How long work waited for a querier.",
			Buckets: []float64{.001, .01, .1, .5, 1, 5, 10, 30}, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, []string{"class"}),
		workers: f.NewGauge(prometheus.GaugeOpts{
			Name: "amphora_query_scheduler_connected_workers", Help: "Workers of queriers that wait or run. Without any no query is answered.",
		}),
		discarded:       counter("discarded_requests_total", "Work refused because too much of its tenant waited. A rise means a tenant that asks more than it is served."),
		requeued:        counter("requeued_requests_total", "Work given to another querier because the first was lost. A rise means queriers that end while they run."),
		lost:            counter("lost_requests_total", "Work that failed because its querier was lost and it could not be begun anew."),
		frontendStreams: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_query_scheduler_inflight_requests", Help: "Work of other processes that waits or runs."}),
	}
}

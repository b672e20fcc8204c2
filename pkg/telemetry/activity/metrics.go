package activity

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	failed *prometheus.CounterVec
	free   prometheus.Gauge
	left   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	r := promauto.With(reg)
	m := &metrics{
		failed: r.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_activity_tracker_failed_total",
			Help: "Requests that the file of requests under way does not name, by reason: its slots were full, or it could not be opened or written. A kill would not tell of them.",
		}, []string{"reason"}),
		free: r.NewGauge(prometheus.GaugeOpts{
			Name: "amphora_activity_tracker_free_slots",
			Help: "Requests that the file of requests under way has room for.",
		}),
		left: r.NewGauge(prometheus.GaugeOpts{
			Name: "amphora_activity_tracker_left_requests",
			Help: "Requests that were under way when the process before this one ended without stopping; the log of this start names them. Above 0: one of them may be why.",
		}),
	}
	for _, reason := range []string{"full", "open", "write"} {
		m.failed.WithLabelValues(reason)
	}
	return m
}

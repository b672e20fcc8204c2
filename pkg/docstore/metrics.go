package docstore

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/bucket"
)

type metrics struct {
	operations *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	conflicts  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	return metrics{
		operations: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_docstore_operations_total",
			Help: "Reads, writes, deletions and listings of documents by outcome: ok, absent, changed by somebody else, or failed.",
		}, []string{"operation", "outcome"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "amphora_docstore_operation_duration_seconds",
			Help: "Time that operations on documents took, with retries.", NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"operation"}),
		conflicts: f.NewCounter(prometheus.CounterOpts{
			Name: "amphora_docstore_conflicts_total",
			Help: "Changes of documents that were made anew because another process was faster.",
		}),
	}
}

func (m *metrics) done(operation string, err error, took time.Duration) {
	outcome := "failed"
	switch {
	case err == nil:
		outcome = "ok"
	case errors.Is(err, bucket.ErrAbsent):
		outcome = "absent"
	case errors.Is(err, bucket.ErrChanged):
		outcome = "changed"
	}
	m.operations.WithLabelValues(operation, outcome).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

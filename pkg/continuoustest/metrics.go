package continuoustest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics have as labels the name of the test, the type of the series (float or histogram) and the protocol
// by which they were written.
type metrics struct {
	writes, writesFailed   *prometheus.CounterVec
	queries, queriesFailed *prometheus.CounterVec
	checks, checksFailed   *prometheus.CounterVec
	writeSeconds           *prometheus.HistogramVec
	querySeconds           *prometheus.HistogramVec
	last                   *prometheus.GaugeVec
}

// testName is the only value of the label test.
const testName = "write-read-series"

func newMetrics(reg prometheus.Registerer) *metrics {
	f, by := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"test": testName}, reg)), []string{"type", "protocol"}
	buckets := prometheus.ExponentialBuckets(0.005, 2, 14)
	m := &metrics{
		writes:        f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_continuous_test_writes_total", Help: "Requests with which the continuous test wrote."}, by),
		writesFailed:  f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_continuous_test_writes_failed_total", Help: "Those that failed, by status; 0: there was no answer."}, append([]string{"status_code"}, by...)),
		queries:       f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_continuous_test_queries_total", Help: "Queries with which the continuous test read back."}, by),
		queriesFailed: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_continuous_test_queries_failed_total", Help: "Those that were not answered, or with an error."}, by),
		checks:        f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_continuous_test_query_result_checks_total", Help: "Answers that were compared with what was written."}, by),
		checksFailed:  f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_continuous_test_query_result_checks_failed_total", Help: "Answers that were wrong. Any is a fault: samples were lost, changed or made up."}, by),
		writeSeconds:  f.NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_continuous_test_writes_request_duration_seconds", Help: "How long writes took.", Buckets: buckets}, by),
		querySeconds:  f.NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_continuous_test_queries_request_duration_seconds", Help: "How long queries took, with and without the results cache.", Buckets: buckets}, append([]string{"results_cache"}, by...)),
		last:          f.NewGaugeVec(prometheus.GaugeOpts{Name: "amphora_continuous_test_last_written_timestamp_seconds", Help: "Time of the newest sample that was written."}, by),
	}
	return m
}

// declare makes the counters of a stream exist before anything happens, so that the first failure is an increase.
func (m *metrics) declare(s stream) {
	for _, c := range []*prometheus.CounterVec{m.writes, m.queries, m.queriesFailed, m.checks, m.checksFailed} {
		c.WithLabelValues(s.kind(), s.protocol)
	}
}

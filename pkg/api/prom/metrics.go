package prom

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	expressionBytes prometheus.Histogram
	remoteReads     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		expressionBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "amphora_api_query_expression_bytes",
			Help:    "Length of query texts. A rise of the top bucket means generated queries.",
			Buckets: prometheus.ExponentialBuckets(256, 4, 8), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}),
		remoteReads: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "amphora_api_remote_read_queries",
			Help: "Remote read requests that run or wait. A rise means readers that drain raw samples.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.expressionBytes, m.remoteReads)
	}
	return m
}

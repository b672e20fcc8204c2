package ingest

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/otlp"
)

type metrics struct {
	inflightBytes            prometheus.Gauge
	compressed, uncompressed prometheus.Histogram
	handedOn                 *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	sizes := prometheus.ExponentialBuckets(1<<10, 4, 9)
	m := &metrics{
		inflightBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "amphora_distributor_inflight_push_body_bytes",
			Help: "Bytes of push requests in memory, packed and unpacked. At its bound, pushes are answered 503.",
		}),
		compressed: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "amphora_distributor_compressed_request_body_size_bytes",
			Help:    "Size of push requests as received. Small ones mean senders that do not batch.",
			Buckets: sizes, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}),
		uncompressed: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "amphora_distributor_uncompressed_request_body_size_bytes",
			Help:    "Size of push requests after decompression.",
			Buckets: sizes, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}),
	}
	m.handedOn = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "amphora_distributor_otlp_delta_handovers_total",
		Help: "Parts of OTLP requests handed to the distributors that add their series up, by outcome. Failures mean that one of them cannot be reached; senders send again.",
	}, []string{"outcome"})
	if reg != nil {
		reg.MustRegister(m.inflightBytes, m.compressed, m.uncompressed, m.handedOn)
	}
	return m
}

// handed counts a part of a request that a peer was to store.
func (m *metrics) handed(err error) {
	outcome := "success"
	if err != nil {
		outcome = "failure"
	}
	m.handedOn.WithLabelValues(outcome).Inc()
}

// deltas shows what is kept to add up points of delta temporality.
func (*metrics) deltas(reg prometheus.Registerer, s *otlp.Streams) {
	if reg == nil {
		return
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_distributor_otlp_delta_streams",
			Help: "Series of delta temporality that are being added up."}, func() float64 { return float64(s.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "amphora_distributor_otlp_delta_stream_bytes",
			Help: "Memory of these series. At distributor.max_otlp_delta_bytes, further ones are refused."}, func() float64 { return float64(s.Bytes()) }),
	)
}

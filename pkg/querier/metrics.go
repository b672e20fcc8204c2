package querier

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	rejected    *prometheus.CounterVec
	chunks      *prometheus.CounterVec
	chunkBytes  *prometheus.CounterVec
	duplicates  prometheus.Counter
	unhealed    prometheus.Counter
	fetchesWait prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		rejected: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_querier_queries_rejected_total",
			Help: "Queries refused because a limit of their tenant was reached.",
		}, []string{"reason"}),
		chunks: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_querier_chunks_fetched_total",
			Help: "Chunks fetched, replicas included.",
		}, []string{"source"}),
		chunkBytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_querier_chunk_bytes_fetched_total",
			Help: "Bytes of chunks fetched, replicas included.",
		}, []string{"source"}),
		duplicates: f.NewCounter(prometheus.CounterOpts{
			Name: "amphora_querier_chunks_deduplicated_total",
			Help: "Chunks that were byte for byte another replica's. Chunks that differ are merged sample by sample, which costs more.",
		}),
		unhealed: f.NewCounter(prometheus.CounterOpts{
			Name: "amphora_querier_unhealed_reads_total",
			Help: "Reads for which an ingester that lost samples answered and another that may have them did not. Samples may be missing from such an answer if two failures came together.",
		}),
		fetchesWait: f.NewGauge(prometheus.GaugeOpts{
			Name: "amphora_querier_fetches_waiting",
			Help: "Fetches waiting for one of the process's slots.",
		}),
	}
}

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
	hedged      prometheus.Counter
	fetchesWait prometheus.Gauge
	surveys     prometheus.Counter

	blocksAsked, refetched, inconsistent prometheus.Counter
	storeRetries, storeHedged            prometheus.Counter
	bucketRequests                       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_querier_" + name, Help: help})
	}
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
		hedged:         counter("ingester_reads_hedged_total", "Reads for which more ingesters were asked because one of the first took 3 s. A steady rise means that an ingester is slow or hangs."),
		blocksAsked:    counter("blocks_queried_total", "Blocks that store-gateways were asked for."),
		refetched:      counter("blocks_index_refetched_total", "Bucket indexes read again because blocks they name are gone, mostly compacted."),
		inconsistent:   counter("blocks_consistency_checks_failed_total", "Queries that failed because blocks of the bucket index are not in the bucket."),
		storeRetries:   counter("storegateway_refetches_total", "Rounds of asking other store-gateways for blocks that the first ones did not answer for."),
		storeHedged:    counter("storegateway_reads_hedged_total", "Reads for which the other store-gateways of some blocks were asked because the first one was silent for 3 s. A steady rise means that a store-gateway is slow or hangs, or that the bucket is slow."),
		bucketRequests: counter("bucket_requests_total", "Requests to object storage that store-gateways made for this querier's queries."),
		fetchesWait: f.NewGauge(prometheus.GaugeOpts{
			Name: "amphora_querier_fetches_waiting",
			Help: "Fetches waiting for one of the process's slots.",
		}),
		surveys: f.NewCounter(prometheus.CounterOpts{
			Name: "amphora_querier_shard_surveys_total",
			Help: "Times all ingesters were asked whose samples they hold, because of tenants with a shard that were new here. A steady rise means that some ingester does not answer; until it does, these tenants are looked for on all ingesters.",
		}),
	}
}

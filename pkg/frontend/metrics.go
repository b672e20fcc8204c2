package frontend

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	queries  *prometheus.CounterVec
	seconds  *prometheus.CounterVec
	works    *prometheus.CounterVec
	retries  prometheus.Counter
	tries    prometheus.Histogram
	unmerged prometheus.Counter
	refused  *prometheus.CounterVec
	running  prometheus.Gauge
	stopped  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		queries: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_query_frontend_queries_total",
			Help: "Queries by class, and by what became of them."}, []string{"class", "outcome"}),
		seconds: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_query_frontend_query_seconds_total",
			Help: "Time from the arrival of queries to their answers, in seconds. Divided by queries it is how long one takes."}, []string{"class"}),
		works: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_query_frontend_parts_total",
			Help: "What queries fell into: split are ranges of time, sharded are aggregations of a part of the series, spun_off are parts of instant queries that are queries of their own."}, []string{"kind"}),
		retries: f.NewCounter(prometheus.CounterOpts{Name: "amphora_query_frontend_retries_total",
			Help: "Parts of queries that were tried again because queriers or what they read from were away."}),
		tries: f.NewHistogram(prometheus.HistogramOpts{Name: "amphora_query_frontend_retries",
			Help: "How often each part of a query was tried again.", Buckets: []float64{0, 1, 2, 3, 4, 5}}),
		unmerged: f.NewCounter(prometheus.CounterOpts{Name: "amphora_query_frontend_unmerged_total",
			Help: "Sharded aggregations that were asked again as a whole, because their shards did not tell the exact result. A rise means that sharding costs more than it gains."}),
		refused: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_query_frontend_rejected_queries_total",
			Help: "Queries refused by an administrator's rule."}, []string{"reason"}),
		running: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_query_frontend_running_queries", Help: "Queries under way."}),
		stopped: f.NewCounter(prometheus.CounterOpts{Name: "amphora_query_frontend_stopped_queries_total",
			Help: "Queries of this frontend that somebody stopped, here or through another frontend."}),
	}
}

package engine

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	refused *prometheus.CounterVec
	queries *prometheus.CounterVec
	panics  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_engine_queries_refused_total",
			Help: "Queries refused before they ran because their expression would cost too much.",
		}, []string{"reason"}),
		queries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_engine_queries_total",
			Help: "Queries by the engine that evaluates them. Those that the data sends from one to the other count for both; many of them read everything twice.",
		}, []string{"engine"}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "amphora_engine_panics_total",
			Help: "Queries that met a bug of the engine or of a storage and were answered with an error. Any rise is worth a report.",
		}),
	}
}

package usage

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	written, failed prometheus.Counter
	lost            prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	writes := f.NewCounterVec(prometheus.CounterOpts{
		Name: "amphora_usage_writes_total",
		Help: "Writes of what tenants asked for to object storage, by outcome: ok or failed. What failed is written again.",
	}, []string{"outcome"})
	return &metrics{
		written: writes.WithLabelValues("ok"), failed: writes.WithLabelValues("failed"),
		lost: f.NewCounter(prometheus.CounterOpts{
			Name: "amphora_usage_lost_names_total",
			Help: "Names of metrics and labels that tenants asked for and that are not remembered, as they asked for too many. Nothing of these tenants is then called unused.",
		}),
	}
}

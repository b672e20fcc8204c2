package limits

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	success prometheus.Gauge
	hash    *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		success: promauto.With(reg).NewGauge(prometheus.GaugeOpts{
			Name: "amphora_runtime_config_last_reload_successful",
			Help: "1 if the runtime configuration was read at the last try; 0 means the older one is still in force.",
		}),
		hash: promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
			Name: "amphora_runtime_config_hash",
			Help: "1 for the hash of the runtime configuration in force. Processes that show different hashes for long disagree.",
		}, []string{"sha256"}),
	}
}

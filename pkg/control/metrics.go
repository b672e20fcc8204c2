package control

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	calls     *prometheus.CounterVec
	purged    prometheus.Counter
	failures  prometheus.Counter
	lastClean prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		calls: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_control_calls_total", Help: "Calls of the control plane by operation and outcome: ok, or the code of the error.",
		}, []string{"operation", "outcome"}),
		purged:    f.NewCounter(prometheus.CounterOpts{Name: "amphora_control_workspaces_purged_total", Help: "Deleted workspaces whose data was given to deletion."}),
		failures:  f.NewCounter(prometheus.CounterOpts{Name: "amphora_control_janitor_failures_total", Help: "Runs of the janitor of deleted workspaces that failed."}),
		lastClean: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_control_janitor_last_successful_run_timestamp_seconds", Help: "When the janitor of deleted workspaces last finished."}),
	}
}

package gateway

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests *prometheus.CounterVec
	logins   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_gateway_requests_total",
			Help: "Requests by the kind of their path and by what became of them. Many denied: a client with wrong credentials, or somebody who tries.",
		}, []string{"flavour", "outcome"}),
		logins: f.NewCounterVec(prometheus.CounterOpts{
			Name: "amphora_gateway_authentications_total",
			Help: "Proofs of identity by scheme and result.",
		}, []string{"scheme", "result"}),
	}
}

package certs

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	expiry *prometheus.GaugeVec
	orders *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, hosts []string) metrics {
	f := promauto.With(reg)
	m := metrics{
		expiry: f.NewGaugeVec(prometheus.GaugeOpts{Name: "amphora_acme_certificate_expiry_timestamp_seconds",
			Help: "When the certificate expires that this process shows for the name, as got from the CA. 0: there is none."}, []string{"host"}),
		orders: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_acme_orders_total",
			Help: "Attempts of this process to get a certificate from the CA, by how they ended: success or failure."}, []string{"outcome"}),
	}
	for _, h := range hosts {
		m.expiry.WithLabelValues(h).Set(0)
	}
	m.orders.WithLabelValues("success")
	m.orders.WithLabelValues("failure")
	return m
}

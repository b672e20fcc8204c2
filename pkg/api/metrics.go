package api

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/grafana/dskit/instrument"
	"github.com/grafana/dskit/middleware"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	duration       *prometheus.HistogramVec
	received, sent *prometheus.HistogramVec
	inflight       *prometheus.GaugeVec
	panics         prometheus.Counter
}

// newMetrics makes the metrics of requests. The gRPC server of the process has the first four
// too, under the same names: whoever is second shares them.
func newMetrics(reg prometheus.Registerer) *metrics {
	sizes := func(name, help string) *prometheus.HistogramVec {
		return shared(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "amphora", Name: name, Help: help, Buckets: middleware.BodySizeBuckets,
		}, []string{"method", "route"}))
	}
	m := &metrics{
		duration: shared(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "amphora", Name: "request_duration_seconds",
			Help:                            "Time (in seconds) spent serving HTTP requests.",
			Buckets:                         instrument.DefBuckets,
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"method", "route", "status_code", "ws"})),
		received: sizes("request_message_bytes", "Size (in bytes) of messages received in the request."),
		sent:     sizes("response_message_bytes", "Size (in bytes) of messages sent in response."),
		inflight: shared(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "amphora", Name: "inflight_requests", Help: "Current number of inflight requests.",
		}, []string{"method", "route"})),
		panics: shared(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "amphora_panics_total",
			Help: "Requests that panicked and were answered 500. Any rise is a bug; the log has the stack.",
		})),
	}
	return m
}

// shared registers c, or returns what is registered in its place.
func shared[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if err == nil {
		return c
	}
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if c, ok := there.ExistingCollector.(C); ok {
			return c
		}
	}
	panic("BUG: register metrics: " + err.Error())
}

func (m *metrics) observe(ctx context.Context, method, route string, status int, took time.Duration) {
	h := m.duration.WithLabelValues(method, route, strconv.Itoa(status), "false")
	instrument.ObserveWithExemplar(ctx, h, took.Seconds())
}

package turns

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	waits, seconds, yields, lost prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, g *Gate) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_query_turns_" + name, Help: help})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "amphora_query_turns_waiting", Help: "Pieces of work of queries that wait for a processor. A rise means that queries need more processors than there are.",
	}, func() float64 { return float64(g.waiting.Load()) })
	return &metrics{
		waits:   counter("waits_total", "Times that work of a query waited for a processor."),
		seconds: counter("wait_seconds_total", "How long work of queries waited for a processor."),
		lost:    counter("lost_total", "Times that the place of work of a query was given away because it did not look up for long. The work goes on beside the others."),
		yields:  counter("yields_total", "Times that work of a query stepped aside for work of another tenant, or for work that matters more."),
	}
}

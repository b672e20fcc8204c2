package distributor

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the counters of a distributor. They are added to once per push.
type metrics struct {
	discardedSamples, discardedExemplars, discardedMetadata, discardedRequests *prometheus.CounterVec
	truncatedValues, droppedValues                                             *prometheus.CounterVec
	rejected                                                                   *prometheus.CounterVec

	frames                          *prometheus.CounterVec
	framesStored, framesUnknown     prometheus.Counter
	framesFailed                    prometheus.Counter
	definitions                     prometheus.Counter
	seriesHit, seriesMissed         prometheus.Counter
	seriesForgotten, seriesUncached prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, d *Distributor) *metrics {
	f := promauto.With(reg)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		discardedSamples:   counters("amphora_discarded_samples_total", "Samples refused. A rise means that a tenant loses data.", "reason", "user", "group"),
		discardedExemplars: counters("amphora_discarded_exemplars_total", "Exemplars dropped.", "reason", "user"),
		discardedMetadata:  counters("amphora_discarded_metadata_total", "Metadata refused.", "reason", "user"),
		discardedRequests:  counters("amphora_discarded_requests_total", "Pushes refused as a whole.", "reason", "user"),
		truncatedValues: counters("amphora_truncated_label_values_total",
			"Label values of series new to a distributor whose end was replaced by a hash because they were too long.", "user"),
		droppedValues: counters("amphora_dropped_label_values_total",
			"Label values of series new to a distributor that were replaced by a hash because they were too long.", "user"),
		rejected: counters("amphora_distributor_instance_rejected_requests_total",
			"Pushes refused to protect this process. A rise calls for more distributors.", "reason"),

		frames: counters("amphora_distributor_frames_total", "Answers of ingesters, by outcome.", "outcome"),
		definitions: counter("amphora_distributor_series_definitions_total",
			"Series sent to ingesters with their labels. A lasting rise means churn or restarts."),
		seriesHit:       counter("amphora_distributor_series_cache_hits_total", "Series of pushes that were known."),
		seriesMissed:    counter("amphora_distributor_series_cache_misses_total", "Series of pushes that were not known, or had to be checked anew."),
		seriesForgotten: counter("amphora_distributor_series_cache_evictions_total", "Series forgotten because they were silent."),
		seriesUncached: counter("amphora_distributor_series_cache_overflows_total",
			"Series not remembered for want of room. A rise calls for a larger distributor.series_cache_bytes."),
	}
	m.framesStored, m.framesUnknown, m.framesFailed = m.frames.WithLabelValues("stored"), m.frames.WithLabelValues("unknown_refs"), m.frames.WithLabelValues("failed")
	m.gauges(f, d)
	return m
}

// gauges registers what is read when it is asked for.
func (m *metrics) gauges(f promauto.Factory, d *Distributor) {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value)
	}
	load := func(v *atomic.Int64) func() float64 { return func() float64 { return float64(v.Load()) } }
	gauge("amphora_distributor_replication_factor", "Ingesters that hold each series.", nil,
		func() float64 { return float64(d.deps.Ring.ReplicationFactor()) })
	gauge("amphora_distributor_inflight_push_requests", "Pushes being worked on.", nil, load(&d.inflight))
	gauge("amphora_distributor_inflight_push_requests_bytes", "Decompressed bytes of the pushes being worked on.", nil, load(&d.inflightBytes))
	const limits = "amphora_distributor_instance_limits"
	const help = "Limits that protect this process. 0: no limit."
	gauge(limits, help, prometheus.Labels{"limit": "max_inflight_push_requests"},
		func() float64 { return float64(d.instanceLimits().MaxInflightPushRequests) })
	gauge(limits, help, prometheus.Labels{"limit": "max_inflight_push_requests_bytes"},
		func() float64 { return float64(d.instanceLimits().MaxInflightPushRequestsBytes) })
	gauge(limits, help, prometheus.Labels{"limit": "max_ingestion_rate"}, func() float64 { return d.instanceLimits().MaxIngestionRate })
	gauge("amphora_distributor_ingestion_rate_samples_per_second", "Samples, exemplars and metadata taken, as the instance limit max_ingestion_rate sees it.", nil,
		func() float64 { return d.ingestion.perSecond(d.deps.Now()) })
	reactive := func(value func(limit float64, inflight, waiting int) float64) func() float64 {
		return func() float64 {
			return value(d.reactive.State())
		}
	}
	gauge("amphora_distributor_reactive_limiter_inflight_limit", "Pushes at once that the reactive limiter allows. A fall means that ingesters got slower. 0: it is off.", nil,
		reactive(func(limit float64, _, _ int) float64 { return limit }))
	gauge("amphora_distributor_reactive_limiter_inflight_requests", "Pushes that the reactive limiter let in.", nil,
		reactive(func(_ float64, inflight, _ int) float64 { return float64(inflight) }))
	gauge("amphora_distributor_reactive_limiter_blocked_requests", "Pushes that wait for the reactive limiter.", nil,
		reactive(func(_ float64, _, waiting int) float64 { return float64(waiting) }))
	gauge("amphora_distributor_series_cache_entries", "Series remembered.", nil, load(&d.budget.used))
	gauge("amphora_distributor_series_cache_max_entries", "Series that can be remembered.", nil, func() float64 { return float64(d.budget.limit) })
}

// forget deletes what names user.
func (m *metrics) forget(user string) {
	l := prometheus.Labels{"user": user}
	for _, v := range []*prometheus.CounterVec{m.discardedSamples, m.discardedExemplars, m.discardedMetadata, m.discardedRequests,
		m.truncatedValues, m.droppedValues} {
		v.DeletePartialMatch(l)
	}
}

// forgetGroup deletes what names a group of user.
func (m *metrics) forgetGroup(user, group string) {
	m.discardedSamples.DeletePartialMatch(prometheus.Labels{"user": user, "group": group})
}

package scraper

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics have the id of a scraper as a label: one for each that runs in this process.
type metrics struct {
	running   prometheus.Gauge
	targets   *prometheus.GaugeVec
	cut       *prometheus.GaugeVec
	scrapes   *prometheus.CounterVec
	failed    *prometheus.CounterVec
	samples   *prometheus.CounterVec
	refused   *prometheus.CounterVec
	listings  prometheus.Counter
	unlisted  prometheus.Counter
	ringError prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f, by := promauto.With(reg), []string{"scraper"}
	return &metrics{
		running:   f.NewGauge(prometheus.GaugeOpts{Name: "amphora_scraper_running", Help: "Scrapers that run in this process."}),
		targets:   f.NewGaugeVec(prometheus.GaugeOpts{Name: "amphora_scraper_discovered_targets", Help: "Targets that were discovered, before rules drop some."}, by),
		cut:       f.NewGaugeVec(prometheus.GaugeOpts{Name: "amphora_scraper_targets_cut", Help: "Discovered targets that are left out, as there are too many."}, by),
		scrapes:   f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_scraper_scrapes_total", Help: "Scrapes of targets."}, by),
		failed:    f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_scraper_scrapes_failed_total", Help: "Scrapes of targets that did not answer as they should."}, by),
		samples:   f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_scraper_samples_total", Help: "Samples that were stored."}, by),
		refused:   f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_scraper_pushes_failed_total", Help: "Scrapes whose samples, or some of them, could not be stored."}, by),
		listings:  f.NewCounter(prometheus.CounterOpts{Name: "amphora_scraper_listings_total", Help: "Times that the scrapers of all accounts were listed."}),
		unlisted:  f.NewCounter(prometheus.CounterOpts{Name: "amphora_scraper_listings_failed_total", Help: "Times that the scrapers could not be listed or told of; those that run go on."}),
		ringError: f.NewCounter(prometheus.CounterOpts{Name: "amphora_scraper_ring_errors_total", Help: "Times that the other processes were not known."}),
	}
}

// runMetrics are those of one scraper.
type runMetrics struct {
	targets, cut                      prometheus.Gauge
	scrapes, failed, samples, refused prometheus.Counter
}

func (m *metrics) of(id string) runMetrics {
	return runMetrics{m.targets.WithLabelValues(id), m.cut.WithLabelValues(id), m.scrapes.WithLabelValues(id), m.failed.WithLabelValues(id),
		m.samples.WithLabelValues(id), m.refused.WithLabelValues(id)}
}

func (m *metrics) forget(id string) {
	m.targets.DeleteLabelValues(id)
	m.cut.DeleteLabelValues(id)
	for _, c := range []*prometheus.CounterVec{m.scrapes, m.failed, m.samples, m.refused} {
		c.DeleteLabelValues(id)
	}
}

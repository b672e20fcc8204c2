package distributor

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// count is a counter of one tenant, read when the metrics are scraped. It takes a few bytes, where a
// counter of a registry takes some 450.
type count struct{ n atomic.Int64 }

func (c *count) Inc()          { c.n.Add(1) }
func (c *count) Add(n float64) { c.n.Add(int64(n)) }

// The ways in which pushes arrive, besides the versions of remote write, which are their own numbers.
const (
	byOTLP = iota + 3
	byInflux
	byImport
	numWays
)

// tenantMetrics are the counters of one tenant that every push adds to.
type tenantMetrics struct {
	requestsIn                                                 [numWays]count
	samplesIn, exemplarsIn, metadataIn                         count
	received, receivedSamples, receivedExemplars, receivedMeta count
	nonHA                                                      count
}

// tenantCollector reads what tenants have counted. It describes nothing up front: its families are
// known only once a tenant is there.
type tenantCollector struct {
	tenants *tenants

	requestsIn, otlpRequests, influxRequests                   *prometheus.Desc
	samplesIn, exemplarsIn, metadataIn                         *prometheus.Desc
	received, receivedSamples, receivedExemplars, receivedMeta *prometheus.Desc
	nonHA, latest                                              *prometheus.Desc
}

func newTenantCollector(ts *tenants) *tenantCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("amphora_distributor_"+name, help, labels, nil)
	}
	return &tenantCollector{
		tenants:     ts,
		requestsIn:  desc("requests_in_total", "Pushes as they arrived.", "user", "version"),
		samplesIn:   desc("samples_in_total", "Samples as they arrived, before anything is refused.", "user"),
		exemplarsIn: desc("exemplars_in_total", "Exemplars as they arrived, before anything is refused.", "user"),
		metadataIn:  desc("metadata_in_total", "Metadata as it arrived, before anything is refused.", "user"),

		otlpRequests:   desc("otlp_requests_total", "OTLP pushes as they arrived.", "user"),
		influxRequests: desc("influx_requests_total", "Pushes of the Influx line protocol as they arrived.", "user"),

		received:          desc("received_requests_total", "Pushes that passed validation and rate limits.", "user"),
		receivedSamples:   desc("received_samples_total", "Samples that passed validation and rate limits.", "user"),
		receivedExemplars: desc("received_exemplars_total", "Exemplars that passed validation and rate limits.", "user"),
		receivedMeta:      desc("received_metadata_total", "Metadata that passed validation and rate limits.", "user"),

		nonHA: desc("non_ha_samples_received_total",
			"Samples of tenants that send from replicas whose series do not name theirs, and so are stored as they come.", "user"),
		latest: desc("latest_seen_sample_timestamp_seconds", "Largest timestamp received. A value behind the clock means that a sender lags.", "user"),
	}
}

// Describe makes the collector an unchecked one.
func (c *tenantCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends what the tenants have counted. A counter that most tenants never use is sent once it
// is above 0: with thousands of tenants zeros would be most of the page.
func (c *tenantCollector) Collect(ch chan<- prometheus.Metric) {
	for _, t := range c.tenants.all() {
		m, user := &t.metrics, string(t.id)
		send := func(d *prometheus.Desc, of *count, always bool, labels ...string) {
			if n := of.n.Load(); n > 0 || always {
				ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
			}
		}
		for way, version := range [numWays]string{1: "1.0", 2: "2.0", byOTLP: "otlp", byInflux: "influx", byImport: "import"} {
			send(c.requestsIn, &m.requestsIn[way], false, user, version)
		}
		send(c.otlpRequests, &m.requestsIn[byOTLP], false, user)
		send(c.influxRequests, &m.requestsIn[byInflux], false, user)
		send(c.samplesIn, &m.samplesIn, true, user)
		send(c.exemplarsIn, &m.exemplarsIn, false, user)
		send(c.metadataIn, &m.metadataIn, false, user)
		send(c.received, &m.received, true, user)
		send(c.receivedSamples, &m.receivedSamples, true, user)
		send(c.receivedExemplars, &m.receivedExemplars, false, user)
		send(c.receivedMeta, &m.receivedMeta, false, user)
		send(c.nonHA, &m.nonHA, false, user)
		if ms := t.latest.Load(); ms != 0 {
			ch <- prometheus.MustNewConstMetric(c.latest, prometheus.GaugeValue, float64(ms)/1000, user)
		}
	}
}

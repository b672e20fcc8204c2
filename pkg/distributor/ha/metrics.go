package ha

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics name tenants and clusters, of which a tenant has as many as its limit says. Those of a
// cluster are deleted with it.
type metrics struct {
	changes, stores, deduped  *prometheus.CounterVec
	received, elected         *prometheus.GaugeVec
	cleanups, marked, deleted prometheus.Counter
	deletionsFailed           prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counters := func(name, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"user", "cluster"})
	}
	gauges := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"user", "cluster"})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		changes: counters("amphora_ha_tracker_elected_replica_changes_total",
			"Elections that replaced another replica. A rise means that replicas fall silent."),
		stores:  counters("amphora_ha_tracker_kv_store_cas_total", "Changes of the store that were tried, elections and signs of life."),
		deduped: counters("amphora_distributor_deduped_samples_total", "Samples left out because another replica of their cluster is elected."),
		received: gauges("amphora_ha_tracker_elected_replica_timestamp_seconds",
			"When the elected replica was heard last, as the distributors share it."),
		elected:  gauges("amphora_ha_tracker_last_election_timestamp_seconds", "When the elected replica was elected."),
		cleanups: counter("amphora_ha_tracker_replicas_cleanup_started_total", "Looks for clusters without samples."),
		marked: counter("amphora_ha_tracker_replicas_cleanup_marked_for_deletion_total",
			"Clusters marked as deleted because they had no samples."),
		deleted: counter("amphora_ha_tracker_replicas_cleanup_deleted_total", "Clusters forgotten after they were marked as deleted."),
		deletionsFailed: counter("amphora_ha_tracker_replicas_cleanup_delete_failed_total",
			"Clusters that could not be marked as deleted. A lasting rise means that the store does not work."),
	}
}

func (k clusterKey) values() []string { return []string{string(k.tenant), k.cluster} }

func (m *metrics) changed(k clusterKey) { m.stores.WithLabelValues(k.values()...).Inc() }

// forget deletes what names a cluster.
func (m *metrics) forget(k clusterKey) {
	for _, v := range []interface{ DeleteLabelValues(...string) bool }{m.changes, m.stores, m.deduped, m.received, m.elected} {
		v.DeleteLabelValues(k.values()...)
	}
}

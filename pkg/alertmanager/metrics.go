package alertmanager

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	replications, replicationFailures *prometheus.CounterVec // by kind of state
	merges, mergeFailures             *prometheus.CounterVec // by kind of state
	fetches, fetchFailures            prometheus.Counter
	initialSyncs                      *prometheus.CounterVec // by outcome
	initialSyncSeconds                prometheus.Histogram
	persists, persistFailures         prometheus.Counter
	journalFailures                   prometheus.Counter
	syncs, syncFailures               *prometheus.CounterVec // by reason
	ringCheckErrors                   prometheus.Counter
	discovered, owned                 prometheus.Gauge
	applied                           *prometheus.GaugeVec // by tenant
	claimsDenied                      prometheus.Counter
	unconfirmed                       *prometheus.CounterVec // by what was done
	testsLimited                      *prometheus.CounterVec // by integration
}

// The values of the label reason.
const (
	atStart  = "initial"
	atTurn   = "periodic"
	atChange = "ring-change"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_alertmanager_" + name, Help: help})
	}
	counters := func(label, name, help string, values ...string) *prometheus.CounterVec {
		v := f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_alertmanager_" + name, Help: help}, []string{label})
		for _, x := range values {
			v.WithLabelValues(x)
		}
		return v
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "amphora_alertmanager_" + name, Help: help})
	}
	return &metrics{
		replications:        counters("key", "state_replication_total", "Changes brought to other replicas.", "sil", "nfl"),
		replicationFailures: counters("key", "state_replication_failed_total", "Changes that a replica did not take; it gets everything as soon as it can.", "sil", "nfl"),
		merges:              counters("key", "partial_state_merges_total", "Changes taken from other replicas.", "state"),
		mergeFailures:       counters("key", "partial_state_merges_failed_total", "Changes from other replicas that cannot be read; notifications may be sent twice.", "state"),
		fetches:             counter("state_fetch_replica_state_total", "Times that all state of a tenant was asked of its replicas."),
		fetchFailures:       counter("state_fetch_replica_state_failed_total", "Times that no replica had state; then object storage is asked."),
		initialSyncs: counters("outcome", "state_initial_sync_completed_total", "How tenants' state was found when they were started here; failed: notifications may be sent again.",
			"from-replica", "from-storage", "user-not-found", "failed"),
		initialSyncSeconds: f.NewHistogram(prometheus.HistogramOpts{Name: "amphora_alertmanager_state_initial_sync_duration_seconds", Help: "Time until a tenant's state was found; nobody is notified before.",
			Buckets: prometheus.ExponentialBuckets(0.008, 4, 7)}),
		persists:        counter("state_persist_total", "Writes of tenants' state to object storage."),
		persistFailures: counter("state_persist_failed_total", "Writes that failed; a restart of all replicas would lose what they had."),
		journalFailures: counter("journal_failures_total", "Changes that could not be written to the journal or read back; the death of all replicas at once would lose them."),
		syncs:           counters("reason", "sync_configs_total", "Looks for changed configurations.", atStart, atTurn, atChange),
		syncFailures:    counters("reason", "sync_configs_failed_total", "Looks that failed; tenants keep the configurations they have.", atStart, atTurn, atChange),
		ringCheckErrors: counter("ring_check_errors_total", "Times that the ring did not say whose a tenant is."),
		discovered:      gauge("tenants_discovered", "Tenants with a configuration."),
		owned:           gauge("tenants_owned", "Tenants that this process is a replica of."),
		applied: f.NewGaugeVec(prometheus.GaugeOpts{Name: "amphora_alertmanager_config_last_reload_successful",
			Help: "Whether the newest configuration of a tenant is in force; 0: it is wrong, and an older one stays."}, []string{"user"}),
		unconfirmed: counters("action", "notifications_unconfirmed_total", "Notifications that a replica may have sent before it died, and what its successor did.",
			unconfirmedSend, unconfirmedDrop),
		testsLimited: counters("integration", "receiver_tests_rate_limited_total", "Tests of receivers that were not sent because their tenant may not notify."),
		claimsDenied: counter("notification_claims_denied_total", "Times that a notification waited because another replica was sending it."),
	}
}

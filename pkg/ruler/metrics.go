package ruler

import (
	"github.com/go-kit/log"
	kit "github.com/grafana/dskit/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/rules"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

type metrics struct {
	ringErrors, readErrors                               prometheus.Counter
	managers, known                                      prometheus.Gauge
	loadFailures, queries, queriesFailed, querySeconds   *prometheus.CounterVec
	writes, writesFailed, madeUp, makeUpFailures, untold *prometheus.CounterVec
	evaluationsFailed                                    *prometheus.CounterVec
	reloadSuccessful, reloadTime                         *prometheus.GaugeVec

	tenants *tenantCollector
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_ruler_" + name, Help: help}, append([]string{"user"}, labels...))
	}
	ofTenant := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: "amphora_ruler_" + name, Help: help}, []string{"user"})
	}
	m := &metrics{
		ringErrors: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ruler_ring_check_errors_total",
			Help: "Times that the rulers alive were not known, so that groups could not be shared out."}),
		readErrors: f.NewCounter(prometheus.CounterOpts{Name: "amphora_ruler_rules_read_failures_total",
			Help: "Rounds through the rules in which some could not be read. Those known go on."}),
		managers: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_ruler_managers_total",
			Help: "Tenants that this ruler evaluates groups of."}),
		known: f.NewGauge(prometheus.GaugeOpts{Name: "amphora_ruler_tenants_known",
			Help: "Tenants that have rules."}),
		loadFailures:   vec("group_load_failures_total", "Groups that could not be evaluated as they were changed, and went on as before."),
		queries:        vec("queries_total", "Queries that rules made."),
		queriesFailed:  vec("queries_failed_total", "Queries of rules that failed. The reason says whether the operator can do something about it or the user.", "reason"),
		querySeconds:   vec("query_seconds_total", "Time that queries of rules took."),
		writes:         vec("write_requests_total", "Pushes of what rules recorded."),
		writesFailed:   vec("write_requests_failed_total", "Pushes of what rules recorded that failed. The reason says whether the operator can do something about it or the user.", "reason"),
		madeUp:         vec("missed_evaluations_made_up_total", "Evaluations of groups' recording rules that were missed and made up for."),
		makeUpFailures: vec("missed_evaluations_failed_total", "Evaluations of groups' recording rules that were missed and could not be made up for."),
		untold:         vec("change_notices_failed_total", "Changes of rules that some ruler was not told of. It finds them by itself, later."),

		evaluationsFailed: f.NewCounterVec(prometheus.CounterOpts{Name: "amphora_prometheus_rule_evaluation_failures_total",
			Help: "Evaluations of rules that failed. The reason says whether the operator can do something about it or the user, whose limits count among the user's."}, []string{"user", "rule_group", "reason"}),

		reloadSuccessful: ofTenant("config_last_reload_successful", "1 if all rules of the tenant could be read, 0 if some could not, and those before go on."),
		reloadTime:       ofTenant("config_last_reload_successful_seconds", "When all rules of the tenant could last be read, in seconds since the epoch."),
		tenants:          newTenantCollector(),
	}
	if reg != nil {
		reg.MustRegister(m.tenants)
	}
	return m
}

// reloaded notes how reading the rules of a tenant ended; some says that it has any.
func (m *metrics) reloaded(id tenant.ID, some, ok bool) {
	if !some {
		m.reloadSuccessful.DeleteLabelValues(string(id))
		m.reloadTime.DeleteLabelValues(string(id))
		return
	}
	value := 0.0
	if ok {
		value = 1
		m.reloadTime.WithLabelValues(string(id)).SetToCurrentTime()
	}
	m.reloadSuccessful.WithLabelValues(string(id)).Set(value)
}

// registry returns where the libraries put the metrics of a tenant, and what takes all of its metrics
// away.
func (m *metrics) registry(id tenant.ID) (reg *prometheus.Registry, forget func()) {
	reg = prometheus.NewRegistry()
	m.tenants.all.AddTenantRegistry(string(id), reg)
	return reg, func() {
		m.tenants.all.RemoveTenantRegistry(string(id), false)
		user := prometheus.Labels{"user": string(id)}
		for _, v := range []*prometheus.CounterVec{m.loadFailures, m.queries, m.queriesFailed, m.querySeconds, m.writes, m.writesFailed, m.madeUp, m.makeUpFailures, m.evaluationsFailed} {
			v.DeletePartialMatch(user)
		}
	}
}

// forgetGroup takes the metrics of one group of a tenant away.
func (m *metrics) forgetGroup(id tenant.ID, of *rules.Metrics, group string) {
	for _, v := range []interface{ DeleteLabelValues(...string) bool }{
		of.IterationsMissed, of.IterationsScheduled, of.EvalTotal, of.EvalFailures, of.GroupInterval, of.GroupLastEvalTime, of.GroupLastDuration,
		of.GroupLastRuleDurationSum, of.GroupLastRestoreDuration, of.GroupRules, of.GroupSamples,
	} {
		v.DeleteLabelValues(group)
	}
	m.evaluationsFailed.DeletePartialMatch(prometheus.Labels{"user": string(id), "rule_group": group})
}

// beginGroup shows that no evaluation of a group has failed yet.
func (m *metrics) beginGroup(id tenant.ID, group string) {
	for _, reason := range []string{byOperator, byUser} {
		m.evaluationsFailed.WithLabelValues(string(id), group, reason)
	}
}

// tenantCollector gives the metrics of the managers and notifiers the tenant as a label.
type tenantCollector struct {
	all                                                       *kit.TenantRegistries
	evaluation, iteration                                     *prometheus.Desc
	missed, iterations, evaluations                           *prometheus.Desc
	interval, lastTime, lastDuration, lastSum, rules, samples *prometheus.Desc
	latency, errors, sent, dropped, queued, capacity, found   *prometheus.Desc
}

func newTenantCollector() *tenantCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("amphora_prometheus_"+name, help, append([]string{"user"}, labels...), nil)
	}
	const group = "rule_group"
	return &tenantCollector{
		all:          kit.NewTenantRegistries(log.NewNopLogger()),
		evaluation:   desc("rule_evaluation_duration_seconds", "How long the evaluation of a rule takes."),
		iteration:    desc("rule_group_duration_seconds", "How long the evaluation of a group takes."),
		missed:       desc("rule_group_iterations_missed_total", "Evaluations of a group left out because the one before took too long. Recording rules make up for them.", group),
		iterations:   desc("rule_group_iterations_total", "Evaluations of a group that were due.", group),
		evaluations:  desc("rule_evaluations_total", "Evaluations of rules.", group),
		interval:     desc("rule_group_interval_seconds", "How often a group is evaluated.", group),
		lastTime:     desc("rule_group_last_evaluation_timestamp_seconds", "When a group was evaluated last.", group),
		lastDuration: desc("rule_group_last_duration_seconds", "How long the last evaluation of a group took.", group),
		lastSum:      desc("rule_group_last_rule_duration_sum_seconds", "How long the rules of a group took in its last evaluation, all together.", group),
		rules:        desc("rule_group_rules", "Rules of a group.", group),
		samples:      desc("rule_group_last_evaluation_samples", "Samples that the last evaluation of a group gave.", group),

		latency:  desc("notifications_latency_seconds", "How long Alertmanagers took to take alerts."),
		errors:   desc("notifications_errors_total", "Alerts that an Alertmanager did not take."),
		sent:     desc("notifications_sent_total", "Alerts sent to Alertmanagers."),
		dropped:  desc("notifications_dropped_total", "Alerts dropped because no Alertmanager took them or the queue was full."),
		queued:   desc("notifications_queue_length", "Alerts that wait to be sent."),
		capacity: desc("notifications_queue_capacity", "Alerts that may wait to be sent."),
		found:    desc("notifications_alertmanagers_discovered", "Alertmanagers that alerts are sent to."),
	}
}

// Describe implements prometheus.Collector.
func (c *tenantCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.evaluation, c.iteration, c.missed, c.iterations, c.evaluations, c.interval, c.lastTime,
		c.lastDuration, c.lastSum, c.rules, c.samples, c.latency, c.errors, c.sent, c.dropped, c.queued, c.capacity, c.found} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *tenantCollector) Collect(out chan<- prometheus.Metric) {
	data := c.all.BuildMetricFamiliesPerTenant()
	byGroup := kit.WithLabels("rule_group")
	data.SendSumOfSummariesPerTenant(out, c.evaluation, "prometheus_rule_evaluation_duration_seconds")
	data.SendSumOfSummariesPerTenant(out, c.iteration, "prometheus_rule_group_duration_seconds")
	data.SendSumOfCountersPerTenant(out, c.missed, "prometheus_rule_group_iterations_missed_total", byGroup)
	data.SendSumOfCountersPerTenant(out, c.iterations, "prometheus_rule_group_iterations_total", byGroup)
	data.SendSumOfCountersPerTenant(out, c.evaluations, "prometheus_rule_evaluations_total", byGroup)
	for _, g := range []struct {
		desc *prometheus.Desc
		name string
	}{
		{c.interval, "prometheus_rule_group_interval_seconds"}, {c.lastTime, "prometheus_rule_group_last_evaluation_timestamp_seconds"},
		{c.lastDuration, "prometheus_rule_group_last_duration_seconds"}, {c.lastSum, "prometheus_rule_group_last_rule_duration_sum_seconds"},
		{c.rules, "prometheus_rule_group_rules"}, {c.samples, "prometheus_rule_group_last_evaluation_samples"},
	} {
		data.SendSumOfGaugesPerTenant(out, g.desc, g.name, byGroup)
	}
	data.SendSumOfSummariesPerTenant(out, c.latency, "prometheus_notifications_latency_seconds")
	data.SendSumOfCountersPerTenant(out, c.errors, "prometheus_notifications_errors_total")
	data.SendSumOfCountersPerTenant(out, c.sent, "prometheus_notifications_sent_total")
	data.SendSumOfCountersPerTenant(out, c.dropped, "prometheus_notifications_dropped_total")
	data.SendSumOfGaugesPerTenant(out, c.queued, "prometheus_notifications_queue_length")
	data.SendSumOfGaugesPerTenant(out, c.capacity, "prometheus_notifications_queue_capacity")
	data.SendSumOfGaugesPerTenant(out, c.found, "prometheus_notifications_alertmanagers_discovered")
}

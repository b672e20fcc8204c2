package alertmanager

import (
	"log/slog"

	dskit "github.com/grafana/dskit/metrics"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/telemetry"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// tenantMetrics shows what upstream counts for each tenant. It implements prometheus.Collector.
type tenantMetrics struct {
	regs *dskit.TenantRegistries

	received, invalid, refused, notifications, failed, requests, requestsFailed, limited, suppressed *prometheus.Desc
	alerts, silences, kept, keptBytes, groups, groupLimit                                            *prometheus.Desc
	latency                                                                                          *prometheus.Desc
}

func newTenantMetrics(log *slog.Logger) *tenantMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("amphora_alertmanager_"+name, help, labels, nil)
	}
	return &tenantMetrics{
		regs:           dskit.NewTenantRegistries(telemetry.GoKit(log)),
		received:       desc("alerts_received_total", "Alerts received, by state.", "user"),
		invalid:        desc("alerts_invalid_total", "Alerts refused because they are wrong.", "user"),
		refused:        desc("alerts_insert_limited_total", "Alerts dropped because of a limit on alerts.", "user"),
		notifications:  desc("notifications_total", "Notifications tried.", "user", "integration"),
		failed:         desc("notifications_failed_total", "Notifications given up.", "user", "integration", "reason"),
		requests:       desc("notification_requests_total", "Requests to receivers.", "user", "integration"),
		requestsFailed: desc("notification_requests_failed_total", "Requests to receivers that failed; most are tried again.", "user", "integration"),
		limited:        desc("notification_rate_limited_total", "Notifications dropped because of the rate limit.", "user", "integration"),
		suppressed:     desc("notifications_suppressed_total", "Alerts of which nobody was notified because they are silenced, inhibited or outside of their times.", "user", "reason"),
		alerts:         desc("alerts", "Alerts in groups, by state.", "user", "state"),
		silences:       desc("silences", "Silences, by state.", "user", "state"),
		kept:           desc("alerts_limiter_current_alerts", "Alerts that count against the limit.", "user"),
		keptBytes:      desc("alerts_limiter_current_alerts_size_bytes", "Bytes of alerts that count against the limit.", "user"),
		groups:         desc("dispatcher_aggregation_groups", "Groups of alerts."),
		groupLimit:     desc("dispatcher_aggregation_group_limit_reached_total", "Alerts that nobody is notified of because there are too many groups.", "user"),
		latency:        desc("notification_latency_seconds", "Time of a request to a receiver."),
	}
}

func (t *tenantMetrics) add(id tenant.ID, reg *prometheus.Registry) {
	t.regs.AddTenantRegistry(string(id), reg)
}

func (t *tenantMetrics) remove(id tenant.ID) { t.regs.RemoveTenantRegistry(string(id), false) }

// Describe implements prometheus.Collector.
func (t *tenantMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{t.received, t.invalid, t.refused, t.notifications, t.failed, t.requests, t.requestsFailed, t.limited,
		t.suppressed, t.alerts, t.silences, t.kept, t.keptBytes, t.groups, t.groupLimit, t.latency} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (t *tenantMetrics) Collect(out chan<- prometheus.Metric) {
	data := t.regs.BuildMetricFamiliesPerTenant()
	data.SendSumOfCountersPerTenant(out, t.received, "alertmanager_alerts_received_total")
	data.SendSumOfCountersPerTenant(out, t.invalid, "alertmanager_alerts_invalid_total")
	data.SendSumOfCountersPerTenant(out, t.refused, "alerts_refused_total")
	data.SendSumOfCountersPerTenant(out, t.notifications, "alertmanager_notifications_total", dskit.WithLabels("integration"), dskit.WithSkipZeroValueMetrics)
	data.SendSumOfCountersPerTenant(out, t.failed, "alertmanager_notifications_failed_total", dskit.WithLabels("integration", "reason"), dskit.WithSkipZeroValueMetrics)
	data.SendSumOfCountersPerTenant(out, t.requests, "alertmanager_notification_requests_total", dskit.WithLabels("integration"), dskit.WithSkipZeroValueMetrics)
	data.SendSumOfCountersPerTenant(out, t.requestsFailed, "alertmanager_notification_requests_failed_total", dskit.WithLabels("integration"), dskit.WithSkipZeroValueMetrics)
	data.SendSumOfCountersPerTenant(out, t.limited, "notifications_limited_total", dskit.WithLabels("integration"), dskit.WithSkipZeroValueMetrics)
	data.SendSumOfCountersPerTenant(out, t.suppressed, "alertmanager_notifications_suppressed_total", dskit.WithLabels("reason"), dskit.WithSkipZeroValueMetrics)
	data.SendSumOfGaugesPerTenant(out, t.alerts, "alertmanager_alerts", dskit.WithLabels("state"))
	data.SendSumOfGaugesPerTenant(out, t.silences, "alertmanager_silences", dskit.WithLabels("state"))
	data.SendSumOfGaugesPerTenant(out, t.kept, "alerts_kept")
	data.SendSumOfGaugesPerTenant(out, t.keptBytes, "alerts_kept_bytes")
	data.SendSumOfGauges(out, t.groups, "alertmanager_dispatcher_aggregation_groups")
	data.SendSumOfCountersPerTenant(out, t.groupLimit, "alertmanager_dispatcher_aggregation_group_limit_reached_total")
	data.SendSumOfHistograms(out, t.latency, "alertmanager_notification_latency_seconds")
}

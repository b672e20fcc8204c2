// Package alertmanager owns notifying people about alerts: one alertmanager for each tenant with a
// configuration, on several replicas that share silences, the log of notifications and alerts, so
// that every notification is sent once. The parts that route, group, inhibit, silence and send are
// those of the Prometheus Alertmanager; this package gives them tenants, limits, replicas and a
// place in object storage.
package alertmanager

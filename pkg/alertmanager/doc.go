// Package alertmanager owns notification of alerts: one alertmanager per configured tenant, on
// several replicas that share silences, alerts and the notification log so that each notification is
// sent once. Routing, grouping, inhibition, silencing and sending are those of the Prometheus
// Alertmanager; this package adds tenants, limits, replication and persistence in object storage.
package alertmanager

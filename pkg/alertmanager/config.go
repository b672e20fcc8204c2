package alertmanager

import (
	"net/url"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// The kinds of receivers that tenants may use.
const (
	ReceiversAll = "all"
	ReceiversSNS = "sns-only"
)

// Config is the settings of the section alertmanager.
type Config struct {
	ExternalURL       string
	FallbackFile      string
	BaseFile          string
	DataDir           string
	EnableAPI         bool
	PollInterval      time.Duration
	PersistInterval   time.Duration
	Retention         time.Duration
	PeerTimeout       time.Duration
	MaxRecvMsgBytes   int
	MaxConcurrentGets int
	UTF8Strict        bool
	Receivers         string
	Grafana           bool
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.ExternalURL, "external_url", "http://localhost:8080/alertmanager", "Address of the alertmanager's pages, which notifications link to.").Named("alertmanager.web.external-url")
	s.String(&c.FallbackFile, "fallback_config_file", "", "Configuration file for tenants without one. Empty: their alerts are kept and shown, but nobody is notified.").Named("alertmanager.configs.fallback")
	s.String(&c.BaseFile, "base_config_file", "", "File with receivers, inhibit_rules, time_intervals and mute_time_intervals that are added to every tenant's configuration. A name that both use is refused.").Named("alertmanager.configs.base").Expert()
	s.String(&c.DataDir, "data_dir", "./data/alertmanager", "Directory of the journal of silences and notifications, with which both survive the death of all replicas at once. Empty: no journal; such a death then loses what changed within persist_interval.").Named("alertmanager.storage.path")
	s.Bool(&c.EnableAPI, "enable_api", true, "Whether tenants may read and write their configurations.").Expert()
	s.Duration(&c.PollInterval, "poll_interval", 15*time.Second, "How often configurations are checked for changes. Changes made through the API take effect at once.").Named("alertmanager.configs.poll-interval").Expert()
	s.Duration(&c.PersistInterval, "persist_interval", 15*time.Minute, "How often silences, alerts and the notification log are written to object storage. Replicas share them continuously.").Expert()
	s.Duration(&c.Retention, "retention", 120*time.Hour, "How long expired silences and the notification log are kept.").Named("alertmanager.storage.retention").Expert()
	s.Duration(&c.PeerTimeout, "peer_timeout", 15*time.Second, "How long each further replica waits for the ones before it to send a notification.").Expert()
	s.Int(&c.MaxRecvMsgBytes, "max_recv_msg_size", 100<<20, "Largest request to the API in bytes, compressed and decompressed.").Expert()
	s.Int(&c.MaxConcurrentGets, "max_concurrent_get_requests_per_tenant", 0, "Concurrent reads of a tenant on a replica. 0: the number of CPUs, at least 8.").Expert()
	s.Bool(&c.UTF8Strict, "utf8_strict_mode", false, "Whether matchers must use the UTF-8 syntax. If not, the classic syntax is accepted as well.").Named("alertmanager.utf8-strict-mode-enabled").Expert()
	s.String(&c.Receivers, "receivers", ReceiversAll, "Receivers that tenants may use: all, or sns-only, which is what Amazon's service allows.")
	s.Bool(&c.Grafana, "grafana_alertmanager_compatibility_enabled", false, "Whether a Grafana may use this as its remote Alertmanager: keep its configuration and state here, and have alerts sent by a promoted configuration.").Named("alertmanager.grafana-alertmanager-compatibility-enabled").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	u, err := url.Parse(c.ExternalURL)
	switch {
	case err != nil:
		return config.Wrong("external_url", "is no URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return config.Wrong("external_url", "is %q; it must be an http or https URL with a host", c.ExternalURL)
	case c.PollInterval <= 0:
		return config.Wrong("poll_interval", "is %s; it must be positive", c.PollInterval)
	case c.PersistInterval <= 0:
		return config.Wrong("persist_interval", "is %s; it must be positive", c.PersistInterval)
	case c.Retention <= 0:
		return config.Wrong("retention", "is %s; it must be positive", c.Retention)
	case c.PeerTimeout <= 0:
		return config.Wrong("peer_timeout", "is %s; it must be positive", c.PeerTimeout)
	case c.MaxRecvMsgBytes <= 0:
		return config.Wrong("max_recv_msg_size", "is %d; it must be positive", c.MaxRecvMsgBytes)
	case c.Receivers != ReceiversAll && c.Receivers != ReceiversSNS:
		return config.Wrong("receivers", "is %q; it must be %s or %s", c.Receivers, ReceiversAll, ReceiversSNS)
	}
	return nil
}

package ruler

import (
	"net/url"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// Config is the settings of a Ruler, mounted as ruler.
type Config struct {
	EvaluationInterval time.Duration
	PollInterval       time.Duration
	OutageTolerance    time.Duration
	GracePeriod        time.Duration
	CatchUp            time.Duration
	EnableAPI          bool
	Federation         Federation
	ExternalURL        ExternalURL
	Notifier           NotifierConfig
	Remote             RemoteConfig
	QueryStats         bool
}

// StorageConfig is where rules are kept, mounted as ruler_storage.
type StorageConfig struct{ Backend, Directory string }

// The backends.
const (
	BackendBucket = "bucket"
	BackendLocal  = "local"
)

// Declare names the settings.
func (c *StorageConfig) Declare(s *config.Set) {
	s.String(&c.Backend, "backend", BackendBucket, "Where rules are kept: bucket (that of the blocks) or local, a directory with one directory per tenant and in it one rule file per namespace, which the API cannot change.").
		OneOf(BackendBucket, BackendLocal).Expert()
	s.Mount("local", directory{&c.Directory})
}

// directory is the setting of the directory.
type directory struct{ name *string }

// Declare names the setting.
func (d directory) Declare(s *config.Set) {
	s.String(d.name, "directory", "", "Directory of the rules, for the backend local.").Expert()
}

// Validate refuses what cannot work.
func (c *StorageConfig) Validate() error {
	if c.Backend == BackendLocal && c.Directory == "" {
		return config.Wrong("local.directory", "is empty, but the backend is local")
	}
	return nil
}

// RemoteConfig is where rules are evaluated, mounted as ruler.query_frontend.
type RemoteConfig struct {
	Address string
	Timeout time.Duration
}

// Declare names the settings.
func (c *RemoteConfig) Declare(s *config.Set) {
	s.String(&c.Address, "address", "", "Query-frontend, or any other Prometheus, that evaluates the rules: host:port, or a URL up to /api/v1. Empty: this process does it.").Expert()
	s.Duration(&c.Timeout, "timeout", 2*time.Minute, "Timeout of one such query.").Expert()
}

// Federation is whether rules may read several tenants, mounted as ruler.tenant_federation.
type Federation struct{ Enabled bool }

// Declare names the setting.
func (f *Federation) Declare(s *config.Set) {
	s.Bool(&f.Enabled, "enabled", false, "Whether a rule group may name source_tenants, whose series its rules then read. Whoever may write rules of one tenant can then read every other.").Expert()
}

// ExternalURL is mounted as ruler.external.
type ExternalURL struct{ Text string }

// Declare names the setting.
func (u *ExternalURL) Declare(s *config.Set) {
	s.String(&u.Text, "url", "", "Base URL of the links of alerts, and .ExternalURL in templates.").Expert()
}

// Validate refuses what is no URL.
func (u *ExternalURL) Validate() error {
	if _, err := url.Parse(u.Text); err != nil {
		return config.Wrong("url", "is no URL: %w", err)
	}
	return nil
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.Duration(&c.EvaluationInterval, "evaluation-interval", time.Minute, "Evaluation interval of groups without one of their own.").Expert()
	s.Duration(&c.PollInterval, "poll-interval", 15*time.Second, "How often rules are checked for changes of which the ruler was not notified.").Expert()
	s.Duration(&c.OutageTolerance, "for-outage-tolerance", time.Hour, "Longest outage of a ruler after which alerts still count the time they were pending before it.").Expert()
	s.Duration(&c.GracePeriod, "for-grace-period", 2*time.Minute, "How long at least an alert stays pending after such an outage. Alerts with a shorter `for` restart.").Expert()
	s.Duration(&c.CatchUp, "catch-up-window", 10*time.Minute, "How far back missed evaluations of recording rules are caught up, after a ruler failed or a group took too long. 0: never.").Expert()
	s.Bool(&c.EnableAPI, "enable-api", true, "Serve the API by which tenants change their rules.").Expert()
	s.Mount("tenant_federation", &c.Federation)
	s.Mount("external", &c.ExternalURL)
	s.Mount("query_frontend", &c.Remote)
	s.Bool(&c.QueryStats, "query-stats-enabled", false, "Log every query of a rule, with how long it took.").Expert()
	s.Mount("", &c.Notifier)
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	switch {
	case c.EvaluationInterval < time.Millisecond:
		return config.Wrong("evaluation-interval", "is %s; it must be positive", c.EvaluationInterval)
	case c.PollInterval < time.Second:
		return config.Wrong("poll-interval", "is %s; it must be 1s or more", c.PollInterval)
	}
	return nil
}

// NotifierConfig is how alerts leave a ruler.
type NotifierConfig struct {
	Alertmanagers []string
	Refresh       time.Duration
	QueueCapacity int
	Timeout       time.Duration
	ResendDelay   time.Duration
}

// Declare names each setting once.
func (c *NotifierConfig) Declare(s *config.Set) {
	s.Strings(&c.Alertmanagers, "alertmanager-url", nil, "URLs of Alertmanagers that alerts are sent to, with the prefix of their API. A scheme may be dns+http or dnssrv+http (or https): "+
		"then alerts go to every address that the name of the host resolves to. Empty: the alertmanager of this process, if it has one.")
	s.Duration(&c.Refresh, "alertmanager-refresh-interval", time.Minute, "How often names of Alertmanagers are resolved again.").Expert()
	s.Int(&c.QueueCapacity, "notification-queue-capacity", 10_000, "Alerts of one tenant that may wait to be sent.").Expert()
	s.Duration(&c.Timeout, "notification-timeout", 10*time.Second, "Timeout of sending alerts to an Alertmanager.").Expert()
	s.Duration(&c.ResendDelay, "resend-delay", time.Minute, "How long to wait before a firing alert is sent again.").Expert()
}

// Validate refuses what cannot work.
func (c *NotifierConfig) Validate() error {
	for _, text := range c.Alertmanagers {
		if _, err := parseReceiver(text); err != nil {
			return config.Wrong("alertmanager-url", "%w", err)
		}
	}
	if c.QueueCapacity < 1 || c.Timeout <= 0 || c.Refresh < time.Second {
		return config.Wrong("notification-queue-capacity", "this and notification-timeout must be positive, and alertmanager-refresh-interval 1s or more")
	}
	return nil
}

package control

import (
	"net/url"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// Config is the settings of the control plane; app mounts it as control.
type Config struct {
	PublicURL     string
	MaxWorkspaces int
	MaxScrapers   int
	MaxNamespaces int
	PurgeAfter    time.Duration
	JanitorPeriod time.Duration
	ApplyKeys     bool
}

// Declare names the settings.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.PublicURL, "public_url", "", "Address at which clients reach the workspaces, such as https://metrics.example.com. Empty: that of the request.")
	s.Int(&c.MaxWorkspaces, "max_workspaces_per_account", 0, "Workspaces an account may have. 0: no limit. Amazon's guide has 10.").Expert()
	s.Int(&c.MaxNamespaces, "max_rule_groups_namespaces_per_workspace", 0, "Rule groups namespaces that may be created in a workspace by this API. 0: no limit. Amazon's guide has 10.").Expert()
	s.Int(&c.MaxScrapers, "max_scrapers_per_account", 100, "Scrapers an account may have. 0: no limit.").Expert()
	s.Duration(&c.PurgeAfter, "purge_after", 7*24*time.Hour, "How long the data of a deleted workspace is kept, so that an operator can restore it.").Expert()
	s.Duration(&c.JanitorPeriod, "janitor_period", time.Minute, "How often unfinished deletions are continued.").Expert()
	s.Bool(&c.ApplyKeys, "apply_kms_keys", false, "Whether S3 encrypts the objects of a workspace with its kmsKeyArn, as s3_sse_kms_key_id does. Set it in all processes. If not, the key is only stored and returned.").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return config.Wrong("public_url", "is %q, which is not like https://metrics.example.com", c.PublicURL)
		}
	}
	if c.MaxWorkspaces < 0 {
		return config.Wrong("max_workspaces_per_account", "is %d; it must be 0 or more", c.MaxWorkspaces)
	}
	if c.MaxScrapers < 0 {
		return config.Wrong("max_scrapers_per_account", "is %d; it must be 0 or more", c.MaxScrapers)
	}
	if c.MaxNamespaces < 0 {
		return config.Wrong("max_rule_groups_namespaces_per_workspace", "is %d; it must be 0 or more", c.MaxNamespaces)
	}
	if c.JanitorPeriod <= 0 {
		return config.Wrong("janitor_period", "is %s; it must be more than 0", c.JanitorPeriod)
	}
	return nil
}

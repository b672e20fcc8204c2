package app

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// CostsConfig says where usage is attributed to values of tenants' labels. Its settings stand at the
// root.
type CostsConfig struct {
	Path            string // empty: nowhere
	EvictionAfter   time.Duration
	CleanupInterval time.Duration
}

// Declare names the settings.
func (c *CostsConfig) Declare(s *config.Set) {
	s.String(&c.Path, "cost_attribution_registry_path", "", "Path, such as /cost-attribution, of a metrics page with the usage of tenants by the values of their cost_attribution_labels. Empty: not served.").
		Named("cost-attribution.registry-path").Expert()
	s.Duration(&c.EvictionAfter, "cost_attribution_eviction_interval", 20*time.Minute, "How long values stay on the page after the last usage attributed to them.").
		Named("cost-attribution.eviction-interval").Expert()
	s.Duration(&c.CleanupInterval, "cost_attribution_cleanup_interval", 3*time.Minute, "How often idle values are removed, and tenants that had too many values are attributed by value again.").
		Named("cost-attribution.cleanup-interval").Expert()
}

// Validate refuses what cannot work.
func (c *CostsConfig) Validate() error {
	if p := c.Path; p != "" && (!strings.HasPrefix(p, "/") || p == "/" || strings.ContainsAny(p, "{} ?#%") || strings.Contains(p, "//")) {
		return config.Wrong("cost_attribution_registry_path", "is %q; it must be a path that begins with /", p)
	}
	if c.EvictionAfter <= 0 || c.CleanupInterval <= 0 {
		return config.Wrong("cost_attribution_cleanup_interval", "and cost_attribution_eviction_interval must be longer than 0")
	}
	return nil
}

// costsRegisterer takes the metrics of usage by values of labels, nil if they are not served.
func (a *App) costsRegisterer() prometheus.Registerer {
	if a.costs == nil {
		return nil
	}
	return a.costs
}

package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/api/ingest"
	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Config is the settings of the section api. Those of Tenancy stand at the root of the file,
// where whoever assembles the settings declares them.
type Config struct {
	PrometheusPrefix   string
	AlertmanagerPrefix string
	SlowRequest        time.Duration

	Tenancy TenancyConfig
	Ingest  ingest.Config
	Prom    prom.Config
}

// Declare adds the settings of the section api to s.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.PrometheusPrefix, "prometheus_http_prefix", defaultPrefix, "Path under which the Prometheus read API is served.").Named("http.prometheus-http-prefix")
	s.String(&c.AlertmanagerPrefix, "alertmanager_http_prefix", alertmanagerPrefix, "Path under which the alertmanager's pages and API are served.").Named("http.alertmanager-http-prefix")
	s.Duration(&c.SlowRequest, "log_requests_longer_than", 30*time.Second, "Requests that take longer are logged as warnings. 0: none.").Expert()
	c.Ingest.Declare(s)
	c.Prom.Declare(s)
}

// Validate checks the settings, those of the other sections too.
func (c *Config) Validate() error {
	if p := c.PrometheusPrefix; p != "" && !isPrefix(p) {
		return fmt.Errorf("setting api.prometheus_http_prefix: %q must begin with / and not end with it", p)
	}
	if p := c.AlertmanagerPrefix; !isPrefix(p) {
		return fmt.Errorf("setting api.alertmanager_http_prefix: %q must begin with / and not end with it", p)
	}
	if err := c.Tenancy.Validate(); err != nil {
		return err
	}
	return c.Ingest.Validate()
}

func isPrefix(p string) bool {
	return strings.HasPrefix(p, "/") && !strings.HasSuffix(p, "/") && !strings.ContainsAny(p, "{} ?#%") && !strings.Contains(p, "//")
}

// TenancyConfig says who a request without a tenant acts for. Its settings stand at the root.
type TenancyConfig struct {
	Enabled      bool
	NoAuthTenant string
}

// Declare adds the settings to s.
func (c *TenancyConfig) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "multitenancy_enabled", true, "Whether requests must name their tenant in X-Scope-OrgID. If not, all belong to no_auth_tenant.").Named("auth.multitenancy-enabled")
	s.String(&c.NoAuthTenant, "no_auth_tenant", "anonymous", "Tenant of all requests if multitenancy is off.").Named("auth.no-auth-tenant")
}

// Validate checks the tenant's name.
func (c *TenancyConfig) Validate() error {
	if c.Enabled {
		return nil
	}
	if _, err := tenant.Parse(c.NoAuthTenant); err != nil {
		return fmt.Errorf("setting no_auth_tenant: %w", err)
	}
	return nil
}

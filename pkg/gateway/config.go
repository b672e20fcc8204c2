package gateway

import (
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// Config is the settings of the gateway; app mounts it as auth.
type Config struct {
	Enabled         bool
	Regions         []string
	Services        []string
	OperatorAccount string
	Hosts           []string
	TrustedProxies  []string
	ForwardedHeader string
	ClockSkew       time.Duration
	Explain         bool
	UnsignedPayload bool
	OtherSchemes    bool

	// Calls of one account a second, by what they are about; 0: no limit.
	WriteRate, ReadRate, WorkspaceRate, AlertmanagerRate, TokenRate, ProcessRate float64
	FailedLogins                                                                 float64 // a minute
}

// Declare implements config.Declarer.
func (c *Config) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", false, "Whether callers must authenticate. Required for listeners that other machines can reach.")
	s.Strings(&c.Regions, "regions", []string{"us-east-1"}, "Regions for which requests may be signed. The first is used in the ARNs of resources.")
	s.Strings(&c.Services, "services", []string{"aps"}, "Service names for which requests may be signed.").Expert()
	s.String(&c.OperatorAccount, "operator-account", "000000000000", "Account that may use the routes of the process itself, and that owns tenants nobody registered.")
	s.Strings(&c.Hosts, "external-hosts", nil, "Host names by which clients call this server, with any non-default port, if a proxy in front changes the Host header: signatures are checked with these, too.").Expert()
	s.Strings(&c.TrustedProxies, "trusted-proxies", nil, "Networks, such as 10.0.0.0/8, of proxies whose forwarding headers are trusted.").Expert()
	s.String(&c.ForwardedHeader, "forwarded-header", forwardedFor, "Header in which trusted proxies name the client: x-forwarded-for (together with X-Forwarded-Proto) or forwarded. Proxies must set it themselves: a value passed on from a client would be trusted.").Expert()
	s.Duration(&c.ClockSkew, "clock-skew", 15*time.Minute, "Largest clock difference between the signer of a request and this server.").Expert()
	s.Bool(&c.Explain, "explain-signatures", false, "Answer a wrong signature with the canonical request that was expected, to help authors of clients.").Expert()
	s.Bool(&c.UnsignedPayload, "unsigned-payload", false, "Accept requests over TLS whose signature leaves the body out.").Expert()
	s.Bool(&c.OtherSchemes, "workspaces-accept-other-schemes", false, "Accept HTTP Basic and tokens under /workspaces/, too, where Amazon's service accepts signatures only.")
	s.Float(&c.WorkspaceRate, "workspace-api-rate", 10, "Calls a second of an account to the configuration of workspaces. 0: no limit.").Expert()
	s.Float(&c.AlertmanagerRate, "alertmanager-api-rate", 100, "Calls a second of an account to alertmanagers. 0: no limit.").Expert()
	s.Float(&c.TokenRate, "sts-api-rate", 100, "Calls a second of an account to the security token service. 0: no limit.").Expert()
	s.Float(&c.ProcessRate, "process-api-rate", 100, "Calls a second of an account to pages and administration of the process. 0: no limit.").Expert()
	s.Float(&c.ReadRate, "read-api-rate", 0, "Reads a second of an account, beside the limits of tenants. 0: no limit.").Expert()
	s.Float(&c.WriteRate, "write-api-rate", 0, "Pushes a second of an account, beside the limits of tenants. 0: no limit.").Expert()
	s.Float(&c.FailedLogins, "failed-logins-per-minute", 60, "Failed logins a minute after which an address is refused for that id; after ten times as many it is refused for all ids. 0: no limit.").Expert()
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if len(c.Regions) == 0 {
		return config.Wrong("regions", "needs at least one region")
	}
	if !regexp.MustCompile(`^[0-9]{12}$`).MatchString(c.OperatorAccount) {
		return config.Wrong("operator_account", "is %q, which is not 12 digits", c.OperatorAccount)
	}
	if c.ForwardedHeader != forwardedFor && c.ForwardedHeader != forwardedOne {
		return config.Wrong("forwarded_header", "is %q, not %s or %s", c.ForwardedHeader, forwardedFor, forwardedOne)
	}
	for _, n := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(n); err != nil && !strings.Contains(n, "/") {
			_, err = netip.ParseAddr(n)
			if err != nil {
				return config.Wrong("trusted_proxies", "%w", err)
			}
		} else if err != nil {
			return config.Wrong("trusted_proxies", "%w", err)
		}
	}
	return nil
}

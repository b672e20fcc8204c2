package scraper

import (
	"net/netip"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// Config is the settings of scrapers; app mounts it as scraper.
type Config struct {
	PollInterval      time.Duration
	AllowedNetworks   []string
	BlockedNetworks   []string
	KubernetesServers []string
	MaxTargets        int
	MaxSamples        int
	MaxBodyBytes      int
	MinInterval       time.Duration
}

// Declare names the settings.
func (c *Config) Declare(s *config.Set) {
	s.Duration(&c.PollInterval, "poll_interval", 10*time.Second, "How often a process checks for scrapers that were created or changed elsewhere.").Expert()
	s.Strings(&c.AllowedNetworks, "allowed_networks", nil, "Networks, such as 127.0.0.0/8, that scrapers may reach although they contain loopback, link-local or metadata addresses, or are blocked.").Expert()
	s.Strings(&c.BlockedNetworks, "blocked_networks", nil, "Networks, such as 10.0.0.0/8, that scrapers may not reach. Loopback, link-local, multicast and metadata addresses are blocked unless allowed.").Expert()
	s.Strings(&c.KubernetesServers, "kubernetes_api_servers", nil, "API servers that scrapers may discover targets from, such as https://10.0.0.1:6443, with credentials in the scraper's configuration. in-cluster: that of the pod this process runs in, with the pod's service account.").Expert()
	s.Int(&c.MaxTargets, "max_targets", 5000, "Targets that one job of a scraper may have. Discovery stops at ten times as many.").Expert()
	s.Int(&c.MaxSamples, "max_samples_per_scrape", 100_000, "Samples of one scrape; a scrape with more fails.").Expert()
	s.Int(&c.MaxBodyBytes, "max_body_bytes", 64<<20, "Largest answer of a target or of HTTP discovery, in bytes.").Expert()
	s.Duration(&c.MinInterval, "min_interval", 5*time.Second, "Shortest interval of scrapes and of discovery.").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	for name, n := range map[string]int{"max_targets": c.MaxTargets, "max_samples_per_scrape": c.MaxSamples, "max_body_bytes": c.MaxBodyBytes} {
		if n < 1 {
			return config.Wrong(name, "is %d; it must be 1 or more", n)
		}
	}
	for name, d := range map[string]time.Duration{"poll_interval": c.PollInterval, "min_interval": c.MinInterval} {
		if d <= 0 {
			return config.Wrong(name, "is %s; it must be more than 0", d)
		}
	}
	for name, list := range map[string][]string{"allowed_networks": c.AllowedNetworks, "blocked_networks": c.BlockedNetworks} {
		for _, text := range list {
			if _, err := netip.ParsePrefix(text); err != nil {
				return config.Wrong(name, "%q is no network in CIDR notation", text)
			}
		}
	}
	return nil
}

// networks parses what Validate has accepted.
func networks(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

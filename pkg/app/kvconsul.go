package app

import (
	"net"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/kv"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/transport"
)

// ConsulConfig is how Consul is reached.
type ConsulConfig struct {
	Host                         string
	Token                        config.Secret
	ClientTimeout, CASRetryDelay time.Duration
	ConsistentReads              bool
	WatchRate                    float64
	WatchBurst                   int
}

// Declare names the settings.
func (c *ConsulConfig) Declare(s *config.Set) {
	s.String(&c.Host, "host", "localhost:8500", "Agent of Consul, host:port, for the rings with kvstore.store, and for distributor.ha_tracker.kvstore.store.").Named("kvstore.consul.hostname").Expert()
	s.Secret(&c.Token, "acl_token", "ACL token for the agent.").Expert()
	s.Duration(&c.ClientTimeout, "http_client_timeout", 20*time.Second, "How long a request may take; requests that wait for changes are held by the agent for 10s.").Named("kvstore.consul.client-timeout").Expert()
	s.Bool(&c.ConsistentReads, "consistent_reads", false, "Whether reads go to the leader instead of the agent's last known state.").Expert()
	s.Float(&c.WatchRate, "watch_rate_limit", 1, "Requests a second of each watcher of a key. 0: no limit.").Expert()
	s.Int(&c.WatchBurst, "watch_burst_size", 1, "Burst of requests of a watcher.").Expert()
	s.Duration(&c.CASRetryDelay, "cas_retry_delay", time.Second, "Longest wait before a change is retried after a conflict.").Expert()
}

// Validate refuses what cannot work.
func (c *ConsulConfig) Validate() error {
	switch {
	case c.ClientTimeout <= consulPoll:
		return config.Wrong("http_client_timeout", "is %s; the agent holds requests for %s, so it must be longer", config.FormatDuration(c.ClientTimeout), config.FormatDuration(consulPoll))
	case c.WatchRate < 0:
		return config.Wrong("watch_rate_limit", "is %g; it must not be negative", c.WatchRate)
	case c.WatchBurst < 1:
		return config.Wrong("watch_burst_size", "is %d; it must be at least 1", c.WatchBurst)
	case c.CASRetryDelay < 0:
		return config.Wrong("cas_retry_delay", "is %s; it must not be negative", config.FormatDuration(c.CASRetryDelay))
	}
	return nil
}

// consulPoll is how long dskit has the agent hold a request for changes.
const consulPoll = 10 * time.Second

// checkConsul refuses an agent elsewhere: it is spoken to without encryption.
func (c *Config) checkConsul() error {
	host, _, err := net.SplitHostPort(c.KVStore.Consul.Host)
	switch {
	case err != nil:
		return config.Wrong("kvstore.consul.host", "is %q; it must be host:port", c.KVStore.Consul.Host)
	case !c.Exposure.Unsafe && !transport.Loopback(host):
		return config.Wrong("kvstore.consul.host", "is %q, which is on another machine, and Consul is spoken to without encryption: run an agent on each machine, "+
			"or accept that with auth.unsafe_listen_without_authentication (-auth.unsafe-listen-without-authentication) on a network that only the cluster uses", c.KVStore.Consul.Host)
	}
	return nil
}

// toConsul adds how Consul is reached.
func (c *ConsulConfig) toConsul(to *kv.Config) {
	t := &to.Consul
	t.Host, t.ACLToken = c.Host, flagext.SecretWithValue(c.Token.Reveal())
	t.HTTPClientTimeout, t.CasRetryDelay = c.ClientTimeout, c.CASRetryDelay
	t.ConsistentReads, t.WatchKeyRateLimit, t.WatchKeyBurstSize = c.ConsistentReads, c.WatchRate, c.WatchBurst
}

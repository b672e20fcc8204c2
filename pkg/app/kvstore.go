package app

import (
	"net"
	"strings"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/kv"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/distributor/ha"
	"github.com/amphora-metrics/amphora/pkg/transport"
)

// The stores of rings, by the names that dskit has for them.
const (
	inGossip = ha.Memberlist
	inEtcd   = ha.Etcd
	inConsul = ha.Consul
	inTwo    = ha.Multi
	inMemory = ha.InMemory
)

// KVStoreConfig says where the members of a cluster tell each other of themselves. Gossip needs
// nothing beside the cluster; the others are for who moves from a system that has them, or has no
// network that carries gossip.
type KVStoreConfig struct {
	Store, Prefix string
	Etcd          EtcdConfig
	Consul        ConsulConfig
	Multi         MultiConfig
}

// Declare names the settings.
func (c *KVStoreConfig) Declare(s *config.Set) {
	s.String(&c.Store, "store", inGossip, "Store of all rings. A process that runs alone keeps them in memory.").OneOf(inGossip, inEtcd, inConsul, inTwo).Expert()
	s.String(&c.Prefix, "prefix", "amphora/", "Prefix of the keys of rings and elected replicas. Clusters that share a store need different ones.").Expert()
	s.Mount("etcd", &c.Etcd)
	s.Mount("consul", &c.Consul)
	s.Mount("multi", &c.Multi)
}

// EtcdConfig is how etcd is reached.
type EtcdConfig struct {
	Endpoints   []string
	DialTimeout time.Duration
	MaxRetries  int
	Username    string
	Password    config.Secret

	TLS                                   bool
	CAPath, CertPath, KeyPath, ServerName string
	Policy                                transport.TLSPolicy
}

// Declare names the settings.
func (c *EtcdConfig) Declare(s *config.Set) {
	s.Strings(&c.Endpoints, "endpoints", nil, "Members of etcd, host:port, for ingester.ring and all other rings with kvstore.store, and for distributor.ha_tracker.kvstore.store.").Expert()
	s.Duration(&c.DialTimeout, "dial-timeout", 10*time.Second, "How long connecting may take.").Expert()
	s.Int(&c.MaxRetries, "max-retries", 10, "Attempts at a change before it fails.").Expert()
	s.String(&c.Username, "username", "", "User. Empty: none.").Expert()
	s.Secret(&c.Password, "password", "Password of the user.").Expert()
	s.Bool(&c.TLS, "tls-enabled", false, "Whether connections are encrypted. Required unless all members are on this machine.").Expert()
	s.String(&c.CAPath, "tls-ca-path", "", "File with trusted CA certificates. Empty: those of the system.").Expert()
	s.String(&c.CertPath, "tls-cert-path", "", "File with the client certificate of this process.").Expert()
	s.String(&c.KeyPath, "tls-key-path", "", "File with its key.").Expert()
	s.String(&c.ServerName, "tls-server-name", "", "Name that the certificate of the server must have. Empty: that of the endpoint.").Expert()
	s.Mount("", &c.Policy)
}

// Validate refuses what cannot work.
func (c *EtcdConfig) Validate() error {
	switch {
	case c.DialTimeout <= 0:
		return config.Wrong("dial_timeout", "is %s; it must be longer than 0", config.FormatDuration(c.DialTimeout))
	case c.MaxRetries < 1:
		return config.Wrong("max_retries", "is %d; it must be at least 1", c.MaxRetries)
	}
	return nil
}

// uses says whether rings or elected replicas of this process are in store.
func (c *Config) uses(store string) bool {
	in := func(name string) bool {
		return name == store || name == inTwo && (c.KVStore.Multi.Primary == store || c.KVStore.Multi.Secondary == store)
	}
	return !c.stranger() && in(c.KVStore.Store) || c.runs("distributor") && c.Distributor.Replicas.Enabled && in(c.Distributor.Replicas.Store)
}

// usesGossip says whether this process joins the gossip.
func (c *Config) usesGossip() bool { return !c.alone() && !c.stranger() && c.uses(inGossip) }

// checkStores refuses stores that are not named, or whose answers anybody on the network could make up.
func (c *Config) checkStores() error {
	if c.uses(inEtcd) {
		if err := c.checkEtcd(); err != nil {
			return err
		}
	}
	if c.uses(inConsul) {
		if err := c.checkConsul(); err != nil {
			return err
		}
	}
	if c.uses(inTwo) {
		return c.KVStore.Multi.check()
	}
	return nil
}

func (c *Config) checkEtcd() error {
	e := &c.KVStore.Etcd
	if len(e.Endpoints) == 0 {
		return config.Wrong("kvstore.etcd.endpoints", "is empty, but rings or elected replicas are to be in etcd")
	}
	for _, endpoint := range e.Endpoints {
		host, _, err := net.SplitHostPort(endpoint)
		if err != nil {
			return config.Wrong("kvstore.etcd.endpoints", "has %q; it must be host:port", endpoint)
		}
		if !e.TLS && !c.Exposure.Unsafe && !transport.Loopback(host) {
			return config.Wrong("kvstore.etcd.endpoints", "has %q, which is on another machine, without encryption: set kvstore.etcd.tls_enabled (-kvstore.etcd.tls-enabled), "+
				"or accept that with auth.unsafe_listen_without_authentication (-auth.unsafe-listen-without-authentication) on a network that only the cluster uses", endpoint)
		}
	}
	return nil
}

// toEtcd adds how etcd is reached.
func (c *EtcdConfig) toEtcd(to *kv.Config) {
	t := &to.Etcd
	t.Endpoints, t.DialTimeout, t.MaxRetries = c.Endpoints, c.DialTimeout, c.MaxRetries
	t.UserName, t.Password = c.Username, flagext.SecretWithValue(c.Password.Reveal())
	t.EnableTLS = c.TLS
	t.TLS.CAPath, t.TLS.CertPath, t.TLS.KeyPath, t.TLS.ServerName = c.CAPath, c.CertPath, c.KeyPath, c.ServerName
	t.TLS.MinVersion, t.TLS.CipherSuites = c.Policy.MinVersion, strings.Join(c.Policy.CipherSuites, ",")
}

// storeOf is the store by its name: in memory when this process is alone.
func (a *App) storeOf(name string) (kv.Config, error) {
	if a.cfg.alone() || name == inMemory {
		return kv.Config{Store: inMemory}, nil
	}
	k := &a.cfg.KVStore
	c := kv.Config{Store: name, Prefix: k.Prefix}
	names := []string{name}
	if name == inTwo {
		names = []string{k.Multi.Primary, k.Multi.Secondary}
		s, err := a.storeSwitch()
		if err != nil {
			return kv.Config{}, err
		}
		k.Multi.toMulti(&c, s)
	}
	for _, n := range names {
		switch n {
		case inEtcd:
			k.Etcd.toEtcd(&c)
		case inConsul:
			k.Consul.toConsul(&c)
		case inGossip:
			svc, err := a.memberlistKV()
			if err != nil {
				return kv.Config{}, err
			}
			c.MemberlistKV = svc.GetMemberlistKV
		}
	}
	return c, nil
}

// ringKV is the store of the rings.
func (a *App) ringKV() (kv.Config, error) { return a.storeOf(a.cfg.KVStore.Store) }

// Package ha owns deduplication of replicas that scrape the same targets. One replica of each of a
// tenant's clusters is elected: its samples are stored, those of the others are dropped. When it
// falls silent another is elected. The choice is shared by all distributors through a key-value
// store, and looked up in memory.
package ha

import (
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Config is the configuration of a tracker, mounted as "ha_tracker".
type Config struct {
	Enabled bool
	Store   string
}

// The stores.
const (
	Memberlist = "memberlist" // gossip
	Etcd       = "etcd"       // as kvstore.etcd says
	Consul     = "consul"     // as kvstore.consul says
	Multi      = "multi"      // two of these, as kvstore.multi says
	InMemory   = "inmemory"   // of a process that shares with nobody
)

// Declare declares the settings.
func (c *Config) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enable_ha_tracker", false,
		"Deduplicate samples from replicas of a cluster, for tenants with the limit accept_ha_samples.").Named("distributor.ha-tracker.enable")
	s.String(&c.Store, "kvstore.store", Memberlist,
		"Store in which distributors share the elected replicas. A process that runs alone keeps them in memory.").Named("distributor.ha-tracker.store").
		OneOf(Memberlist, Etcd, Consul, Multi, InMemory).Expert()
}

// Sender is a replica of a cluster.
type Sender struct {
	Tenant           tenant.ID
	Cluster, Replica string
}

// Policy is when replicas of a tenant are elected. It must not be changed.
type Policy struct {
	Update         time.Duration // how often it is shared that the elected replica is alive
	Jitter         time.Duration // by which Update varies, either way
	Failover       time.Duration // silence after which another replica is elected
	SampleFailover time.Duration // how much newer than the last sign of life a sample must be for that; 0: any
	MaxClusters    int           // of the tenant; 0: as many as a tracker holds
}

// Verdict is what becomes of the samples of a Sender.
type Verdict uint8

// The verdicts.
const (
	Elected         Verdict = iota // they are stored
	NotElected                     // another replica is elected
	TooManyClusters                // the cluster is one too many
)

// maxClusters bounds the clusters of a tenant whatever its limit says.
const maxClusters = 10_000

// Cluster is the state of one cluster.
type Cluster struct {
	Tenant      tenant.ID
	Cluster     string
	Replica     string    // the elected one
	ElectedAt   time.Time // by the clock of the distributor that elected
	LastSeen    time.Time // when the elected replica was heard last, here or, as shared, by others
	Elections   uint64    // since the cluster was first seen
	FailoverDue time.Time // when another replica can be elected; zero: not known here yet
}

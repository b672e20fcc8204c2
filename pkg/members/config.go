// Package members owns what follows from ring membership: the settings of a member, how its tokens
// are chosen, which members a read must ask, and when a silent member loses its work. The ring itself
// is dskit's.
package members

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// The values of token_generation_strategy.
const (
	strategyBalanced = "balanced"
	strategyRandom   = "random"
	strategySpread   = "spread-minimizing"
)

// spreadTokens is how many tokens an ingester has under spread-minimizing: the places are computed
// for that number, and a part of them would be no even spread.
const spreadTokens = 512

// defaultTokens spreads series evenly enough and keeps the ring small.
const defaultTokens = 128

// Heartbeats are the settings of being seen alive.
type Heartbeats struct {
	Period  time.Duration
	Timeout time.Duration
	// ForgetPeriods is the number of timeouts after which a silent member is forgotten; 0: never.
	ForgetPeriods int
}

// defaultForgetPeriods makes it ten minutes by default: longer than any restart that goes well.
const defaultForgetPeriods = 10

// Declare names the settings.
func (c *Heartbeats) Declare(s *config.Set) {
	s.Duration(&c.Period, "heartbeat_period", 15*time.Second, "How often an instance sends a heartbeat.").Expert()
	s.Duration(&c.Timeout, "heartbeat_timeout", time.Minute, "Silence after which an instance counts as dead.").Expert()
}

// Validate refuses what cannot work.
func (c *Heartbeats) Validate() error {
	switch {
	case c.Period <= 0 || c.Timeout <= c.Period:
		return config.Wrong("heartbeat_timeout", "is %s; it must be longer than heartbeat_period (%s)", c.Timeout, c.Period)
	case c.ForgetPeriods < 0:
		return config.Wrong("auto_forget_unhealthy_periods", "is %d; it must not be negative", c.ForgetPeriods)
	}
	return nil
}

// ForgetAfter is the silence after which a member is forgotten; 0: never.
func (c *Heartbeats) ForgetAfter() time.Duration { return time.Duration(c.ForgetPeriods) * c.Timeout }

// DistributorConfig of the distributors' ring, mounted as distributor.ring.
type DistributorConfig struct{ Heartbeats Heartbeats }

// Declare names the settings.
func (c *DistributorConfig) Declare(s *config.Set) {
	s.Mount("", &c.Heartbeats)
	s.Int(&c.Heartbeats.ForgetPeriods, "auto_forget_unhealthy_periods", defaultForgetPeriods,
		"Heartbeat timeouts after which a silent distributor is removed from the ring. 0: never.").Expert()
}

// Config of the ingesters' ring and of a process's place in it, mounted as ingester.ring.
type Config struct {
	ReplicationFactor    int
	ZoneAwareness        bool
	ExcludedZones        []string
	InstanceID           string
	InstanceAddr         string
	Zone                 string
	Heartbeats           Heartbeats
	ObservePeriod        time.Duration
	MinReadyDuration     time.Duration
	FinalSleep           time.Duration
	UnregisterOnShutdown bool
	Tokens               TokenConfig
}

// TokenConfig says how an ingester's places in the ring are chosen.
type TokenConfig struct {
	Number      int
	File        string
	Strategy    string
	InOrder     bool
	SpreadZones []string
}

// Declare names the settings.
func (c *Config) Declare(s *config.Set) {
	s.Int(&c.ReplicationFactor, "replication_factor", 3, "Ingesters that hold each series; a write needs a majority of them. A process that runs alone (target all, nothing to join) uses 1.")
	s.Bool(&c.ZoneAwareness, "zone_awareness_enabled", false, "Place the replicas of a series in different zones. Every ingester then needs a zone.")
	s.Strings(&c.ExcludedZones, "excluded_zones", nil, "Zones whose ingesters are neither written to nor read from. Their samples then lack one replica: exclude at most one zone.").Expert()
	s.String(&c.InstanceID, "instance_id", "", "Name of this process in the rings. Empty: the host name.")
	s.String(&c.InstanceAddr, "instance_addr", "", "Address at which peers reach this process by gRPC. Empty: the address it listens on, or that of the first network interface.")
	s.String(&c.Zone, "instance_availability_zone", "", "Availability zone this process runs in.")
	s.Mount("", &c.Heartbeats)
	s.Int(&c.Heartbeats.ForgetPeriods, "auto_forget_unhealthy_periods", defaultForgetPeriods,
		"Heartbeat timeouts after which the series of a silent ingester move to others. Reads still count it as missing until what it held is in object storage. 0: never.").Expert()
	s.Duration(&c.ObservePeriod, "observe_period", 0,
		"How long a new ingester watches for token conflicts before it becomes active. Its share of the series has one replica less meanwhile.").Expert()
	s.Duration(&c.MinReadyDuration, "min_ready_duration", 15*time.Second, "How long an ingester waits after joining before it reports ready, to slow down rolling restarts.").Expert()
	s.Duration(&c.FinalSleep, "final_sleep", 0, "How long a stopping ingester waits before it exits, so that its last metrics are scraped.").Expert()
	s.Bool(&c.UnregisterOnShutdown, "unregister_on_shutdown", false,
		"Whether the series of a stopping ingester move to others at once. Off: it keeps its place for the restart, and is forgotten only if it does not return. An ingester that has shipped everything always leaves.")
	s.Int(&c.Tokens.Number, "num_tokens", defaultTokens, "Tokens of an ingester; spread-minimizing always uses 512.").Expert()
	s.String(&c.Tokens.File, "tokens_file_path", "", "File that keeps the tokens across restarts. Empty: the file tokens in ingester.data_dir, or none with spread-minimizing.").Expert()
	s.String(&c.Tokens.Strategy, "token_generation_strategy", strategyBalanced,
		"How tokens are chosen: balanced takes an even share from each ingester of the ring, spread-minimizing computes them from the number at the end of instance_id, random draws them.").
		OneOf(strategyBalanced, strategyRandom, strategySpread).Expert()
	s.Bool(&c.Tokens.InOrder, "spread_minimizing_join_ring_in_order", false,
		"With spread-minimizing: an ingester joins once the one with the number before its own has, or after 5 minutes.").Expert()
	s.Strings(&c.Tokens.SpreadZones, "spread_minimizing_zones", nil,
		"With spread-minimizing: all zones, 8 at most, the same list in every process.").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	switch {
	case c.ReplicationFactor < 1:
		return config.Wrong("replication_factor", "is %d; it must be 1 or more", c.ReplicationFactor)
	case c.ZoneAwareness && c.Zone == "":
		return config.Wrong("instance_availability_zone", "is empty; zone awareness needs the zone of every ingester")
	case slices.Contains(c.ExcludedZones, ""):
		return config.Wrong("excluded_zones", "has an empty name")
	case c.ObservePeriod < 0 || c.FinalSleep < 0 || c.MinReadyDuration < 0:
		return config.Wrong("observe_period", "and final_sleep and min_ready_duration must not be negative")
	case c.Tokens.Number < 1 || c.Tokens.Number > maxTokens:
		return config.Wrong("num_tokens", "is %d; it must be between 1 and %d", c.Tokens.Number, maxTokens)
	}
	return nil
}

// maxTokens keeps a member's entry, which is gossiped with every heartbeat, below 25 kB.
const maxTokens = 4096

// ValidateIngester refuses what an ingester cannot run with; other processes may have the same
// settings. It is called by who mounts them, so it names them in full.
func (c *Config) ValidateIngester() error {
	if c.Tokens.Strategy != strategySpread {
		return nil
	}
	if c.Tokens.File != "" {
		return config.Wrong("ingester.ring.tokens_file_path", "is set, but token_generation_strategy spread-minimizing computes the tokens at each start; leave it empty")
	}
	if len(c.Tokens.SpreadZones) == 0 {
		return config.Wrong("ingester.ring.spread_minimizing_zones", "is empty; token_generation_strategy spread-minimizing needs the list of all zones")
	}
	if !slices.Contains(c.Tokens.SpreadZones, c.Zone) {
		return config.Wrong("ingester.ring.instance_availability_zone", "is %q, which spread_minimizing_zones (%v) does not have", c.Zone, c.Tokens.SpreadZones)
	}
	id, err := c.ID()
	if err != nil {
		return err
	}
	if _, err := c.spread(id); err != nil {
		return config.Wrong("ingester.ring.instance_id", "is %q, but token_generation_strategy spread-minimizing needs a name that ends in a hyphen and a number, such as ingester-zone-a-0: %w", id, err)
	}
	return nil
}

// ID is this process's name in the rings.
func (c *Config) ID() (string, error) {
	if c.InstanceID != "" {
		return c.InstanceID, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the host name; set -ingester.ring.instance-id instead: %w", err)
	}
	return name, nil
}

func (c *Config) spread(id string) (ring.TokenGenerator, error) {
	return ring.NewSpreadMinimizingTokenGenerator(id, c.Zone, c.Tokens.SpreadZones, c.Tokens.InOrder)
}

// ApplyTokens sets how the member id chooses and keeps its tokens. dataDir is the ingester's; alone
// says that there is nobody to share with.
func (c *Config) ApplyTokens(to *ring.LifecyclerConfig, id, dataDir string, alone bool) error {
	to.NumTokens, to.TokensFilePath = c.Tokens.Number, c.Tokens.File
	if to.TokensFilePath == "" && c.Tokens.Strategy != strategySpread {
		to.TokensFilePath = filepath.Join(dataDir, "tokens")
	}
	switch {
	case c.Tokens.Strategy == strategySpread:
		g, err := c.spread(id)
		if err != nil {
			return err
		}
		to.NumTokens, to.RingTokenGenerator = spreadTokens, g
	case c.Tokens.Strategy == strategyBalanced && !alone:
		scope := ""
		if c.ZoneAwareness {
			scope = c.Zone
		}
		to.RingTokenGenerator = newBalancedTokens(id, scope, c.ZoneAwareness)
	}
	return nil
}

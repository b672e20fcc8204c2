package app

import (
	"cmp"
	"time"

	"github.com/grafana/dskit/kv/memberlist"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// GossipZonesConfig keeps gossip within zones, mounted as memberlist.zone_aware_routing: only bridges, of which each
// zone needs some, speak to those of other zones.
type GossipZonesConfig struct {
	Enabled bool
	Zone    string
	Role    string
}

// Declare names the settings.
func (c *GossipZonesConfig) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", false, "Members gossip within their zone only; bridge members also gossip with those of other zones. Enable it on all members, with at least two bridges in each zone.").Expert()
	s.String(&c.Zone, "instance_availability_zone", "", "Zone of this member, at most 16 bytes. Empty: ingester.ring.instance_availability_zone.").Expert()
	s.String(&c.Role, "role", memberlist.NodeRoleMember.String(), "Role of this member: member, or bridge between zones.").OneOf(memberlist.NodeRoleMember.String(), memberlist.NodeRoleBridge.String()).Expert()
}

// PropagationConfig measures how long gossip takes, mounted as memberlist.propagation_delay_tracker.
type PropagationConfig struct {
	Enabled            bool
	Interval, Lifetime time.Duration
	Slow               time.Duration
}

// Declare names the settings.
func (c *PropagationConfig) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", false, "Measure the propagation delay of gossip with periodic beacons: memberlist_propagation_tracker_delay_seconds. Enable it on all members.").Expert()
	s.Duration(&c.Interval, "beacon_interval", time.Minute, "How often a beacon is sent.").Expert()
	s.Duration(&c.Lifetime, "beacon_lifetime", 10*time.Minute, "How long a beacon is kept.").Expert()
	s.Duration(&c.Slow, "log_beacons_latency_longer_than", 0, "Beacons that take longer are logged. 0: none.").Expert()
}

// Validate refuses what cannot work.
func (c *PropagationConfig) Validate() error {
	if c.Enabled && (c.Interval <= 0 || c.Lifetime <= 0) {
		return config.Wrong("beacon_interval", "is %s, and beacon_lifetime %s: both must be above 0", c.Interval, c.Lifetime)
	}
	return nil
}

// gossipZones is in which zone a member gossips, and as what.
func (c *Config) gossipZones() (z memberlist.ZoneAwareRoutingConfig, err error) {
	own := &c.Memberlist.Zones
	z = memberlist.ZoneAwareRoutingConfig{Enabled: own.Enabled, Zone: cmp.Or(own.Zone, c.Ring.Zone), Role: own.Role}
	switch {
	case !z.Enabled:
	case z.Zone == "":
		err = config.Wrong("memberlist.zone_aware_routing.instance_availability_zone", "is empty, and so is ingester.ring.instance_availability_zone: one of them must say the zone")
	case len(z.Zone) > memberlist.MaxZoneNameLength:
		err = config.Wrong("memberlist.zone_aware_routing.instance_availability_zone", "has %d bytes, at most %d are told to others", len(z.Zone), memberlist.MaxZoneNameLength)
	}
	return z, err
}

// propagation is how the delay of gossip is measured.
func (c *MemberlistConfig) propagation() memberlist.PropagationDelayTrackerConfig {
	p := &c.Propagation
	return memberlist.PropagationDelayTrackerConfig{Enabled: p.Enabled, BeaconInterval: p.Interval, BeaconLifetime: p.Lifetime, LogBeaconsLatencyLongerThan: p.Slow}
}

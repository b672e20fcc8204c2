package app

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/distributor/ha"
	"github.com/amphora-metrics/amphora/pkg/ingester"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/transport"
)

const (
	distributorRingName = "distributor"
	distributorRingKey  = "distributor"
	// gossipWrites is how many messages are on their way at once: fifteen a second for a second, and as
	// many again. gossipDial is far above what a connection takes in a network that works.
	gossipWrites = 32
	gossipDial   = time.Second
	// goodbye bounds how long a member that stops tries to tell the others.
	goodbye = 3 * time.Second
)

// MemberlistConfig of the gossip that carries the rings.
type MemberlistConfig struct {
	BindAddr, AdvertiseAddr string
	BindPort, AdvertisePort int
	NodeName, ClusterLabel  string
	Join                    []string
	RejoinInterval          time.Duration
	TLS                     transport.GossipTLS
	Zones                   GossipZonesConfig
	Propagation             PropagationConfig
}

// Declare names the settings.
func (c *MemberlistConfig) Declare(s *config.Set) {
	s.String(&c.BindAddr, "bind_addr", "127.0.0.1", "Address that gossip listens on.")
	s.Int(&c.BindPort, "bind_port", 7946, "Port that gossip listens on.")
	s.String(&c.AdvertiseAddr, "advertise_addr", "", "Address that members reach this one at. Empty: the address it listens on, or the first of the machine if it listens on all.")
	s.Int(&c.AdvertisePort, "advertise_port", 0, "Port that members reach this one at. 0: the port it listens on.")
	s.Strings(&c.Join, "join_members", nil, "Members to join: host:port, or a DNS name with the prefix dns+, dnssrv+ or dnssrvnoa+. List all of them, or a name that resolves to all.").Named("memberlist.join")
	s.String(&c.NodeName, "node_name", "", "Name of this member, which no other may have. Empty: the instance ID and something random.").Named("memberlist.nodename").Expert()
	s.Duration(&c.RejoinInterval, "rejoin_interval", 10*time.Second, "How often state is exchanged with a random one of the members to join, so that the halves of a split cluster merge again. 0: never.").Expert()
	s.String(&c.ClusterLabel, "cluster_label", "", "Members with another label are refused, so that two clusters cannot merge by accident.")
	s.Mount("", &c.TLS)
	s.Mount("zone_aware_routing", &c.Zones)
	s.Mount("propagation_delay_tracker", &c.Propagation)
}

// alone says whether this process is a whole cluster by itself.
func (c *Config) alone() bool {
	return c.runsEverything() && len(c.Memberlist.Join) == 0 && c.KVStore.Store == inGossip
}

// replicationFactor is the one in force.
func (c *Config) replicationFactor() int {
	if c.alone() {
		return 1
	}
	return c.Ring.ReplicationFactor
}

// instanceAddr is where peers reach this process's gRPC server, which listens on port.
func (a *App) instanceAddr() (string, error) {
	listen, port, err := a.grpcAddr()
	if err != nil {
		return "", err
	}
	host := a.cfg.Ring.InstanceAddr
	if h, p, err := net.SplitHostPort(host); err == nil {
		return net.JoinHostPort(h, p), nil
	}
	if host == "" {
		host = listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, err = firstAddr(); err != nil {
			return "", err
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

// firstAddr is the first address of the machine that others may reach.
func firstAddr() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("find an address for the ring; set -ingester.ring.instance-addr instead: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "", fmt.Errorf("no network interface has an address that others reach; set -ingester.ring.instance-addr")
}

// memberlistKV gives the gossip service; nil when this process is alone.
func (a *App) memberlistKV() (*memberlist.KVInitService, error) {
	return a.p.memberlist.get(func() (*memberlist.KVInitService, error) {
		c := &a.cfg.Memberlist
		id, err := a.cfg.Ring.ID()
		if err != nil {
			return nil, err
		}
		var m memberlist.KVConfig
		flagext.DefaultValues(&m)
		// A name that is drawn anew lets an instance come back with another address at once: members
		// hold on to the address of a name until they are sure that it is dead.
		m.NodeName, m.RandomizeNodeName = c.NodeName, c.NodeName == ""
		if m.NodeName == "" {
			m.NodeName = id
		}
		m.TCPTransport.BindAddrs = flagext.StringSlice{c.BindAddr}
		m.TCPTransport.BindPort = c.BindPort
		// Members that are cut off swallow a message for as long as a connection is waited for, and must
		// not keep the others from being told.
		m.TCPTransport.MaxConcurrentWrites, m.TCPTransport.PacketDialTimeout = gossipWrites, gossipDial
		if m.AdvertiseAddr, m.AdvertisePort, err = c.advertised(); err != nil {
			return nil, err
		}
		if err := a.gossipDoor(&m); err != nil {
			return nil, err
		}
		m.ClusterLabel = c.ClusterLabel
		if m.ZoneAwareRouting, err = a.cfg.gossipZones(); err != nil {
			return nil, err
		}
		m.PropagationDelayTracker = c.propagation()
		m.JoinMembers = flagext.StringSliceCSVMulti(c.Join)
		// At shutdown there may be nobody left to hear it.
		m.LeaveTimeout, m.BroadcastTimeoutForLocalUpdatesOnShutdown = goodbye, goodbye
		// A member that comes back before it was seen to leave may have another address.
		m.DeadNodeReclaimTime = 10 * time.Second
		m.Codecs = []codec.Codec{ring.GetCodec(), ha.Codec{}}
		names := dns.NewProvider(dns.GolangResolverType, 0, a.kitLog("dns"), a.prefixed())
		svc := memberlist.NewKVInitService(&m, a.kitLog("memberlist"), names, a.reg)
		if err := a.serve("memberlist-kv", svc); err != nil {
			return nil, err
		}
		return svc, a.rejoin(svc, names)
	})
}

// ringConfig is what readers of the ingesters' ring need.
func (a *App) ringConfig() (ring.Config, error) {
	var c ring.Config
	flagext.DefaultValues(&c)
	store, err := a.ringKV()
	if err != nil {
		return c, err
	}
	c.KVStore = store
	c.HeartbeatTimeout = a.cfg.Ring.Heartbeats.Timeout
	c.ReplicationFactor = a.cfg.replicationFactor()
	c.ZoneAwarenessEnabled = a.cfg.Ring.ZoneAwareness
	c.ExcludedZones = a.cfg.Ring.ExcludedZones
	return c, nil
}

// ingesterRing is the view that distributors and queriers have of the ingesters.
func (a *App) ingesterRing() (*ring.Ring, error) {
	return a.p.ingesterRing.get(func() (*ring.Ring, error) {
		c, err := a.ringConfig()
		if err != nil {
			return nil, err
		}
		store, err := a.ingesterKV(ingester.RingName + "-ring")
		if err != nil {
			return nil, err
		}
		r, err := ring.NewWithStoreClientAndStrategy(c, ingester.RingName, ingester.RingKey, members.Watched(store, a.ingesterLeft),
			ring.NewDefaultReplicationStrategy(), a.prefixed(), a.kitLog("ring"))
		if err != nil {
			return nil, fmt.Errorf("ingester ring: %w", err)
		}
		return r, a.serve("ingester-ring", r)
	})
}

// shards is r as those use it who look for the ingesters of a tenant.
func (a *App) shards(r *ring.Ring) ring.ReadRing {
	if a.cfg.Ring.ZoneAwareness {
		return members.Steady(r)
	}
	return r
}

// lifecyclerConfig is an ingester's own place in the ring.
func (a *App) lifecyclerConfig() (ring.LifecyclerConfig, error) {
	var c ring.LifecyclerConfig
	flagext.DefaultValues(&c)
	rc, err := a.ringConfig()
	if err != nil {
		return c, err
	}
	id, err := a.cfg.Ring.ID()
	if err != nil {
		return c, err
	}
	addr, err := a.instanceAddr()
	if err != nil {
		return c, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return c, fmt.Errorf("instance address %s: %w", addr, err)
	}
	if c.Port, err = strconv.Atoi(port); err != nil {
		return c, fmt.Errorf("instance address %s: %w", addr, err)
	}
	c.RingConfig = rc
	c.ID, c.Addr, c.ListenPort = id, host, c.Port
	c.Zone = a.cfg.Ring.Zone
	if err := a.cfg.Ring.ApplyTokens(&c, id, a.cfg.Ingester.DataDir, a.cfg.alone()); err != nil {
		return c, err
	}
	c.HeartbeatPeriod, c.HeartbeatTimeout = a.cfg.Ring.Heartbeats.Period, a.cfg.Ring.Heartbeats.Timeout
	c.MinReadyDuration, c.FinalSleep = a.cfg.Ring.MinReadyDuration, a.cfg.Ring.FinalSleep
	c.UnregisterOnShutdown = a.cfg.Ring.UnregisterOnShutdown
	// Readiness is about this instance: a rolling restart must not stall on a sick neighbour.
	c.ReadinessCheckRingHealth = false
	c.ObservePeriod, c.JoinAfter = a.cfg.Ring.ObservePeriod, 0
	if a.cfg.alone() {
		c.MinReadyDuration, c.ObservePeriod, c.FinalSleep = 0, 0, 0
	}
	return c, nil
}

// peers is a distributor's place among the distributors, which count each other to split global
// rate limits.
type peers struct {
	ring.BasicLifecyclerDelegate
	entry   *ring.BasicLifecycler
	store   kv.Client
	timeout time.Duration
	count   atomic.Int64
	owners  *members.Owners                 // who adds up which series
	listed  atomic.Pointer[map[string]bool] // addresses of the ring, of the healthy and the others
}

// OnRingInstanceHeartbeat looks who is alive.
func (p *peers) OnRingInstanceHeartbeat(l *ring.BasicLifecycler, all *ring.Desc, me *ring.InstanceDesc) {
	p.look(all)
	p.BasicLifecyclerDelegate.OnRingInstanceHeartbeat(l, all, me)
}

// watch looks who is alive whenever the ring changes.
func (p *peers) watch(ctx context.Context) error {
	p.store.WatchKey(ctx, distributorRingKey, func(v any) bool {
		if all, ok := v.(*ring.Desc); ok && all != nil {
			p.look(all)
		}
		return true
	})
	return nil
}

func (p *peers) look(all *ring.Desc) {
	alive, listed, now := map[string]string{}, map[string]bool{}, time.Now()
	for id, i := range all.Ingesters {
		listed[i.Addr] = true
		if i.State == ring.ACTIVE && i.IsHeartbeatHealthy(p.timeout, now) {
			alive[id] = i.Addr
		}
	}
	p.count.Store(int64(len(alive)))
	p.owners.Look(alive, now)
	p.listed.Store(&listed)
}

// has says whether a distributor at addr is in the ring.
func (p *peers) has(addr string) bool {
	listed := p.listed.Load()
	return listed == nil || (*listed)[addr]
}

// healthy is how many distributors there are, this one included.
func (p *peers) healthy() int { return max(1, int(p.count.Load())) }

func (a *App) distributorRing() (*peers, error) {
	return a.p.distributorRing.get(func() (*peers, error) {
		store, err := a.ringKV()
		if err != nil {
			return nil, err
		}
		id, err := a.cfg.Ring.ID()
		if err != nil {
			return nil, err
		}
		addr, err := a.instanceAddr()
		if err != nil {
			return nil, err
		}
		logger := a.kitLog("distributor-ring")
		client, err := kv.NewClient(store, ring.GetCodec(), kv.RegistererWithKVName(a.prefixed(), "distributor-lifecycler"), logger)
		if err != nil {
			return nil, fmt.Errorf("distributor ring: %w", err)
		}
		c := a.cfg.DistributorRing.Heartbeats
		var d ring.BasicLifecyclerDelegate = ring.NewInstanceRegisterDelegate(ring.ACTIVE, 1)
		d = ring.NewLeaveOnStoppingDelegate(d, logger)
		if after := c.ForgetAfter(); after > 0 {
			d = members.ForgetSilent(after, c.Period, d, logger)
		}
		p := &peers{BasicLifecyclerDelegate: d, timeout: c.Timeout, store: client, owners: members.NewOwners(id, c.Timeout)}
		p.entry, err = ring.NewBasicLifecycler(ring.BasicLifecyclerConfig{
			ID: id, Addr: addr, NumTokens: 1, HeartbeatPeriod: c.Period, HeartbeatTimeout: c.Timeout,
		}, distributorRingName, distributorRingKey, client, p, logger, a.prefixed())
		if err != nil {
			return nil, fmt.Errorf("distributor ring: %w", err)
		}
		return p, a.serve("distributor-ring", p.entry)
	})
}

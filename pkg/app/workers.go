package app

import (
	"fmt"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/flagext"
	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/compactor"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// worker is a process's place in a ring of those that share work and keep no data of their own.
type worker struct {
	beats      members.Heartbeats
	tokens     int
	tokensFile string
	leave      bool // at shutdown
	// entered is given the entry. nil: nobody asks for it.
	entered func(*ring.BasicLifecycler)
}

// workersKV opens the store of a ring.
func (a *App) workersKV(name string) (kv.Client, error) {
	store, err := a.ringKV()
	if err != nil {
		return nil, err
	}
	return kv.NewClient(store, ring.GetCodec(), kv.RegistererWithKVName(a.prefixed(), name), a.kitLog(name))
}

// workersRing is the view of a ring in which one healthy replica is enough.
func (a *App) workersRing(name, key string, with ring.Config) (*ring.Ring, error) {
	client, err := a.workersKV(name + "-ring")
	if err != nil {
		return nil, err
	}
	var c ring.Config
	flagext.DefaultValues(&c)
	c.HeartbeatTimeout, c.ZoneAwarenessEnabled, c.ReplicationFactor = with.HeartbeatTimeout, with.ZoneAwarenessEnabled, with.ReplicationFactor
	r, err := ring.NewWithStoreClientAndStrategy(c, name, key, client, ring.NewIgnoreUnhealthyInstancesReplicationStrategy(), a.prefixed(), a.kitLog(name+"-ring"))
	if err != nil {
		return nil, fmt.Errorf("%s ring: %w", name, err)
	}
	return r, a.serve(name+"-ring", r)
}

// workersEntry puts this process into a ring.
func (a *App) workersEntry(name, key string, w worker) error {
	client, err := a.workersKV(name + "-lifecycler")
	if err != nil {
		return err
	}
	id, err := a.cfg.Ring.ID()
	if err != nil {
		return err
	}
	addr, err := a.instanceAddr()
	if err != nil {
		return err
	}
	logger := a.kitLog(name + "-lifecycler")
	var d ring.BasicLifecyclerDelegate = ring.NewInstanceRegisterDelegate(ring.ACTIVE, w.tokens)
	if w.leave {
		d = ring.NewLeaveOnStoppingDelegate(d, logger)
	}
	if w.tokensFile != "" {
		d = ring.NewTokensPersistencyDelegate(w.tokensFile, ring.ACTIVE, d, logger)
	}
	if after := w.beats.ForgetAfter(); after > 0 {
		d = members.ForgetSilent(after, w.beats.Period, d, logger)
	}
	entry, err := ring.NewBasicLifecycler(ring.BasicLifecyclerConfig{
		ID: id, Addr: addr, Zone: a.cfg.Ring.Zone, NumTokens: w.tokens, HeartbeatPeriod: w.beats.Period, HeartbeatTimeout: w.beats.Timeout,
		KeepInstanceInTheRingOnShutdown: !w.leave,
	}, name, key, client, d, logger, a.prefixed())
	if err != nil {
		return fmt.Errorf("%s ring: %w", name, err)
	}
	if w.entered != nil {
		w.entered(entry)
	}
	return a.serve(name+"-entry", entry)
}

// tokensPerCompactor spreads jobs evenly.
const tokensPerCompactor = 512

// CompactorRingConfig of the compactors' hash ring, mounted as compactor.sharding_ring.
type CompactorRingConfig struct{ Heartbeats members.Heartbeats }

// Declare names the settings.
func (c *CompactorRingConfig) Declare(s *config.Set) {
	s.Mount("", &c.Heartbeats)
	s.Int(&c.Heartbeats.ForgetPeriods, "auto_forget_unhealthy_periods", 10, "Heartbeat timeouts after which a silent compactor is removed from the ring. 0: never.").Expert()
}

// compactorRing is the view of the compactors of each other.
func (a *App) compactorRing() (*ring.Ring, error) {
	return a.p.compactorRing.get(func() (*ring.Ring, error) {
		return a.workersRing(compactor.RingName, compactor.RingKey, ring.Config{HeartbeatTimeout: a.cfg.CompactorRing.Heartbeats.Timeout, ReplicationFactor: 1})
	})
}

// compactor is the one of this process.
func (a *App) compactor() (*compactor.Compactor, error) {
	return a.p.compactor.get(func() (*compactor.Compactor, error) {
		b, err := a.blocksBucket()
		if err != nil {
			return nil, err
		}
		deps := compactor.Deps{Logger: a.log, Reg: a.reg, Bucket: b, Limits: a.limits.For, Activity: a.activity}
		if deps.Deletions, err = a.deletions(); err != nil {
			return nil, err
		}
		if deps.Forget, err = a.forgetUsage(); err != nil {
			return nil, err
		}
		if !a.cfg.alone() {
			if deps.Owns, err = a.ownsCompaction(); err != nil {
				return nil, err
			}
			r, err := a.compactorRing()
			if err != nil {
				return nil, err
			}
			deps.Peers = r.InstancesCount
		}
		c, err := compactor.New(a.cfg.Compactor, deps)
		if err != nil {
			return nil, err
		}
		return c, a.serve("compactor", c)
	})
}

// ownsCompaction joins the ring of compactors and returns whose work is this process's.
func (a *App) ownsCompaction() (func(tenant.ID, string) (bool, error), error) {
	r, err := a.compactorRing()
	if err != nil {
		return nil, err
	}
	addr, err := a.instanceAddr()
	if err != nil {
		return nil, err
	}
	err = a.workersEntry(compactor.RingName, compactor.RingKey, worker{
		beats: a.cfg.CompactorRing.Heartbeats, tokens: tokensPerCompactor, tokensFile: filepath.Join(a.cfg.Compactor.DataDir, "tokens"), leave: true,
	})
	if err != nil {
		return nil, err
	}
	return func(id tenant.ID, key string) (bool, error) {
		return ownsJob(r, addr, id, limits.CompactorTenantShardSize.Of(a.limits.For(id)), key)
	}, nil
}

// ownsJob says whether a piece of work of a tenant that is shared by size compactors, 0: by all, is that of
// the one at addr. It is the first one's that is alive after the key's place in the ring: one that is silent
// stays there for a while, and what is its own must not wait until it is forgotten. An empty key asks
// whether any could be.
func ownsJob(r ring.ReadRing, addr string, id tenant.ID, size int, key string) (bool, error) {
	op := ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil)
	shard := r
	if size > 0 {
		shard = r.ShuffleShard(string(id), size)
		if set, err := shard.GetAllHealthy(op); err != nil || len(set.Instances) == 0 {
			shard = r // all that the tenant's work is for are silent
		}
	}
	if key == "" {
		set, err := shard.GetAllHealthy(op)
		return err == nil && set.Includes(addr), err
	}
	set, err := shard.GetWithOptions(uint32(xxhash.Sum64String(string(id)+"/"+key)), op, ring.WithReplicationFactor(shard.InstancesCount()))
	return err == nil && set.Instances[0].Addr == addr, err
}

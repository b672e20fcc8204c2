package app

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/querier"
	"github.com/amphora-metrics/amphora/pkg/storegateway"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// tokensPerStoreGateway spreads blocks, which are few and large, more evenly than series need.
const tokensPerStoreGateway = 512

// StoreRingConfig of the store-gateways' hash ring, mounted as store_gateway.sharding_ring. Name,
// address and zone of a process are those of the ingesters' ring.
type StoreRingConfig struct {
	Heartbeats           members.Heartbeats
	ReplicationFactor    int
	ZoneAwareness        bool
	UnregisterOnShutdown bool
}

// Declare names the settings.
func (c *StoreRingConfig) Declare(s *config.Set) {
	s.Mount("", &c.Heartbeats)
	s.Int(&c.Heartbeats.ForgetPeriods, "auto_forget_unhealthy_periods", 10, "Heartbeat timeouts after which a silent store-gateway is removed from the ring. 0: never.").Expert()
	s.Int(&c.ReplicationFactor, "replication_factor", 3, "Store-gateways that own a block and are asked for it one after the other.").Expert()
	s.Bool(&c.ZoneAwareness, "zone_awareness_enabled", false, "Place the replicas of a block in different zones. Every store-gateway then needs a zone.").Expert()
	s.Bool(&c.UnregisterOnShutdown, "unregister_on_shutdown", true, "Leave the ring at shutdown; false keeps the place for a restart.").Expert()
}

// Validate refuses what cannot work.
func (c *StoreRingConfig) Validate() error {
	if c.ReplicationFactor < 1 {
		return config.Wrong("replication_factor", "is %d; it must be 1 or more", c.ReplicationFactor)
	}
	return nil
}

// BlocksConfig is how queries use bucket indexes, mounted as
// blocks_storage.bucket_store.bucket_index.
type BlocksConfig struct{ MaxStale time.Duration }

// Declare names the settings.
func (c *BlocksConfig) Declare(s *config.Set) {
	s.Duration(&c.MaxStale, "max_stale_period", time.Hour, "Queries fail if no compactor has updated the bucket index for this long, because it may lack blocks. 0: never.").Expert()
}

// storeRing is the view that queriers have of the store-gateways.
func (a *App) storeRing() (*ring.Ring, error) {
	return a.p.storeRing.get(func() (*ring.Ring, error) {
		c := a.cfg.StoreRing
		rf := c.ReplicationFactor
		if a.cfg.alone() {
			rf = 1
		}
		return a.workersRing(storegateway.RingName, storegateway.RingKey, ring.Config{
			HeartbeatTimeout: c.Heartbeats.Timeout, ZoneAwarenessEnabled: c.ZoneAwareness, ReplicationFactor: rf,
		})
	})
}

// queryBudget is what queries may ask of the bucket in this process.
func (a *App) queryBudget() (*block.Budget, error) {
	return a.p.queryBudget.get(func() (*block.Budget, error) {
		r, err := a.storeRing()
		if err != nil {
			return nil, err
		}
		op := ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil)
		return block.NewBudget(block.BudgetDeps{Limits: a.limits.For, Reg: a.reg, Sharers: func(id tenant.ID) int {
			shard := r.ShuffleShard(string(id), limits.StoreGatewayTenantShardSize.Of(a.limits.For(id)))
			set, err := shard.GetAllHealthy(op)
			if err != nil {
				return 1 // it is the one that asks
			}
			return len(set.Instances)
		}}), nil
	})
}

// storeEntry is this process's place among the store-gateways.
func (a *App) storeEntry() error {
	if err := os.MkdirAll(a.cfg.StoreGateway.SyncDir, 0o750); err != nil {
		return fmt.Errorf("make the directory of the store-gateway: %w", err)
	}
	c := a.cfg.StoreRing
	return a.workersEntry(storegateway.RingName, storegateway.RingKey, worker{
		beats: c.Heartbeats, tokens: tokensPerStoreGateway, tokensFile: filepath.Join(a.cfg.StoreGateway.SyncDir, "tokens"), leave: c.UnregisterOnShutdown,
		entered: func(e *ring.BasicLifecycler) {
			a.storeLeave = &storeLeave{entry: e, file: filepath.Join(a.cfg.StoreGateway.SyncDir, shutdownFile), keep: !c.UnregisterOnShutdown}
			a.storeLeave.load()
			a.closers = append(a.closers, a.storeLeave.done)
		},
	})
}

// storeGateway is the one of this process.
func (a *App) storeGateway() (*storegateway.Gateway, error) {
	return a.p.storeGateway.get(func() (*storegateway.Gateway, error) {
		b, err := a.blocksBucket()
		if err != nil {
			return nil, err
		}
		caches, err := a.sharedCaches()
		if err != nil {
			return nil, err
		}
		shapes := block.NewIndexes(block.IndexesDeps{Logger: a.log, Bucket: b, IndexOnly: true})
		budget, err := a.queryBudget()
		if err != nil {
			return nil, err
		}
		store, err := block.NewStore(block.StoreDeps{Shared: caches, Logger: a.log, Reg: a.reg, Bucket: budget.Bucket(b), Indexes: shapes,
			Dir: a.cfg.StoreGateway.SyncDir, LocalBytes: int64(a.cfg.StoreGateway.MaxCacheBytes)})
		if err != nil {
			return nil, err
		}
		a.closers = append(a.closers, store.Close)
		g, err := storegateway.New(a.cfg.StoreGateway, storegateway.Deps{Logger: a.log, Reg: a.reg, Store: store, Bucket: b, Memory: a.memory, Turns: a.turns()})
		if err != nil {
			return nil, err
		}
		return g, a.serve("store-gateway", g)
	})
}

// buildStoreGateway builds the store-gateway with its gRPC service and its place in the ring.
func (a *App) buildStoreGateway() error {
	g, err := a.storeGateway()
	if err != nil {
		return err
	}
	s, err := a.server()
	if err != nil {
		return err
	}
	storepb.RegisterStoreGatewayServer(s.GRPC(), g)
	return a.storeEntry()
}

// stores is how a querier reaches blocks. A store-gateway in the same process is called directly.
func (a *App) stores() (*querier.Stores, error) {
	r, err := a.storeRing()
	if err != nil {
		return nil, err
	}
	b, err := a.blocksBucket()
	if err != nil {
		return nil, err
	}
	clients, err := transport.NewStores(a.cfg.Clients, transport.ClientDeps{InRing: inRing(r), Registerer: a.reg, Log: a.log})
	if err != nil {
		return nil, err
	}
	if err := a.serve("store-gateway-clients", clients); err != nil {
		return nil, err
	}
	if a.cfg.runs("store-gateway") {
		g, err := a.storeGateway()
		if err != nil {
			return nil, err
		}
		addr, err := a.instanceAddr()
		if err != nil {
			return nil, err
		}
		if err := clients.Register(addr, g); err != nil {
			return nil, fmt.Errorf("register the store-gateway of this process: %w", err)
		}
	}
	budget, err := a.queryBudget()
	if err != nil {
		return nil, err
	}
	indexes := block.NewIndexes(block.IndexesDeps{Logger: a.log, Reg: a.reg, Bucket: budget.Listings(b), MaxStale: a.cfg.BucketIndex.MaxStale})
	a.indexes.Store(indexes)
	return &querier.Stores{Ring: r, Client: clients.For, Indexes: indexes}, nil
}

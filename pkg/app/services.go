package app

import (
	"context"
	"fmt"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/distributor"
	"github.com/amphora-metrics/amphora/pkg/ingester"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/querier"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func (a *App) blocksBucket() (objstore.InstrumentedBucket, error) {
	return a.p.bucket.get(func() (objstore.InstrumentedBucket, error) {
		b, err := bucket.New(context.Background(), a.cfg.Bucket, "blocks", a.log, a.reg)
		if err != nil {
			return nil, err
		}
		a.closers = append(a.closers, b.Close)
		if a.cfg.Bucket.Backend == bucket.S3 {
			b = bucket.Encrypting(b, a.encryption())
		}
		return b, nil
	})
}

// ingesterLeft is called before the ring shows that an ingester has gone: what it held last is in
// blocks that a bucket index of some time ago does not have.
func (a *App) ingesterLeft() {
	if x := a.indexes.Load(); x != nil {
		x.Renew()
	}
}

// inRing says whether an ingester at addr is in the ring, healthy or not.
func inRing(r *ring.Ring) func(addr string) bool {
	return func(addr string) bool {
		set, err := r.GetAllHealthy(ring.Reporting)
		return err != nil || set.Includes(addr)
	}
}

// replicas are the streams to ingesters.
func (a *App) replicas() (*transport.Replicas, error) {
	return a.p.replicas.get(func() (*transport.Replicas, error) {
		r, err := a.ingesterRing()
		if err != nil {
			return nil, err
		}
		reps, err := transport.NewReplicas(a.cfg.Clients, transport.ClientDeps{PushTimeout: a.cfg.Distributor.RemoteTimeout, InRing: inRing(r), Registerer: a.reg, Log: a.log, Memory: a.memory.Account(memory.Frames)})
		if err != nil {
			return nil, err
		}
		return reps, a.serve("ingester-streams", reps)
	})
}

// clients are for queries to ingesters.
func (a *App) clients() (*transport.Clients, error) {
	return a.p.clients.get(func() (*transport.Clients, error) {
		r, err := a.ingesterRing()
		if err != nil {
			return nil, err
		}
		c, err := transport.NewClients(a.cfg.Clients, transport.ClientDeps{InRing: inRing(r), Registerer: a.reg, Log: a.log})
		if err != nil {
			return nil, err
		}
		return c, a.serve("ingester-clients", c)
	})
}

// ingester is the one of this process.
func (a *App) ingester() (*ingester.Ingester, error) {
	return a.p.ingester.get(func() (*ingester.Ingester, error) {
		b, err := a.blocksBucket()
		if err != nil {
			return nil, err
		}
		lc, err := a.lifecyclerConfig()
		if err != nil {
			return nil, err
		}
		r, err := a.ingesterRing()
		if err != nil {
			return nil, err
		}
		where := newPlaces(r, lc.ID, a.cfg.Ring.ZoneAwareness, func(id tenant.ID) int { return limits.IngestionTenantShardSize.Of(a.limits.For(id)) })
		memory := a.ringMemory()
		ing, err := ingester.New(a.cfg.Ingester, ingester.Deps{
			Logger: a.log, Reg: a.reg, Limits: a.limits.For, Place: where.of, Bucket: b, Lifecycler: lc, RingMemory: memory,
			InstanceLimits: a.ingesterLimits, Memory: a.memory, Turns: a.turns(),
			Attribution: ingester.Attribution{Reg: a.costsRegisterer(), CleanupInterval: a.cfg.Costs.CleanupInterval},
		})
		if err != nil {
			return nil, err
		}
		if err := a.claimName(lc); err != nil {
			return nil, err
		}
		if err := a.serve("ingester", ing); err != nil {
			return nil, err
		}
		return ing, a.caretaker(ing, lc, memory)
	})
}

// buildIngester builds the ingester with its gRPC services.
func (a *App) buildIngester() error {
	ing, err := a.ingester()
	if err != nil {
		return err
	}
	s, err := a.server()
	if err != nil {
		return err
	}
	w := transport.NewIngesterWrite(ing, a.reg, a.log)
	w.LabelBy(a.activity)
	s.OnDrain(w.Drain)
	ingesterpb.RegisterIngesterWriteServer(s.GRPC(), w)
	ingesterpb.RegisterIngesterQueryServer(s.GRPC(), ing)
	return nil
}

// shortcut registers the ingester of this process, if it has one, with who else would call it by
// its address over a socket.
func (a *App) shortcut(register func(addr string, ing *ingester.Ingester) error) error {
	if !a.cfg.runs("ingester") {
		return nil
	}
	ing, err := a.ingester()
	if err != nil {
		return err
	}
	addr, err := a.instanceAddr()
	if err != nil {
		return err
	}
	if err := register(addr, ing); err != nil {
		return fmt.Errorf("register the ingester of this process: %w", err)
	}
	return nil
}

// distributor is the write path. An ingester in the same process is called directly.
func (a *App) distributor() (*distributor.Distributor, error) {
	return a.p.distributor.get(func() (*distributor.Distributor, error) {
		r, err := a.ingesterRing()
		if err != nil {
			return nil, err
		}
		reps, err := a.replicas()
		if err != nil {
			return nil, err
		}
		if err := a.shortcut(func(addr string, ing *ingester.Ingester) error { return reps.Register(addr, ing) }); err != nil {
			return nil, err
		}
		// A ruler's is not one of those that share the tenants' rates: what rules record has none.
		var healthy func() int
		if a.cfg.runs("distributor") {
			peers, err := a.distributorRing()
			if err != nil {
				return nil, err
			}
			healthy = peers.healthy
		}
		elections, err := a.elections()
		if err != nil {
			return nil, err
		}
		known, err := a.knownTenants()
		if err != nil {
			return nil, err
		}
		d, err := distributor.New(a.cfg.Distributor, distributor.Deps{
			Logger: a.log, Reg: a.reg, Limits: a.limits.For, Ring: a.shards(r), Replica: reps.For, Replicas: elections,
			HealthyDistributors: healthy, ShardGrowDelay: a.shardGrowDelay(), InstanceLimits: a.distributorLimits, Memory: a.memory,
			Known: known,
			Costs: distributor.Costs{Reg: a.costsRegisterer(), EvictAfter: a.cfg.Costs.EvictionAfter, CleanupInterval: a.cfg.Costs.CleanupInterval},
		})
		if err != nil {
			return nil, err
		}
		return d, a.serve("distributor", d)
	})
}

// shardGrowDelay is how long a larger shard of a tenant is known before it is written to: every
// process has read the overrides again by then.
func (a *App) shardGrowDelay() time.Duration {
	if len(a.cfg.Runtime.Files) == 0 {
		return 0
	}
	return 2*a.cfg.Runtime.Period + 5*time.Second
}

// querier is the read path.
func (a *App) querier() (*querier.Querier, error) {
	return a.p.querier.get(func() (*querier.Querier, error) {
		r, err := a.ingesterRing()
		if err != nil {
			return nil, err
		}
		c, err := a.clients()
		if err != nil {
			return nil, err
		}
		if err := a.shortcut(func(addr string, ing *ingester.Ingester) error { return c.Register(addr, ing) }); err != nil {
			return nil, err
		}
		stores, err := a.stores()
		if err != nil {
			return nil, err
		}
		gone, err := a.deletions()
		if err != nil {
			return nil, err
		}
		q, err := querier.New(a.cfg.querier(), querier.Deps{
			Logger: a.log, Reg: a.reg, Ingesters: a.shards(r), Client: c.For, Stores: stores, Described: a.described(), Limits: a.limits.For, Memory: a.memory,
			Tombstones: gone.InForce, Deletions: seriesDeletions{Requests: gone}.turns, Turns: a.turns(),
		})
		if err != nil {
			return nil, err
		}
		return q, a.serve("querier", services.NewBasicService(nil, q.Run, nil))
	})
}

// ingesterLimits changes the configured limits by the runtime file.
func (a *App) ingesterLimits(c ingester.InstanceLimits) ingester.InstanceLimits {
	l := a.limits.IngesterLimits(limits.InstanceLimits{
		MaxTenants: c.MaxTenants, MaxSeries: c.MaxSeries, MaxIngestionRate: c.MaxIngestionRate,
		MaxInflightPushRequests: c.MaxInflightPushRequests, MaxInflightPushRequestsBytes: c.MaxInflightPushBytes,
		MaxInflightReadRequests: c.MaxInflightReadRequests,
	})
	return ingester.InstanceLimits{
		MaxTenants: l.MaxTenants, MaxSeries: l.MaxSeries, MaxIngestionRate: l.MaxIngestionRate,
		MaxInflightPushRequests: l.MaxInflightPushRequests, MaxInflightPushBytes: l.MaxInflightPushRequestsBytes,
		MaxInflightReadRequests: l.MaxInflightReadRequests,
	}
}

// distributorLimits is ingesterLimits for a distributor.
func (a *App) distributorLimits(c distributor.InstanceLimits) distributor.InstanceLimits {
	l := a.limits.DistributorLimits(limits.InstanceLimits{
		MaxInflightPushRequests: c.MaxInflightPushRequests, MaxInflightPushRequestsBytes: c.MaxInflightPushRequestsBytes,
		MaxIngestionRate: c.MaxIngestionRate,
	})
	return distributor.InstanceLimits{
		MaxInflightPushRequests: l.MaxInflightPushRequests, MaxInflightPushRequestsBytes: l.MaxInflightPushRequestsBytes,
		MaxIngestionRate: l.MaxIngestionRate,
	}
}

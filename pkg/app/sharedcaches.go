package app

import (
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/block/pagecache"
	"github.com/amphora-metrics/amphora/pkg/storegateway/clustercache"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/cachepb"
)

// sharedCaches opens those that are configured.
func (a *App) sharedCaches() (out block.SharedCaches, err error) {
	open := func(c pagecache.Config, name string) *pagecache.Cache {
		if err != nil {
			return nil
		}
		var opened *pagecache.Cache
		if c.Backend == pagecache.Cluster {
			var shared *clustercache.Cache
			if shared, err = a.clusterCache(); err == nil {
				opened = pagecache.New(shared.Named(name), name, a.reg)
			}
			return opened
		}
		if opened, err = pagecache.Open(c, name, pagecache.PageBytes, a.kitLog(name), a.reg); opened != nil {
			a.closers = append(a.closers, opened.Close)
		}
		return opened
	}
	out.Index = open(a.cfg.StoreGateway.Caches.Index, "index-cache")
	out.Chunks = open(a.cfg.StoreGateway.Caches.Chunks, "chunks-cache")
	out.Meta = open(a.cfg.StoreGateway.Caches.Metadata, "metadata-cache")
	return out, err
}

// clusterCache is what this process holds of the cache that store-gateways are for each other, and its way to
// the rest.
func (a *App) clusterCache() (*clustercache.Cache, error) {
	return a.p.clusterCache.get(func() (*clustercache.Cache, error) {
		r, err := a.storeRing()
		if err != nil {
			return nil, err
		}
		addr, err := a.instanceAddr()
		if err != nil {
			return nil, err
		}
		clients, err := transport.NewCaches(a.cfg.Clients, transport.ClientDeps{InRing: inRing(r), Registerer: a.reg, Log: a.log})
		if err != nil {
			return nil, err
		}
		if err := a.serve("cluster-cache-clients", clients); err != nil {
			return nil, err
		}
		c := clustercache.New(a.cfg.StoreGateway.Caches.Cluster, clustercache.Deps{Logger: a.log, Reg: a.reg, Memory: a.memory, Ring: r,
			Zone: a.cfg.Ring.Zone, Addr: addr, Client: clients.For})
		a.closers = append(a.closers, c.Close)
		s, err := a.server()
		if err != nil {
			return nil, err
		}
		cachepb.RegisterClusterCacheServer(s.GRPC(), c)
		return c, nil
	})
}

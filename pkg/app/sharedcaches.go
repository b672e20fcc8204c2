package app

import (
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/block/pagecache"
)

// sharedCaches opens those that are configured.
func (a *App) sharedCaches() (out block.SharedCaches, err error) {
	open := func(c pagecache.Config, name string) *pagecache.Cache {
		if err != nil {
			return nil
		}
		var opened *pagecache.Cache
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

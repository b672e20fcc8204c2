package storegateway

import (
	"time"

	"github.com/amphora-metrics/amphora/pkg/block/pagecache"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/storegateway/clustercache"
)

// Config is the settings of a Gateway and its local copies, mounted as bucket_store below
// blocks_storage.
type Config struct {
	SyncDir       string
	MaxCacheBytes int
	SyncInterval  time.Duration
	IdleTimeout   time.Duration
	MaxConcurrent int
	QueueTimeout  time.Duration
	MaxQueryBytes int
	Caches        Caches
}

// Caches are those that all store-gateways share. Cluster is for those of them that are in their memory.
type Caches struct {
	Index, Chunks, Metadata pagecache.Config
	Cluster                 clustercache.Config
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.SyncDir, "sync-dir", "./data/blocks-cache", "Directory of the local copies of block pages that queries read. Its content is disposable.")
	s.Int(&c.MaxCacheBytes, "max-cache-bytes", 10<<30, "Bytes of local copies. A query that needs more at once is refused.")
	s.Duration(&c.SyncInterval, "sync-interval", 15*time.Minute, "How often local copies of deleted blocks are removed.").Expert()
	s.Duration(&c.IdleTimeout, "index-header.lazy-loading-idle-timeout", time.Hour, "How long after its last query the index of a block is closed.").Expert()
	s.Int(&c.MaxConcurrent, "max-concurrent", 200, "Calls that a store-gateway answers at the same time.").Expert()
	s.Duration(&c.QueueTimeout, "max-concurrent-queue-timeout", 5*time.Second, "How long a call waits for its turn; then the querier asks another store-gateway.").Expert()
	s.Int(&c.MaxQueryBytes, "max-query-memory-bytes", 0, "Memory that one call may take in a store-gateway. 0: a quarter of what the process may use.").Expert()
	s.Mount("index_cache", &c.Caches.Index)
	s.Mount("chunks_cache", &c.Caches.Chunks)
	s.Mount("metadata_cache", &c.Caches.Metadata)
	s.Mount("cluster_cache", &c.Caches.Cluster)
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	switch {
	case c.SyncDir == "":
		return config.Wrong("sync-dir", "is empty; it names a directory")
	case c.MaxCacheBytes <= 0:
		return config.Wrong("max-cache-bytes", "is %d; it must be positive", c.MaxCacheBytes)
	case c.SyncInterval <= 0:
		return config.Wrong("sync-interval", "is %s; it must be positive", c.SyncInterval)
	case c.MaxQueryBytes < 0:
		return config.Wrong("max-query-memory-bytes", "is %d; it must not be negative", c.MaxQueryBytes)
	case c.MaxConcurrent <= 0:
		return config.Wrong("max-concurrent", "is %d; it must be 1 or more", c.MaxConcurrent)
	}
	return nil
}

package block

import "github.com/amphora-metrics/amphora/pkg/config"

// Config is the settings of a Reader, mounted as bucket_store below blocks_storage.
type Config struct {
	SyncDir       string
	MaxCacheBytes int
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.SyncDir, "sync-dir", "./data/blocks-cache", "Directory of the local copies of blocks being queried. Its content is disposable.")
	s.Int(&c.MaxCacheBytes, "max-cache-bytes", 10<<30, "Bytes of local copies of blocks. A query that needs more at once is refused.")
}

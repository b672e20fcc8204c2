package ingester

import (
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/wal"
)

// Config of the ingester.
type Config struct {
	DataDir               string
	BlockRetention        time.Duration // counted from the upload
	FlushBlocksOnShutdown bool
	ReadConcurrency       int // 0: derived
	ErrorSampleRate       int
	WAL                   wal.Config
	InstanceLimits        InstanceLimits
	Disk                  DiskConfig
	Load                  LoadConfig
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.DataDir, "data-dir", "./data/ingester", "Directory of the write-ahead log and of blocks that are not shipped yet. It must survive restarts.")
	s.Duration(&c.BlockRetention, "block-retention", 13*time.Hour,
		"How long a block stays on local disk after it was shipped. Queriers must ask the bucket before it is over.").
		Named("blocks-storage.tsdb.retention-period")
	s.Bool(&c.FlushBlocksOnShutdown, "flush-blocks-on-shutdown", false,
		"Cut everything in memory into blocks and ship them before a planned stop. Off: the write-ahead log is read back at the next start.").
		Named("blocks-storage.tsdb.flush-blocks-on-shutdown")
	s.Int(&c.ReadConcurrency, "read-concurrency", 0, "Queries answered at the same time; others wait. 0: 8 for each CPU.").Expert()
	s.Int(&c.ErrorSampleRate, "error-sample-rate", 10,
		"Of the errors that refuse single samples, one in this many is logged; all are counted. 0: all are logged.").Expert()
	s.Mount("wal", &c.WAL)
	s.Mount("instance_limits", &c.InstanceLimits)
	s.Mount("", &c.Disk)
	s.Mount("", &c.Load)
}

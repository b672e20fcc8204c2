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
	SnapshotOnShutdown    bool
	LargeLateBlocks       bool
	ReadConcurrency       int // 0: derived
	ErrorSampleRate       int
	CompactionInterval    time.Duration
	MetadataRetention     time.Duration
	ActiveSeries          ActiveSeriesConfig
	EarlyCompaction       EarlyCompactionConfig
	Idle                  IdleConfig
	Selections            SelectionsConfig
	WAL                   wal.Config
	InstanceLimits        InstanceLimits
	Disk                  DiskConfig
	Load                  LoadConfig
	Gates                 GateConfig
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.DataDir, "data-dir", "./data/ingester", "Directory of the write-ahead log and of blocks that are not shipped yet. It must survive restarts.")
	s.Duration(&c.BlockRetention, "block-retention", 13*time.Hour,
		"How long a block stays on local disk after it was shipped. Queriers must read it from the bucket before that ends.").
		Named("blocks-storage.tsdb.retention-period")
	s.Bool(&c.FlushBlocksOnShutdown, "flush-blocks-on-shutdown", false,
		"Cut everything in memory into blocks and ship them at a planned stop. Off: the next start recovers what was in memory.").
		Named("blocks-storage.tsdb.flush-blocks-on-shutdown")
	s.Bool(&c.SnapshotOnShutdown, "snapshot-on-shutdown", true,
		"Write a snapshot of memory to disk at a planned stop; the next start reads it in a fraction of the time that replaying the write-ahead log takes.").
		Named("blocks-storage.tsdb.memory-snapshot-on-shutdown").Expert()
	s.Bool(&c.LargeLateBlocks, "large-late-blocks", false,
		"Put out-of-order samples of days before today (UTC) into blocks of a day instead of two hours: fewer blocks when much old data is loaded.").
		Named("blocks-storage.tsdb.bigger-out-of-order-blocks-for-old-samples").Expert()
	s.Int(&c.ReadConcurrency, "read-concurrency", 0, "Queries answered at the same time; others wait. 0: 8 for each CPU.").Expert()
	s.Int(&c.ErrorSampleRate, "error-sample-rate", 10,
		"Log one in this many of the errors about single samples; all are counted. 0: log all.").Expert()
	s.Duration(&c.CompactionInterval, "head-compaction-interval", time.Minute,
		"How often tenants are checked for samples to cut into blocks, and for blocks to ship or drop.").
		Named("blocks-storage.tsdb.head-compaction-interval").Expert()
	s.Duration(&c.MetadataRetention, "metadata-retain-period", 10*time.Minute, "How long metadata is kept after it was last received.").Expert()
	s.Mount("", &c.ActiveSeries)
	s.Mount("", &c.EarlyCompaction)
	s.Mount("", &c.Idle)
	s.Mount("", &c.Selections)
	s.Mount("wal", &c.WAL)
	s.Mount("instance_limits", &c.InstanceLimits)
	s.Mount("", &c.Disk)
	s.Mount("", &c.Load)
	s.Mount("", &c.Gates)
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	if c.CompactionInterval < time.Second {
		return config.Wrong("head_compaction_interval", "is %s; it must be 1s or longer", config.FormatDuration(c.CompactionInterval))
	}
	return nil
}

// ActiveSeriesConfig says which series count as active.
type ActiveSeriesConfig struct {
	Metrics     bool
	IdleTimeout time.Duration
}

// Declare names each setting once.
func (c *ActiveSeriesConfig) Declare(s *config.Set) {
	s.Bool(&c.Metrics, "active-series-metrics-enabled", true, "Expose the number of active series of each tenant.").Expert()
	s.Duration(&c.IdleTimeout, "active-series-metrics-idle-timeout", 20*time.Minute,
		"How long after its last sample a series counts as active, in metrics and for limits of active series.").Expert()
}

// Validate refuses what cannot work.
func (c *ActiveSeriesConfig) Validate() error {
	if c.IdleTimeout <= 0 {
		return config.Wrong("active_series_metrics_idle_timeout", "is %s; it must be longer than 0", config.FormatDuration(c.IdleTimeout))
	}
	return nil
}

// IdleConfig says when what nobody uses any more is given up.
type IdleConfig struct {
	HeadTimeout      time.Duration
	TruncateInterval time.Duration
}

// Declare names each setting once.
func (c *IdleConfig) Declare(s *config.Set) {
	s.Duration(&c.HeadTimeout, "head-compaction-idle-timeout", time.Hour,
		"Time without a push after which everything a tenant has in memory is cut into a block, due or not. The tenant is closed once its blocks have left the disk.").
		Named("blocks-storage.tsdb.head-compaction-idle-timeout").Expert()
	s.Duration(&c.TruncateInterval, "wal-truncation-interval", 5*time.Minute,
		"Shortest time between truncations of the write-ahead log. Each one rewrites the definitions of all series that are still needed.").Expert()
}

// Validate refuses what cannot work.
func (c *IdleConfig) Validate() error {
	if c.HeadTimeout < time.Second {
		return config.Wrong("head_compaction_idle_timeout", "is %s; it must be 1s or longer", config.FormatDuration(c.HeadTimeout))
	}
	if c.TruncateInterval < time.Second {
		return config.Wrong("wal_truncation_interval", "is %s; it must be 1s or longer", config.FormatDuration(c.TruncateInterval))
	}
	return nil
}

// EarlyCompactionConfig says when series that are not active any more are cut before their time.
type EarlyCompactionConfig struct {
	MinSeries           int // 0: never
	MinReductionPercent int
}

// Declare names each setting once.
func (c *EarlyCompactionConfig) Declare(s *config.Set) {
	s.Int(&c.MinSeries, "early-head-compaction-min-in-memory-series", 0,
		"Series in memory, over all tenants, above which inactive series are cut into blocks early to free their memory. 0: never.").
		Named("blocks-storage.tsdb.early-head-compaction-min-in-memory-series").Expert()
	s.Int(&c.MinReductionPercent, "early-head-compaction-min-estimated-series-reduction-percentage", 15,
		"Percentage of its series in memory that an early cut of a tenant must free.").
		Named("blocks-storage.tsdb.early-head-compaction-min-estimated-series-reduction-percentage").Expert()
}

// Validate refuses what cannot work.
func (c *EarlyCompactionConfig) Validate() error {
	if p := c.MinReductionPercent; p < 0 || p > 100 {
		return config.Wrong("early_head_compaction_min_estimated_series_reduction_percentage", "is %d; it must be 0 to 100", p)
	}
	return nil
}

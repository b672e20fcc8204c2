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
	ActiveSeries          ActiveSeriesConfig
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
	s.Mount("", &c.ActiveSeries)
	s.Mount("wal", &c.WAL)
	s.Mount("instance_limits", &c.InstanceLimits)
	s.Mount("", &c.Disk)
	s.Mount("", &c.Load)
}

// ActiveSeriesConfig says which series count as active.
type ActiveSeriesConfig struct {
	Metrics     bool
	IdleTimeout time.Duration
}

// Declare names each setting once.
func (c *ActiveSeriesConfig) Declare(s *config.Set) {
	s.Bool(&c.Metrics, "active-series-metrics-enabled", true, "Expose how many series of each tenant are active.").Expert()
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

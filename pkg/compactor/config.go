package compactor

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// The orders in which jobs are done.
const (
	SmallestFirst = "smallest-range-oldest-blocks-first"
	NewestFirst   = "newest-blocks-first"
)

// Config is the settings of a Compactor, mounted as compactor.
type Config struct {
	DataDir            string
	BlockRanges        []string
	Interval           time.Duration
	CleanupInterval    time.Duration
	Concurrency        int
	CleanupConcurrency int
	Retries            int
	MaxTenantTime      time.Duration
	FirstLevelWait     time.Duration
	JobsOrder          string
	DeletionDelay      time.Duration
	TenantCleanupDelay time.Duration
	SeriesDeletionWait time.Duration
	SeriesDeletionHold time.Duration
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.DataDir, "data-dir", "./data/compactor", "Directory of the blocks being compacted. Its content is disposable; it needs room for twice the blocks of a job, for each job at a time.")
	s.Strings(&c.BlockRanges, "block-ranges", []string{"2h", "12h", "24h"}, "Time ranges that blocks are merged to, each a multiple of the one before.").Expert()
	s.Duration(&c.Interval, "compaction-interval", time.Hour, "How often tenants are checked for blocks to compact.").Expert()
	s.Duration(&c.CleanupInterval, "cleanup-interval", 15*time.Minute, "How often bucket indexes are updated and due blocks deleted.").Expert()
	s.Int(&c.Concurrency, "compaction-concurrency", 1, "Jobs that this process runs at the same time.").Expert()
	s.Int(&c.CleanupConcurrency, "cleanup-concurrency", 20, "Tenants that are cleaned up at the same time.").Expert()
	s.Int(&c.Retries, "compaction-retries", 3, "Attempts at a job in one round.").Expert()
	s.Duration(&c.MaxTenantTime, "max-compaction-time", time.Hour, "Time after which the next tenant has its turn. 0: no limit.").Expert()
	s.Duration(&c.FirstLevelWait, "first-level-compaction-wait-period", 25*time.Minute, "How long blocks that ingesters uploaded wait for those of the other replicas.").Expert()
	s.String(&c.JobsOrder, "compaction-jobs-order", SmallestFirst, "Which jobs come first.").OneOf(SmallestFirst, NewestFirst).Expert()
	s.Duration(&c.DeletionDelay, "deletion-delay", 12*time.Hour, "How long blocks stay in the bucket after they were marked for deletion, so that queries that read them can finish and mistakes can be undone.").Expert()
	s.Duration(&c.TenantCleanupDelay, "tenant-cleanup-delay", 6*time.Hour, "How long the remaining objects of a deleted tenant stay in the bucket after its last block.").Expert()
	s.Duration(&c.SeriesDeletionWait, "series-deletion-delay", 6*time.Hour, "How long a request to delete series can be cancelled. Queries hide the samples meanwhile; after that they are removed from the blocks.").Expert()
	s.Duration(&c.SeriesDeletionHold, "series-deletion-hold-period", 14*24*time.Hour, "How long after a request to delete series matching samples are still hidden and removed from blocks, in case an ingester returns with old samples. Newer requests may end it earlier.").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	if _, err := c.ranges(); err != nil {
		return config.Wrong("block-ranges", "%w", err)
	}
	switch {
	case c.DataDir == "":
		return config.Wrong("data-dir", "is empty; it names a directory")
	case c.Interval <= 0:
		return config.Wrong("compaction-interval", "is %s; it must be positive", c.Interval)
	case c.CleanupInterval <= 0:
		return config.Wrong("cleanup-interval", "is %s; it must be positive", c.CleanupInterval)
	case c.Concurrency <= 0 || c.CleanupConcurrency <= 0 || c.Retries <= 0:
		return config.Wrong("compaction-concurrency", "this, cleanup-concurrency and compaction-retries must be 1 or more")
	case c.DeletionDelay < 0 || c.TenantCleanupDelay < 0 || c.FirstLevelWait < 0 || c.SeriesDeletionWait < 0 || c.SeriesDeletionHold < 0:
		return config.Wrong("deletion-delay", "this, tenant-cleanup-delay, series-deletion-delay, series-deletion-hold-period and first-level-compaction-wait-period must not be negative")
	}
	return nil
}

// ranges returns the block ranges in milliseconds.
func (c *Config) ranges() ([]int64, error) {
	var out []int64
	for i, text := range c.BlockRanges {
		d, err := model.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("has %q at place %d, which is no duration such as 2h", text, i+1)
		}
		r := time.Duration(d).Milliseconds()
		if r <= 0 || i > 0 && (r <= out[i-1] || r%out[i-1] != 0) {
			return nil, fmt.Errorf("has %s at place %d; each range must be a multiple of the one before", text, i+1)
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, errors.New("is empty; it needs one range or more")
	}
	return out, nil
}

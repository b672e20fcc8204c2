package frontend

import (
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// Config is the settings of a Frontend, mounted as frontend.
type Config struct {
	SplitInterval  time.Duration
	Shard          bool
	SeriesPerShard int
	MaxRetries     int
	QueryStats     bool
	LogLongerThan  time.Duration
	CacheResults   bool
	CacheErrors    bool
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.Duration(&c.SplitInterval, "split-queries-by-interval", 24*time.Hour, "Length of the parts that a range query is split into, on multiples of it. 0: it is not split.").
		Named("query-frontend.split-queries-by-interval").Expert()
	s.Bool(&c.Shard, "parallelize-shardable-queries", false, "Part the series of aggregations into shards that different queriers work on. It pays where queriers are many.").
		Named("query-frontend.parallelize-shardable-queries")
	s.Int(&c.SeriesPerShard, "query-sharding-target-series-per-shard", 0, "Series that a shard should have at least: a query that was seen to have few is parted into fewer shards. 0: into all of them.").
		Named("query-frontend.query-sharding-target-series-per-shard").Expert()
	s.Int(&c.MaxRetries, "max-retries-per-request", 5, "How often a part of a query is tried when queriers or what they read from are away.").
		Named("query-frontend.max-retries-per-request").Expert()
	s.Bool(&c.QueryStats, "query-stats-enabled", true, "Log a line with what it took for each query.").Named("query-frontend.query-stats-enabled").Expert()
	s.Bool(&c.CacheResults, "cache-results", true, "Keep answers of queries, in memory or as results_cache says, and evaluate only what is new of the time that is asked for. Answers that late samples, deletions or uploads changed are not given again.").
		Named("query-frontend.cache-results")
	s.Bool(&c.CacheErrors, "cache-errors", false, "Keep errors of queries that would fail again, such as those of limits.").Named("query-frontend.cache-errors").Expert()
	s.Duration(&c.LogLongerThan, "log-queries-longer-than", 0, "Log a warning for each query that took longer. 0: none.").Named("query-frontend.log-queries-longer-than")
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	switch {
	case c.SplitInterval < 0:
		return config.Wrong("split-queries-by-interval", "is %s; it must not be negative", c.SplitInterval)
	case c.MaxRetries < 1:
		return config.Wrong("max-retries-per-request", "is %d; it must be 1 or more", c.MaxRetries)
	}
	return nil
}

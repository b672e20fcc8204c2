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
	s.Duration(&c.SplitInterval, "split-queries-by-interval", 24*time.Hour, "Interval, aligned to its multiples, by which range queries are split. 0: they are not split.").
		Named("query-frontend.split-queries-by-interval").Expert()
	s.Bool(&c.Shard, "parallelize-shardable-queries", false, "Split the series of aggregations into shards that different queriers work on. Worthwhile with many queriers.").
		Named("query-frontend.parallelize-shardable-queries")
	s.Int(&c.SeriesPerShard, "query-sharding-target-series-per-shard", 0, "Series that a shard should have at least: a query that is known to touch few series is split into fewer shards. 0: always into all of them.").
		Named("query-frontend.query-sharding-target-series-per-shard").Expert()
	s.Int(&c.MaxRetries, "max-retries-per-request", 5, "Attempts at a part of a query while queriers or their sources are unavailable.").
		Named("query-frontend.max-retries-per-request").Expert()
	s.Bool(&c.QueryStats, "query-stats-enabled", true, "Log a line with the statistics of each query.").Named("query-frontend.query-stats-enabled").Expert()
	s.Bool(&c.CacheResults, "cache-results", true, "Cache query results, in memory or as results_cache says, and evaluate only the part of the time range that is not cached. Results that late samples, deletions or uploads have changed are not used.").
		Named("query-frontend.cache-results")
	s.Bool(&c.CacheErrors, "cache-errors", false, "Cache errors of queries that would fail again, such as exceeded limits.").Named("query-frontend.cache-errors").Expert()
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

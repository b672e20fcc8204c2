package ingester

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/memory"
)

// SelectionsConfig says how long it is remembered which series in memory matchers select.
type SelectionsConfig struct {
	Keep     time.Duration
	MaxBytes int
}

// Declare names each setting once.
func (c *SelectionsConfig) Declare(s *config.Set) {
	s.Duration(&c.Keep, "head-postings-for-matchers-cache-ttl", 10*time.Second,
		"How long the series in memory that a query's matchers select are cached. New series are never missed. 0: not at all.").
		Named("blocks-storage.tsdb.head-postings-for-matchers-cache-ttl").Expert()
	s.Int(&c.MaxBytes, "head-postings-for-matchers-cache-max-bytes", 100<<20, "Memory for that cache, over all tenants.").
		Named("blocks-storage.tsdb.head-postings-for-matchers-cache-max-bytes").Expert()
}

// Validate refuses what cannot work.
func (c *SelectionsConfig) Validate() error {
	switch {
	case c.Keep < 0:
		return config.Wrong("head_postings_for_matchers_cache_ttl", "is %s; it must not be negative", config.FormatDuration(c.Keep))
	case c.MaxBytes < 0:
		return config.Wrong("head_postings_for_matchers_cache_max_bytes", "is %d; it must not be negative", c.MaxBytes)
	}
	return nil
}

// newSelections returns what all heads share, nil if nothing is remembered.
func newSelections(c SelectionsConfig, l *memory.Ledger, reg prometheus.Registerer) *head.Selections {
	if c.Keep == 0 || c.MaxBytes == 0 {
		return nil
	}
	account := l.Account(memory.Caches)
	s := head.NewSelections(head.SelectionsOptions{Keep: c.Keep, MaxBytes: int64(c.MaxBytes), Take: account.Take})
	f := promauto.With(reg)
	const name = "amphora_ingester_tsdb_head_postings_for_matchers_cache_"
	f.NewCounterFunc(prometheus.CounterOpts{Name: name + "requests_total", Help: "Selections of series in memory by matchers."}, func() float64 {
		asks, _ := s.Asked()
		return float64(asks)
	})
	f.NewCounterFunc(prometheus.CounterOpts{Name: name + "hits_total", Help: "Those that were known from a query before."}, func() float64 {
		_, hits := s.Asked()
		return float64(hits)
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: name + "bytes", Help: "Memory of those that are known."}, func() float64 { return float64(s.Bytes()) })
	return s
}

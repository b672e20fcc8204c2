package engine

import (
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// Config is the settings of evaluation, mounted as querier beside those of reading.
type Config struct {
	Timeout       time.Duration
	MaxSamples    int
	LookbackDelta time.Duration
	MaxConcurrent int
	QueryEngine   string
	JudgeTimeouts bool
}

// The values of QueryEngine.
const (
	engineAmphora    = "amphora"
	enginePrometheus = "prometheus"
)

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.Duration(&c.Timeout, "timeout", 2*time.Minute, "Timeout of a query, including its time in queues.")
	s.Int(&c.MaxSamples, "max-samples", 50_000_000, "Samples one query may hold in memory at the same time. The bounds on the cost of an expression follow from it.")
	s.Duration(&c.LookbackDelta, "lookback-delta", 5*time.Minute, "How long after its last sample a series has a value.").Expert()
	s.Int(&c.MaxConcurrent, "max-concurrent", 20, "Queries that are evaluated at the same time; the others wait.")
	s.Bool(&c.JudgeTimeouts, "timeout-classification-enabled", false, "Answer 422 instead of 503 to a query that reaches its timeout after it computed for at least half of querier.timeout on one querier: it would take as long again. Waiting in queues, for other services or for a processor does not count.").Named("querier.timeout-classification-enabled").Expert()
	s.String(&c.QueryEngine, "query-engine", engineAmphora, "Engine that evaluates queries: amphora, whose streaming operators leave what they do not cover to the Prometheus engine, or prometheus, the Prometheus engine alone. The answers are the same.").Expert()
}

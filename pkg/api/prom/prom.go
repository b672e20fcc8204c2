// Package prom owns the Prometheus read API: it parses requests, enforces the tenant's limits on
// their parameters, calls the engine or the storage, and encodes answers exactly as Prometheus does.
// What an expression means, and whether it may run, is decided by the engine.
package prom

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
)

// Engine owns the language. The context of each call carries the tenants, and so what of the language
// they may use. Errors have kinds: Invalid is what is wrong with the text.
type Engine interface {
	promql.QueryEngine
	// ParseExpr returns the syntax tree of qs, small enough to be walked.
	ParseExpr(ctx context.Context, qs string) (parser.Expr, error)
	// ParseSelectors returns the matchers of each selector.
	ParseSelectors(ctx context.Context, selectors []string) ([][]*labels.Matcher, error)
	// Format lays qs out well.
	Format(ctx context.Context, qs string) (string, error)
	// Tree returns the syntax tree of qs as parse_query shows it, for encoding/json.
	Tree(ctx context.Context, qs string) (any, error)
}

// MetadataSource knows the type, unit and help of metrics.
type MetadataSource interface {
	// Metadata returns the metadata of metric, or of all metrics if metric is empty: at most
	// limit metrics and perMetric entries of each. A negative limit and a perMetric below 1
	// mean all.
	Metadata(ctx context.Context, metric string, limit, perMetric int) (map[string][]metadata.Metadata, error)
}

// Backends is what the read API reads from. The context of each call carries the tenants. Errors have
// kinds; one without is a bug of the backend.
type Backends struct {
	Engine    Engine
	Storage   storage.SampleAndChunkQueryable
	Exemplars storage.ExemplarQueryable   // nil: there are no exemplars
	Metadata  MetadataSource              // nil: there is no metadata
	Series    SeriesSource                // nil: series are not counted
	Usage     UsageSource                 // nil: nobody knows what is asked for
	Overseer  Overseer                    // nil: queries are not overseen
	Limits    func(tenant.ID) limits.View // nil: the defaults
	Now       func() time.Time            // nil: time.Now
	// Timeout is the longest time one request may take. 0: 2 minutes.
	Timeout time.Duration
	// Forward does a request that is no query elsewhere; its path has the prefix of the table of routes.
	// The error is that of a request that was not answered. Nil: Storage answers them.
	Forward func(w http.ResponseWriter, r *http.Request) error
	// Prepare returns the context of a request's query; nil: that of the request.
	Prepare func(*http.Request) context.Context
	// Memory is charged with answers that are built as a whole. Nil: they are bounded by nothing.
	Memory *memory.Account
	// Turns is who writes answers when. Nil: that is left to the machine.
	Turns *turns.Gate
}

// Config is the settings of the read API.
type Config struct {
	MaxConcurrentReads int
	MaxReadSamples     int
}

// Declare adds the settings to s.
func (c *Config) Declare(s *config.Set) {
	s.Int(&c.MaxConcurrentReads, "max_concurrent_remote_reads", 10, "Remote read requests answered at once; further ones wait.").Expert()
	s.Int(&c.MaxReadSamples, "max_remote_read_samples", 5_000_000, "Samples in one answer of remote read to a client that does not take a stream of chunks; such an answer is built in memory. More is refused (400). 0: no limit.").Expert()
}

// defaultTimeout is Prometheus's.
const defaultTimeout = 2 * time.Minute

// API serves the Prometheus read API. Handlers return an error instead of rendering it; it has
// a kind, and WriteError renders it.
type API struct {
	b       Backends
	writers *writers
	reads   chan struct{} // holds one token for each remote read under way
	metrics *metrics

	readSamplesMost int // samples in one answer of remote read; 0: no limit
}

// New returns the read API over b.
func New(cfg Config, b Backends, reg prometheus.Registerer) *API {
	if b.Now == nil {
		b.Now = time.Now
	}
	if b.Limits == nil {
		b.Limits = func(tenant.ID) limits.View { return limits.View{} }
	}
	if b.Prepare == nil {
		b.Prepare = (*http.Request).Context
	}
	if b.Timeout <= 0 {
		b.Timeout = defaultTimeout
	}
	return &API{
		b:       b,
		writers: newWriters(),
		reads:   make(chan struct{}, max(cfg.MaxConcurrentReads, 1)),
		metrics: newMetrics(reg),

		readSamplesMost: max(cfg.MaxReadSamples, 0),
	}
}

// smallest returns the smallest limit of the tenants in ctx; 0 is no limit.
func smallest[T int | time.Duration](ctx context.Context, a *API, key limits.Key[T]) T {
	var least T
	ids, err := tenant.Many(ctx)
	if err != nil {
		return least
	}
	for _, id := range ids {
		if v := key.Of(a.b.Limits(id)); v > 0 && (least == 0 || v < least) {
			least = v
		}
	}
	return least
}

// clip returns the smaller of what was asked and what key allows; 0 is no limit.
func clip(ctx context.Context, a *API, asked int, key limits.Key[int]) int {
	most := smallest(ctx, a, key)
	if asked == 0 || most > 0 && most < asked {
		return most
	}
	return asked
}

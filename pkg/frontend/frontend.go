// Package frontend owns what happens to a query before and after queriers work on it: whether it may
// run, how it is split, which parts of its answer are cached, and how the partial answers are merged.
package frontend

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/frontend/results"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Engine is the language: it parses queries, and evaluates what is left when the parts have come.
type Engine interface {
	promql.QueryEngine
	// ParseExpr returns the syntax tree of qs if the tenants of ctx may ask it.
	ParseExpr(ctx context.Context, qs string) (parser.Expr, error)
}

// Deps are what a Frontend works with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Limits func(tenant.ID) limits.View
	Engine Engine
	Run    work.Runner      // has queriers do the work
	Now    func() time.Time // nil: time.Now
	// Results keeps answers; nil: none are kept.
	Results *results.Cache
	// Changes returns what became other of the data of the tenants of a context; needed with Results.
	Changes func(context.Context) (changes.Log, error)
	// Skew is how far apart the clocks of this process and of ingesters may be. 0: results.Skew.
	Skew time.Duration
	// Lookback is the one of queries that do not say another.
	Lookback time.Duration
	// QueryLog says which queries tenants want to be logged; nil: none.
	QueryLog QueryLog
	// Turns is who puts answers together when. Nil: that is left to the machine.
	Turns *turns.Gate
	Peers Peers
}

// Frontend prepares queries that queriers answer. It is a promql.QueryEngine, whose Queryables are not
// used.
type Frontend struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	rules   *rules
	running *running
	seen    *seen
	prints  *prints
}

// New returns a frontend. Errors: Invalid.
func New(cfg Config, deps Deps) (*Frontend, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Skew <= 0 {
		deps.Skew = results.Skew
	}
	return &Frontend{cfg: cfg, deps: deps, metrics: newMetrics(deps.Reg), running: newRunning(), seen: newSeen(), prints: newPrints(),
		rules: &rules{limits: deps.Limits, now: deps.Now, asked: map[asked]time.Time{}}}, nil
}

// NewInstantQuery implements promql.QueryEngine. Errors: those of the language.
func (f *Frontend) NewInstantQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	return f.prepare(ctx, opts, work.Query{Text: qs, Start: ts.UnixMilli(), End: ts.UnixMilli()})
}

// NewRangeQuery implements promql.QueryEngine. Errors: those of the language.
func (f *Frontend) NewRangeQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (promql.Query, error) {
	return f.prepare(ctx, opts, work.Query{Text: qs, Start: start.UnixMilli(), End: end.UnixMilli(), Step: interval.Milliseconds()})
}

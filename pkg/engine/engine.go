// Package engine owns PromQL: parsing, cost bounds that are checked before an expression runs,
// evaluation, and the forms of an expression that the API shows. The operators of package stream
// evaluate queries; the Prometheus engine evaluates what those do not cover.
package engine

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/engine/stream"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/turns"
)

// defaultStep is the resolution of a subquery that names none: Prometheus's default evaluation
// interval.
const defaultStep = time.Minute

// Engine evaluates PromQL. It is safe for use by many goroutines.
//
// Errors of queries have kinds: Invalid for what cannot be parsed or is nested too deeply, TooLarge
// for what would cost or does cost too much, Unprocessable for what cannot be evaluated over the
// data, Timeout, Canceled, the storage's own, and Internal for bugs.
type Engine struct {
	stock    *promql.Engine
	own      *stream.Evaluator // nil: stock evaluates everything
	cfg      Config
	slots    slots
	parser   parser.Parser
	bounds   bounds
	logger   *slog.Logger
	metrics  *metrics
	bound    bound
	turns    *turns.Gate
	activity *activity.Tracker
}

var _ promql.QueryEngine = (*Engine)(nil)

// New returns an engine. The caller closes it. Errors: Invalid.
func New(cfg Config, logger *slog.Logger, reg prometheus.Registerer) (*Engine, error) {
	return newEngine(cfg, promql.EngineOpts{Logger: logger, Reg: reg})
}

// newEngine is New with the switches of opts that are not settings.
func newEngine(cfg Config, opts promql.EngineOpts) (*Engine, error) {
	if cfg.Timeout <= 0 || cfg.MaxSamples <= 0 || cfg.LookbackDelta <= 0 || cfg.MaxConcurrent <= 0 {
		return nil, errs.New(errs.Invalid, "querier.timeout, max_samples, lookback_delta and max_concurrent must be positive")
	}
	if cfg.QueryEngine == "" {
		cfg.QueryEngine = engineAmphora
	}
	if cfg.QueryEngine != engineAmphora && cfg.QueryEngine != enginePrometheus {
		return nil, errs.New(errs.Invalid, "querier.query_engine is %q, it can be %s or %s", cfg.QueryEngine, engineAmphora, enginePrometheus)
	}
	// Experimental parts are parsed, and then refused to tenants that may not use them.
	p := parser.NewParser(parser.Options{
		EnableExperimentalFunctions:  true,
		ExperimentalDurationExpr:     true,
		EnableExtendedRangeSelectors: true,
		EnableBinopFillModifiers:     true,
	})
	opts.MaxSamples, opts.Timeout, opts.LookbackDelta = cfg.MaxSamples, cfg.Timeout, cfg.LookbackDelta
	opts.EnableAtModifier, opts.EnableNegativeOffset, opts.EnablePerStepStats = true, true, true
	opts.NoStepSubqueryIntervalFn = func(int64) int64 { return defaultStep.Milliseconds() }
	running := make(slots, cfg.MaxConcurrent)
	opts.ActiveQueryTracker = running
	opts.Parser = p
	e := &Engine{
		stock:   promql.NewEngine(opts),
		cfg:     cfg,
		slots:   running,
		parser:  p,
		bounds:  boundsFor(cfg.MaxSamples),
		logger:  opts.Logger,
		metrics: newMetrics(opts.Reg),
	}
	if cfg.QueryEngine == engineAmphora {
		e.own = stream.New(stream.Settings{
			MaxSamples: cfg.MaxSamples, DelayedNames: opts.EnableDelayedNameRemoval, StartTimes: opts.UseStartTimestamps,
			TypedNames: opts.EnableTypeAndUnitLabels, SubqueryStep: opts.NoStepSubqueryIntervalFn,
		})
	}
	return e, nil
}

// Close ends the engine.
func (e *Engine) Close() error { return e.stock.Close() }

// NewInstantQuery prepares the evaluation of qs at ts over q.
func (e *Engine) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	return e.prepare(ctx, q, opts, qs, window{ts, ts, 0}, func() (promql.Query, error) {
		return e.stock.NewInstantQuery(ctx, q, opts, qs, ts)
	})
}

// NewRangeQuery prepares the evaluation of qs over q at start, start+interval and so on to end.
func (e *Engine) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (promql.Query, error) {
	if interval < time.Millisecond {
		return nil, errs.New(errs.Invalid, "step %s is shorter than a millisecond", interval)
	}
	return e.prepare(ctx, q, opts, qs, window{start, end, interval}, func() (promql.Query, error) {
		return e.stock.NewRangeQuery(ctx, q, opts, qs, start, end, interval)
	})
}

// prepare plans a query; stock prepares it for the Prometheus engine.
func (e *Engine) prepare(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, w window, stock func() (promql.Query, error)) (_ promql.Query, err error) {
	defer e.rescue(qs, &err)
	expr, err := e.admit(ctx, qs, w)
	if err != nil {
		return nil, err
	}
	if own := e.plan(q, opts, qs, expr, w); own != nil {
		own.stock = stock
		return &query{Query: own, engine: e, window: w}, nil
	}
	e.metrics.queries.WithLabelValues(enginePrometheus).Inc()
	fallback, err := stock()
	if err != nil {
		return nil, classifyPrepare(err)
	}
	return &query{Query: fallback, engine: e, window: w}, nil
}

// admit refuses what must not run. It returns the preprocessed expression.
func (e *Engine) admit(ctx context.Context, qs string, w window) (parser.Expr, error) {
	if err := w.validate(); err != nil {
		return nil, err
	}
	expr, err := e.parse(ctx, qs)
	if err != nil {
		return nil, err
	}
	expr, reason, err := e.bounds.check(expr, w)
	return expr, e.refuse(reason, err)
}

// refuse counts an error by its reason.
func (e *Engine) refuse(reason string, err error) error {
	if err != nil {
		e.metrics.refused.WithLabelValues(reason).Inc()
	}
	return err
}

// parse parses qs as the tenants of ctx may write it.
func (e *Engine) parse(ctx context.Context, qs string) (parser.Expr, error) {
	if err := e.refuse(checkShape(qs)); err != nil {
		return nil, err
	}
	expr, err := e.parser.ParseExpr(qs)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if err := e.refuse(checkDepth(expr)); err != nil {
		return nil, err
	}
	if err := checkAllowed(ctx, expr); err != nil {
		return nil, err
	}
	return expr, nil
}

// ParseExpr returns the syntax tree of qs if it is small enough to be walked and uses nothing that
// ctx does not allow. The caller owns it. Errors: Invalid.
func (e *Engine) ParseExpr(ctx context.Context, qs string) (_ parser.Expr, err error) {
	defer e.rescue(qs, &err)
	return e.parse(ctx, qs)
}

// ParseSelectors returns the matchers of each text, a selector of instant vectors. The bounds on an
// expression hold for all of them together. Errors: Invalid.
func (e *Engine) ParseSelectors(_ context.Context, texts []string) (_ [][]*labels.Matcher, err error) {
	if len(texts) > maxSelectors {
		return nil, e.refuse("selectors", errs.New(errs.Invalid, "%d selectors, at most %d are allowed", len(texts), maxSelectors))
	}
	if err := e.refuse(checkShape(texts...)); err != nil {
		return nil, err
	}
	defer e.rescue("selectors", &err)
	sets, err := e.parser.ParseMetricSelectors(texts)
	return sets, errs.Wrap(errs.Invalid, err)
}

// Format returns qs in Prometheus's canonical layout. Errors: Invalid, TooLarge for a text that is
// both long and deep.
func (e *Engine) Format(ctx context.Context, qs string) (_ string, err error) {
	defer e.rescue(qs, &err)
	expr, err := e.parse(ctx, qs)
	if err != nil {
		return "", err
	}
	if d := depth(expr); len(qs)*d*d > maxLayout {
		return "", e.refuse("layout", errs.New(errs.TooLarge, "expression of %d bytes and %d levels is too large to lay out", len(qs), d))
	}
	return expr.Pretty(0), nil
}

// Tree returns the syntax tree of qs in the form of Prometheus's parse_query, to be encoded as
// JSON. Errors: Invalid.
func (e *Engine) Tree(ctx context.Context, qs string) (_ any, err error) {
	defer e.rescue(qs, &err)
	expr, err := e.parse(ctx, qs)
	if err != nil {
		return nil, err
	}
	return tree(expr), nil
}

// rescue makes a panic an error: a query must not end the process.
func (e *Engine) rescue(qs string, errp *error) {
	p := recover()
	if p == nil {
		return
	}
	e.metrics.panics.Inc()
	if e.logger != nil {
		e.logger.Error("query panicked, it was answered with an error", "query", qs, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
	*errp = errs.New(errs.Internal, "query evaluation broke: %v", p)
}

// slots is the engine's concurrency limit: a semaphore behind Prometheus's interface for it.
type slots chan struct{}

func (s slots) GetMaxConcurrent() int { return cap(s) }
func (s slots) Delete(int)            { <-s }
func (s slots) Close() error          { return nil }

func (s slots) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case s <- struct{}{}:
		return 0, nil
	default:
	}
	turn := turns.Of(ctx)
	turn.Rest()
	defer turn.Resume()
	select {
	case s <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for a query slot: %w", context.Cause(ctx))
	}
}

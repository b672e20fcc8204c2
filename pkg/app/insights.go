package app

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	prometheus "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	usageinsights "github.com/amphora-metrics/amphora/pkg/usage"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// insights notes what tenants ask for: queries where they come in, rules where they are evaluated, and lookups where they
// are answered.
func (a *App) insights() (*usageinsights.Tracker, error) {
	return a.reads.insights.get(func() (*usageinsights.Tracker, error) {
		docs, err := a.documents()
		if err != nil {
			return nil, err
		}
		b, err := a.blocksBucket()
		if err != nil {
			return nil, err
		}
		t, err := usageinsights.New(a.cfg.Reads.Insights, usageinsights.Deps{Log: a.log, Reg: a.reg, Limits: a.limits.For, Documents: docs,
			Deleted: func(ctx context.Context, id tenant.ID) (bool, error) {
				d, err := block.ReadTenantDeletion(ctx, objstore.NewPrefixedBucket(b, string(id)))
				return d != nil, err
			}, Observes: a.cfg.runs("query-frontend")})
		if err != nil {
			return nil, err
		}
		return t, a.serve("usage-insights", t)
	})
}

// forgetUsage deletes what is known of what a tenant asked for.
func (a *App) forgetUsage() (func(context.Context, tenant.ID) error, error) {
	if a.cfg.runs("query-frontend") || a.cfg.runs("querier") || a.cfg.runs("ruler") {
		t, err := a.insights()
		if err != nil {
			return nil, err
		}
		return t.Forget, nil
	}
	docs, err := a.documents()
	return func(ctx context.Context, id tenant.ID) error { return usageinsights.Delete(ctx, docs, id) }, err
}

// usageSource gives the tracker the shape that the API asks for.
type usageSource struct{ *usageinsights.Tracker }

// Usage is part of prom.UsageSource.
func (s usageSource) Usage(ctx context.Context, id tenant.ID, have prom.Inventory, ask prom.UsageAsk) (any, error) {
	stored := usageinsights.Stored{Metrics: have.Metrics, Labels: make(map[string]usageinsights.Label, len(have.Labels))}
	for name, l := range have.Labels {
		stored.Labels[name] = usageinsights.Label(l)
	}
	return s.Report(ctx, id, stored, usageinsights.Ask(ask))
}

// DropRules is part of prom.UsageSource.
func (usageSource) DropRules(id tenant.ID, form string, metrics []string) (string, error) {
	return usageinsights.DropRules(id, form, metrics)
}

// noted returns what requests are answered from, with notes of what they look up.
func noted(b prom.Backends) prom.Backends {
	if s, ok := b.Usage.(usageSource); ok {
		by := notedLookups{b.Storage, b.Exemplars, s.Tracker}
		b.Engine, b.Storage, b.Exemplars = notedEngine{b.Engine, s.Tracker}, by, by
	}
	return b
}

// notedEngine is the language of the API with notes of what queries name.
type notedEngine struct {
	prom.Engine
	t *usageinsights.Tracker
}

// NewInstantQuery is part of prom.Engine.
func (e notedEngine) NewInstantQuery(ctx context.Context, from storage.Queryable, opts prometheus.QueryOpts, qs string, ts time.Time) (prometheus.Query, error) {
	q, err := e.Engine.NewInstantQuery(ctx, from, opts, qs, ts)
	if err == nil {
		noteQuery(ctx, e.t, work.ClassOf(ctx), q)
	}
	return q, err
}

// NewRangeQuery is part of prom.Engine.
func (e notedEngine) NewRangeQuery(ctx context.Context, from storage.Queryable, opts prometheus.QueryOpts, qs string, start, end time.Time, step time.Duration) (prometheus.Query, error) {
	q, err := e.Engine.NewRangeQuery(ctx, from, opts, qs, start, end, step)
	if err == nil {
		noteQuery(ctx, e.t, work.ClassOf(ctx), q)
	}
	return q, err
}

// notedRules is the language of rules with notes of what they name.
type notedRules struct {
	promql
	t *usageinsights.Tracker
}

// NewInstantQuery is part of ruler.Engine.
func (e notedRules) NewInstantQuery(ctx context.Context, from storage.Queryable, opts prometheus.QueryOpts, qs string, ts time.Time) (prometheus.Query, error) {
	q, err := e.promql.NewInstantQuery(ctx, from, opts, qs, ts)
	if err == nil {
		noteQuery(ctx, e.t, work.Rule, q)
	}
	return q, err
}

// noteQuery notes what a query names, for the tenants of ctx.
func noteQuery(ctx context.Context, t *usageinsights.Tracker, class work.Class, q prometheus.Query) {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return
	}
	t.Query(ids, class, q.String(), func() parser.Expr {
		if s, ok := q.Statement().(*parser.EvalStmt); ok {
			return s.Expr
		}
		return nil
	})
}

// notedLookups is a storage with notes of what series, labels and samples are looked up by.
type notedLookups struct {
	storage.SampleAndChunkQueryable
	exemplars storage.ExemplarQueryable
	t         *usageinsights.Tracker
}

func (s notedLookups) note(ctx context.Context, label string, ms []*labels.Matcher) {
	if ids, err := tenant.Many(ctx); err == nil {
		s.t.Lookup(ids, work.ClassOf(ctx), label, ms)
	}
}

// Querier implements storage.Queryable.
func (s notedLookups) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.SampleAndChunkQueryable.Querier(mint, maxt)
	return notedQuerier{q, s}, err
}

// ChunkQuerier implements storage.ChunkQueryable.
func (s notedLookups) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := s.SampleAndChunkQueryable.ChunkQuerier(mint, maxt)
	return notedChunks{q, s}, err
}

// ExemplarQuerier implements storage.ExemplarQueryable.
func (s notedLookups) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	q, err := s.exemplars.ExemplarQuerier(ctx)
	return notedExemplars{q, s, ctx}, err
}

type notedQuerier struct {
	storage.Querier
	by notedLookups
}

// Select implements storage.Querier.
func (q notedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	q.by.note(ctx, "", ms)
	return q.Querier.Select(ctx, sorted, hints, ms...)
}

// LabelValues implements storage.Querier.
func (q notedQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	q.by.note(ctx, name, ms)
	return q.Querier.LabelValues(ctx, name, hints, ms...)
}

// LabelNames implements storage.Querier.
func (q notedQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	q.by.note(ctx, "", ms)
	return q.Querier.LabelNames(ctx, hints, ms...)
}

type notedChunks struct {
	storage.ChunkQuerier
	by notedLookups
}

// Select implements storage.ChunkQuerier.
func (q notedChunks) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	q.by.note(ctx, "", ms)
	return q.ChunkQuerier.Select(ctx, sorted, hints, ms...)
}

type notedExemplars struct {
	storage.ExemplarQuerier
	by  notedLookups
	ctx context.Context // Select has none
}

// Select implements storage.ExemplarQuerier.
func (q notedExemplars) Select(start, end int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	for _, ms := range sets {
		q.by.note(q.ctx, "", ms)
	}
	return q.ExemplarQuerier.Select(start, end, sets...)
}

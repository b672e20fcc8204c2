package querier

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Executor does the work of frontends. It implements work.Runner.
type Executor struct {
	Engine  promql.QueryEngine
	Storage storage.Queryable
	API     http.Handler // of the requests that are no queries
	// Changes returns what became other of the data of the tenants of a context. nil: nobody knows.
	Changes func(context.Context) (changes.Log, error)
	// Durations are by method, route, status_code and ws. nil: they are not measured.
	Durations *prometheus.HistogramVec
	// Activity is told of the requests under way that are no queries, of which the engine tells. nil: nobody is.
	Activity *activity.Tracker
}

// Run implements work.Runner.
func (e *Executor) Run(ctx context.Context, w *work.Work) error {
	ctx = work.WithClass(ctx, w.Class)
	began, t := time.Now(), timingOf(w)
	var err error
	if w.Query != nil {
		err = e.query(reading(ctx, w.Query.Reading), w)
	} else {
		err = e.serve(reading(ctx, work.ReadingFor(w.Request)), w, t)
	}
	if e.Durations != nil {
		e.Durations.WithLabelValues(t.method, t.route, t.code(err), "false").Observe(time.Since(began).Seconds())
	}
	return err
}

type begunKey struct{}

// reading returns ctx for work that reads as r says, and begins now.
func reading(ctx context.Context, r work.Reading) context.Context {
	if r.Latest {
		ctx = context.WithValue(ctx, begunKey{}, time.Now())
	}
	return work.WithReading(ctx, r)
}

// begun returns when the work of ctx began, if the bucket index must be as new as that.
func begun(ctx context.Context) time.Time {
	t, _ := ctx.Value(begunKey{}).(time.Time)
	return t
}

// serve answers a request of the read API. A handler that cuts its answer on purpose panics.
func (e *Executor) serve(ctx context.Context, w *work.Work, t *timing) (err error) {
	ctx, done := e.Activity.Begin(ctx, "work "+w.Request.URL.Path, func() string { return activity.Asked(w.Request.URL.Query()) })
	defer done() // also when a handler panics
	defer func() {
		p := recover()
		if broken, ok := p.(error); ok && errors.Is(broken, http.ErrAbortHandler) {
			err = errs.New(errs.Internal, "the answer broke off")
		} else if p != nil {
			panic(p)
		}
	}()
	rw, end := w.ResponseWriter()
	if w.Request.URL.Path == changes.Path {
		t.route = "changes"
		if err := e.serveChanges(ctx, rw); err != nil {
			return err
		}
		return end()
	}
	r := w.Request.WithContext(ctx)
	defer func() { t.served(r.Pattern) }()
	e.API.ServeHTTP(statusWriter{rw, t}, r)
	return end()
}

func (e *Executor) query(ctx context.Context, w *work.Work) error {
	q := w.Query
	source := e.Storage
	var selected atomic.Int64
	ctx, fetched := countFetched(ctx)
	if q.ShardCount > 0 {
		if q.ShardIndex >= q.ShardCount {
			return errs.New(errs.Invalid, "shard %d of %d does not exist", q.ShardIndex, q.ShardCount)
		}
		source = sharded{source, uint64(q.ShardIndex), uint64(q.ShardCount), &selected}
	}
	opts := promql.NewPrometheusQueryOpts(q.PerStepStats, q.Lookback)
	start, end := timestamp.Time(q.Start), timestamp.Time(q.End)
	var prepared promql.Query
	var err error
	if q.Step == 0 {
		prepared, err = e.Engine.NewInstantQuery(ctx, source, opts, q.Text, start)
	} else {
		prepared, err = e.Engine.NewRangeQuery(ctx, source, opts, q.Text, start, end, time.Duration(q.Step)*time.Millisecond)
	}
	if err != nil {
		return err
	}
	res := prepared.Exec(ctx)
	if res.Err != nil {
		prepared.Close()
		return res.Err
	}
	out := work.NewResult(res.Value, res.Warnings, prepared.Close)
	out.Series = selected.Load()
	out.Fetched = work.Fetched{Ingesters: fetched.ingesters.Load(), StoreGateways: fetched.blocks.Load()}
	if s := prepared.Stats(); s != nil && s.Samples != nil {
		out.Samples = *s.Samples
	}
	return w.Answer(out)
}

// sharded selects the series of one shard.
type sharded struct {
	storage.Queryable
	index, count uint64
	selected     *atomic.Int64 // series
}

// Querier implements storage.Queryable.
func (s sharded) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return shardedQuerier{q, s}, err
}

type shardedQuerier struct {
	storage.Querier
	shard sharded
}

// Select implements storage.Querier.
func (q shardedQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	var h storage.SelectHints
	if hints != nil {
		h = *hints
	}
	h.ShardIndex, h.ShardCount = q.shard.index, q.shard.count
	return countedSet{q.Querier.Select(ctx, sorted, &h, matchers...), q.shard.selected}
}

// countedSet counts the series that are read.
type countedSet struct {
	storage.SeriesSet
	n *atomic.Int64
}

// Next implements storage.SeriesSet.
func (s countedSet) Next() bool {
	more := s.SeriesSet.Next()
	if more {
		s.n.Add(1)
	}
	return more
}

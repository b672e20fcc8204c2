package frontend

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// query is a prepared query. It implements promql.Query.
type query struct {
	f       *Frontend
	asked   work.Query
	expr    parser.Expr
	tenants []tenant.ID
	cancel  context.CancelFunc
	run     *run
	laid    atomic.Pointer[run] // run once it is there, for those who list queries
	took    time.Duration
	parts   int
	timers  *stats.QueryTimers
	nested  bool   // it is a part of another
	spun    int    // parts that are queries of their own
	trace   *trace // nil: it is not explained
}

func (f *Frontend) prepare(ctx context.Context, opts promql.QueryOpts, asked work.Query) (promql.Query, error) {
	expr, err := f.deps.Engine.ParseExpr(ctx, asked.Text)
	if err != nil {
		return nil, err
	}
	if t := expr.Type(); asked.Step > 0 && t != parser.ValueTypeVector && t != parser.ValueTypeScalar {
		return nil, errs.New(errs.Invalid, "invalid expression type %q for range query, must be Scalar or instant Vector", parser.DocumentedType(t))
	}
	ids, err := tenant.Many(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.rules.check(ctx, asked.Text, expr); err != nil {
		f.metrics.refused.WithLabelValues(errs.KindOf(err).String()).Inc()
		return nil, err
	}
	if opts != nil {
		asked.Lookback, asked.PerStepStats = opts.LookbackDelta(), opts.EnablePerStepStats()
	}
	if err := f.checkDurations(ctx, expr, asked); err != nil {
		return nil, err
	}
	asked.Reading = work.ReadingOf(ctx)
	q := &query{f: f, asked: asked, expr: expr, tenants: ids, timers: stats.NewQueryTimers()}
	if asked.Step > 0 && every(q, limits.AlignQueriesWithStep) {
		q.asked.Start -= q.asked.Start % q.asked.Step
		q.asked.End -= q.asked.End % q.asked.Step
	}
	return q, nil
}

// checkDurations refuses calculated durations that are none at the times of the query: what queriers find, a
// client would not know from an error of the evaluation. Errors: Invalid.
func (f *Frontend) checkDurations(ctx context.Context, expr parser.Expr, asked work.Query) error {
	if !unsafe(expr) {
		return nil
	}
	expr, err := f.deps.Engine.ParseExpr(ctx, asked.Text) // to be used up
	if err != nil {
		return err
	}
	_, err = promql.PreprocessExpr(expr, timestamp.Time(asked.Start), timestamp.Time(asked.End), time.Duration(asked.Step)*time.Millisecond)
	return errs.Wrap(errs.Invalid, err)
}

// least is the smallest limit of the tenants of q; 0 is no limit.
func least(q *query, key limits.Key[int]) int {
	most := 0
	for _, id := range q.tenants {
		if n := key.Of(q.f.deps.Limits(id)); n > 0 && (most == 0 || n < most) {
			most = n
		}
	}
	return most
}

// every says whether all tenants of q have a limit.
func every(q *query, key limits.Key[bool]) bool {
	for _, id := range q.tenants {
		if !key.Of(q.f.deps.Limits(id)) {
			return false
		}
	}
	return true
}

// Exec implements promql.Query. It must be called once.
func (q *query) Exec(ctx context.Context) *promql.Result {
	f := q.f
	ctx, stop := context.WithCancelCause(ctx)
	q.cancel = func() { stop(context.Canceled) }
	begin := f.deps.Now()
	id := f.running.add(Running{Tenants: q.tenants, Class: work.ClassOf(ctx).String(), Query: q.asked.Text, Since: begin}, q, stop)
	defer f.running.remove(id) // also of a query that panics
	f.metrics.running.Inc()
	defer f.metrics.running.Dec()
	timer, ctx := q.timers.GetSpanTimer(ctx, stats.ExecTotalTime)
	q.lay(ctx)
	q.laid.Store(q.run)
	out, err := q.answer(ctx)
	timer.Finish()
	if err != nil {
		err = ended(ctx, err, promql.ErrQueryTimeout("expression evaluation"))
	}
	q.took = f.deps.Now().Sub(begin)
	q.report(ctx, err)
	if err != nil {
		return &promql.Result{Err: err}
	}
	return &promql.Result{Value: out.value, Warnings: out.notes}
}

// ended is err as those who asked are told. What a query was at when somebody stopped it tells nothing; and
// who notices first that its time is over, and how that is worded there, must not matter: it is told as late.
func ended(ctx context.Context, err, late error) error {
	if cause := context.Cause(ctx); errs.KindOf(cause) == errs.Unprocessable {
		return cause
	}
	end, ok := ctx.Deadline()
	if !ok || time.Until(end) > 0 || errors.Is(ctx.Err(), context.Canceled) || strings.Contains(err.Error(), promql.ErrQueryTimeout("").Error()) {
		return err
	}
	if kind := errs.KindOf(err); kind != errs.Timeout && kind != errs.Canceled {
		return err
	}
	return errs.Wrap(errs.Timeout, late)
}

// answer has q answered, by its error of a moment ago if that is kept.
func (q *query) answer(ctx context.Context) (answer, error) {
	if q.run.kept = q.keep(ctx); q.run.kept != nil {
		q.run.kept.r = q.run
	}
	return q.failing(ctx, func() (answer, error) { return q.run.whole(ctx, q.ranges()) })
}

// interval is the length of the parts that the time of q is split into.
func (q *query) interval() int64 {
	if i := q.f.cfg.SplitInterval; i > 0 || q.f.deps.Results == nil {
		return i.Milliseconds()
	}
	return cachedDay.Milliseconds()
}

// ranges are the parts of the time that q is about.
func (q *query) ranges() []grid {
	all := grid{q.asked.Start, q.asked.End, q.asked.Step}
	parts := []grid{all}
	if splittable(q.expr) && len(parser.ExtractSelectors(q.expr)) > 0 {
		parts = split(all, q.interval())
	}
	return parts
}

// lay decides into which parts q falls.
func (q *query) lay(ctx context.Context) {
	q.run = &run{q: q, plan: whole(q.asked.Text), slots: make(chan struct{}, max(1, least(q, limits.MaxQueryParallelism)))}
	q.parts = len(q.ranges())
	if p, ok := q.spin(ctx); ok && !q.asked.Partial {
		q.run.plan, q.spun = p, len(p.leaves)
		return
	}
	shards := least(q, limits.QueryShardingTotalShards)
	if !q.f.cfg.Shard || shards < 2 {
		return
	}
	if q.asked.Partial { // what one part lacks, another, which is computed with it, may have
		return
	}
	parse := func(text string) (parser.Expr, error) { return q.f.deps.Engine.ParseExpr(ctx, text) }
	p := takeApart(q.expr, q.asked.Text, least(q, limits.QueryShardingMaxRegexpSize), parse)
	works := 0
	for _, l := range p.leaves {
		if l.merge != 0 {
			works++
		}
		if l.count != "" {
			works++
		}
	}
	if most := least(q, limits.QueryShardingMaxShardedQueries); most > 0 && works > 0 {
		shards = min(shards, most/(works*q.parts))
	}
	shards = q.f.seen.shards(q.key(), shards, q.f.cfg.SeriesPerShard, q.f.deps.Now())
	if works == 0 || shards < 2 {
		return
	}
	q.run.plan, q.run.shards = p, shards
}

// key is what the number of series of q is remembered by.
func (q *query) key() string {
	key := ""
	for _, id := range q.tenants {
		key += string(id) + "|"
	}
	return key + q.asked.Text
}

// report counts and logs what became of q.
func (q *query) report(ctx context.Context, err error) {
	f, class := q.f, work.ClassOf(ctx).String()
	outcome := "success"
	if err != nil {
		outcome = errs.KindOf(err).String()
	}
	f.metrics.queries.WithLabelValues(class, outcome).Inc()
	f.metrics.seconds.WithLabelValues(class).Add(q.took.Seconds())
	f.metrics.works.WithLabelValues("split").Add(float64(q.parts))
	if q.run.shards > 0 {
		f.metrics.works.WithLabelValues("sharded").Add(float64(q.run.works))
	}
	f.metrics.works.WithLabelValues("spun_off").Add(float64(q.spun))
	f.metrics.unmerged.Add(float64(q.run.again))
	q.tell(ctx, outcome)
	slow := f.cfg.LogLongerThan > 0 && q.took > f.cfg.LogLongerThan
	if !slow && !f.cfg.QueryStats {
		return
	}
	level, text := slog.LevelInfo, "query stats"
	if slow {
		level, text = slog.LevelWarn, "query was slow"
	}
	names := make([]string, len(q.tenants))
	for i, id := range q.tenants {
		names[i] = string(id)
	}
	f.deps.Logger.Log(context.WithoutCancel(ctx), level, text, "tenants", names, "class", class, "query", q.asked.Text,
		"start", q.asked.Start, "end", q.asked.End, "step", q.asked.Step, "status", outcome, "err", err, "response_time", q.took,
		"results_cache_hit_bytes", q.run.kept.hits()+q.run.spunBytes, "results_cache_miss_bytes", q.run.kept.misses(),
		"split_queries", q.parts, "shards", q.run.shards, "parts", q.run.works, "samples_processed", q.run.samples.TotalSamples, "peak_samples", q.run.samples.PeakSamples, "fetched_chunk_bytes", q.run.fetched.Total())
}

// ServerTiming is what q took, for the header Server-Timing.
func (q *query) ServerTiming() string {
	if q.run == nil {
		return ""
	}
	n := func(name string, v int64) string { return ", " + name + ";val=" + strconv.FormatInt(v, 10) }
	return responseTime(q.took) +
		n("samples_processed", q.run.samples.TotalSamples) + n("bytes_processed", q.run.fetched.Total()) + n("split_queries", int64(q.parts)) + n("sharded_queries", int64(q.run.shards)) + n("queries", int64(q.run.works)) + n("results_cache_hit_bytes", int64(q.run.kept.hits()+q.run.spunBytes))
}

// Close implements promql.Query: the result must not be used any more.
func (q *query) Close() {
	if q.run != nil {
		q.run.release()
	}
	if q.cancel != nil {
		q.cancel()
	}
}

// Statement implements promql.Query.
func (q *query) Statement() parser.Statement {
	return &parser.EvalStmt{Expr: q.expr, Start: timestamp.Time(q.asked.Start), End: timestamp.Time(q.asked.End),
		Interval: time.Duration(q.asked.Step) * time.Millisecond, LookbackDelta: q.asked.Lookback}
}

// Stats implements promql.Query.
func (q *query) Stats() *stats.Statistics {
	s := &stats.Statistics{Timers: q.timers, Samples: &stats.QuerySamples{}}
	if q.run != nil {
		s.Samples = &q.run.samples
	}
	return s
}

// Cancel implements promql.Query.
func (q *query) Cancel() {
	if q.cancel != nil {
		q.cancel()
	}
}

// String implements promql.Query.
func (q *query) String() string { return q.asked.Text }

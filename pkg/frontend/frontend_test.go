package frontend

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// plain is the stock engine as an Engine.
type plain struct {
	promql.QueryEngine
	parser parser.Parser
}

func (p plain) ParseExpr(_ context.Context, qs string) (parser.Expr, error) {
	e, err := p.parser.ParseExpr(qs)
	return e, errs.Wrap(errs.Invalid, err)
}

func stock(t testing.TB) plain {
	t.Helper()
	p := parser.NewParser(parser.Options{EnableExperimentalFunctions: true})
	return plain{promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, Parser: p, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }}), p}
}

// queriers answers work from one storage, and passes the answers through their encoding.
type queriers struct {
	engine promql.QueryEngine
	db     storage.Queryable
	works  chan work.Query // what was asked, if there is room
	fail   func(work.Query) error
}

func (q *queriers) Run(ctx context.Context, w *work.Work) error {
	select {
	case q.works <- *w.Query:
	default:
	}
	if q.fail != nil {
		if err := q.fail(*w.Query); err != nil {
			return err
		}
	}
	source := q.db
	if w.Query.ShardCount > 0 {
		source = shardOf{q.db, uint64(w.Query.ShardIndex), uint64(w.Query.ShardCount)}
	}
	var p promql.Query
	var err error
	opts := promql.NewPrometheusQueryOpts(w.Query.PerStepStats, w.Query.Lookback)
	if w.Query.Step == 0 {
		p, err = q.engine.NewInstantQuery(ctx, source, opts, w.Query.Text, timestamp.Time(w.Query.Start))
	} else {
		p, err = q.engine.NewRangeQuery(ctx, source, opts, w.Query.Text, timestamp.Time(w.Query.Start), timestamp.Time(w.Query.End), time.Duration(w.Query.Step)*time.Millisecond)
	}
	if err != nil {
		return err
	}
	res := p.Exec(ctx)
	if res.Err != nil {
		return res.Err
	}
	remote := &work.Work{Query: w.Query, Parts: func(p *querypb.Part) error { return w.Deliver(p) }}
	out := work.NewResult(res.Value, res.Warnings, p.Close)
	out.Fetched = fetchedInTests
	if err := remote.Answer(out); err != nil {
		return err
	}
	return w.Delivered()
}

// fetchedInTests is what each piece of work fetches.
var fetchedInTests = work.Fetched{Ingesters: 100, StoreGateways: 20}

// shardOf is a storage that has the series of one shard.
type shardOf struct {
	storage.Queryable
	index, count uint64
}

func (s shardOf) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return shardQuerier{q, s}, err
}

type shardQuerier struct {
	storage.Querier
	s shardOf
}

func (q shardQuerier) Select(ctx context.Context, sorted bool, h *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return &shardSet{q.Querier.Select(ctx, sorted, h, ms...), q.s}
}

type shardSet struct {
	storage.SeriesSet
	s shardOf
}

func (s *shardSet) Next() bool {
	for s.SeriesSet.Next() {
		if labels.StableHash(s.SeriesSet.At().Labels())%s.s.count == s.s.index {
			return true
		}
	}
	return false
}

// filled is a storage with counters, gauges, classic and native histograms over three days, with gaps
// and stale ends.
func filled(t testing.TB) storage.Storage {
	t.Helper()
	db := teststorage.New(t)
	rng := rand.New(rand.NewPCG(1, 2))
	app := db.Appender(t.Context())
	const step, n = 300_000, 3 * 288
	put := func(ls labels.Labels, value func(i int) float64) {
		gap := rng.IntN(n)
		for i := range n {
			if i >= gap && i < gap+20 {
				continue
			}
			if _, err := app.Append(0, ls, int64(i)*step+int64(rng.IntN(2000)), value(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for job := range 3 {
		for inst := range 4 {
			base := []string{"job", fmt.Sprint("j", job), "instance", fmt.Sprint("i", inst)}
			total := 0.0
			put(labels.FromStrings(append([]string{"__name__", "requests_total"}, base...)...), func(int) float64 {
				if total += rng.Float64() * 100; rng.IntN(200) == 0 {
					total = 0
				}
				return total
			})
			put(labels.FromStrings(append([]string{"__name__", "temperature"}, base...)...), func(i int) float64 { return 20*math.Sin(float64(i)/30) + rng.Float64() })
			sums := make([]float64, 4)
			for k, le := range []string{"0.1", "1", "10", "+Inf"} {
				put(labels.FromStrings(append([]string{"__name__", "latency_bucket", "le", le}, base...)...), func(int) float64 {
					sums[k] += float64((k + 1) * 3)
					return sums[k]
				})
			}
			if inst == 0 {
				for i := range n {
					h := tsdbutil.GenerateTestFloatHistogram(int64(i + job))
					h.CounterResetHint = histogram.UnknownCounterReset
					if _, err := app.AppendHistogram(0, labels.FromStrings("__name__", "native", "job", fmt.Sprint("j", job)), int64(i)*step, nil, h); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	return db
}

func started(t testing.TB, cfg Config, q *queriers, view limits.View) *Frontend {
	t.Helper()
	if cfg.MaxRetries == 0 {
		cfg.MaxRetries = 3
	}
	f, err := New(cfg, Deps{Logger: slog.New(slog.DiscardHandler), Limits: func(tenant.ID) limits.View { return view }, Engine: stock(t), Run: q})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// asking makes a range of queries out of a grammar.
type asking struct{ rng *rand.Rand }

func (a asking) pick(of ...string) string { return of[a.rng.IntN(len(of))] }

func (a asking) selector() string {
	return a.pick("requests_total", "temperature", "latency_bucket", "native", `requests_total{job=~"j[01]"}`, `temperature{instance!="i2"}`, `{__name__=~"requests_total|temperature"}`,
		"temperature offset 1h", "requests_total @ 90000", "temperature @ end()")
}

func (a asking) series() string {
	switch a.rng.IntN(7) {
	case 0:
		return a.selector()
	case 1:
		return a.pick("rate", "increase", "irate", "delta") + "(" + a.pick("requests_total", "latency_bucket", "native", `requests_total{job="j1"}`) + a.pick("[15m]", "[2h]", "[20m] offset 30m") + ")"
	case 2:
		return a.pick("max_over_time", "avg_over_time", "last_over_time", "count_over_time") + "(" + a.pick("temperature", "requests_total") + "[1h])"
	case 3:
		return a.pick("abs", "ceil", "-", "sgn", "") + "(" + a.series() + ")"
	case 4:
		return "(" + a.series() + a.pick(" * 2", " > 3", " + time()", " > bool 1", " / 0") + ")"
	case 5:
		return "max_over_time(rate(requests_total[15m])[1h:10m])"
	}
	return a.selector()
}

func (a asking) grouped() string {
	op := a.pick("sum", "count", "min", "max", "group", "avg", "stddev")
	by := a.pick("", " by (job)", " by (job, le)", " without (instance)", " by (__name__)", " without (le)")
	if a.rng.IntN(2) == 0 {
		return op + "(" + a.series() + ")" + by
	}
	return op + by + " (\n  " + a.series() + ")"
}

func (a asking) query() string {
	switch a.rng.IntN(9) {
	case 0:
		return a.grouped() + a.pick(" + ", " / ", " or ", " and ", " unless ", " == ") + a.grouped()
	case 1:
		return "histogram_quantile(" + a.pick("0.5", "0.99", "2") + ", sum by (le, job) (rate(latency_bucket[20m])))"
	case 2:
		return a.pick("topk", "bottomk") + "(2, " + a.grouped() + ")"
	case 3:
		return a.pick("sort_desc", "abs", "ceil", "-", "absent", "scalar", "timestamp") + "(" + a.grouped() + ")"
	case 4:
		return "sum(" + a.grouped() + ") by (job)"
	case 5:
		return a.grouped() + " * on (job) group_left () " + a.grouped()
	case 6:
		return "max_over_time((" + a.grouped() + ")[30m:5m])"
	case 7:
		return `label_replace(` + a.grouped() + `, "x", "$1", "job", "j(.*)")`
	}
	return a.grouped()
}

// TestSplitAndShardedQueriesAnswerAsOneEngineDoes compares generated queries with the stock engine
// over the same storage, values, errors and warnings.
func TestSplitAndShardedQueriesAnswerAsOneEngineDoes(t *testing.T) {
	n := 1500
	if testing.Short() {
		n = 250
	}
	db, engine := filled(t), stock(t)
	split := started(t, Config{SplitInterval: 24 * time.Hour}, &queriers{engine: engine, db: db}, limits.View{})
	sharded := started(t, Config{SplitInterval: 24 * time.Hour, Shard: true}, &queriers{engine: engine, db: db}, limits.QueryShardingTotalShards.With(limits.View{}, 3))
	ctx := tenant.Inject(t.Context(), "a")
	a := asking{rand.New(rand.NewPCG(3, 4))}
	parted := 0
	for i := range n {
		qs := a.query()
		start := timestamp.Time(int64(a.rng.IntN(60)) * 3_600_000)
		end, step := start.Add(time.Duration(a.rng.IntN(30))*time.Hour), time.Duration(1+a.rng.IntN(40))*time.Minute
		if i%7 == 0 { // ranges shorter than their step, and parts of one step
			end, step = start.Add(time.Duration(a.rng.IntN(120))*time.Minute), time.Duration(1+a.rng.IntN(120))*time.Minute
		}
		ask := func(e promql.QueryEngine) (*promql.Result, promql.Query) {
			var q promql.Query
			var err error
			if i%3 == 0 {
				q, err = e.NewInstantQuery(ctx, db, nil, qs, start)
			} else {
				q, err = e.NewRangeQuery(ctx, db, nil, qs, start, end, step)
			}
			if err != nil {
				return &promql.Result{Err: err}, nil
			}
			return q.Exec(ctx), q
		}
		want, _ := ask(engine)
		for name, f := range map[string]*Frontend{"split": split, "sharded": sharded} {
			got, q := ask(f)
			if q, ok := q.(*query); ok && q.run.shards > 0 {
				parted++
			}
			if diff := difference(qs, got, want); diff != "" {
				t.Fatalf("%s: %s\nfrom %s to %s step %s:\n%s", name, qs, start.UTC(), end.UTC(), step, diff)
			}
		}
	}
	if parted < n/3 {
		t.Errorf("only %d of %d queries were sharded", parted, n)
	}
}

// difference says how two results differ; empty: not at all.
func difference(qs string, got, want *promql.Result) string {
	if (got.Err == nil) != (want.Err == nil) {
		return fmt.Sprintf("error %v, want %v", got.Err, want.Err)
	}
	if want.Err != nil {
		return ""
	}
	gw, gi := got.Warnings.AsStrings(qs, 0, 0)
	ww, wi := want.Warnings.AsStrings(qs, 0, 0)
	if a, b := sorted(gw, gi), sorted(ww, wi); a != b {
		return fmt.Sprintf("warnings\n%s\nwant\n%s", a, b)
	}
	g, w := points(got.Value), points(want.Value)
	if len(g) != len(w) {
		return fmt.Sprintf("%d points, want %d\n%.2000s\nwant\n%.2000s", len(g), len(w), got.Value, want.Value)
	}
	if strings.Contains(qs, "topk") || strings.Contains(qs, "bottomk") {
		return "" // which of several equal series it is is anybody's guess
	}
	for k, x := range w {
		if y, ok := g[k]; !ok || !x.like(y) {
			return fmt.Sprintf("%s = %v, want %v", k, g[k], x)
		}
	}
	return ""
}

func sorted(lists ...[]string) string {
	var all []string
	for _, text := range slices.Concat(lists...) {
		// What the engine counts here doubles each time that annotations are merged.
		before, _, _ := strings.Cut(text, ", from buckets")
		all = append(all, before)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}

type point struct {
	f float64
	h *histogram.FloatHistogram
}

func (p point) like(o point) bool {
	if (p.h == nil) != (o.h == nil) {
		return false
	}
	if p.h != nil {
		return near(p.h.Count, o.h.Count) && near(p.h.Sum, o.h.Sum)
	}
	return near(p.f, o.f)
}

// near allows for another order of additions. In differences of values around time(), of which stddev makes
// some, the last digit of 100,000 is left.
func near(a, b float64) bool {
	return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= max(1e-9*max(math.Abs(a), math.Abs(b)), 1e-10)
}

func points(v parser.Value) map[string]point {
	out := map[string]point{}
	switch v := v.(type) {
	case promql.Scalar:
		out["scalar"] = point{f: v.V}
	case promql.Vector:
		for _, s := range v {
			out[fmt.Sprint(s.Metric, s.T)] = point{s.F, s.H}
		}
	case promql.Matrix:
		for _, s := range v {
			for _, p := range s.Floats {
				out[fmt.Sprint(s.Metric, p.T)] = point{f: p.F}
			}
			for _, p := range s.Histograms {
				out[fmt.Sprint(s.Metric, p.T)] = point{h: p.H}
			}
		}
	}
	return out
}

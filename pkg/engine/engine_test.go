package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

func defaults() Config {
	var c Config
	config.NewSet().Mount("querier", &c)
	return c
}

func open(t testing.TB, cfg Config) *Engine {
	t.Helper()
	e, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// permissive lets every query use everything, as the scripts of Prometheus do.
type permissive struct{ *Engine }

func (p permissive) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	return p.Engine.NewInstantQuery(Allow(ctx, "all"), q, o, qs, ts)
}

func (p permissive) NewRangeQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return p.Engine.NewRangeQuery(Allow(ctx, "all"), q, o, qs, start, end, step)
}

func TestPrometheusOwnScriptsPass(t *testing.T) {
	e, err := newEngine(defaults(), promql.EngineOpts{EnableDelayedNameRemoval: true, UseStartTimestamps: true})
	if err != nil {
		t.Fatal(err)
	}
	promqltest.RunBuiltinTests(t, permissive{e})
}

func nested(n int, open, inner, close string) string {
	return strings.Repeat(open, n) + inner + strings.Repeat(close, n)
}

func doubling(n int, f string) string {
	return nested(n, f+"(", `vector(1)`, map[string]string{
		"label_replace": `, "a", "$1$1", "a", "(.*)")`,
		"label_join":    `, "a", "", "a", "a")`,
	}[f])
}

func TestHostileExpressionsAreRefusedAtOnce(t *testing.T) {
	e := open(t, defaults())
	seed := `label_replace(vector(1), "a", "x", "", "")`
	for name, c := range map[string]struct {
		qs   string
		kind errs.Kind
	}{
		"a century of milliseconds":   {`count_over_time(vector(1)[100y:1ms])`, errs.TooLarge},
		"as it is":                    {`vector(1)[100y:1ms]`, errs.TooLarge},
		"in parentheses":              {`((count_over_time((vector(1))[100y:1ms])))`, errs.TooLarge},
		"fixed in time":               {`count_over_time(vector(1)[100y:1ms] @ 5)`, errs.TooLarge},
		"nested subqueries":           {`sum_over_time(sum_over_time(sum_over_time(vector(1)[1d:1s])[1d:1s])[1d:1s])`, errs.TooLarge},
		"many subqueries":             {strings.Repeat(`sum_over_time(sum_over_time(vector(1)[1h:100ms])[1h:200ms]) + `, 100) + "1", errs.TooLarge},
		"25 doubling label_replace":   {strings.ReplaceAll(doubling(25, "label_replace"), "vector(1)", seed), errs.TooLarge},
		"25 doubling label_join":      {strings.ReplaceAll(doubling(25, "label_join"), "vector(1)", seed), errs.TooLarge},
		"doubling across names":       {nested(12, `label_replace(label_replace(`, seed, `, "b", "$x${x}", "a", "(?P<x>.*)"), "a", "$0", "b", "(.*)")`), errs.TooLarge},
		"doubling behind operators":   {nested(12, `(label_join(`, seed, `, "a", "", "a", "a") or vector(2))`), errs.TooLarge},
		"100,000 parentheses":         {nested(100_000, "(", "1", ")"), errs.Invalid},
		"100,000 open ones":           {strings.Repeat("(", 100_000), errs.Invalid},
		"1,000 functions":             {nested(1000, "abs(", "vector(1)", ")"), errs.Invalid},
		"100,000 signs":               {strings.Repeat("-", 100_000) + "1", errs.Invalid},
		"100,000 terms":               {strings.Repeat("1+", 100_000) + "1", errs.Invalid},
		"100,000 powers":              {strings.Repeat("1^", 100_000) + "1", errs.Invalid},
		"501 terms":                   {strings.Repeat("up or ", maxDepth) + "up", errs.Invalid},
		"signs of a series":           {strings.Repeat("-", maxOperators) + "x", errs.Invalid},
		"100,000 arguments":           {"label_join(x" + strings.Repeat(`,"a"`, 100_000) + ")", errs.Invalid},
		"100,000 matchers":            {"x{" + strings.Repeat(`a="b",`, 100_000) + "}", errs.Invalid},
		"100,000 labels":              {"sum by (" + strings.Repeat("a,", 100_000) + "a)(x)", errs.Invalid},
		"100,000 calculations":        {"rate(x[1m" + strings.Repeat("+1m", 100_000) + "])", errs.Invalid},
		"2 MiB":                       {`count_values("` + strings.Repeat("a", 2<<20) + `", x)`, errs.Invalid},
		"a duration out of range":     {`vector(1)[99999999999y:1s]`, errs.Invalid},
		"calculated steps":            {`count_over_time(vector(1)[100y * 1:1ms / 1])`, errs.TooLarge},
		"experimental without leave":  {`mad_over_time(x[5m])`, errs.Invalid},
		"a limit without leave":       {`limitk(1, x)`, errs.Invalid},
		"an anchored range, no leave": {`rate(x[5m] anchored)`, errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			q, err := e.NewInstantQuery(ctx, nothing{}, nil, c.qs, time.Unix(1700000000, 0))
			if err == nil {
				q.Close()
			}
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			if errs.KindOf(err) != c.kind {
				t.Errorf("got %.200v, want kind %v", err, c.kind)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
				t.Errorf("refusing allocated %d bytes", used)
			}
			if took > 30*time.Second { // hours, were it not refused
				t.Errorf("refusing took %s", took)
			}
		})
	}
}

func TestOrdinaryExpressionsAreNotRefused(t *testing.T) {
	e := open(t, defaults())
	for _, qs := range []string{
		`sum by (job) (rate(http_requests_total{code=~"5.."}[5m])) / sum by (job) (rate(http_requests_total[5m]))`,
		`max_over_time(sum(rate(x[5m]))[30d:1m])`,
		`quantile_over_time(0.99, max_over_time(rate(x[1m])[1h:15s])[7d:5m])`,
		`histogram_quantile(0.9, sum by (le) (rate(x_bucket[1h] @ end())))`,
		doubling(8, "label_replace"),
		nested(20, `label_replace(`, `up`, `, "a", "$1:$2", "a", "([^:]*):(.*)")`),
		`label_join(up, "all", "/", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j")`,
		nested(maxNesting, "(", "1", ")"),
		strings.Repeat("up or ", maxDepth-1) + "up",
	} {
		end := time.Unix(1700000000, 0)
		for _, w := range []window{{end, end, 0}, {end.Add(-24 * time.Hour), end, 10 * time.Second}} {
			if _, _, err := e.bounds.check(mustParse(t, e, qs), w); err != nil {
				t.Errorf("%.80s: %v", qs, err)
			}
		}
	}
	if _, err := e.NewRangeQuery(t.Context(), nothing{}, nil, "1", time.Unix(0, 0), time.Unix(1<<31, 0), time.Millisecond); errs.KindOf(err) != errs.TooLarge {
		t.Errorf("68 years of milliseconds: %v, want TooLarge", err)
	}
}

func TestTimesThatCannotBeSteppedThroughAreRefused(t *testing.T) {
	e := open(t, defaults())
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	const limit = int64(maxMillis / 1000)
	for name, c := range map[string]struct {
		start, end time.Time
		step       time.Duration
		kind       errs.Kind
	}{
		"step 0":            {at(0), at(10), 0, errs.Invalid},
		"below storage's":   {at(0), at(10), time.Microsecond, errs.Invalid},
		"backwards":         {at(10), at(0), time.Second, errs.Invalid},
		"the end of time":   {at(math.MaxInt64/1000 - 5), at(math.MaxInt64 / 1000), 5 * time.Second, errs.Invalid},
		"the first moment":  {at(math.MinInt64 / 1000), at(math.MinInt64/1000 + 5), 5 * time.Second, errs.Invalid},
		"beyond int64":      {at(math.MaxInt64 / 2), at(math.MaxInt64 / 2), time.Second, errs.Invalid},
		"all of it":         {at(-limit), at(limit), 5 * time.Second, errs.TooLarge},
		"over a Duration's": {at(-limit), at(limit), 365 * 24 * time.Hour, errs.TooLarge},
	} {
		_, err := e.NewRangeQuery(t.Context(), nothing{}, nil, "1", c.start, c.end, c.step)
		if errs.KindOf(err) != c.kind || err == nil {
			t.Errorf("%s: %v, want %v", name, err, c.kind)
		}
	}
	for _, end := range []time.Time{at(-limit), at(limit)} {
		q, err := e.NewRangeQuery(t.Context(), nothing{}, nil, `max_over_time(vector(1)[1h:1m] offset -200y)`, end, end, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if res := q.Exec(t.Context()); res.Err != nil {
			t.Errorf("%s: %v", end, res.Err)
		}
		q.Close()
	}
}

func TestSelectorsAreBoundedTogether(t *testing.T) {
	e := open(t, defaults())
	sets, err := e.ParseSelectors(t.Context(), []string{`up`, `{job=~"a|b"}`})
	if err != nil || fmt.Sprint(sets) != `[[__name__="up"] [job=~"a|b"]]` {
		t.Errorf("got %v, %v", sets, err)
	}
	if sets, err := e.ParseSelectors(t.Context(), nil); err != nil || len(sets) != 0 {
		t.Errorf("none: %v, %v", sets, err)
	}
	for name, c := range map[string]struct {
		texts []string
		want  string
	}{
		"not a selector":   {[]string{"up", "rate(up[5m])"}, "parse error"},
		"too many":         {slices.Repeat([]string{"up"}, maxSelectors+1), "501 selectors"},
		"too long":         {slices.Repeat([]string{strings.Repeat("a", 1<<19)}, 3), "bytes"},
		"too many regexps": {slices.Repeat([]string{"x{" + strings.Repeat(`a=~"b",`, 100) + "}"}, 100), "operators"},
		"too many equals":  {slices.Repeat([]string{"x{" + strings.Repeat(`a="b",`, 1000) + "}"}, 20), "commas"},
	} {
		if _, err := e.ParseSelectors(t.Context(), c.texts); errs.KindOf(err) != errs.Invalid || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %.200v, want Invalid and %q", name, err, c.want)
		}
	}
}

func TestLongAndDeepExpressionsAreNotLaidOut(t *testing.T) {
	e := open(t, defaults())
	for qs, kind := range map[string]errs.Kind{
		nested(150, "(", `count_values("`+strings.Repeat("a", 1<<20-1000)+`", x)`, ")"): errs.TooLarge,
		strings.Repeat("some_metric_name or ", maxDepth-1) + "up":                       errs.TooLarge,
		`count_values("` + strings.Repeat("a", 1<<20-1000) + `", x)`:                    errs.Internal,
		strings.Repeat("some_metric_name or ", 100) + "up":                              errs.Internal,
	} {
		began := time.Now()
		if out, err := e.Format(t.Context(), qs); errs.KindOf(err) != kind || (err == nil) == (out == "") {
			t.Errorf("%.60s: %v, want %v", qs, err, kind)
		}
		if took := time.Since(began); took > 30*time.Second { // hours, were they laid out
			t.Errorf("%.60s: took %s", qs, took)
		}
	}
}

func TestWhatOneListLacksIsNotAllowed(t *testing.T) {
	e := open(t, defaults())
	for _, c := range []struct {
		lists []string
		kind  errs.Kind
	}{{[]string{"limitk", "all"}, errs.Internal}, {[]string{"all", ""}, errs.Invalid}, {[]string{"limitk", "mad_over_time"}, errs.Invalid}, {nil, errs.Invalid}} {
		if _, err := e.ParseExpr(Allow(t.Context(), c.lists...), `limitk(1, x)`); errs.KindOf(err) != c.kind {
			t.Errorf("%q: %v, want %v", c.lists, err, c.kind)
		}
	}
}

func mustParse(t testing.TB, e *Engine, qs string) parser.Expr {
	t.Helper()
	expr, err := e.parse(t.Context(), qs)
	if err != nil {
		t.Fatalf("%.80s: %v", qs, err)
	}
	return expr
}

func TestExperimentalPartsNeedTheTenantsList(t *testing.T) {
	e := open(t, defaults())
	for qs, name := range map[string]string{
		`mad_over_time(x[5m])`: "mad_over_time", `limitk(1, x)`: "limitk",
		`rate(x[5m] smoothed)`: "extended_range_selectors", `a + fill(0) b`: "binop_fill_modifiers",
	} {
		if _, err := e.Format(t.Context(), qs); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want Invalid naming %s", qs, err, name)
		}
		for _, list := range []string{"all", "x, " + name} {
			if _, err := e.Format(Allow(t.Context(), list), qs); err != nil {
				t.Errorf("%s with %q: %v", qs, list, err)
			}
		}
	}
	for _, qs := range []string{`rate(x[5m * 2])`, `x offset -(1h)`, `max_over_time(x[1h:step() * 2])`} { // Prometheus has them without a flag
		if _, err := e.Format(t.Context(), qs); err != nil {
			t.Errorf("%s: %v", qs, err)
		}
	}
}

// nothing is a storage without series; with an error or a panic if set.
type nothing struct {
	err   error
	panic any
}

func (n nothing) Querier(int64, int64) (storage.Querier, error) { return n, nil }
func (n nothing) Close() error                                  { return nil }
func (n nothing) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, n.err
}
func (n nothing) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, n.err
}
func (n nothing) Select(ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	if n.panic != nil {
		panic(n.panic)
	}
	if n.err != nil {
		return storage.ErrSeriesSet(n.err)
	}
	return storage.EmptySeriesSet()
}

func TestErrorsHaveKinds(t *testing.T) {
	small := defaults()
	small.MaxSamples = 100
	late := defaults()
	late.Timeout = time.Nanosecond
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		cfg   Config
		q     nothing
		qs    string
		kind  errs.Kind
		error string
	}{
		"parse":       {t.Context(), defaults(), nothing{}, `sum(`, errs.Invalid, "parse error"},
		"type":        {t.Context(), defaults(), nothing{}, `"text"`, errs.Invalid, "invalid expression type"},
		"storage":     {t.Context(), defaults(), nothing{err: errs.New(errs.Unavailable, "no quorum")}, `up`, errs.Unavailable, "no quorum"},
		"denied":      {t.Context(), defaults(), nothing{err: errs.New(errs.Denied, "no")}, `up`, errs.Denied, "no"},
		"gone":        {t.Context(), defaults(), nothing{err: context.Canceled}, `up`, errs.Canceled, ""},
		"limit":       {t.Context(), defaults(), nothing{err: errs.New(errs.TooLarge, "too many series")}, `up`, errs.TooLarge, "too many series"},
		"panic":       {t.Context(), defaults(), nothing{panic: errors.New("boom")}, `up`, errs.Internal, "boom"},
		"panic text":  {t.Context(), defaults(), nothing{panic: "boom"}, `up`, errs.Internal, "boom"},
		"timeout":     {t.Context(), late, nothing{}, `up`, errs.Timeout, ""},
		"cancelled":   {ctx, defaults(), nothing{}, `up`, errs.Canceled, ""},
		"too many":    {t.Context(), small, nothing{}, `vector(1) or vector(2) or vector(3) or vector(4) + on() group_left vector(1)[:]`, errs.Invalid, ""},
		"of the data": {t.Context(), defaults(), nothing{}, `label_replace(vector(1), "a", "$1", "b", "(")`, errs.Unprocessable, "regular expression"},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, c.cfg)
			err := run(c.ctx, e, c.q, c.qs)
			if errs.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.error) {
				t.Errorf("got %v of kind %v, want %v", err, errs.KindOf(err), c.kind)
			}
		})
	}
}

func run(ctx context.Context, e *Engine, q storage.Queryable, qs string) error {
	end := time.Unix(1700000000, 0)
	qry, err := e.NewRangeQuery(ctx, q, nil, qs, end.Add(-time.Minute), end, 10*time.Second)
	if err != nil {
		return err
	}
	defer qry.Close()
	return qry.Exec(ctx).Err
}

func TestSamplesOverTheLimitAreTooLarge(t *testing.T) {
	cfg := defaults()
	cfg.MaxSamples = 100
	e := open(t, cfg)
	if err := run(t.Context(), e, nothing{}, strings.Repeat(`vector(1)+`, 3)+`1`); err != nil {
		t.Errorf("few samples: %v", err)
	}
	store := promqltest.LoadedStorage(t, "load 1s\n"+strings.Join(series(50), "\n"))
	qry, err := e.NewRangeQuery(t.Context(), store, nil, "m", time.Unix(0, 0), time.Unix(9, 0), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer qry.Close()
	if res := qry.Exec(t.Context()); errs.KindOf(res.Err) != errs.TooLarge {
		t.Errorf("500 samples over a limit of 100: %v, want TooLarge", res.Err)
	}
}

func series(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf(`  m{i="%d"} 0+1x20`, i))
	}
	return lines
}

func TestWaitingForASlotEndsWithTheContext(t *testing.T) {
	cfg := defaults()
	cfg.MaxConcurrent = 1
	e := open(t, cfg)
	entered, leave := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() { first <- run(t.Context(), e, &blocking{entered: entered, leave: leave}, "up") }()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := run(ctx, e, nothing{}, "1"); errs.KindOf(err) != errs.Timeout {
		t.Errorf("second query: %v, want Timeout", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Errorf("first query: %v", err)
	}
}

type blocking struct {
	nothing
	entered, leave chan struct{}
}

func (b *blocking) Querier(int64, int64) (storage.Querier, error) {
	close(b.entered)
	<-b.leave
	return b.nothing, nil
}

func TestFormatIsPrometheusOwn(t *testing.T) {
	e := open(t, defaults())
	got, err := e.Format(t.Context(), `sum   by(job)(rate( x{a = "b"}[5m] ))`)
	if want := `sum by (job) (rate(x{a="b"}[5m]))`; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestParseShowsTheTree(t *testing.T) {
	e := open(t, defaults())
	for qs, want := range map[string]string{
		`1`:                         `{"type":"numberLiteral","val":"1"}`,
		`-(2)`:                      `{"expr":{"expr":{"type":"numberLiteral","val":"2"},"type":"parenExpr"},"op":"-","type":"unaryExpr"}`,
		`"x"`:                       `{"type":"stringLiteral","val":"x"}`,
		`m{a!="b"} offset 1m @ 5`:   `{"anchored":false,"matchers":[{"name":"a","type":"!=","value":"b"},{"name":"__name__","type":"=","value":"m"}],"name":"m","offset":60000,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":5000,"type":"vectorSelector"}`,
		`m[5m] @ end()`:             `{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"m"}],"name":"m","offset":0,"offsetExpr":null,"range":300000,"rangeExpr":null,"smoothed":false,"startOrEnd":"end","timestamp":null,"type":"matrixSelector"}`,
		`topk(2, vector(1)) by (a)`: `{"expr":{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"},"grouping":["a"],"op":"topk","param":{"type":"numberLiteral","val":"2"},"type":"aggregation","without":false}`,
		`time()`:                    `{"args":[],"func":{"argTypes":[],"name":"time","returnType":"scalar","variadic":0},"type":"call"}`,
		`vector(1)[1h:]`:            `{"expr":{"args":[{"type":"numberLiteral","val":"1"}],"func":{"argTypes":["scalar"],"name":"vector","returnType":"vector","variadic":0},"type":"call"},"offset":0,"offsetExpr":null,"range":3600000,"rangeExpr":null,"startOrEnd":null,"step":0,"stepExpr":null,"timestamp":null,"type":"subquery"}`,
		`1 > bool 2`:                `{"bool":true,"lhs":{"type":"numberLiteral","val":"1"},"matching":null,"op":"\u003e","rhs":{"type":"numberLiteral","val":"2"},"type":"binaryExpr"}`,
	} {
		node, err := e.Tree(t.Context(), qs)
		if err != nil {
			t.Errorf("%s: %v", qs, err)
			continue
		}
		if got, err := json.Marshal(node); err != nil || string(got) != want {
			t.Errorf("%s:\n got %s, %v\nwant %s", qs, got, err, want)
		}
	}
}

func TestEveryScriptExpressionHasATree(t *testing.T) {
	e := open(t, defaults())
	exprs, err := promqltest.GetBuiltInExprs()
	if err != nil {
		t.Fatal(err)
	}
	for _, qs := range exprs {
		node, err := e.Tree(Allow(t.Context(), "all"), qs)
		if errs.KindOf(err) == errs.Internal && err != nil {
			t.Errorf("%s: %v", qs, err)
		}
		if _, err := json.Marshal(node); err != nil {
			t.Errorf("%s: %v", qs, err)
		}
	}
}

func FuzzAdmit(f *testing.F) {
	e, err := New(defaults(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, qs string) {
		if len(qs) > 1<<12 {
			return
		}
		end := time.Unix(1700000000, 0)
		q, err := e.NewRangeQuery(Allow(t.Context(), "all"), nothing{}, nil, qs, end.Add(-time.Hour), end, time.Minute)
		if errs.KindOf(err) == errs.Internal && err != nil {
			t.Fatalf("%q: %v", qs, err)
		}
		if err == nil {
			q.Close()
		}
		if _, err := e.Format(t.Context(), qs); errs.KindOf(err) == errs.Internal && err != nil {
			t.Fatalf("lay out %q: %v", qs, err)
		}
		if _, err := e.ParseSelectors(t.Context(), []string{qs, qs}); errs.KindOf(err) == errs.Internal && err != nil {
			t.Fatalf("selectors %q: %v", qs, err)
		}
	})
}

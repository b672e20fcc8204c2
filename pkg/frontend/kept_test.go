package frontend

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/frontend/results"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// changing is a storage whose past changes, and tells when it does.
type changing struct {
	mu     sync.Mutex // guards what follows
	series promql.Matrix
	log    changes.Log
	now    int64
}

func (c *changing) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.UnixMilli(c.now)
}

func (c *changing) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d.Milliseconds()
}

// put adds a sample, late or not.
func (c *changing) put(ls labels.Labels, t int64, v float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.series, func(s promql.Series) bool { return labels.Equal(s.Metric, ls) })
	if i < 0 {
		i = len(c.series)
		c.series = append(c.series, promql.Series{Metric: ls})
	}
	fs := slices.Clone(c.series[i].Floats)
	at, found := slices.BinarySearchFunc(fs, t, func(p promql.FPoint, t int64) int { return cmp.Compare(p.T, t) })
	if found {
		return
	}
	c.series[i].Floats = slices.Insert(fs, at, promql.FPoint{T: t, F: v})
	if t < c.now-60_000 {
		const width = 600_000
		c.log.Changes = append(c.log.Changes, changes.Change{MinTime: t / width * width, MaxTime: t/width*width + width - 1, At: c.now})
	}
}

// remove takes the samples of a series from mint to maxt away.
func (c *changing) remove(i int, mint, maxt int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.series[i%len(c.series)]
	s.Floats = slices.DeleteFunc(slices.Clone(s.Floats), func(p promql.FPoint) bool { return p.T >= mint && p.T <= maxt })
	c.log.Changes = append(c.log.Changes, changes.Change{MinTime: mint, MaxTime: maxt, At: c.now})
}

func (c *changing) changes(context.Context) (changes.Log, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return changes.Log{Time: c.now, Changes: slices.Clone(c.log.Changes)}, nil
}

// Querier implements storage.Queryable.
func (c *changing) Querier(mint, maxt int64) (storage.Querier, error) {
	return changingQuerier{c: c, mint: mint, maxt: maxt}, nil
}

type changingQuerier struct {
	embeddedQuerier
	c          *changing
	mint, maxt int64
}

// Select implements storage.Querier.
func (q changingQuerier) Select(_ context.Context, _ bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	q.c.mu.Lock()
	defer q.c.mu.Unlock()
	var out promql.Matrix
	for _, s := range q.c.series {
		if slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(s.Metric.Get(m.Name)) }) {
			continue
		}
		var fs []promql.FPoint
		for _, p := range s.Floats {
			if p.T >= q.mint && p.T <= q.maxt {
				fs = append(fs, p)
			}
		}
		out = append(out, promql.Series{Metric: s.Metric, Floats: fs})
	}
	sortMatrix(out)
	return &embeddedSet{series: out, at: -1}
}

// caching is a frontend with a results cache over c.
func caching(t testing.TB, c *changing, cfg Config, view limits.View) (*Frontend, *queriers) {
	t.Helper()
	q := &queriers{engine: stock(t), db: c}
	f := started(t, cfg, q, view)
	f.deps.Now, f.deps.Changes, f.deps.Lookback = c.time, c.changes, 5*time.Minute
	f.deps.Results = results.New(results.NewMemory(64<<20, nil, prometheus.NewRegistry()), 4<<20, prometheus.NewRegistry())
	f.rules.now = c.time
	return f, q
}

// TestAnswersFromTheCacheAreThoseOfNow asks overlapping windows over and over, while samples come, some
// of them late, and others are deleted.
func TestAnswersFromTheCacheAreThoseOfNow(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 12
	}
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 99))
		c := &changing{now: 3 * 86_400_000}
		view := limits.CacheUnalignedRequests.With(limits.View{}, true)
		f, _ := caching(t, c, Config{SplitInterval: 24 * time.Hour, Shard: seed == 1}, limits.QueryShardingTotalShards.With(view, 3))
		engine := stock(t)
		write := func(from, to int64) {
			for i := range 6 {
				ls := labels.FromStrings("__name__", []string{"requests_total", "temperature"}[i%2], "job", fmt.Sprint("j", i%3), "instance", fmt.Sprint("i", i))
				for at := from; at < to; at += 60_000 {
					if rng.IntN(10) > 0 {
						c.put(ls, at+int64(rng.IntN(5000)), float64(rng.IntN(1000)))
					}
				}
			}
		}
		// What was there before anybody asked did not change.
		write(86_400_000, 3*86_400_000-600_000)
		c.log.Changes = nil
		queries := []string{
			"requests_total", "sum by (job) (rate(requests_total[10m]))", "temperature offset 1h", "max_over_time(temperature[30m])", "sum(requests_total @ 200000000)",
			"temperature offset -15m", "max_over_time(sum by (job) (temperature)[1h:5m])", "rate(temperature[5m])", "absent(requests_total)", "scalar(sum(temperature))",
			"requests_total @ end()", "time() - timestamp(temperature)", "quantile_over_time(2, temperature[10m])", "count_values(\"v\", temperature > 900)",
		}
		hits := 0
		for round := range rounds {
			before := c.now
			c.pass(time.Duration(rng.IntN(600)+1) * time.Second)
			write(before-120_000, c.now-10_000)
			switch rng.IntN(4) {
			case 0:
				c.put(labels.FromStrings("__name__", "temperature", "job", "j1", "instance", "late"), c.now-int64(rng.IntN(86_400_000)), 5000)
			case 1:
				at := c.now - int64(rng.IntN(2*86_400_000))
				c.remove(rng.IntN(6), at, at+int64(rng.IntN(7_200_000)))
			}
			for range 6 {
				qs := queries[rng.IntN(len(queries))]
				step := []time.Duration{time.Minute, 5 * time.Minute, 7 * time.Minute}[rng.IntN(3)]
				end := c.now - int64(rng.IntN(3))*3_600_000
				end -= end % step.Milliseconds()
				start := end - int64(rng.IntN(200))*step.Milliseconds()
				ask := func(e promql.QueryEngine) *promql.Result {
					ctx := tenant.Inject(t.Context(), "a")
					q, err := e.NewRangeQuery(ctx, c, nil, qs, timestamp.Time(start), timestamp.Time(end), step)
					if start%1000 == 0 && round%3 == 0 {
						q, err = e.NewInstantQuery(ctx, c, nil, qs, timestamp.Time(start))
					}
					if err != nil {
						t.Fatal(err)
					}
					res := q.Exec(ctx)
					if q, ok := q.(*query); ok && q.run.kept.hits() > 0 {
						hits++
					}
					return res
				}
				got, want := ask(f), ask(engine)
				if diff := differenceBeyondInfos(qs, got, want); diff != "" {
					t.Fatalf("seed %d round %d: %s from %d to %d step %s:\n%s", seed, round, qs, start, end, step, diff)
				}
			}
		}
		if hits < rounds/2 {
			t.Errorf("seed %d: only %d of %d queries took something from the cache", seed, hits, 6*rounds)
		}
	}
}

// differenceBeyondInfos is difference but for informations about what is left of a kept answer.
func differenceBeyondInfos(qs string, got, want *promql.Result) string {
	for text := range want.Warnings {
		if _, ok := got.Warnings[text]; !ok {
			return fmt.Sprintf("the note %q is missing among %v", text, got.Warnings)
		}
	}
	for text, n := range got.Warnings {
		if _, ok := want.Warnings[text]; !ok && !isInfo(n) {
			return fmt.Sprintf("the warning %q is too much", text)
		}
	}
	g, w := *got, *want
	g.Warnings, w.Warnings = nil, nil
	return difference(qs, &g, &w)
}

func isInfo(err error) bool {
	_, infos := annotations.New().Add(err).AsStrings("", 0, 0)
	return len(infos) > 0
}

// ranged asks for a range of ten hours that ended a day ago.
func ranged(ctx context.Context, t *testing.T, f *Frontend, c *changing, qs string) *promql.Result {
	t.Helper()
	end := timestamp.Time(c.time().UnixMilli() / 60_000 * 60_000).Add(-24 * time.Hour)
	q, err := f.NewRangeQuery(ctx, nil, nil, qs, end.Add(-10*time.Hour), end, time.Minute)
	if err != nil {
		return &promql.Result{Err: err}
	}
	return q.Exec(ctx)
}

// asks counts what queriers are asked by f.
func asks(q *queriers, f func()) int {
	q.works = make(chan work.Query, 1000)
	f()
	return len(q.works)
}

func TestTheCacheTellsTenantsAndTheirLimitsApart(t *testing.T) {
	c := &changing{now: 3 * 86_400_000}
	c.put(labels.FromStrings("__name__", "up"), 86_400_000, 1)
	c.log.Changes = nil
	f, q := caching(t, c, Config{SplitInterval: 24 * time.Hour}, limits.View{})
	view := limits.View{}
	f.deps.Limits = func(tenant.ID) limits.View { return view }
	run := func(ids ...tenant.ID) int {
		return asks(q, func() { ranged(tenant.InjectMany(t.Context(), ids), t, f, c, "up") })
	}
	if run("a") == 0 || run("a") != 0 {
		t.Fatal("a second time, an answer is not taken from the cache")
	}
	if run("b") == 0 {
		t.Error("b was given the answer of a")
	}
	if run("a", "b") == 0 || run("a", "b") != 0 || run("a", "c") == 0 {
		t.Error("the answer over a and b is not one of its own")
	}
	view = limits.MaxFetchedSeriesPerQuery.With(view, 5)
	if run("a") == 0 {
		t.Error("an answer was given again although a limit changed")
	}
	if n := asks(q, func() { ranged(WithoutCache(tenant.Inject(t.Context(), "a")), t, f, c, "up") }); n == 0 {
		t.Error("no-store was answered from the cache")
	}
}

func TestWhatIsTooLargeIsAnsweredAndNotKept(t *testing.T) {
	c := &changing{now: 3 * 86_400_000}
	for at := range int64(48 * 60) {
		c.put(labels.FromStrings("__name__", "up"), 86_400_000+at*60_000, float64(at))
	}
	c.log.Changes = nil
	f, q := caching(t, c, Config{SplitInterval: 24 * time.Hour}, limits.View{})
	for most, skipped := range map[int]float64{100: 2, 1 << 20: 0} {
		reg := prometheus.NewPedanticRegistry()
		f.deps.Results = results.New(results.NewMemory(64<<20, nil, prometheus.NewRegistry()), most, reg)
		for again := range 2 {
			works := asks(q, func() {
				if r := ranged(tenant.InjectMany(t.Context(), []tenant.ID{"a"}), t, f, c, "up"); r.Err != nil || len(r.Value.(promql.Matrix)[0].Floats) != 601 {
					t.Fatal(r)
				}
			})
			if kept := again == 1 && skipped == 0; (works == 0) != kept {
				t.Errorf("queriers are asked for %d pieces of work, time %d, where %d bytes are kept", works, again, most)
			}
		}
		count := 0.0
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if strings.HasSuffix(family.GetName(), "_skipped_total") {
				count = family.GetMetric()[0].GetCounter().GetValue()
			}
		}
		if count != skipped {
			t.Errorf("of answers of %d bytes at most %g were not kept, want %g", most, count, skipped)
		}
	}
}

func TestWhatIsNotKnownToHoldIsNotGiven(t *testing.T) {
	c := &changing{now: 3 * 86_400_000}
	c.put(labels.FromStrings("__name__", "up"), 86_400_000, 1)
	f, q := caching(t, c, Config{SplitInterval: 24 * time.Hour}, limits.View{})
	ctx := tenant.Inject(t.Context(), "a")
	run := func() int { return asks(q, func() { ranged(ctx, t, f, c, "up") }) }
	c.log.Changes = nil
	run()
	f.deps.Changes = func(context.Context) (changes.Log, error) { return changes.Log{}, errs.New(errs.Unavailable, "gone") }
	if run() == 0 {
		t.Error("an answer was given although nobody knows whether it holds")
	}
	f.deps.Changes = func(context.Context) (changes.Log, error) {
		return changes.Log{Time: c.now, Since: c.now}, nil
	}
	if run() == 0 {
		t.Error("an answer was given that is older than what is known of changes")
	}
}

func TestErrorsAreGivenAgainWhereTheyMayBe(t *testing.T) {
	c := &changing{now: 3 * 86_400_000}
	f, q := caching(t, c, Config{SplitInterval: 24 * time.Hour, CacheErrors: true}, limits.View{})
	ctx := tenant.Inject(t.Context(), "a")
	fail := errs.WithID(errs.TooLarge, "max-series-per-query", "", "too much")
	q.fail = func(work.Query) error { return fail }
	first := ranged(ctx, t, f, c, "up").Err
	var second error
	if n := asks(q, func() { second = ranged(ctx, t, f, c, "up").Err }); n != 0 {
		t.Errorf("a query that fails was asked %d times again", n)
	}
	if errs.KindOf(second) != errs.TooLarge || second.Error() != first.Error() {
		t.Errorf("error %v became %v", first, second)
	}
	for i, passing := range []error{errs.New(errs.Unavailable, "away"), errs.WithID(errs.Unprocessable, "query-timeout", "", "slow")} {
		fail = passing
		other := fmt.Sprint("up", i)
		ranged(ctx, t, f, c, other)
		if n := asks(q, func() { ranged(ctx, t, f, c, other) }); n == 0 {
			t.Errorf("an error that passes was kept: %v", passing)
		}
	}
}

func TestAnExplanationShowsWhatBecameOfEachPart(t *testing.T) {
	const day = int64(86_400_000)
	c := &changing{now: 5 * day}
	for i := range 6 {
		for at := day; at < 3*day; at += 3_600_000 {
			c.put(labels.FromStrings("__name__", "up", "instance", fmt.Sprint(i)), at, 1)
		}
	}
	c.log.Changes = nil
	f, q := caching(t, c, Config{SplitInterval: 24 * time.Hour, Shard: true}, limits.QueryShardingTotalShards.With(limits.View{}, 3))
	q.fail = func(work.Query) error { c.pass(time.Second); return nil }
	explain := func(text string, start, end, step int64) Explanation {
		t.Helper()
		got, err := f.Explain(tenant.Inject(t.Context(), "a"), work.Query{Text: text, Start: start, End: end, Step: step}, true)
		if err != nil {
			t.Fatal(err)
		}
		samples, fetched, parts := int64(0), work.Fetched{}, work.Fetched{}
		for _, p := range got.Parts {
			parts.Add(*p.FetchedBytes)
		}
		for _, w := range got.Evaluated {
			if fetched.Add(w.FetchedBytes); w.FetchedBytes != fetchedInTests {
				t.Errorf("%s: fetched %+v", text, w.FetchedBytes)
			}
			if w.Seconds < 1 || w.Tries != 1 || w.End.Before(w.Start) {
				t.Errorf("%s: %+v", text, w)
			}
			samples += w.Samples
		}
		if fetched != *got.FetchedBytes || fetched != parts {
			t.Errorf("%s: pieces fetched %+v, parts %+v, the whole %+v", text, fetched, parts, *got.FetchedBytes)
		}
		if samples != got.Samples || len(got.Evaluated) != got.Works {
			t.Errorf("%s: %d pieces with %d samples of %d with %d", text, len(got.Evaluated), samples, got.Works, got.Samples)
		}
		for i := 1; i < len(got.Evaluated); i++ {
			if got.Evaluated[i].Seconds > got.Evaluated[i-1].Seconds {
				t.Errorf("%s: the slowest are not first", text)
			}
		}
		return got
	}
	outcomes := func(e Explanation) string {
		var out []string
		for _, k := range e.Cache {
			s := k.Start.Format("2 ") + k.Outcome
			if k.Read > 0 {
				s += " read"
			}
			if k.Written > 0 {
				s += " written"
			}
			out = append(out, s)
		}
		slices.Sort(out)
		return fmt.Sprint(out)
	}
	first := explain("sum(up)", day, 2*day+day/2, 600_000)
	shards, ranges := map[int]int{}, map[time.Time]bool{}
	for _, w := range first.Evaluated {
		if shards[w.Shard]++; w.Shards != 3 || w.Query != "sum(up)" {
			t.Errorf("evaluated %+v", w)
		}
		ranges[w.Start] = true
	}
	if len(shards) != 3 || shards[1] != 2 || shards[2] != 2 || shards[3] != 2 || len(ranges) != 2 || outcomes(first) != "[2 miss written 3 miss written]" {
		t.Errorf("first: shards %v, ranges %v, cache %s", shards, ranges, outcomes(first))
	}
	if again := explain("sum(up)", day, 2*day+day/2, 600_000); len(again.Evaluated) != 0 || outcomes(again) != "[2 hit read 3 hit read]" {
		t.Errorf("again: %+v, cache %s", again.Evaluated, outcomes(again))
	}
	if longer := explain("sum(up)", day, 3*day-600_000, 600_000); len(longer.Evaluated) != 3 || outcomes(longer) != "[2 hit read 3 partial read written]" {
		t.Errorf("longer: %+v, cache %s", longer.Evaluated, outcomes(longer))
	}
	plan, err := f.Explain(tenant.Inject(t.Context(), "a"), work.Query{Text: "sum(up)", Start: day, End: 2 * day, Step: 600_000}, false)
	if err != nil || plan.Evaluated != nil || plan.Cache != nil || plan.FetchedBytes != nil || plan.Parts[0].FetchedBytes != nil {
		t.Errorf("a query that was not run: %+v, %v", plan, err)
	}
	f.deps.Limits = func(tenant.ID) limits.View { return limits.SubquerySpinOffEnabled.With(limits.View{}, true) }
	spun := explain("max_over_time(sum(up)[2h:1m])", 2*day, 2*day, 0)
	two := explain("sum(up) / max_over_time(sum(up)[3h:1m])", 2*day, 2*day, 0)
	if len(two.Parts) < 2 {
		t.Errorf("two parts are %+v", two.Parts)
	}
	if len(spun.Cache) < 2 || !slices.ContainsFunc(spun.Cache, func(k ExplainCached) bool { return k.Query == "sum(up)" && k.Outcome == "miss" }) {
		t.Errorf("of a subquery by itself, cache %+v", spun.Cache)
	}
}

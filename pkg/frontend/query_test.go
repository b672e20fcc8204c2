package frontend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// hung is a runner whose work ends with its context.
type hung struct{ begun chan struct{} }

func (h hung) Run(ctx context.Context, _ *work.Work) error {
	h.begun <- struct{}{}
	<-ctx.Done()
	return errs.New(errs.Canceled, "the engine was canceled")
}

func instant(ctx context.Context, t *testing.T, f *Frontend, qs string) *promql.Result {
	t.Helper()
	q, err := f.NewInstantQuery(ctx, nil, nil, qs, time.Unix(0, 0))
	if err != nil {
		return &promql.Result{Err: err}
	}
	return q.Exec(ctx)
}

func TestAQueryIsStoppedByItsOwnTenantAlone(t *testing.T) {
	f := started(t, Config{}, &queriers{}, limits.View{})
	h := hung{make(chan struct{}, 1)}
	f.deps.Run = h
	out := make(chan *promql.Result, 1)
	go func() { out <- instant(tenant.InjectMany(t.Context(), []tenant.ID{"a", "b"}), t, f, "up") }()
	<-h.begun
	under := func(ids ...tenant.ID) []Running {
		list, _ := f.Running(t.Context(), Whose{Tenants: ids})
		return list
	}
	if got := under("a"); len(got) != 0 {
		t.Errorf("a sees a query that reads of b: %v", got)
	}
	list := under("a", "b", "c")
	if len(list) != 1 || list[0].Query != "up" {
		t.Fatalf("under way: %v", list)
	}
	if err := f.Stop(t.Context(), Whose{Tenants: []tenant.ID{"a"}}, list[0].ID); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a stopped it: %v", err)
	}
	if err := f.Stop(t.Context(), Whose{Tenants: []tenant.ID{"a", "b"}}, list[0].ID); err != nil {
		t.Error(err)
	}
	if res := <-out; errs.KindOf(res.Err) != errs.Unprocessable || !strings.Contains(res.Err.Error(), "stopped on request") {
		t.Errorf("it ended with %v", res.Err)
	}
	if got := under("a", "b"); len(got) != 0 {
		t.Errorf("still under way: %v", got)
	}
}

func TestBlockedQueriesAreRefusedHoweverTheyAreLaidOut(t *testing.T) {
	view := overrides(t, limits.BlockedQueries, `[{pattern: 'sum by (job) (up)', reason: too much}, {pattern: '.*expensive.*', regex: true}]`)
	f := started(t, Config{}, &queriers{engine: stock(t), db: embedded{}}, view)
	ctx := tenant.Inject(t.Context(), "a")
	for qs, blocked := range map[string]bool{"sum(up) by(job)": true, "sum by (job) (up)": true, "rate(very_expensive_total[5m])": true, "1 + 1": false} {
		err := instant(ctx, t, f, qs).Err
		if blocked != (errs.KindOf(err) == errs.Invalid && strings.Contains(err.Error(), "err-amphora-query-blocked")) {
			t.Errorf("%s: %v", qs, err)
		}
	}
}

func TestWhatIsNoVectorHasNoRange(t *testing.T) {
	f := started(t, Config{}, &queriers{engine: stock(t), db: embedded{}}, limits.View{})
	ctx := tenant.Inject(t.Context(), "a")
	for qs, kind := range map[string]string{"up[5m]": "range vector", `"text"`: "string"} {
		_, err := f.NewRangeQuery(ctx, nil, nil, qs, time.UnixMilli(0), time.UnixMilli(1000), time.Second)
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), fmt.Sprintf("invalid expression type %q for range query", kind)) {
			t.Errorf("%s: %v", qs, err)
		}
		if _, err := f.NewInstantQuery(ctx, nil, nil, qs, time.UnixMilli(0)); err != nil {
			t.Errorf("instant %s: %v", qs, err)
		}
	}
}

// overrides returns limits with one that was read from YAML.
func overrides(t *testing.T, key limits.Key[*limits.QueryRules], yaml string) limits.View {
	t.Helper()
	v, err := key.WithText(limits.View{}, yaml)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLimitedQueriesMayBeAskedSoOften(t *testing.T) {
	f := started(t, Config{}, &queriers{engine: stock(t), db: embedded{}}, overrides(t, limits.LimitedQueries, `[{query: 1 + 1, allowed_frequency: 1m}]`))
	now := time.Unix(1000, 0)
	f.rules.now = func() time.Time { return now }
	ask := func(id tenant.ID) errs.Kind {
		if err := instant(tenant.Inject(t.Context(), id), t, f, "1+1").Err; err != nil {
			return errs.KindOf(err)
		}
		return errs.Accepted
	}
	got := []errs.Kind{ask("a"), ask("a"), ask("b")}
	now = now.Add(time.Minute)
	got = append(got, ask("a"))
	if want := []errs.Kind{errs.Accepted, errs.RateLimited, errs.Accepted, errs.Accepted}; !slices.Equal(got, want) {
		t.Errorf("answers %v, want %v", got, want)
	}
}

func TestPartsAreTriedAgainOnlyWhereThatHelps(t *testing.T) {
	for kind, want := range map[errs.Kind]int32{errs.Unavailable: 3, errs.TooLarge: 1} {
		var tries atomic.Int32
		q := &queriers{engine: stock(t), db: embedded{}, fail: func(work.Query) error {
			tries.Add(1)
			return errs.New(kind, "no")
		}}
		f := started(t, Config{MaxRetries: 3}, q, limits.View{})
		if err := instant(tenant.Inject(t.Context(), "a"), t, f, "up").Err; errs.KindOf(err) != kind {
			t.Errorf("%s: %v", kind, err)
		}
		if got := tries.Load(); got != want {
			t.Errorf("%s: %d tries, want %d", kind, got, want)
		}
	}
}

func TestRangesAreSplitAtDays(t *testing.T) {
	const hour = 3_600_000
	for _, c := range []struct {
		in   grid
		want []grid
	}{
		{grid{0, 0, 0}, []grid{{0, 0, 0}}},
		{grid{hour, 25 * hour, hour}, []grid{{hour, 23 * hour, hour}, {24 * hour, 25 * hour, hour}}},
		{grid{10 * hour, 60 * hour, 7 * hour}, []grid{{10 * hour, 17 * hour, 7 * hour}, {24 * hour, 45 * hour, 7 * hour}, {52 * hour, 59 * hour, 7 * hour}}},
		{grid{-hour, hour, hour}, []grid{{-hour, -hour, hour}, {0, hour, hour}}},
		{grid{0, 100 * hour, 50 * hour}, []grid{{0, 0, 50 * hour}, {50 * hour, 50 * hour, 50 * hour}, {100 * hour, 100 * hour, 50 * hour}}},
	} {
		if got := split(c.in, 24*hour); !slices.Equal(got, c.want) {
			t.Errorf("%v splits into %v, want %v", c.in, got, c.want)
		}
	}
}

func TestAFailingPartFailsTheWholeQuery(t *testing.T) {
	broken := errors.New("broken")
	q := &queriers{engine: stock(t), db: embedded{}, fail: func(w work.Query) error {
		if w.ShardIndex == 1 {
			return errs.Wrap(errs.TooLarge, broken)
		}
		return nil
	}}
	f := started(t, Config{Shard: true}, q, limits.View{})
	if err := instant(tenant.Inject(t.Context(), "a"), t, f, "sum(up)").Err; !errors.Is(err, broken) {
		t.Errorf("answered %v", err)
	}
}

func TestAnExplanationShowsThePartsOfAQuery(t *testing.T) {
	f := started(t, Config{Shard: true, SplitInterval: 24 * time.Hour}, &queriers{}, limits.QueryShardingTotalShards.With(limits.View{}, 4))
	day := timestamp.Time(86_400_000)
	got, err := f.Explain(tenant.Inject(t.Context(), "a"), work.Query{Text: "topk(2, sum by (job) (rate(x[5m]))) / ignoring(y) up", Start: 0, End: day.UnixMilli(), Step: 60_000}, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Ranges) != 2 || got.Outer != "topk(2, a ) / ignoring(y) b" || len(got.Parts) != 2 || got.Parts[0].Query != "sum by (job) (rate(x[5m]))" || got.Parts[0].Shards != 4 || got.Parts[1].Query != "up" {
		t.Errorf("explanation %+v", got)
	}
}

// refusing is a runner that does no work.
type refusing struct{}

func (refusing) Run(context.Context, *work.Work) error { return errs.New(errs.Unprocessable, "no") }

func TestQueriesThatATenantWantsToBeLoggedAre(t *testing.T) {
	f := started(t, Config{}, &queriers{}, limits.View{})
	f.deps.Run = refusing{} // a query that fails is one, too
	var out bytes.Buffer
	f.deps.Logger = slog.New(slog.NewTextHandler(&out, nil))
	least := int64(0)
	f.deps.QueryLog = func(id tenant.ID) (string, int64, bool) { return "group-1", least, id == "a" }
	ask := func(ids ...tenant.ID) string {
		out.Reset()
		instant(tenant.InjectMany(t.Context(), ids), t, f, "up")
		return out.String()
	}
	if got := ask("a"); strings.Count(got, `msg="workspace query" workspace=a log_group=group-1 query=up`) != 1 {
		t.Errorf("logged %q", got)
	}
	if got := ask("a", "b"); strings.Count(got, "workspace query") != 1 {
		t.Errorf("logged %q", got)
	}
	if got := ask("b"); got != "" {
		t.Errorf("logged %q", got)
	}
	least = 1 << 40
	if got := ask("a"); got != "" {
		t.Errorf("logged %q", got)
	}
}

func TestAQueryIsShardedByThePartWithTheMostSeries(t *testing.T) {
	s, now := newSeen(), time.Now()
	if got := s.shards("q", 16, 100, now); got != 16 {
		t.Errorf("%d shards of what was never seen", got)
	}
	s.note("q", 450, now)
	s.note("q", 0, now) // another day of the same query
	if got := s.shards("q", 16, 100, now); got != 5 {
		t.Errorf("%d shards for 450 series, 100 in each", got)
	}
	s.note("q", 99, now.Add(seenFor+1))
	if got := s.shards("q", 16, 100, now.Add(seenFor+1)); got != 1 {
		t.Errorf("%d shards for 99 series, after there were more", got)
	}
	if got := s.shards("q", 16, 0, now); got != 16 {
		t.Errorf("%d shards where their size does not matter", got)
	}
}

// counting is a runner that answers requests as a querier does, and takes its time.
type counting struct{ pass func() }

func (c counting) Run(_ context.Context, w *work.Work) error {
	c.pass()
	w.Writer.Header().Set("Server-Timing", "fetched_series;val=3")
	_, err := w.Writer.Write([]byte("{}"))
	return err
}

func TestCardinalityRequestsSayWhatTheyTookWhenAsked(t *testing.T) {
	now := time.UnixMilli(0)
	f := started(t, Config{}, &queriers{}, limits.View{})
	f.deps.Now = func() time.Time { return now }
	f.deps.Run = counting{func() { now = now.Add(5 * time.Millisecond) }}
	for _, c := range []struct{ header, want string }{
		{"X-Amphora-Response-Query-Stats", "response_time;dur=5.000, fetched_series;val=3"},
		{"X-Mimir-Response-Query-Stats", "response_time;dur=5.000, fetched_series;val=3"},
		{"X-Other", "fetched_series;val=3"},
	} {
		r := httptest.NewRequest("GET", "/prometheus/api/v1/cardinality/active_series?selector=up", nil)
		r.Header.Set(c.header, "true")
		rec := httptest.NewRecorder()
		if err := f.Respond(tenant.Inject(t.Context(), "a"), rec, r); err != nil {
			t.Fatal(err)
		}
		if got := rec.Header().Values("Server-Timing"); len(got) != 1 || got[0] != c.want || rec.Body.String() != "{}" {
			t.Errorf("with %s: Server-Timing %q and %s, want %q", c.header, got, rec.Body, c.want)
		}
	}
}

// unreadable is a runner in whose answers the next who reads them finds less than they say.
type unreadable struct{}

func (unreadable) Run(_ context.Context, w *work.Work) error {
	h := &histogram.FloatHistogram{CounterResetHint: histogram.GaugeType, Schema: 1, Count: 3, PositiveSpans: []histogram.Span{{Offset: int32(w.Query.ShardIndex), Length: 3}}, PositiveBuckets: []float64{1}}
	return w.Answer(work.NewResult(promql.Vector{{Metric: labels.EmptyLabels(), T: w.Query.Start, H: h}}, nil, nil))
}

// A panic of any goroutine of a query is one of who asked, below whom it is recovered and counted. In another goroutine
// it would end the process.
func TestAQueryThatPanicsEndsAsOne(t *testing.T) {
	f := started(t, Config{Shard: true}, &queriers{}, limits.QueryShardingTotalShards.With(limits.View{}, 4))
	f.deps.Run = unreadable{}
	func() {
		defer func() {
			if p := fmt.Sprint(recover()); !strings.Contains(p, "out of range") || !strings.Contains(p, "merge.go") {
				t.Errorf("panicked with %.200s", p)
			}
		}()
		t.Errorf("answered %v", instant(tenant.Inject(t.Context(), "a"), t, f, "sum(up)"))
	}()
	if list, _ := f.Running(t.Context(), Whose{All: true}); len(list) != 0 {
		t.Errorf("it is still under way: %v", list)
	}
}

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/amphora-metrics/amphora/integration/harness"
)

const (
	// tenantLabel and ownTenantLabel are where a series of several tenants says whose it is, and where it
	// has what it had under that name itself.
	tenantLabel    = "__tenant_id__"
	ownTenantLabel = "original___tenant_id__"
	// allTeams are read at once.
	allTeams = "team-a|team-b|team-c"
	// unionSpan is how long the samples of the tenants reach back, and unionStep how far they are apart.
	unionSpan, unionStep = 3 * time.Hour, 30 * time.Second
)

// union is the samples of several tenants, of each as its own, and together in one storage.
type union struct {
	db      storage.Storage
	engine  promql.QueryEngine
	pushes  map[string][]prompb.TimeSeries
	begin   time.Time
	end     time.Time
	numbers *rand.Rand
}

func newUnion(ctx context.Context, t *testing.T) *union {
	t.Helper()
	u := &union{db: teststorage.New(t), pushes: map[string][]prompb.TimeSeries{}, end: time.Now().Add(-20 * time.Minute).Truncate(time.Minute), numbers: rand.New(rand.NewPCG(7, 11))}
	u.begin = u.end.Add(-unionSpan)
	u.engine = promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }, Parser: parser.NewParser(parser.Options{})})
	for i, id := range strings.Split(allTeams, "|") {
		for k := range 6 {
			job, instance := fmt.Sprint("j", k%2), fmt.Sprint("i", k/2)
			total := 0.0
			u.add(ctx, t, id, func() float64 { // some restart
				if total += float64(u.numbers.IntN(100)); u.numbers.IntN(150) == 0 {
					total = 0
				}
				return total
			}, "__name__", "requests_total", "instance", instance, "job", job)
			u.add(ctx, t, id, func() float64 { return u.numbers.Float64()*40 - 10 }, "__name__", "temperature", "instance", instance, "job", job)
		}
		for k, le := range []string{"0.1", "1", "10", "+Inf"} {
			sum := 0.0
			u.add(ctx, t, id, func() float64 { sum += float64((k + 1) * (i + 2)); return sum }, "__name__", "latency_bucket", "job", "j0", "le", le)
		}
	}
	u.add(ctx, t, "team-b", func() float64 { return 1 }, "__name__", "only_b", "job", "j1")
	u.add(ctx, t, "team-c", func() float64 { return 2 }, "__name__", "temperature", tenantLabel, "mine", "job", "j0")
	return u
}

// add makes a series of a tenant, with gaps unless it is a bucket.
func (u *union) add(ctx context.Context, t *testing.T, id string, value func() float64, kv ...string) {
	t.Helper()
	b := labels.NewBuilder(labels.FromStrings(kv...))
	if own := b.Get(tenantLabel); own != "" {
		b.Set(ownTenantLabel, own)
	}
	ls := b.Set(tenantLabel, id).Labels()
	s := prompb.TimeSeries{Labels: prompb.FromLabels(labels.FromStrings(kv...), nil)}
	steps := int(unionSpan / unionStep)
	gap := u.numbers.IntN(steps)
	app := u.db.Appender(ctx)
	for i := range steps + 1 {
		v := value()
		if i >= gap && i < gap+20 && !slices.Contains(kv, "le") {
			continue
		}
		at := u.begin.Add(time.Duration(i) * unionStep).UnixMilli()
		s.Samples = append(s.Samples, prompb.Sample{Timestamp: at, Value: v})
		_, err := app.Append(0, ls, at, v)
		must(t, err)
	}
	must(t, app.Commit())
	u.pushes[id] = append(u.pushes[id], s)
}

func (u *union) pick(of ...string) string { return of[u.numbers.IntN(len(of))] }

// selector selects floats of one metric, most of the time.
func (u *union) selector(name string) string {
	m := u.pick("", "", `job="j1"`, `instance=~"i[01]"`, `__tenant_id__="team-a"`, `__tenant_id__=~"team-[ab]"`, `__tenant_id__!="team-b"`, `__tenant_id__!~"team-a|team-c"`,
		`__tenant_id__="none"`, `__tenant_id__=""`, `__tenant_id__=~".+",job!="j0"`, `original___tenant_id__="mine"`, `original___tenant_id__=""`)
	if name == "" {
		name = u.pick("requests_total", "temperature", "latency_bucket", "only_b", "temperature", `{__name__=~"requests_total|only_b"}`, `{__tenant_id__="team-b"}`, `{__tenant_id__=~"team-b|x",job="j1"}`)
	}
	if strings.HasPrefix(name, "{") {
		return name + u.pick("", "", " offset 7m")
	}
	return name + "{" + m + "}" + u.pick("", "", "", " offset 10m", " offset -3m", " @ end()", " @ start()", " @ "+strconv.FormatInt(u.end.Add(-time.Hour).Unix(), 10))
}

func (u *union) series() string {
	switch u.numbers.IntN(6) {
	case 0:
		return u.pick("rate", "increase", "irate", "resets") + "(" + strings.SplitN(u.selector(u.pick("requests_total", "latency_bucket")), "}", 2)[0] + "}" + u.pick("[5m]", "[31m]", "[3m] offset 4m") + ")"
	case 1:
		return u.pick("max_over_time", "avg_over_time", "last_over_time", "count_over_time") + `(temperature{__tenant_id__!="team-b"}[10m])`
	case 2:
		return u.pick("abs", "ceil", "-", "") + "(" + u.selector("temperature") + ")"
	case 3:
		return "(" + u.selector("requests_total") + u.pick(" * 2", " > 300", " + time()", " > bool 100") + ")"
	}
	return u.selector("")
}

func (u *union) grouped() string {
	return u.pick("sum", "count", "min", "max", "group", "avg", "stddev") +
		u.pick("", " by (job)", " by (__tenant_id__)", " by (job, __tenant_id__)", " without (__tenant_id__)", " without (instance)", " by (le, original___tenant_id__)") + " (" + u.series() + ")"
}

func (u *union) query() string {
	switch u.numbers.IntN(12) {
	case 0:
		return u.series()
	case 1:
		return u.grouped() + u.pick(" + ", " / ", " or ", " and ", " unless ") + u.grouped()
	case 2:
		return "histogram_quantile(" + u.pick("0.5", "0.99") + ", sum by (le" + u.pick("", ", __tenant_id__") + ") (rate(latency_bucket[5m])))"
	case 3:
		return u.pick("topk", "bottomk") + u.pick("", " by (__tenant_id__)") + "(2, " + strings.SplitN(u.selector("temperature"), "}", 2)[0] + "})"
	case 4:
		return u.pick("absent", "scalar", "timestamp", "sort_desc") + "(" + u.grouped() + ")"
	case 5:
		return u.selector("temperature") + u.pick(" * on (job, instance, __tenant_id__) ", " - ignoring (__tenant_id__, original___tenant_id__) ", " / on (__tenant_id__) group_left () ", " unless on (__tenant_id__) ") + u.pick(u.selector("requests_total"), "sum by (__tenant_id__) (only_b)", u.grouped())
	case 6:
		return "max_over_time((" + u.grouped() + ")[20m:2m])"
	case 7:
		return `label_replace(` + u.grouped() + `, "team", "$1", "__tenant_id__", "team-(.*)")`
	case 8:
		return `count_values("v", ` + u.selector("only_b") + `)`
	}
	return u.grouped()
}

// ask makes a query and returns the answer of the one engine with how to ask a process for it.
func (u *union) ask(ctx context.Context, t *testing.T) (want *promql.Result, path string, form url.Values) {
	t.Helper()
	qs := u.query()
	start := u.begin.Add(time.Duration(u.numbers.IntN(150)) * time.Minute)
	if u.numbers.IntN(3) == 0 {
		q, err := u.engine.NewInstantQuery(ctx, u.db, nil, qs, start)
		if err != nil {
			t.Fatalf("%s: %v", qs, err)
		}
		return q.Exec(ctx), "query", url.Values{"query": {qs}, "time": {seconds(start.UnixMilli())}}
	}
	step := []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 433 * time.Second}[u.numbers.IntN(5)]
	end := start.Add(time.Duration(u.numbers.IntN(40)) * step)
	q, err := u.engine.NewRangeQuery(ctx, u.db, nil, qs, start, end, step)
	if err != nil {
		t.Fatalf("%s: %v", qs, err)
	}
	return q.Exec(ctx), "query_range", url.Values{"query": {qs}, "start": {seconds(start.UnixMilli())}, "end": {seconds(end.UnixMilli())}, "step": {seconds(step.Milliseconds())}}
}

// TestSeveralTenantsAreAnsweredAsOneStorageOfAll compares generated queries of three tenants at once with the
// stock engine over one storage that has their series with the label of the tenant: whole, split and
// sharded, and from the results cache.
func TestSeveralTenantsAreAnsweredAsOneStorageOfAll(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 5*time.Minute)
	flags := []string{"-tenant-federation.enabled", "-ingester.out-of-order-time-window=6h", "-distributor.ingestion-rate-limit=0", "-query-frontend.query-stats-enabled=false"}
	plain := everything(ctx, t, append(flags, "-query-frontend.split-queries-by-interval=0", "-query-frontend.cache-results=false")...)
	parted := everything(ctx, t, append(flags, "-query-frontend.split-queries-by-interval=1h", "-query-frontend.parallelize-shardable-queries", "-query-frontend.query-sharding-total-shards=3", "-query-frontend.cache-unaligned-requests")...)
	u := newUnion(ctx, t)
	for id, series := range u.pushes {
		for _, n := range []*harness.Node{plain, parted} {
			stored(t, pushV1(ctx, t, n.URL(""), id, series...))
		}
	}
	kept, sharded, split := 0, 0, 0
	for range 250 {
		want, path, form := u.ask(ctx, t)
		for _, way := range []struct {
			name   string
			n      *harness.Node
			header []string
		}{{"whole", plain, nil}, {"parted", parted, []string{"Cache-Control", "no-store"}}, {"first", parted, nil}, {"kept", parted, nil}} {
			r := call(ctx, t, http.MethodPost, way.n.URL("/prometheus/api/v1/"+path), []byte(form.Encode()),
				append(way.header, "X-Scope-OrgID", allTeams, "Content-Type", "application/x-www-form-urlencoded", "X-Amphora-Response-Query-Stats", "true")...)
			if err := alike(r, want); err != nil {
				t.Errorf("%s: %s %v\n%v", way.name, path, form, err)
			}
			timing := r.header.Get("Server-Timing")
			kept += hasNumber(timing, "results_cache_hit_bytes")
			sharded += hasNumber(timing, "sharded_queries")
			if !strings.Contains(timing, "split_queries;val=1,") {
				split += hasNumber(timing, "split_queries")
			}
		}
	}
	if kept < 50 || sharded < 50 || split < 50 {
		t.Errorf("of 1000 answers %d were kept, %d sharded and %d split, want more", kept, sharded, split)
	}
	for _, m := range []string{"", `{__tenant_id__="team-b"}`, `temperature`, `{__tenant_id__=~"team-[ac]",job="j0"}`, `{original___tenant_id__="mine"}`, `{__tenant_id__="none"}`} {
		for _, n := range []*harness.Node{plain, parted} {
			u.compareLabels(ctx, t, n, m)
		}
	}
}

// hasNumber says whether a header of timings has the name with another number than 0, as a number.
func hasNumber(timing, name string) int {
	if strings.Contains(timing, name+";val=") && !strings.Contains(timing, name+";val=0") {
		return 1
	}
	return 0
}

// compareLabels asks for labels and series that match.
func (u *union) compareLabels(ctx context.Context, t *testing.T, n *harness.Node, match string) {
	t.Helper()
	q, err := u.db.Querier(u.begin.UnixMilli(), u.end.UnixMilli())
	must(t, err)
	defer func() { must(t, q.Close()) }()
	var ms []*labels.Matcher
	form := url.Values{"start": {seconds(u.begin.UnixMilli())}, "end": {seconds(u.end.UnixMilli())}}
	if match != "" {
		ms, err = parser.NewParser(parser.Options{}).ParseMetricSelector(match)
		must(t, err)
		form.Set("match[]", match)
	}
	compare := func(path string, want []string) {
		t.Helper()
		r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), nil, "X-Scope-OrgID", allTeams)
		var got struct{ Data []json.RawMessage }
		must(t, json.Unmarshal([]byte(r.body), &got))
		var list []string
		for _, raw := range got.Data {
			list = append(list, string(raw))
		}
		slices.Sort(list)
		slices.Sort(want)
		if !slices.Equal(list, want) {
			t.Errorf("%s of %q: %v, want %v", path, match, list, want)
		}
	}
	texts := func(list []string, _ any, err error) (out []string) {
		must(t, err)
		for _, s := range list {
			out = append(out, strconv.Quote(s))
		}
		return out
	}
	names, notes, err := q.LabelNames(ctx, nil, ms...)
	compare("labels", texts(names, notes, err))
	for _, name := range []string{"job", tenantLabel, ownTenantLabel, "le", "none"} {
		values, notes, err := q.LabelValues(ctx, name, nil, ms...)
		compare("label/"+name+"/values", texts(values, notes, err))
	}
	if match == "" {
		return // series need a selector
	}
	var want []string
	set := q.Select(ctx, false, &storage.SelectHints{Func: "series", Start: u.begin.UnixMilli(), End: u.end.UnixMilli()}, ms...)
	for set.Next() {
		raw, err := json.Marshal(set.At().Labels())
		must(t, err)
		want = append(want, string(raw))
	}
	must(t, set.Err())
	compare("series", want)
}

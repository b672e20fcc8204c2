package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// asker asks one process for a tenant.
type asker struct {
	n      *harness.Node
	tenant string
}

func (r asker) get(ctx context.Context, t *testing.T, path string, form url.Values, header ...string) reply {
	t.Helper()
	return call(ctx, t, http.MethodGet, r.n.URL("/prometheus/api/v1/"+path+"?")+form.Encode(), nil, append(header, "X-Scope-OrgID", r.tenant)...)
}

func (r asker) post(ctx context.Context, t *testing.T, path string, form url.Values) reply {
	t.Helper()
	return call(ctx, t, http.MethodPost, r.n.URL("/prometheus/api/v1/"+path), []byte(form.Encode()), "Content-Type", "application/x-www-form-urlencoded", "X-Scope-OrgID", r.tenant)
}

// read is a remote read of the series of a name.
func (r asker) read(ctx context.Context, t *testing.T, name string, from, to time.Time) reply {
	t.Helper()
	raw, err := (&prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: from.UnixMilli(), EndTimestampMs: to.UnixMilli(),
		Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: name}}}}}).Marshal()
	must(t, err)
	return call(ctx, t, http.MethodPost, r.n.URL("/prometheus/api/v1/read"), snappy.Encode(nil, raw), "X-Scope-OrgID", r.tenant,
		"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy", "X-Prometheus-Remote-Read-Version", "0.1.0")
}

// wants fails the test unless an answer has the status and the text.
func wants(t *testing.T, what string, r reply, status int, text string) {
	t.Helper()
	if r.status != status || !strings.Contains(r.body, text) {
		t.Errorf("%s: %s\nwant %d with %s", what, r, status, text)
	}
}

// explained is the answer of analyze.
type explained struct {
	Data struct {
		Ranges []struct{ Start, End time.Time }
		Parts  []struct {
			Query, Merge          string
			Shards, Ranges, Steps int
			Bytes                 fetchedBytes `json:"fetched_bytes"`
		}
		Outer          string
		Seconds        float64
		Works, Samples int
		Series         int
		Evaluated      []struct {
			Shard, Shards, Samples int
			Seconds                float64
			Bytes                  fetchedBytes `json:"fetched_bytes"`
		}
		Cache []struct{ Outcome string }
		Bytes fetchedBytes `json:"fetched_bytes"`
	}
}

// fetchedBytes is how many bytes were read from where.
type fetchedBytes struct {
	Ingesters int
	Gateways  int `json:"store_gateways"`
}

// bytes returns what the whole query fetched, and fails the test unless its parts, and what was evaluated, did as much.
func (e *explained) bytes(t *testing.T) fetchedBytes {
	t.Helper()
	var parts, pieces fetchedBytes
	for _, p := range e.Data.Parts {
		parts.Ingesters, parts.Gateways = parts.Ingesters+p.Bytes.Ingesters, parts.Gateways+p.Bytes.Gateways
	}
	for _, p := range e.Data.Evaluated {
		pieces.Ingesters, pieces.Gateways = pieces.Ingesters+p.Bytes.Ingesters, pieces.Gateways+p.Bytes.Gateways
	}
	if parts != e.Data.Bytes || pieces != e.Data.Bytes {
		t.Errorf("parts fetched %+v, the pieces of them %+v, the whole query %+v", parts, pieces, e.Data.Bytes)
	}
	return e.Data.Bytes
}

func (r asker) explain(ctx context.Context, t *testing.T, form url.Values, header ...string) explained {
	t.Helper()
	var out explained
	got := r.get(ctx, t, "analyze", form, header...)
	if err := json.Unmarshal([]byte(got.body), &out); err != nil || got.status != 200 {
		t.Fatalf("analyze %v: %s, %v", form, got, err)
	}
	return out
}

// TestWhatAFrontendMakesOfQueries asks one process as tenants of different limits.
func TestWhatAFrontendMakesOfQueries(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(file, []byte(`overrides:
  aligned: {align_queries_with_step: true}
  apart: {split_instant_queries_by_interval: 1h, subquery_spin_off_enabled: true}
  short: {max_query_lookback: 1h}
  narrow: {max_total_query_length: 1h}
  kept: {results_cache_ttl_for_labels_query: 10m, results_cache_ttl_for_cardinality_query: 10m}
  barred:
    blocked_queries: [{pattern: sum(shelves), reason: too many shelves}, {pattern: 'doors.*', regex: true}]
    limited_queries: [{query: count(shelves), allowed_frequency: 1h}]
    blocked_requests:
      - {path: /prometheus/api/v1/series, method: POST}
      - path: /prometheus/api/v1/labels
        query_params: {"match[]": {value: '.*secret.*', is_regexp: true}}
`), 0o600))
	n := everything(ctx, t, "-runtime-config.file="+file, "-query-frontend.parallelize-shardable-queries", "-query-frontend.query-sharding-target-series-per-shard=2",
		"-query-frontend.cache-errors", "-querier.cardinality-analysis-enabled", "-querier.filter-queryables-enabled", "-ingester.out-of-order-time-window=48h")
	now := time.Now().Truncate(time.Minute)
	for _, tenant := range []string{"aligned", "apart", "short", "narrow", "kept", "barred"} {
		var all []prompb.TimeSeries
		for i := range 3 {
			s := prompb.TimeSeries{Labels: pairs("__name__", "shelves", "room", string(rune('a'+i)))}
			for m := 300; m >= 0; m-- {
				s.Samples = append(s.Samples, prompb.Sample{Timestamp: now.Add(-time.Duration(m) * time.Minute).UnixMilli(), Value: float64(i + 1)})
			}
			all = append(all, s)
		}
		stored(t, pushV1(ctx, t, n.URL(""), tenant, all...))
	}
	t.Run("aligned", func(t *testing.T) { alignment(ctx, t, asker{n, "aligned"}, now) })
	t.Run("apart", func(t *testing.T) { layout(ctx, t, asker{n, "apart"}, now) })
	t.Run("lengths", func(t *testing.T) { lengths(ctx, t, asker{n, "short"}, asker{n, "narrow"}, now) })
	t.Run("barred", func(t *testing.T) { barred(ctx, t, asker{n, "barred"}, now) })
	t.Run("timings", func(t *testing.T) { timings(ctx, t, asker{n, "kept"}) })
	t.Run("kept", func(t *testing.T) { keptAnswers(ctx, t, asker{n, "kept"}, now) })
	t.Run("places", func(t *testing.T) { places(ctx, t, asker{n, "apart"}, now) })
}

// around is the hours before at, as parameters.
func around(at time.Time, back time.Duration, kv ...string) url.Values {
	v := url.Values{"start": {seconds(at.Add(-back).UnixMilli())}, "end": {seconds(at.UnixMilli())}}
	for i := 0; i+1 < len(kv); i += 2 {
		v.Add(kv[i], kv[i+1])
	}
	return v
}

// alignment: the tenant's answers are at multiples of the step, others' where they were asked for.
func alignment(ctx context.Context, t *testing.T, r asker, now time.Time) {
	from := time.Unix((now.Unix()-3600)/420*420+60, 0)
	form := url.Values{"query": {"sum(shelves)"}, "start": {seconds(from.UnixMilli())}, "end": {seconds(from.Add(21 * time.Minute).UnixMilli())}, "step": {"7m"}}
	wants(t, "aligned", r.get(ctx, t, "query_range", form), 200, `"values":[[`+short(from.Add(-time.Minute).UnixMilli())+`,"6"]`)
	r.tenant = "apart"
	wants(t, "as asked", r.get(ctx, t, "query_range", form), 200, `"values":[[`+short(from.UnixMilli())+`,"6"]`)
	form.Set("step", "0.0000001")
	wants(t, "too small a step", r.get(ctx, t, "query_range", form), 400, "bad_data")
	form.Set("step", "0.01")
	form.Set("start", seconds(now.Add(-5*time.Hour).UnixMilli()))
	wants(t, "too many points", r.get(ctx, t, "query_range", form), 400, "11,000 points")
}

// layout: a query is split at midnight and sharded, into fewer shards once it is known how few series it has; of
// instant queries, long ranges and subqueries are queries of their own. None of that changes the answer.
func layout(ctx context.Context, t *testing.T, r asker, now time.Time) {
	form := around(now, 24*time.Hour, "query", "sum by (room) (shelves)", "step", "60")
	plan := r.explain(ctx, t, form).Data
	midnight := now.Truncate(24 * time.Hour)
	want := 2
	if midnight.Equal(now) {
		want = 3 // the last step is of a day of its own
	}
	if len(plan.Ranges) != want && len(plan.Ranges) != 2 || !plan.Ranges[1].Start.Equal(midnight) || len(plan.Parts) != 1 || plan.Parts[0].Shards != 16 || plan.Parts[0].Merge != "sum" || plan.Works != 0 {
		t.Errorf("laid out as %+v", plan)
	}
	form.Set("analyze", "true")
	if ran := r.explain(ctx, t, form).Data; ran.Works < 16 || ran.Samples == 0 || ran.Seconds <= 0 || ran.Series != 3 {
		t.Errorf("it took %+v", ran)
	} else if w := ran.Evaluated[0]; len(ran.Evaluated) != ran.Works || w.Shards != 16 || w.Shard < 1 || w.Seconds <= 0 || len(ran.Cache) != len(ran.Ranges) || ran.Cache[0].Outcome == "" {
		t.Errorf("its parts took %+v, and the cache had %+v", ran.Evaluated, ran.Cache)
	}
	two := url.Values{"query": {"sum(shelves) / sum(shelves offset 1h)"}, "time": {seconds(now.UnixMilli())}, "analyze": {"true"}}
	if ran := r.explain(ctx, t, two); len(ran.Data.Parts) != 2 || ran.bytes(t).Ingesters == 0 || ran.Data.Parts[0].Bytes.Ingesters == 0 || ran.Data.Parts[1].Bytes.Ingesters == 0 {
		t.Errorf("two parts fetched %+v", ran.Data)
	}
	form.Del("analyze")
	if again := r.explain(ctx, t, form).Data; again.Parts[0].Shards != 2 {
		t.Errorf("with 3 series, 2 in each shard, it is laid out as %+v", again)
	}
	at := seconds(now.UnixMilli())
	long := url.Values{"query": {"sum_over_time(shelves[4h])"}, "time": {at}}
	if got := r.explain(ctx, t, long).Data; len(got.Parts) != 1 || got.Parts[0].Ranges < 4 {
		t.Errorf("a long range is laid out as %+v", got)
	}
	inner := url.Values{"query": {"max_over_time(sum(shelves)[2h:1m])"}, "time": {at}}
	if got := r.explain(ctx, t, inner).Data; len(got.Parts) != 1 || got.Parts[0].Steps < 119 {
		t.Errorf("a subquery is laid out as %+v", got)
	}
	for _, form := range []url.Values{long, inner} {
		whole := asker{r.n, "kept"}.get(ctx, t, "query", form)
		if parted := r.get(ctx, t, "query", form); parted.status != 200 || !strings.Contains(parted.body, `"value"`) || parted.body != whole.body {
			t.Errorf("in parts %s, as a whole %s", parted, whole)
		}
	}
	wants(t, "a broken query", r.post(ctx, t, "analyze", url.Values{"query": {"sum("}}), 400, "bad_data")
}

// lengths: what is too long ago is left out silently, what is too long is refused, whatever way samples are read.
func lengths(ctx context.Context, t *testing.T, looks, narrow asker, now time.Time) {
	got := looks.get(ctx, t, "query_range", around(now, 4*time.Hour, "query", "shelves{room='a'}", "step", "60"))
	if points := strings.Count(got.body, `,"1"]`); got.status != 200 || points < 55 || points > 66 {
		t.Errorf("of the last hour there are %d points: %s", points, got)
	}
	wants(t, "all is too long ago", looks.get(ctx, t, "query_range", around(now.Add(-3*time.Hour), time.Hour, "query", "shelves", "step", "60")), 200, `"result":[]`)
	if raw := looks.read(ctx, t, "shelves", now.Add(-4*time.Hour), now.Add(-3*time.Hour)); raw.status != 200 || strings.Contains(raw.body, "room") {
		t.Errorf("remote read of what is too long ago: %s", raw)
	}
	if raw := looks.read(ctx, t, "shelves", now.Add(-4*time.Hour), now); raw.status != 200 || !strings.Contains(raw.body, "room") {
		t.Errorf("remote read: %s", raw)
	}
	for what, r := range map[string]reply{
		"range":          narrow.get(ctx, t, "query_range", around(now, 2*time.Hour, "query", "shelves", "step", "60")),
		"instant":        narrow.get(ctx, t, "query", url.Values{"query": {"rate(shelves[2h])"}}),
		"export":         narrow.get(ctx, t, "export", around(now, 2*time.Hour, "match[]", "shelves")),
		"remote read":    narrow.read(ctx, t, "shelves", now.Add(-2*time.Hour), now),
		"all that it is": narrow.read(ctx, t, "shelves", time.UnixMilli(-1<<62), time.UnixMilli(1<<62)),
	} {
		wants(t, what, r, 400, "err-amphora-max-total-query-length")
	}
	wants(t, "short enough", narrow.read(ctx, t, "shelves", now.Add(-time.Hour), now), 200, "room")
}

// barred: what an operator blocked or limited is refused with its reason, by whatever way it comes.
func barred(ctx context.Context, t *testing.T, r asker, now time.Time) {
	wants(t, "blocked", r.get(ctx, t, "query", url.Values{"query": {"  sum( shelves )"}}), 400, "too many shelves")
	wants(t, "blocked by a pattern", r.post(ctx, t, "query_range", around(now, time.Hour, "query", "doors{a='b'}", "step", "60")), 400, "err-amphora-query-blocked")
	wants(t, "another", r.get(ctx, t, "query", url.Values{"query": {"max(shelves)"}}), 200, `"3"`)
	wants(t, "remote read", r.read(ctx, t, "doors", now.Add(-time.Hour), now), 400, "err-amphora-query-blocked")
	wants(t, "another remote read", r.read(ctx, t, "shelves", now.Add(-time.Hour), now), 200, "room")
	wants(t, "export", r.get(ctx, t, "export/native", around(now, time.Hour, "match[]", "doors")), 400, "err-amphora-query-blocked")
	wants(t, "the first time", r.get(ctx, t, "query", url.Values{"query": {"count(shelves)"}}), 200, `"3"`)
	wants(t, "too soon", r.get(ctx, t, "query", url.Values{"query": {"count (shelves)"}}), 429, "err-amphora-query-limited")
	series := around(now, time.Hour, "match[]", "shelves")
	wants(t, "a path by one method", r.post(ctx, t, "series", series), 400, "err-amphora-request-blocked")
	wants(t, "by another", r.get(ctx, t, "series", series), 200, `"room":"a"`)
	secret := url.Values{"match[]": {`shelves{a!="secret"}`}}
	wants(t, "a parameter", r.get(ctx, t, "labels", secret), 400, "err-amphora-request-blocked")
	wants(t, "a parameter in the body", r.post(ctx, t, "labels", secret), 400, "err-amphora-request-blocked")
	wants(t, "another parameter in the body", r.post(ctx, t, "labels", url.Values{"match[]": {"shelves"}}), 200, `"room"`)
	wants(t, "another tenant", asker{r.n, "kept"}.post(ctx, t, "labels", secret), 200, `"room"`)
}

// keptAnswers: of labels, cardinality and errors an answer is given again where tenants say so, and counted.
func keptAnswers(ctx context.Context, t *testing.T, r asker, now time.Time) {
	hits := func(kind string) float64 {
		return scrape(ctx, t, r.n.URL("/metrics"), "amphora_frontend_query_result_cache_hits_total", "request_type", kind)
	}
	for kind, ask := range map[string]func() reply{
		"label_names_and_values": func() reply { return r.get(ctx, t, "labels", around(now, time.Hour, "match[]", "shelves")) },
		"cardinality": func() reply {
			return r.get(ctx, t, "cardinality/label_names", url.Values{"selector": {"shelves"}})
		},
		"error": func() reply {
			return r.get(ctx, t, "query_range", around(now.Add(-30*time.Minute), time.Hour, "query", "shelves * on() shelves", "step", "60"))
		},
	} {
		before := hits(kind)
		first, again := ask(), ask()
		if first.body != again.body || hits(kind) <= before {
			t.Errorf("%s: %s, again %s, %v hits after %v", kind, first, again, hits(kind), before)
		}
	}
}

// timings: the count of active series says what it took if that is asked for, as a query does.
func timings(ctx context.Context, t *testing.T, r asker) {
	counts := regexp.MustCompile(`^response_time;dur=[0-9.]+, querier_wall_time;dur=[0-9.]+, fetched_series;val=3$`)
	for _, name := range []string{"X-Amphora-Response-Query-Stats", "X-Mimir-Response-Query-Stats", "X-Nothing"} {
		got := r.get(ctx, t, "cardinality/active_series", url.Values{"selector": {"shelves"}}, name, "true", "Sharding-Control", "16")
		wants(t, name, got, 200, `"room":"c"`)
		if timing := got.header.Get("Server-Timing"); counts.MatchString(timing) != (name != "X-Nothing") {
			t.Errorf("%s: Server-Timing %q", name, timing)
		}
	}
}

// TestATimeoutOfAQuerysOwnIsToldApart asks what takes minutes to compute of a process that gives it seconds: that is
// the query's fault. That it has less time than that because whoever asks has, is not.
func TestATimeoutOfAQuerysOwnIsToldApart(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-querier.timeout=2s", "-querier.timeout-classification-enabled")
	now := time.Now().Truncate(time.Minute)
	var all []prompb.TimeSeries
	for i := range 2000 {
		s := prompb.TimeSeries{Labels: pairs("__name__", "shelves", "room", strconv.Itoa(i))}
		for m := 60; m >= 0; m-- {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: now.Add(-time.Duration(m) * time.Minute).UnixMilli(), Value: float64(m * i % 97)})
		}
		all = append(all, s)
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", all...))
	r := asker{n, "team-a"}
	form := around(now, 55*time.Minute, "query", "sum(predict_linear(shelves[1h], 60))", "step", "0.301")
	eventually(ctx, t, "a timeout that is the query's fault", func() error {
		if got := r.get(ctx, t, "query_range", form); got.status != 422 || !strings.Contains(got.body, "err-amphora-query-timeout") || !strings.Contains(got.body, `"execution"`) {
			return errors.New(got.String())
		}
		return nil
	})
	form.Set("timeout", "0.5")
	wants(t, "too little time", r.get(ctx, t, "query_range", form), 503, `"timeout"`)
}

// places: a request that names a kind of place reads what that has; and a class goes by who asks.
func places(ctx context.Context, t *testing.T, r asker, now time.Time) {
	if f := call(ctx, t, http.MethodPost, r.n.URL("/ingester/flush?wait=true"), nil); f.status/100 != 2 {
		t.Fatalf("flush answered %s", f)
	}
	form := url.Values{"query": {"count_over_time(shelves{room='a'}[5h])"}, "time": {seconds(now.Add(-time.Minute).UnixMilli())}}
	for _, only := range []string{"", "ingester", "store-gateway"} {
		eventually(ctx, t, "an answer of "+only, func() error {
			got, err := try(ctx, http.MethodGet, r.n.URL("/prometheus/api/v1/query?")+form.Encode(), nil, "X-Scope-OrgID", r.tenant, "X-Filter-Queryables", only, "X-Read-Consistency", "strong")
			if err != nil || got.status != 200 || !strings.Contains(got.body, `"value"`) {
				return fmt.Errorf("%s, %w", got, errors.Join(err, errors.New("it has no value")))
			}
			return nil
		})
	}
	form.Set("analyze", "true")
	if got := r.explain(ctx, t, form, "X-Filter-Queryables", "store-gateway", "Cache-Control", "no-store"); got.bytes(t).Gateways == 0 || got.bytes(t).Ingesters != 0 {
		t.Errorf("of blocks alone, %+v was fetched", got.Data.Bytes)
	}
	form.Del("analyze")
	wants(t, "no such place", r.get(ctx, t, "query", form, "X-Filter-Queryables", "nowhere"), 200, `"result":[]`)
	waits := func() int {
		page, err := harness.Get(ctx, r.n.URL("/metrics"))
		must(t, err)
		found := regexp.MustCompile(`(?m)^amphora_query_scheduler_queue_duration_seconds_count{class="dashboard"} (\d+)$`).FindSubmatch(page)
		if found == nil {
			return 0
		}
		count, err := strconv.Atoi(string(found[1]))
		must(t, err)
		return count
	}
	before := waits()
	wants(t, "of a dashboard", r.get(ctx, t, "query", url.Values{"query": {"max(shelves)"}}, "X-Dashboard-Uid", "d", "Cache-Control", "no-store"), 200, `"3"`)
	if waits() <= before {
		t.Errorf("no work of a dashboard was queued as such")
	}
}

// TestQueriesThatWaitAreListedStoppedAndTimeOut has a frontend whose queriers are not there yet.
func TestQueriesThatWaitAreListedStoppedAndTimeOut(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Replicas: 1, Files: true, Nodes: []harness.Spec{
		{Name: "store", Target: "ingester,distributor,store-gateway,query-scheduler"},
		{Name: "frontend", Target: "query-frontend"},
	}, Flags: []string{"-query-scheduler.max-outstanding-requests-per-tenant=2", "-query-scheduler.ring.heartbeat-period=1s"}})
	r := asker{c.Node("frontend"), "team-a"}
	now := time.Now()
	eventually(ctx, t, "the distributor to store", func() error {
		if got := pushV1(ctx, t, c.Node("store").URL(""), "team-a", floats(now, 7, "__name__", "shelves")); got.status != 200 {
			return errors.New(got.String())
		}
		return nil
	})
	eventually(ctx, t, "a query to time out", func() error { // until the frontend knows the scheduler it says unavailable
		got := r.get(ctx, t, "query", url.Values{"query": {"shelves"}, "timeout": {"200ms"}})
		if got.status != 503 || !strings.Contains(got.body, `"errorType":"timeout","error":"query timed out in `) {
			return errors.New(got.String())
		}
		return nil
	})
	answers := make(chan reply, 2)
	for _, q := range []string{"shelves", "shelves + 1"} {
		go func() {
			// The scheduler hears a little later than the client that a query has timed out, and counts it until then.
			for ctx.Err() == nil {
				got, err := try(ctx, http.MethodGet, r.n.URL("/prometheus/api/v1/query?")+url.Values{"query": {q}, "time": {seconds(now.UnixMilli())}}.Encode(), nil, "X-Scope-OrgID", "team-a")
				if err != nil {
					got.body = err.Error()
				}
				if got.status != http.StatusTooManyRequests {
					answers <- got
					return
				}
			}
		}()
	}
	var id string
	eventually(ctx, t, "both queries to be under way", func() error {
		got := r.get(ctx, t, "status/active_queries", nil)
		if strings.Count(got.body, `"query":"shelves`) != 2 {
			return errors.New(got.String())
		}
		id = regexp.MustCompile(`"id":"([^"]+)"[^}]*"query":"shelves \+ 1"`).FindStringSubmatch(got.body)[1]
		return nil
	})
	eventually(ctx, t, "a third to be refused", func() error {
		got := r.get(ctx, t, "query", url.Values{"query": {"up"}, "timeout": {"200ms"}})
		if got.status != 429 {
			return errors.New(got.String())
		}
		return nil
	})
	other := asker{r.n, "team-b"}
	wants(t, "what others see", other.get(ctx, t, "status/active_queries", nil), 200, `"data":[]`)
	stop := func(r asker) reply {
		return call(ctx, t, http.MethodDelete, r.n.URL("/prometheus/api/v1/status/active_queries/"+id), nil, "X-Scope-OrgID", r.tenant)
	}
	eventually(ctx, t, "the frontend to know all frontends", func() error { // until then it cannot say that there is none
		if got := stop(other); got.status == 503 {
			return errors.New(got.String())
		}
		return nil
	})
	wants(t, "others who stop it", stop(other), 404, "not_found")
	wants(t, "stopping it", stop(r), 200, "")
	wants(t, "the stopped query", <-answers, 422, "stopped on request")
	rings(ctx, t, c)
	_, err := c.Add(harness.Spec{Name: "querier", Target: "querier"})
	must(t, err)
	wants(t, "the query that waited for a querier", <-answers, 200, `"7"]`)
	wants(t, "what is under way then", r.get(ctx, t, "status/active_queries", nil), 200, `"data":[]`)
}

// rings: the schedulers have one, queriers have none.
func rings(ctx context.Context, t *testing.T, c *harness.Cluster) {
	t.Helper()
	for _, name := range []string{"store", "frontend"} {
		wants(t, "schedulers at "+name, call(ctx, t, http.MethodGet, c.Node(name).URL("/query-scheduler/ring"), nil, "Accept", "application/json"), 200, `"state":"ACTIVE"`)
	}
	wants(t, "page of schedulers", call(ctx, t, http.MethodGet, c.Node("store").URL("/query-scheduler/ring"), nil), 200, "Ring of query-schedulers")
	wants(t, "queriers", call(ctx, t, http.MethodGet, c.Node("frontend").URL("/querier/ring"), nil, "Accept", "application/json"), 200, `"shards":[]`)
}

// TestReadCallsBesideQueries makes the other calls of the read API, with what is wrong with them.
func TestReadCallsBesideQueries(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-querier.cardinality-analysis-enabled", "-ruler.poll-interval=10m")
	now := time.Now()
	r := asker{n, "team-a"}
	native := prompb.TimeSeries{Labels: pairs("__name__", "latency", "path", "/")}
	for i := range 3 {
		native.Histograms = append(native.Histograms, prompb.FromIntHistogram(now.Add(time.Duration(i-3)*time.Second).UnixMilli(), tsdbutil.GenerateTestHistogram(int64(i))))
	}
	custom := native
	custom.Labels, custom.Histograms = pairs("__name__", "latency", "path", "/b"), []prompb.Histogram{prompb.FromIntHistogram(now.UnixMilli(), tsdbutil.GenerateTestCustomBucketsHistogram(1))}
	stored(t, pushRequest(ctx, t, n.URL(""), "team-a", &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{floats(now, 1, "__name__", "shelves", "room", "a"), floats(now, 1, "__name__", "shelves", "room", "b"), native, custom},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "shelves", Help: "Number of shelves."}, {Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "shelves", Help: "Shelves."},
			{Type: prompb.MetricMetadata_HISTOGRAM, MetricFamilyName: "latency", Help: "Time."}},
	}))
	for _, c := range []struct {
		what, path, form string
		status           int
		want             string
	}{
		{"series, cut", "series", "match[]=shelves&limit=1", 200, `"data":[{"__name__":"shelves","room":"a"}],"warnings":["results truncated due to limit"]`},
		{"series of nothing", "series", "", 400, "no match[] parameter provided"},
		{"labels, cut", "labels", "limit=1", 200, `"warnings":["results truncated due to limit"]`},
		{"values, cut", "label/room/values", "limit=1", 200, `"data":["a"],"warnings":["results truncated due to limit"]`},
		{"metadata of one", "metadata", "metric=latency", 200, `{"latency":[{"type":"histogram","unit":"","help":"Time."}]}`},
		{"metadata, cut", "metadata", "limit=1&limit_per_metric=1", 200, `}]}}`},
		{"exemplars of a broken query", "query_exemplars", "query=sum(&start=1&end=2", 400, "bad_data"},
		{"layout", "format_query", "query=sum(", 400, "bad_data"},
		{"tree", "parse_query", "query=sum(", 400, "bad_data"},
		{"active series", "cardinality/active_series", `selector={room=~".%2B"}`, 200, `{"data":[{"__name__":"shelves","room":"a"},{"__name__":"shelves","room":"b"}]}`},
		{"active series of nothing", "cardinality/active_series", "", 400, "selector"},
		{"native histograms", "cardinality/active_native_histogram_metrics", `selector={__name__!=""}`, 200,
			`{"data":[{"metric":"latency","series_count":2,"bucket_count":12,"avg_bucket_count":6,"min_bucket_count":4,"max_bucket_count":8}]}`},
		{"native histograms of nothing", "cardinality/active_native_histogram_metrics", "", 400, "selector"},
		{"usage of no tenant", "cardinality/active_series", "selector=sum(x)", 400, "bad_data"},
	} {
		got := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/"+c.path+"?"+c.form), nil, "X-Scope-OrgID", "team-a")
		wants(t, c.what, got, c.status, c.want)
		if !json.Valid([]byte(got.body)) {
			t.Errorf("%s is no JSON: %s", c.what, got)
		}
	}
	if got := r.get(ctx, t, "cardinality/active_series", url.Values{"selector": {"shelves"}}, "Accept-Encoding", "gzip"); got.status != 200 {
		t.Errorf("active series, compressed: %s", got)
	}
	ruleCalls(ctx, t, r)
}

// ruleCalls are what rules look like to their tenant and to operators before they were evaluated.
func ruleCalls(ctx context.Context, t *testing.T, r asker) {
	group := "name: stock\ninterval: 1h\nrules:\n- {record: 'room:shelves', expr: count(shelves)}\n- {alert: Empty, expr: 'shelves == 0'}\n"
	wants(t, "put", call(ctx, t, http.MethodPost, r.n.URL("/prometheus/config/v1/rules/store"), []byte(group), "X-Scope-OrgID", "team-a", "Content-Type", "application/yaml"), 202, "")
	eventually(ctx, t, "the rules to be listed", func() error {
		got, err := try(ctx, http.MethodGet, r.n.URL("/prometheus/api/v1/rules?type=alert&rule_group[]=stock&file[]=store"), nil, "X-Scope-OrgID", "team-a")
		if err != nil || got.status != 200 || !strings.Contains(got.body, `"name":"Empty"`) || strings.Contains(got.body, "room:shelves") {
			return fmt.Errorf("%s, %w", got, errors.Join(err, errors.New("not as it should be")))
		}
		return nil
	})
	wants(t, "by a name that no rule has", r.get(ctx, t, "rules", url.Values{"rule_name[]": {"Full"}}), 200, `"groups":[]`)
	wants(t, "a wrong type", r.get(ctx, t, "rules", url.Values{"type": {"x"}}), 400, "bad_data")
	wants(t, "of another tenant", asker{r.n, "team-b"}.get(ctx, t, "rules", nil), 200, `"groups":[]`)
	page := func(path string) reply { return call(ctx, t, http.MethodGet, r.n.URL(path), nil) }
	wants(t, "tenants with rules", page("/ruler/tenants"), 200, "team-a")
	wants(t, "rules of all", page("/ruler/rule_groups"), 200, "room:shelves")
	wants(t, "rules of one", page("/ruler/tenant/team-a/rule_groups"), 200, "alert: Empty")
	wants(t, "usage", call(ctx, t, http.MethodGet, r.n.URL("/api/v1/user_stats"), nil, "X-Scope-OrgID", "team-a"), 200, `"numSeries"`)
}

package prom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

type fakeMetadata map[string][]metadata.Metadata

func (f fakeMetadata) Metadata(_ context.Context, metric string, _, _ int) (map[string][]metadata.Metadata, error) {
	if metric == "" {
		return f, nil
	}
	return map[string][]metadata.Metadata{metric: f[metric]}, nil
}

// fill stores two counters a minute for ten minutes, a histogram, a UTF-8 name and an exemplar.
func fill(t testing.TB, db *teststorage.TestStorage) {
	t.Helper()
	app := db.AppenderV2(t.Context())
	put := func(ls labels.Labels, ms int64, v float64, fh *histogram.FloatHistogram, ex []exemplar.Exemplar) {
		if _, err := app.Append(0, ls, 0, ms, v, nil, fh, storage.AppendV2Options{Exemplars: ex}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(11) {
		var ex []exemplar.Exemplar
		if i == 5 {
			ex = []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "abc"), Value: 2.5, Ts: 300_000, HasTs: true}}
		}
		put(labels.FromStrings("__name__", "req_total", "code", "200", "job", "a"), i*60_000, float64(i*60), nil, ex)
		put(labels.FromStrings("__name__", "req_total", "code", "500", "job", "a"), i*60_000, float64(i), nil, nil)
		put(labels.FromStrings("__name__", "lat", "job", "b"), i*60_000, 0, &histogram.FloatHistogram{Count: 4, Sum: 8, Schema: 0,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{1, 3}}, nil)
		put(labels.FromStrings("__name__", "dotted", "my.label", "x", "job", "b"), i*60_000, 1, nil, nil)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

type setup struct {
	view   limits.View
	engine func(Engine) Engine
	store  func(storage.SampleAndChunkQueryable) storage.SampleAndChunkQueryable
}

func newAPI(t testing.TB, s setup) *API {
	t.Helper()
	db := teststorage.New(t)
	fill(t, db)
	real, err := engine.New(engine.Config{Timeout: time.Minute, MaxSamples: 50_000, LookbackDelta: 5 * time.Minute, MaxConcurrent: 2}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = real.Close() })
	var eng Engine = real
	if s.engine != nil {
		eng = s.engine(eng)
	}
	var store storage.SampleAndChunkQueryable = db
	if s.store != nil {
		store = s.store(db)
	}
	return New(Config{MaxConcurrentReads: 2}, Backends{
		Engine: eng, Storage: store, Exemplars: db.DB,
		Metadata: fakeMetadata{"req_total": {{Type: "counter", Help: "Requests.", Unit: "s"}, {Type: "gauge", Help: "?"}}, "lat": {{Type: "histogram"}}},
		Limits:   func(tenant.ID) limits.View { return s.view },
		Now:      func() time.Time { return time.Unix(600, 0) },
	}, nil)
}

// call asks path, with form as URL parameters or as a POST body, and returns the rendered answer.
func (a *API) call(method, path, form string) *httptest.ResponseRecorder {
	var r *http.Request
	if method == http.MethodPost {
		r = httptest.NewRequest(method, path, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		r = httptest.NewRequest(method, path+"?"+form, nil)
	}
	return a.do(r)
}

func (a *API) do(r *http.Request) *httptest.ResponseRecorder {
	r = r.WithContext(tenant.Inject(r.Context(), "t1"))
	mux := http.NewServeMux()
	for path, h := range map[string]func(http.ResponseWriter, *http.Request) error{
		"/query": a.Query, "/query_range": a.QueryRange, "/series": a.Series, "/labels": a.Labels, "/label/{name}/values": a.LabelValues,
		"/metadata": a.Metadata, "/query_exemplars": a.Exemplars, "/format_query": a.FormatQuery, "/parse_query": a.ParseQuery, "/read": a.RemoteRead, "/federate": a.Federate,
		"/export": a.Export, "/export/csv": a.ExportCSV, "/export/native": a.ExportNative,
		"/active_series": a.ActiveSeries, "/active_native_histogram_metrics": a.ActiveHistograms,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				WriteError(w, err)
			}
		})
	}
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, r)
	return rec
}

func TestAnswersAreThoseOfPrometheus(t *testing.T) {
	a := newAPI(t, setup{})
	const success = `{"status":"success"`
	for _, c := range []struct{ path, form, want string }{
		{"/query", "query=1%2B1", `,"data":{"resultType":"scalar","result":[600,"2"]}}`},
		{"/query", "query=1%2B1&time=1.5", `,"data":{"resultType":"scalar","result":[1.5,"2"]}}`},
		{"/query", "query=1%2B1&time=1970-01-01T00:00:02.25Z", `,"data":{"resultType":"scalar","result":[2.25,"2"]}}`},
		{"/query", "query=%22x%22", `,"data":{"resultType":"string","result":[600,"x"]}}`},
		{"/query", "query=nothing", `,"data":{"resultType":"vector","result":[]}}`},
		{"/query", "query=sum(req_total)", `,"data":{"resultType":"vector","result":[{"metric":{},"value":[600,"610"]}]}}`},
		{"/query", "query=lat", `,"data":{"resultType":"vector","result":[{"metric":{"__name__":"lat","job":"b"},"histogram":[600,{"count":"4","sum":"8","buckets":[[0,"0.5","1","1"],[0,"1","2","3"]]}]}]}}`},
		{"/query", "query=req_total{code='500'}[2m]", `,"data":{"resultType":"matrix","result":[{"metric":{"__name__":"req_total","code":"500","job":"a"},"values":[[540,"9"],[600,"10"]]}]}}`},
		{"/query", "query=req_total&limit=1", `,"data":{"resultType":"vector","result":[{"metric":{"__name__":"req_total","code":"200","job":"a"},"value":[600,"600"]}]},"warnings":["results truncated due to limit"]}`},
		{"/query", "query=rate(dotted[5m])", `,"data":{"resultType":"vector","result":[{"metric":{"job":"b","my.label":"x"},"value":[600,"0"]}]},"infos":["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"dotted\" (1:6)"]}`},
		{"/query_range", "query=req_total{code='500'}&start=0&end=120&step=60", `,"data":{"resultType":"matrix","result":[{"metric":{"__name__":"req_total","code":"500","job":"a"},"values":[[0,"0"],[60,"1"],[120,"2"]]}]}}`},
		{"/query_range", "query=nothing&start=0&end=120&step=1m", `,"data":{"resultType":"matrix","result":[]}}`},
		{"/query_range", "query=req_total&start=0&end=0&step=1&limit=1", `,"data":{"resultType":"matrix","result":[{"metric":{"__name__":"req_total","code":"200","job":"a"},"values":[[0,"0"]]}]},"warnings":["results truncated due to limit"]}`},
		{"/labels", "", `,"data":["__name__","code","job","my.label"]}`},
		{"/labels", "match[]=lat&match[]=req_total", `,"data":["__name__","code","job"]}`},
		{"/labels", "match[]=nothing", `,"data":[]}`},
		{"/labels", "limit=2", `,"data":["__name__","code"],"warnings":["results truncated due to limit"]}`},
		{"/labels", "start=-9223309901257974&end=292277025-08-18T07:12:54.999999999Z", `,"data":["__name__","code","job","my.label"]}`},
		{"/label/code/values", "", `,"data":["200","500"]}`},
		{"/label/code/values", "match[]=lat", `,"data":[]}`},
		{"/label/U__my_2e_label/values", "", `,"data":["x"]}`},
		{"/label/__name__/values", "match[]={job='b'}&match[]=req_total", `,"data":["dotted","lat","req_total"]}`},
		{"/series", "match[]=req_total&match[]={code='500'}", `,"data":[{"__name__":"req_total","code":"200","job":"a"},{"__name__":"req_total","code":"500","job":"a"}]}`},
		{"/series", "match[]=nothing", `,"data":[]}`},
		{"/series", "match[]=req_total&limit=1", `,"data":[{"__name__":"req_total","code":"200","job":"a"}],"warnings":["results truncated due to limit"]}`},
		{"/metadata", "", `,"data":{"lat":[{"type":"histogram","unit":"","help":""}],"req_total":[{"type":"counter","unit":"s","help":"Requests."},{"type":"gauge","unit":"","help":"?"}]}}`},
		{"/metadata", "metric=req_total&limit_per_metric=1", `,"data":{"req_total":[{"type":"counter","unit":"s","help":"Requests."}]}}`},
		{"/metadata", "limit=0", `,"data":{}}`},
		{"/query_exemplars", "query=rate(req_total[5m])", `,"data":[{"seriesLabels":{"__name__":"req_total","code":"200","job":"a"},"exemplars":[{"labels":{"trace_id":"abc"},"value":"2.5","timestamp":300}]}]}`},
		{"/query_exemplars", "query=lat", `,"data":[]}`},
		{"/format_query", "query=foo/bar", `,"data":"foo / bar"}`},
	} {
		rec := a.call("GET", c.path, c.form)
		if got, want := rec.Body.String(), success+c.want; rec.Code != 200 || got != want {
			t.Errorf("%s?%s: status %d\n got %s\nwant %s", c.path, c.form, rec.Code, got, want)
		}
		if ct := rec.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s: content type %q", c.path, ct)
		}
		if strings.HasPrefix(c.path, "/label/") || c.path == "/metadata" {
			continue
		}
		if post := a.call("POST", c.path, c.form); post.Body.String() != rec.Body.String() {
			t.Errorf("%s?%s: POST answers %s", c.path, c.form, post.Body)
		}
	}
}

func TestBadRequestsGetTheErrorOfPrometheus(t *testing.T) {
	a := newAPI(t, setup{})
	grid := "&start=0&end=120&step=60"
	for _, c := range []struct {
		path, form string
		status     int
		kind, text string
	}{
		{"/query", "query=", 400, "bad_data", `invalid parameter "query": unknown position: parse error: no expression found in input`},
		{"/query", "query=sum(", 400, "bad_data", `invalid parameter "query": 1:5: parse error`},
		{"/query", "query=1&time=x", 400, "bad_data", `invalid parameter "time": invalid time value for 'time': cannot parse "x" to a valid timestamp`},
		{"/query", "query=1&time=NaN", 400, "bad_data", `cannot parse "NaN" to a valid timestamp`},
		{"/query", "query=1&timeout=x", 400, "bad_data", `invalid parameter "timeout": cannot parse "x" to a valid duration`},
		{"/query", "query=1&limit=-1", 400, "bad_data", `invalid parameter "limit": limit must be non-negative`},
		{"/query", "query=1&lookback_delta=x", 400, "bad_data", `error parsing lookback delta duration: cannot parse "x" to a valid duration`},
		{"/query", "query=req_total&timeout=0", 503, "timeout", ``},
		{"/query", "query=req_total*on(job)req_total", 422, "execution", `many-to-many matching not allowed`},
		{"/query", "query=count_over_time(vector(1)[1d:1s])", 422, "execution", `expression is evaluated at 8.64e+04 points in time`},
		{"/query_range", "query=1&end=120&step=60", 400, "bad_data", `invalid parameter "start": cannot parse "" to a valid timestamp`},
		{"/query_range", "query=1&start=120&end=0&step=60", 400, "bad_data", `invalid parameter "end": end timestamp must not be before start time`},
		{"/query_range", "query=1&start=0&end=120&step=0", 400, "bad_data", `zero or negative query resolution step widths are not accepted. Try a positive integer`},
		{"/query_range", "query=1&start=0&end=120&step=-1", 400, "bad_data", `zero or negative query resolution step widths are not accepted. Try a positive integer`},
		{"/query_range", "query=1&start=0&end=0&step=0.0001", 400, "bad_data", `below one millisecond`},
		{"/query_range", "query=1&start=0&end=120&step=1e300", 400, "bad_data", `It overflows int64`},
		{"/query_range", "query=1&start=0&end=11001&step=1", 400, "bad_data", `exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)`},
		{"/query_range", "query=foo[5m]" + grid, 400, "bad_data", `invalid expression type "range vector" for range query, must be Scalar or instant Vector`},
		{"/labels", "match[]={job=~'.*'}", 400, "bad_data", `match[] must contain at least one non-empty matcher`},
		{"/labels", "match[]={", 400, "bad_data", `1:2: parse error`},
		{"/series", "match[]={", 400, "bad_data", `invalid parameter "match[]": 1:2: parse error`},
		{"/query_exemplars", "query=)", 400, "bad_data", `1:2: parse error`},
		{"/series", "limit=x", 400, "bad_data", `no match[] parameter provided`},
		{"/labels", "start=x", 400, "bad_data", `invalid parameter "start"`},
		{"/label/a%FFb/values", "", 400, "bad_data", `invalid label name: "a\xffb"`},
		{"/series", strings.Repeat("match[]=a&", 501), 400, "bad_data", `501 selectors, at most 500`},
		{"/labels", "match[]=" + strings.Repeat("a", 1<<20) + "&match[]=b", 400, "bad_data", `the text has 1048577 bytes`},
		{"/query", "query=1&time=1e17", 400, "bad_data", `cannot parse "1e17" to a valid timestamp`},
		{"/query", "query=1&time=9e15", 400, "bad_data", `evaluation time 9000000000000000 s is out of range`},
		{"/query_range", "query=1&start=-4e15&end=4e15&step=4e8", 400, "bad_data", `exceeded maximum resolution`},
		{"/format_query", "query=" + strings.Repeat("(", 190) + "a{b='" + strings.Repeat("c", 1<<19) + "'}" + strings.Repeat(")", 190), 422, "execution", `too large to lay out`},
		{"/series", "", 400, "bad_data", `no match[] parameter provided`},
		{"/metadata", "limit=x", 400, "bad_data", `limit must be a number`},
		{"/metadata", "limit_per_metric=x", 400, "bad_data", `limit_per_metric must be a number`},
		{"/query_exemplars", "query=foo&start=5&end=1", 400, "bad_data", `end timestamp must not be before start timestamp`},
		{"/format_query", "query=sum(", 400, "bad_data", `invalid parameter "query"`},
		{"/parse_query", "query=sum(", 400, "bad_data", `invalid parameter "query"`},
		{"/query", "query=limitk(1,req_total)", 400, "bad_data", `invalid parameter "query": "limitk" is experimental and not enabled`},
		{"/query", "query=" + strings.Repeat("(", 100_000) + "1", 400, "bad_data", `invalid parameter "query": expression is nested more than 200 levels deep`},
		{"/query", "query=1" + strings.Repeat("%2B1", 100_000), 400, "bad_data", `more than 5000 operators`},
		{"/query", "query=1" + strings.Repeat("%2B1", 600), 400, "bad_data", `tree of 601 levels, at most 500`},
	} {
		rec := a.call("GET", c.path, c.form)
		body := rec.Body.String()
		text := string(appendString(nil, c.text))
		if rec.Code != c.status || !strings.HasPrefix(body, `{"status":"error","errorType":"`+c.kind+`","error":"`) || !strings.Contains(body, text[1:len(text)-1]) {
			t.Errorf("%s?%.80s: status %d, want %d %s %q\n%.300s", c.path, c.form, rec.Code, c.status, c.kind, c.text, body)
		}
	}
}

// brokenEngine fails where at says.
type brokenEngine struct {
	Engine
	err error
	at  string
}

type brokenQuery struct {
	promql.Query
	err error
}

func (b brokenEngine) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	if b.at == "prepare" {
		return nil, b.err
	}
	query, err := b.Engine.NewInstantQuery(ctx, q, o, qs, ts)
	return brokenQuery{query, b.err}, err
}

func (b brokenEngine) ParseSelectors(context.Context, []string) ([][]*labels.Matcher, error) {
	return nil, b.err
}
func (b brokenEngine) ParseExpr(context.Context, string) (parser.Expr, error) { return nil, b.err }
func (b brokenEngine) Format(context.Context, string) (string, error)         { return "", b.err }
func (b brokenEngine) Tree(context.Context, string) (any, error)              { return nil, b.err }

func (b brokenQuery) Exec(context.Context) *promql.Result { return &promql.Result{Err: b.err} }

func TestEngineErrorsKeepTheirKind(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		kind   string
	}{
		{errs.New(errs.Canceled, "x"), 499, "canceled"},
		{errs.New(errs.Timeout, "x"), 503, "timeout"},
		{fmt.Errorf("expanding series: %w", errs.New(errs.TooLarge, "series")), 422, "execution"},
		{errs.New(errs.Unprocessable, "many-to-many"), 422, "execution"},
		{errs.New(errs.Unavailable, "ring"), 503, "unavailable"},
		{errs.New(errs.RateLimited, "queue"), 429, "too_many_requests"},
		{errs.New(errs.Denied, "no"), 403, "forbidden"},
		{errors.New("nobody classed this"), 500, "internal"},
	} {
		for path, at := range map[string]string{"/query?query=up": "exec", "/query?query=up&x": "prepare", "/labels?match[]=up": "", "/query_exemplars?query=up": "", "/format_query?query=up": "", "/parse_query?query=up": ""} {
			a := newAPI(t, setup{engine: func(e Engine) Engine { return brokenEngine{e, c.err, at} }})
			path, form, _ := strings.Cut(path, "?")
			rec := a.call("GET", path, form)
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), `"errorType":"`+c.kind+`","error":"`+c.err.Error()+`"`) {
				t.Errorf("%s at %q, %v: got %d %s, want %d %s", path, at, c.err, rec.Code, rec.Body, c.status, c.kind)
			}
		}
	}
}

// allowing gives every call what the list allows, as the process's engine does.
type allowing struct {
	Engine
	list string
}

func (a allowing) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	return a.Engine.NewInstantQuery(engine.Allow(ctx, a.list), q, o, qs, ts)
}

// counting counts how often the text is parsed apart from by the evaluation.
type counting struct {
	Engine
	parses int
}

func (c *counting) ParseExpr(ctx context.Context, qs string) (parser.Expr, error) {
	c.parses++
	return c.Engine.ParseExpr(ctx, qs)
}

func TestQueriesAreParsedByTheEvaluationAlone(t *testing.T) {
	var c counting
	a := newAPI(t, setup{view: limits.MaxTotalQueryLength.With(limits.View{}, time.Hour), engine: func(e Engine) Engine { c.Engine = e; return &c }})
	a.call("GET", "/query", "query=up")
	a.call("GET", "/query_range", "query=up&start=0&end=60&step=60")
	if c.parses != 0 {
		t.Errorf("%d further parses", c.parses)
	}
}

func TestParseQueryAnswersTheTree(t *testing.T) {
	a := newAPI(t, setup{})
	want := `{"status":"success","data":{"expr":{"type":"numberLiteral","val":"1"},"type":"parenExpr"}}`
	if got := a.call("POST", "/parse_query", "query=(1)").Body.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTenantLimitsAreKept(t *testing.T) {
	var v limits.View
	v = limits.MaxTotalQueryLength.With(v, time.Hour)
	v = limits.MaxQueryExpressionSize.With(v, 50)
	v = limits.MaxLabelNamesLimit.With(v, 1)
	v = limits.MaxLabelValuesLimit.With(v, 1)
	v = limits.MaxSeriesQueryLimit.With(v, 1)
	a := newAPI(t, setup{view: v, engine: func(e Engine) Engine { return allowing{e, "limitk"} }})
	for _, c := range []struct {
		path, form string
		status     int
		want       string
	}{
		{"/query_range", "query=up&start=0&end=7200&step=60", 400, "(err-amphora-max-total-query-length)"},
		{"/query_range", "query=up&start=0&end=3000&step=60", 200, "success"},
		{"/query", "query=rate(up[2h])", 400, "(err-amphora-max-total-query-length)"},
		{"/query", "query=up+offset+2h", 200, "success"},
		{"/query", "query=sum(up)%2B" + strings.Repeat("1", 50), 400, "(err-amphora-max-query-expression-size-bytes)"},
		{"/query", "query=limitk(1,req_total)", 200, "success"},
		{"/labels", "", 200, `"data":["__name__"],"warnings":["results truncated due to limit"]`},
		{"/labels", "limit=5", 200, `"data":["__name__"],"warnings"`},
		{"/label/code/values", "", 200, `"data":["200"],"warnings"`},
		{"/series", "match[]=req_total", 200, `"code":"200","job":"a"}],"warnings"`},
	} {
		rec := a.call("GET", c.path, c.form)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s?%s: got %d %s, want %d %s", c.path, c.form, rec.Code, rec.Body, c.status, c.want)
		}
	}
}

func TestFormBodiesAreBounded(t *testing.T) {
	a := newAPI(t, setup{})
	rec := a.call("POST", "/query", "query=1&x="+strings.Repeat("a", maxFormBytes))
	if rec.Code != 413 || !strings.Contains(rec.Body.String(), `"errorType":"too_large_entry"`) {
		t.Errorf("got %d %.200s", rec.Code, rec.Body)
	}
}

func TestAnswersAreCompressedWhenAcceptedAndLarge(t *testing.T) {
	a := newAPI(t, setup{})
	q := url.Values{"query": {"sum by (code) (req_total)"}, "start": {"0"}, "end": {"600"}, "step": {"1"}}.Encode()
	plain := a.call("GET", "/query_range", q)
	for accept, want := range map[string]bool{"gzip": true, "br, gzip;q=0.5": true, "*": true, "gzip;q=0": false, "identity": false} {
		r := httptest.NewRequest("GET", "/query_range?"+q, nil)
		r.Header.Set("Accept-Encoding", accept)
		rec := a.do(r)
		if got := rec.Header().Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("%s: compressed %v, want %v", accept, got, want)
			continue
		}
		body := rec.Body.String()
		if want {
			gz, err := gzip.NewReader(rec.Body)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if _, err := gz.WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			body = b.String()
		}
		if body != plain.Body.String() {
			t.Errorf("%s: the answer differs", accept)
		}
	}
	r := httptest.NewRequest("GET", "/query?query=1", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	if rec := a.do(r); rec.Header().Get("Content-Encoding") != "" {
		t.Error("a tiny answer was compressed")
	}
}

func TestStatisticsComeWhenAsked(t *testing.T) {
	a := newAPI(t, setup{})
	for form, want := range map[string]string{
		"stats=true": `"stats":{"timings":{"evalTotalTime":`,
		"stats=all":  `"totalQueryableSamplesPerStep":[[600,2]]`,
		"stats=1":    `"warnings":["value \"1\" for parameter \"stats\" is deprecated`,
	} {
		if body := a.call("GET", "/query", "query=req_total&"+form).Body.String(); !strings.Contains(body, want) {
			t.Errorf("%s: %s lacks %s", form, body, want)
		}
	}
	if body := a.call("GET", "/query", "query=req_total").Body.String(); strings.Contains(body, "stats") {
		t.Errorf("not asked: %s", body)
	}
}

// recent is a SeriesSource with one series.
type recent struct{ labels.Labels }

func (r recent) RecentSeries(_ context.Context, _ bool, _ []*labels.Matcher, f func(labels.Labels) error) error {
	return f(r.Labels)
}

func TestActiveSeriesSayWhatTheyTookWhenAsked(t *testing.T) {
	a := newAPI(t, setup{view: limits.CardinalityAnalysisEnabled.With(limits.View{}, true)})
	a.b.Series, a.b.Timeout = recent{labels.FromStrings("__name__", "up")}, time.Minute
	took := 0
	a.b.Now = func() time.Time { took++; return time.UnixMilli(int64(took * 2)) }
	for _, c := range []struct {
		path, name, value, want string
	}{
		{"/active_series", "X-Amphora-Response-Query-Stats", "true", "querier_wall_time;dur=2.000, fetched_series;val=1"},
		{"/active_series", "X-Mimir-Response-Query-Stats", "true", "querier_wall_time;dur=2.000, fetched_series;val=1"},
		{"/active_series", "X-Mimir-Response-Query-Stats", "false", ""},
		{"/active_series", "Sharding-Control", "16", ""},
		{"/active_native_histogram_metrics", "X-Mimir-Response-Query-Stats", "true", "querier_wall_time;dur=2.000, fetched_series;val=0"},
	} {
		r := httptest.NewRequest("GET", c.path+"?selector=up", nil)
		r.Header.Set(c.name, c.value)
		rec := a.do(r)
		if got := rec.Header().Get("Server-Timing"); rec.Code != 200 || got != c.want {
			t.Errorf("%s with %s: %s answers %d with Server-Timing %q, want %q", c.path, c.name, c.value, rec.Code, got, c.want)
		}
		if c.path == "/active_series" && rec.Body.String() != `{"data":[{"__name__":"up"}]}` {
			t.Errorf("%s with %s: answers %s", c.path, c.name, rec.Body)
		}
	}
}

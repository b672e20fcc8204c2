package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestPrometheusScriptsAreAnsweredAlike runs the scripts by which Prometheus tests its language: what
// they load goes through remote write, and each query is asked of the process and of the stock engine
// over the same samples. Once queries go as they are, and once they are split, sharded, spun off and kept.
func TestPrometheusScriptsAreAnsweredAlike(t *testing.T) {
	for name, flags := range map[string][]string{
		"whole": {"-query-frontend.split-queries-by-interval=0", "-query-frontend.cache-results=false"},
		"split": {"-query-frontend.split-queries-by-interval=7m", "-query-frontend.parallelize-shardable-queries", "-query-frontend.query-sharding-total-shards=3",
			"-query-frontend.cache-unaligned-requests", "-query-frontend.subquery-spin-off-enabled", "-query-frontend.split-instant-queries-by-interval=7m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t, 5*time.Minute)
			n := everything(ctx, t, append(flags, "-querier.query-ingesters-within=0", "-ingester.out-of-order-time-window=500000h", "-validation.name-validation-scheme=utf8",
				"-query-frontend.enabled-promql-experimental-functions=all", "-distributor.ingestion-rate-limit=0", "-query-frontend.query-stats-enabled=false")...)
			d := &doubter{ctx: ctx, T: t, n: n}
			d.QueryEngine = promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
			d.ours = promqltest.NewTestEngineWithOpts(t, promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
				NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }, Parser: parser.NewParser(promqltest.TestParserOpts)})
			promqltest.RunBuiltinTestsWithStorage(d, d, d.open)
			t.Logf("%d queries were asked, %d of them differ", d.asked, d.differ)
			if d.asked < 1000 {
				t.Errorf("only %d queries were asked", d.asked)
			}
		})
	}
}

// doubter is an engine that asks the process as well.
type doubter struct {
	promql.QueryEngine // what the scripts are held against
	ctx                context.Context
	*testing.T
	n             *harness.Node
	ours          promql.QueryEngine // the stock engine with the switches of the process
	tenant        string
	asked, differ int
}

// Run is part of promqltest.TBRun.
func (d *doubter) Run(name string, f func(*testing.T)) bool {
	if strings.Contains(name, "start_timestamps") {
		return true // remote write 1.0 has no start times
	}
	return d.T.Run(name, f)
}

// open is a storage whose samples the process gets as well, as those of a tenant of its own.
func (d *doubter) open(t testing.TB) storage.Storage {
	d.tenant = fmt.Sprintf("script-%d", time.Now().UnixNano())
	return &doubled{teststorage.New(t), d, t}
}

type doubled struct {
	*teststorage.TestStorage
	d *doubter
	t testing.TB
}

// AppenderV2 is part of storage.Storage.
func (s *doubled) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &doubledAppender{s.TestStorage.AppenderV2(ctx), s, map[string]*prompb.TimeSeries{}}
}

type doubledAppender struct {
	storage.AppenderV2
	s      *doubled
	series map[string]*prompb.TimeSeries
}

// Append is part of storage.AppenderV2.
func (a *doubledAppender) Append(ref storage.SeriesRef, ls labels.Labels, st, ts int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	key := ls.String()
	if a.series[key] == nil {
		a.series[key] = &prompb.TimeSeries{Labels: prompb.FromLabels(ls, nil)}
	}
	s := a.series[key]
	switch {
	case fh != nil:
		s.Histograms = append(s.Histograms, prompb.FromFloatHistogram(ts, fh.Copy()))
	case h != nil:
		s.Histograms = append(s.Histograms, prompb.FromIntHistogram(ts, h.Copy()))
	default:
		s.Samples = append(s.Samples, prompb.Sample{Timestamp: ts, Value: v})
	}
	return a.AppenderV2.Append(ref, ls, st, ts, v, h, fh, o)
}

// Commit is part of storage.AppenderV2.
func (a *doubledAppender) Commit() error {
	if err := a.AppenderV2.Commit(); err != nil {
		return err
	}
	req := &prompb.WriteRequest{}
	for _, s := range a.series {
		req.Timeseries = append(req.Timeseries, *s)
	}
	raw, err := req.Marshal()
	if err != nil {
		return err
	}
	stored(a.s.d.T, pushBytes(a.s.d.ctx, a.s.d.T, a.s.d.n.URL(""), a.s.d.tenant, typeV1, raw))
	return nil
}

// NewInstantQuery is part of promql.QueryEngine.
func (d *doubter) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	if ours, err := d.ours.NewInstantQuery(ctx, q, o, qs, ts); err == nil {
		d.compare(ours, "query", url.Values{"query": {qs}, "time": {seconds(ts.UnixMilli())}})
	}
	return d.QueryEngine.NewInstantQuery(ctx, q, o, qs, ts)
}

// NewRangeQuery is part of promql.QueryEngine.
func (d *doubter) NewRangeQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, start, end time.Time, step time.Duration) (promql.Query, error) {
	if ours, err := d.ours.NewRangeQuery(ctx, q, o, qs, start, end, step); err == nil {
		d.compare(ours, "query_range", url.Values{"query": {qs}, "start": {seconds(start.UnixMilli())}, "end": {seconds(end.UnixMilli())}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}})
	}
	return d.QueryEngine.NewRangeQuery(ctx, q, o, qs, start, end, step)
}

// compare asks the process and reports how its answer differs from that of q.
func (d *doubter) compare(q promql.Query, path string, form url.Values) {
	defer q.Close()
	res := q.Exec(d.ctx)
	form.Set("limit", "0")
	r := call(d.ctx, d.T, http.MethodPost, d.n.URL("/prometheus/api/v1/"+path), []byte(form.Encode()), "X-Scope-OrgID", d.tenant, "Content-Type", "application/x-www-form-urlencoded")
	d.asked++
	if err := alike(r, res); err != nil {
		d.differ++
		d.T.Errorf("%s %s\n%v", path, form.Encode(), err)
	}
}

// answered is the JSON of an answer.
type answered struct {
	Data struct {
		ResultType string
		Result     json.RawMessage
	}
	Warnings, Infos []string
}

// jsonSeries is a series of a matrix or vector.
type jsonSeries struct {
	Metric     map[string]string
	Value      []any
	Histogram  []any
	Values     [][]any
	Histograms [][]any
}

// alike says how an answer differs from a result.
func alike(r reply, res *promql.Result) error {
	if res.Err != nil {
		if r.status == 200 {
			return fmt.Errorf("answered %s, want the error %w", r, res.Err)
		}
		return nil
	}
	var a answered
	if err := json.Unmarshal([]byte(r.body), &a); err != nil || r.status != 200 {
		return fmt.Errorf("answered %s, want %.300s", r, res.Value)
	}
	if got, want := positionless(slices.Concat(a.Warnings, a.Infos)), annotationsOf(res); got != want {
		return fmt.Errorf("warnings %s\nwant %s", got, want)
	}
	want := map[string]string{}
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			want[name(s.Metric.Map())] = pointText(s.F, s.H)
		}
	case promql.Matrix:
		for _, s := range v {
			for _, p := range s.Floats {
				want[name(s.Metric.Map())+"@"+fmt.Sprint(p.T)] = pointText(p.F, nil)
			}
			for _, p := range s.Histograms {
				want[name(s.Metric.Map())+"@"+fmt.Sprint(p.T)] = pointText(0, p.H)
			}
		}
	default:
		return nil // scalars and strings are shown by other tests
	}
	var list []jsonSeries
	if err := json.Unmarshal(a.Data.Result, &list); err != nil {
		return err
	}
	got := map[string]string{}
	for _, s := range list {
		switch {
		case s.Value != nil:
			got[name(s.Metric)] = jsonText(s.Value[1])
		case s.Histogram != nil:
			got[name(s.Metric)] = jsonText(s.Histogram[1])
		}
		for _, p := range slices.Concat(s.Values, s.Histograms) {
			at, _ := p[0].(float64)
			got[name(s.Metric)+"@"+fmt.Sprint(int64(math.Round(at*1000)))] = jsonText(p[1])
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d points, want %d: %.500v, want %.500v", len(got), len(want), got, want)
	}
	for k, w := range want {
		if g, ok := got[k]; !ok || !sameNumbers(g, w) {
			return fmt.Errorf("%s = %s, want %s", k, g, w)
		}
	}
	return nil
}

func name(m map[string]string) string { return labels.FromMap(m).String() }

// pointText is a value as numbers separated by blanks.
func pointText(f float64, h *histogram.FloatHistogram) string {
	if h == nil {
		return fmt.Sprint(f)
	}
	out := []string{fmt.Sprint(h.Count), fmt.Sprint(h.Sum)}
	for it := h.AllBucketIterator(); it.Next(); {
		if b := it.At(); b.Count != 0 {
			out = append(out, fmt.Sprint(b.Lower), fmt.Sprint(b.Upper), fmt.Sprint(b.Count))
		}
	}
	return strings.Join(out, " ")
}

func jsonText(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Sprint(v)
	}
	out := []string{fmt.Sprint(m["count"]), fmt.Sprint(m["sum"])}
	buckets, _ := m["buckets"].([]any)
	for _, b := range buckets {
		if parts, ok := b.([]any); ok {
			for _, p := range parts[1:] {
				out = append(out, fmt.Sprint(p))
			}
		}
	}
	return strings.Join(out, " ")
}

func sameNumbers(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return slices.EqualFunc(x, y, func(a, b string) bool {
		f, err1 := strconv.ParseFloat(a, 64)
		g, err2 := strconv.ParseFloat(b, 64)
		if errors.Join(err1, err2) != nil {
			return false
		}
		return f == g || math.IsNaN(f) && math.IsNaN(g) || math.Abs(f-g) <= 1e-9*max(math.Abs(f), math.Abs(g))
	})
}

// positions are where in the query a warning arose, and what the engine counts on the way.
var positions = regexp.MustCompile(`,? ?(from buckets .*)?\(\d+:\d+\)$`)

func positionless(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, strings.TrimSpace(positions.ReplaceAllString(s, "")))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), "\n")
}

func annotationsOf(res *promql.Result) string {
	ws, infos := res.Warnings.AsStrings("", 0, 0)
	return positionless(slices.Concat(ws, infos))
}

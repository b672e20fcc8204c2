package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// native is a native histogram of n observations in each of two buckets.
func native(n float64) *histogram.FloatHistogram {
	return &histogram.FloatHistogram{Schema: 3, ZeroThreshold: 1e-9, Count: 2 * n, Sum: 7 * n,
		PositiveSpans: []histogram.Span{{Offset: 5, Length: 1}, {Offset: 9, Length: 1}}, PositiveBuckets: []float64{n, n}}
}

// same waits until what a rule recorded is what the expression gives, in what the API shows of the histogram.
func same(ctx context.Context, t *testing.T, n *harness.Node, tenant, recorded, expr string, at url.Values) {
	t.Helper()
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		for _, show := range []string{"histogram_count(%s)", "histogram_sum(%s)", "histogram_quantile(0.3, %s)", "histogram_fraction(0, 3, %s)"} {
			var got [2]string
			for i, e := range []string{recorded, expr} {
				a, err := ask(ctx, n.URL("/prometheus"), tenant, "query", url.Values{"query": {fmt.Sprintf(show, e)}, "time": at["time"]})
				if err != nil {
					return err
				}
				if len(a.Data.Result) != 1 {
					return fmt.Errorf(show+" has %d series", e, len(a.Data.Result))
				}
				got[i] = fmt.Sprint(a.Data.Result[0].Value[1])
			}
			if got[0] != got[1] {
				return fmt.Errorf(show+" is %s, want %s", recorded, got[0], got[1])
			}
		}
		return nil
	}))
}

// TestRulesThatAQueryFrontendEvaluatesRecordNativeHistograms: the API tells the ruler all of them, which its JSON
// does not.
func TestRulesThatAQueryFrontendEvaluatesRecordNativeHistograms(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	var to atomic.Pointer[url.URL] // the process is told the address before it has one
	var asked atomic.Int64
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		asked.Add(1)
		r.SetURL(to.Load())
	}})
	t.Cleanup(front.Close)
	to.Store(&url.URL{Scheme: "http", Host: "127.0.0.1:1"})
	n := everything(ctx, t, "-ruler.query-frontend.address="+front.URL+"/prometheus", "-ruler.evaluation-delay-duration=0s")
	u, err := url.Parse(n.URL(""))
	must(t, err)
	to.Store(u)
	now := time.Now().UnixMilli()
	var series []prompb.TimeSeries
	for _, pod := range []string{"a", "b"} {
		series = append(series, prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "took"}, {Name: "pod", Value: pod}},
			Histograms: []prompb.Histogram{prompb.FromFloatHistogram(now, native(3))}})
	}
	if r := pushV1(ctx, t, n.URL(""), "team", series...); r.status/100 != 2 {
		t.Fatalf("push: %+v", r)
	}
	if status, body := send(ctx, t, http.MethodPost, n.URL("/prometheus/config/v1/rules/ns"), "team", "{name: g, interval: 1s, rules: [{record: 'took:sum', expr: sum(took)}]}"); status != http.StatusAccepted {
		t.Fatalf("rules: %d %s", status, body)
	}
	same(ctx, t, n, "team", "took:sum", "sum(took)", nil)
	if asked.Load() == 0 {
		t.Error("the rule was evaluated by somebody else")
	}
}

// histogramsOfThePast is a directory with a block of native histograms, one a minute for an hour.
func histogramsOfThePast(ctx context.Context, t *testing.T, at time.Time) string {
	t.Helper()
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(harness.TestLog(t), dir, tsdb.DefaultBlockDuration)
	must(t, err)
	app := w.Appender(ctx)
	for i := range 60 {
		for _, pod := range []string{"a", "b"} {
			_, err := app.AppendHistogram(0, labels.FromStrings("__name__", "took", "pod", pod), at.Add(time.Duration(i)*time.Minute).UnixMilli(), nil, native(float64(i+1)))
			must(t, err)
		}
	}
	must(t, app.Commit())
	_, err = w.Flush(ctx)
	must(t, err)
	must(t, w.Close())
	return dir
}

package integration

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// tee is a running query-tee.
type tee struct {
	*harness.Process
	url, metrics string
}

// startTee starts one before two installations, of which the first is preferred.
func startTee(ctx context.Context, t *testing.T, name, preferred, other string) *tee {
	t.Helper()
	free, err := new(harness.Ports).Free(2)
	must(t, err)
	x := &tee{url: fmt.Sprintf("http://127.0.0.1:%d", free[0]), metrics: fmt.Sprintf("http://127.0.0.1:%d/metrics", free[1])}
	x.Process = startBeside(t, harness.Command{
		Name: name, Path: builtTool.path, LogFile: filepath.Join(t.TempDir(), "log"),
		Args: []string{"query-tee", "--backend.endpoints=" + preferred + "," + other, "--backend.preferred=" + strings.TrimPrefix(preferred, "http://"),
			fmt.Sprintf("--server.http-service-port=%d", free[0]), fmt.Sprintf("--server.metrics-port=%d", free[1]),
			"--proxy.compare-responses", "--proxy.compare-skip-recent-samples=0s", "--proxy.passthrough-non-registered-routes"},
	})
	awaitAnswer(ctx, t, x.url+"/ready")
	return x
}

// startBeside runs a program until the test ends.
func startBeside(t *testing.T, c harness.Command) *harness.Process {
	t.Helper()
	p := harness.NewProcess(harness.TestLog(t), c)
	must(t, p.Start())
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of %s ends:\n%s", c.Name, p.Tail())
		}
	})
	return p
}

// awaitAnswer waits for an answer of 200.
func awaitAnswer(ctx context.Context, t *testing.T, address string) {
	t.Helper()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		_, err := harness.Get(ctx, address)
		return err
	}))
}

// came waits until pairs of answers were compared that often, each with the result.
func (x *tee) came(ctx context.Context, t *testing.T, result string, times int) {
	t.Helper()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		all := scrape(ctx, t, x.metrics, "amphora_querytee_responses_compared_total")
		if n := scrape(ctx, t, x.metrics, "amphora_querytee_responses_compared_total", "result", result); n != float64(times) {
			return fmt.Errorf("%s: %v of %v comparisons are a %s, want %d\n%s", x.Name, n, all, result, times, x.Tail())
		}
		return nil
	}))
}

// teeQueries are asked from at-5m to at.
func teeQueries(at time.Time) []struct{ path, query string } {
	from, to := seconds(at.Add(-5*time.Minute).UnixMilli()), seconds(at.UnixMilli())
	long := func(expr string) string {
		return url.Values{"query": {expr}, "start": {from}, "end": {to}, "step": {"10"}}.Encode()
	}
	return []struct{ path, query string }{
		{"query_range", long(`requests_total`)},
		{"query_range", long(`sum by (job) (rate(requests_total[1m]))`)},
		{"query_range", long(`topk(2, requests_total) / ignoring (code) group_left () sum without (code) (requests_total)`)},
		{"query_range", long(`max_over_time(requests_total[1m:20s]) > 3 or vector(NaN)`)},
		{"query", url.Values{"query": {`requests_total{code!="500"}`}, "time": {to}}.Encode()},
		{"query", url.Values{"query": {`scalar(sum(requests_total))`}, "time": {to}}.Encode()},
		{"query", url.Values{"query": {`requests_total[30s]`}, "time": {to}}.Encode()},
		{"query", url.Values{"query": {`sum(requests_total`}}.Encode()},
		{"labels", url.Values{"start": {from}, "end": {to}}.Encode()},
		{"label/code/values", url.Values{"start": {from}, "end": {to}}.Encode()},
		{"series", url.Values{"match[]": {`requests_total{job="a"}`}, "start": {from}, "end": {to}}.Encode()},
	}
}

// pushTo stores the same five minutes of six series in an installation, in order of time.
func pushTo(ctx context.Context, t *testing.T, address string, at time.Time) {
	t.Helper()
	var all []prompb.TimeSeries
	for i, job := range []string{"a", "b"} {
		for j, code := range []string{"200", "404", "500"} {
			s := prompb.TimeSeries{Labels: pairs("__name__", "requests_total", "code", code, "job", job)}
			for n := range 31 {
				s.Samples = append(s.Samples, prompb.Sample{Timestamp: at.Add(time.Duration(n-30) * 10 * time.Second).UnixMilli(), Value: float64(n*(i+1)) + 10*float64(j)*math.Sqrt2})
			}
			all = append(all, s)
		}
	}
	raw, err := (&prompb.WriteRequest{Timeseries: all}).Marshal()
	must(t, err)
	stored(t, call(ctx, t, http.MethodPost, address, snappy.Encode(nil, raw), "X-Scope-OrgID", "team", "Content-Type", typeV1, "Content-Encoding", "snappy"))
}

// TestQueryTeeComparesRealInstallations has a query-tee before two processes of the product and one before a
// process and a Prometheus, all with the same samples.
func TestQueryTeeComparesRealInstallations(t *testing.T) {
	t.Parallel()
	buildTool(t)
	path, err := harness.Tool("prometheus")
	harness.Need(t, err)
	ctx := bounded(t, 2*time.Minute)
	one, two := everything(ctx, t), everything(ctx, t)
	free, err := new(harness.Ports).Free(1)
	must(t, err)
	prometheus, dir := fmt.Sprintf("http://127.0.0.1:%d", free[0]), t.TempDir()
	startBeside(t, harness.Command{
		Name: "prometheus", Path: path, LogFile: filepath.Join(dir, "log"),
		Args: []string{"--config.file=" + file(t, dir, "prometheus.yml", "global: {scrape_interval: 1h}\n"), "--storage.tsdb.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + strings.TrimPrefix(prometheus, "http://"), "--web.route-prefix=/prometheus", "--web.enable-remote-write-receiver"},
	})
	awaitAnswer(ctx, t, prometheus+"/prometheus/-/ready")
	at := time.Now().Add(-time.Minute).Truncate(10 * time.Second)
	for _, push := range []string{one.URL("/api/v1/push"), two.URL("/api/v1/push"), prometheus + "/prometheus/api/v1/write"} {
		pushTo(ctx, t, push, at)
	}

	ours := startTee(ctx, t, "tee", one.URL(""), two.URL(""))
	theirs := startTee(ctx, t, "tee-prometheus", prometheus, one.URL(""))
	asked := teeQueries(at)
	for _, x := range []*tee{ours, theirs} {
		for _, q := range asked {
			method, address, body, header := http.MethodGet, x.url+"/prometheus/api/v1/"+q.path+"?"+q.query, "", []string{"X-Scope-OrgID", "team"}
			if strings.HasPrefix(q.path, "query") {
				method, address, body = http.MethodPost, x.url+"/prometheus/api/v1/"+q.path, q.query
				header = append(header, "Content-Type", "application/x-www-form-urlencoded")
			}
			want := http.StatusOK
			if strings.HasSuffix(q.query, "query=sum%28requests_total") {
				want = http.StatusBadRequest
			}
			if r := call(ctx, t, method, address, []byte(body), header...); r.status != want || want == http.StatusOK && !strings.Contains(r.body, `"success"`) {
				t.Errorf("%s %s: %s", x.Name, q.query, r)
			}
		}
		x.came(ctx, t, "success", len(asked))
		x.came(ctx, t, "fail", 0)
	}

	// What only one of them has is found; the client has the answer of the preferred one.
	stored(t, pushV1(ctx, t, two.URL(""), "team", floats(at, 1, "__name__", "requests_total", "code", "200", "job", "c")))
	query := "/prometheus/api/v1/query?" + url.Values{"query": {`count(requests_total)`}, "time": {seconds(at.UnixMilli())}}.Encode()
	if r := call(ctx, t, http.MethodGet, ours.url+query, nil, "X-Scope-OrgID", "team"); !strings.Contains(r.body, `"6"`) {
		t.Errorf("the answer is not that of the preferred one: %s", r)
	}
	ours.came(ctx, t, "fail", 1)
	if !strings.Contains(ours.Tail(), "answers differ") {
		t.Errorf("the log does not say that answers differ:\n%s", ours.Tail())
	}

	// What is no query is passed on to the preferred one alone, and one that has gone is not waited for.
	if r := call(ctx, t, http.MethodGet, ours.url+"/prometheus/api/v1/status/buildinfo", nil, "X-Scope-OrgID", "team"); r.status != http.StatusOK {
		t.Errorf("what is no query: %s", r)
	}
	must(t, two.Stop())
	if r := call(ctx, t, http.MethodGet, ours.url+query, nil, "X-Scope-OrgID", "team"); !strings.Contains(r.body, `"6"`) {
		t.Errorf("while the other is gone: %s", r)
	}
	ours.came(ctx, t, "skip", 1)
}

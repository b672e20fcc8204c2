package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// readLimit is a tenant whose limit stops a remote read, and what it is told.
type readLimit struct {
	limits string
	status int
	text   string
}

func readLimits() map[string]readLimit {
	return map[string]readLimit{
		"series": {"max_fetched_series_per_query: 5", 422, "max_fetched_series_per_query"},
		"chunks": {"max_fetched_chunks_per_query: 8", 422, "max_fetched_chunks_per_query"},
		"bytes":  {"max_fetched_chunk_bytes_per_query: 1000", 422, "max_fetched_chunk_bytes_per_query"},
		"length": {"max_total_query_length: 1h", 400, "max_total_query_length"},
		"part":   {"max_partial_query_length: 1h", 422, "max_partial_query_length"},
	}
}

// readLimited is a process with a tenant for each limit that has 60 series of 30 hours, half of them in blocks.
func readLimited(ctx context.Context, t *testing.T) (n *harness.Node, start int64) {
	t.Helper()
	text := "overrides:\n"
	for tenant, l := range readLimits() {
		text += "  " + tenant + ": {" + l.limits + "}\n"
	}
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	n = everything(ctx, t, "-runtime-config.file="+file, "-querier.query-ingesters-within=0", "-ingester.out-of-order-time-window=500000h", "-distributor.ingestion-rate-limit=0", "-api.max-remote-read-samples=20000", "-tenant-federation.enabled")
	start = time.Now().Add(-36 * time.Hour).Truncate(time.Hour).UnixMilli()
	for half := range 2 {
		raw := readShelves(t, start+int64(half)*15*3_600_000)
		for tenant := range readLimits() {
			keep(ctx, t, n.URL(""), tenant, raw)
		}
		keep(ctx, t, n.URL(""), "free", raw)
		if half == 0 {
			stored(t, call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil))
		}
	}
	return n, start
}

// readShelves are 60 series of 15 hours, with a sample every two minutes.
func readShelves(t *testing.T, start int64) []byte {
	t.Helper()
	req := &prompb.WriteRequest{}
	for i := range 60 {
		ts := prompb.TimeSeries{Labels: pairs("__name__", "shelves", "i", fmt.Sprint(i))}
		for k := range int64(450) {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: start + k*oracleEvery, Value: float64(i) + 1/float64(k+1)})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	raw, err := req.Marshal()
	must(t, err)
	return raw
}

// TestARemoteReadBeyondALimitIsAnErrorToItsReader has a limit stop remote reads of samples and of chunks, as the client sees that,
// and as a Prometheus shows it that reads from us: it is never a part of the answer.
func TestARemoteReadBeyondALimitIsAnErrorToItsReader(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	n, start := readLimited(ctx, t)
	req := &prompb.ReadRequest{Queries: []*prompb.Query{{StartTimestampMs: start, EndTimestampMs: start + oracleSpan, Matchers: []*prompb.LabelMatcher{
		{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: "shelves"}, {Type: prompb.LabelMatcher_RE, Name: "i", Value: "1.?"}}}}} // 11 series of 900 samples
	streamed := []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}
	for tenant, want := range readLimits() {
		for _, types := range [][]prompb.ReadRequest_ResponseType{nil, streamed} {
			req.AcceptedResponseTypes = types
			for _, of := range []string{tenant, "free|" + tenant} {
				got, err := readFrom(ctx, n.URL("/prometheus"), of, req)
				switch {
				case err != nil && req.AcceptedResponseTypes != nil:
					t.Logf("%s: the stream breaks: %v", of, err)
				case err == nil && got.status == http.StatusOK:
					t.Errorf("%s as %v: answered %d series", of, req.AcceptedResponseTypes, len(got.series[0]))
				case err != nil || got.status != want.status || !strings.Contains(got.text, want.text):
					t.Errorf("%s as %v: answered %d %s, %v, want %d %s", of, req.AcceptedResponseTypes, got.status, got.text, err, want.status, want.text)
				}
			}
		}
	}
	// Of two queries in one request each may fetch as much as one.
	few := *req.Queries[0]
	few.Matchers = append([]*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "i", Value: "1[0-4]"}}, few.Matchers...)
	twice := &prompb.ReadRequest{Queries: []*prompb.Query{&few, &few}, AcceptedResponseTypes: streamed}
	if got, err := readFrom(ctx, n.URL("/prometheus"), "series", twice); err != nil || got.status != http.StatusOK || len(got.series[0]) != 5 || len(got.series[1]) != 5 {
		t.Errorf("what fits: %d %.200s, %v", got.status, got.text, err)
	}
	t.Run("samples", func(t *testing.T) { compareSampleLimits(ctx, t, n, start, req) })
	t.Run("a Prometheus that reads", func(t *testing.T) { shownLimits(ctx, t, n, start) })
}

// compareSampleLimits asks for as many samples as may be and for more, of us and of a Prometheus with the same limit.
func compareSampleLimits(ctx context.Context, t *testing.T, n *harness.Node, start int64, req *prompb.ReadRequest) {
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Dir: filepath.Join(t.TempDir(), "prometheus"), Receiver: true, Late: true, Flags: []string{"--storage.remote.read-sample-limit=20000"}})
	harness.Need(t, err)
	defer func() { must(t, p.Stop()) }()
	stored(t, call(ctx, t, http.MethodPost, "http://"+p.Address+"/api/v1/write", snappy.Encode(nil, readShelves(t, start)), "Content-Type", typeV1, "Content-Encoding", "snappy"))
	q := req.Queries[0]
	for _, series := range []string{"1.?", "[1-4].", "[1-4].|[1-4]", "[1-4].|[1-5]", ".*"} { // 44 series have 19,800 samples, 45 have 20,250
		q.EndTimestampMs = start + 450*oracleEvery - 1
		q.Matchers = []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: "shelves"}, {Type: prompb.LabelMatcher_RE, Name: "i", Value: series}}
		for _, types := range [][]prompb.ReadRequest_ResponseType{nil, {prompb.ReadRequest_STREAMED_XOR_CHUNKS}} {
			req.AcceptedResponseTypes = types
			want, err := readFrom(ctx, "http://"+p.Address, "", req)
			must(t, err)
			got, err := readFrom(ctx, n.URL("/prometheus"), "free", req)
			must(t, err)
			if got.status == http.StatusBadRequest && want.status == http.StatusBadRequest {
				if text := strings.TrimSpace(want.text); !strings.HasPrefix(got.text, text) {
					t.Errorf("%s: refused with %q, Prometheus says %q", series, got.text, text)
				}
			} else if diff := unlikeRead(got, want, make([]map[string]bool, 1), nil); diff != "" {
				t.Errorf("%s as %v: %s", series, types, diff)
			}
		}
	}
}

// shownLimits asks a Prometheus that has nothing itself and reads as one of the tenants.
func shownLimits(ctx context.Context, t *testing.T, n *harness.Node, start int64) {
	var tenant atomic.Value
	to, err := url.Parse(n.URL("/"))
	must(t, err)
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Header.Set("X-Scope-OrgID", tenant.Load().(string)) //nolint:forcetypeassert // Nothing else is stored.
	}})
	t.Cleanup(proxy.Close)
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Name: "reader", Dir: filepath.Join(t.TempDir(), "reader"), Receiver: true, ReadURL: proxy.URL + "/prometheus/api/v1/read", Tenant: "free"})
	harness.Need(t, err)
	defer func() { must(t, p.Stop()) }()
	ask := func(of string) (reply, answered) {
		tenant.Store(of)
		form := url.Values{"query": {"count(count_over_time(shelves[29h]))"}, "time": {seconds(start + oracleSpan)}}
		r := call(ctx, t, http.MethodGet, "http://"+p.Address+"/api/v1/query?"+form.Encode(), nil)
		var a answered
		must(t, json.Unmarshal([]byte(r.body), &a))
		return r, a
	}
	if r, _ := ask("free"); r.status != http.StatusOK || !strings.Contains(r.body, `"60"]`) {
		t.Errorf("without a limit: %s", r)
	}
	for of, want := range readLimits() {
		// Prometheus makes what a server of remote read refuses a warning, and leaves all of it out; an error of a stream that
		// has begun is one of the query.
		r, a := ask(of)
		refused := r.status == http.StatusOK && string(a.Data.Result) == "[]" && strings.Contains(strings.Join(a.Warnings, "\n"), want.text) && strings.Contains(r.body, fmt.Sprint(want.status))
		if !refused && r.status/100 == 2 {
			t.Errorf("limit of %s: shows %s", of, r)
		}
	}
}

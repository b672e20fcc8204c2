package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// scraped is how long Prometheus scrapes before answers are compared.
const scraped = 25 * time.Second

// agreement is what is asked of Prometheus and of the product.
var agreement = []string{
	`up`,
	`scrape_samples_scraped`,
	`prometheus_http_requests_total`,
	`process_resident_memory_bytes`,
	`rate(prometheus_http_requests_total[8s])`,
	`increase(prometheus_http_requests_total[8s])`,
	`irate(prometheus_http_requests_total[8s])`,
	`sum by (code) (rate(prometheus_http_requests_total[8s]))`,
	`sum without (instance) (go_goroutines)`,
	`avg by (job) (go_goroutines)`,
	`count(up)`,
	`count({__name__=~".+"})`,
	`max by (instance) (go_memstats_heap_alloc_bytes)`,
	`topk(2, prometheus_http_response_size_bytes_sum)`, // which do not tie, as counts of requests do: of those it is open which are shown
	`count by (__name__) ({__name__=~"go_.+"})`,
	`quantile_over_time(0.5, go_goroutines[8s])`,
	`changes(go_goroutines[8s])`,
	`max_over_time(go_goroutines[8s:1s])`,
	`go_goroutines offset 3s`,
	`go_goroutines / on (instance) group_left go_threads`,
	`absent(nothing_has_this_name)`,
	`label_replace(up, "host", "$1", "instance", "(.*):.*")`,
	`histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[8s])))`,
	`histogram_quantile(0.9, rate(prometheus_http_request_duration_seconds_bucket[8s]))`,
	// Native histograms.
	`prometheus_http_request_duration_seconds`,
	`rate(prometheus_http_request_duration_seconds[8s])`,
	`sum(rate(prometheus_http_request_duration_seconds[8s]))`,
	`histogram_quantile(0.9, sum(rate(prometheus_http_request_duration_seconds[8s])))`,
	`histogram_count(prometheus_http_request_duration_seconds)`,
	`histogram_avg(rate(prometheus_http_request_duration_seconds[8s]))`,
	`histogram_fraction(0, 0.1, sum(prometheus_http_request_duration_seconds))`,
}

// TestAnswersEqualPrometheus has a Prometheus scrape itself and the product, and send all to the
// product; both then answer the same queries.
func TestAnswersEqualPrometheus(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	n := everything(ctx, t, "-distributor.ingestion-rate-limit=0")
	t.Run("versions", func(t *testing.T) {
		for name, two := range map[string]bool{"one": false, "two": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // which may take long to begin
				compareWithPrometheus(bounded(t, 3*time.Minute), t, n, name, two)
			})
		}
	})
}

func compareWithPrometheus(ctx context.Context, t *testing.T, n *harness.Node, tenant string, two bool) {
	p := startPrometheus(ctx, t, n, tenant, two)
	base := "http://" + p.Address
	awaitFirst(ctx, t, n, tenant)
	begin := time.Now()
	busy, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // something to count
		for busy.Err() == nil {
			_, _ = try(busy, http.MethodGet, base+"/api/v1/query?query=up", nil)
			_, _ = try(busy, http.MethodGet, base+"/api/v1/query?query=)", nil)
			select {
			case <-busy.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	pause(ctx, t, scraped)
	end := time.Now().Add(-3 * time.Second).UnixMilli()
	drained(ctx, t, base, end)

	start := begin.Add(10 * time.Second).UnixMilli() // ranges of 8 s and lookbacks begin after the first sample
	params := url.Values{"start": {seconds(start)}, "end": {seconds(end)}, "step": {"0.7"}}
	series, samples := 0, 0
	for _, q := range agreement {
		params.Set("query", q)
		want, err := ask(ctx, base, "", "query_range", params)
		must(t, err)
		got, err := ask(ctx, n.URL("/prometheus"), tenant, "query_range", params)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		if len(want.Data.Result) == 0 {
			t.Errorf("%s: Prometheus has no result, so nothing is compared", q)
		}
		if d := differ(got, want, tenant); d != "" {
			t.Errorf("%s: %s", q, d)
		}
		for _, s := range want.Data.Result {
			series, samples = series+1, samples+len(s.Values)+len(s.Histograms)
		}
	}
	t.Logf("%d queries, %d series, %d values compared", len(agreement), series, samples)
	sameMetadata(ctx, t, n, base, tenant, two)
}

// startPrometheus starts one that scrapes and sends native histograms too.
func startPrometheus(ctx context.Context, t *testing.T, n *harness.Node, name string, two bool) *harness.Prometheus {
	t.Helper()
	free, err := new(harness.Ports).Free(1)
	must(t, err)
	dir := t.TempDir()
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{
		Name: name, Dir: dir, Port: free[0], Every: time.Second,
		Targets: []string{fmt.Sprintf("127.0.0.1:%d", free[0]), fmt.Sprintf("127.0.0.1:%d", n.HTTP)},
		PushURL: n.URL("/api/v1/push"), Tenant: name, Version2: two,
	})
	harness.Need(t, err)
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of Prometheus ends:\n%s", p.Tail())
		}
	})
	file := filepath.Join(dir, "prometheus.yml")
	text, err := os.ReadFile(file)
	must(t, err)
	var config map[string]any
	must(t, yaml.Unmarshal(text, &config))
	global := config["global"].(map[string]any)
	global["scrape_native_histograms"], global["always_scrape_classic_histograms"] = true, true
	write := config["remote_write"].([]any)[0].(map[string]any)
	write["send_native_histograms"], write["send_exemplars"] = true, true
	// With one shard the newest sent sample says that all before it are sent too.
	write["queue_config"].(map[string]any)["max_shards"] = 1
	text, err = yaml.Marshal(config)
	must(t, err)
	must(t, os.WriteFile(file, text, 0o600))
	must(t, p.Signal(syscall.SIGHUP))
	return p
}

// awaitFirst waits until native histograms of a scrape are in the product: then Prometheus runs
// with its final configuration.
func awaitFirst(ctx context.Context, t *testing.T, n *harness.Node, tenant string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		got, err := matrix(ctx, n.URL(""), tenant, `histogram_count(prometheus_http_request_duration_seconds) and on () (count(up) == 2)`, time.Now().UnixMilli())
		if err == nil && len(got) == 0 {
			return fmt.Errorf("tenant %s has no native histograms yet", tenant)
		}
		return err
	}))
}

// drained waits until Prometheus has sent what it scraped until end, and asserts that nothing was
// refused or dropped.
func drained(ctx context.Context, t *testing.T, base string, end int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		sent := scrape(ctx, t, base+"/metrics", "prometheus_remote_storage_queue_highest_sent_timestamp_seconds")
		if sent < float64(end)/1000+1 {
			return fmt.Errorf("sent until %s, not yet until %s", seconds(int64(sent*1000)), seconds(end))
		}
		return nil
	}))
	for _, lost := range []string{"samples_failed_total", "samples_dropped_total", "histograms_failed_total", "histograms_dropped_total",
		"metadata_failed_total", "exemplars_failed_total"} {
		if v := scrape(ctx, t, base+"/metrics", "prometheus_remote_storage_"+lost); v != 0 {
			t.Errorf("Prometheus says %s = %v", lost, v)
		}
	}
}

// differ says how two answers differ, but for the external label that only what was sent has.
func differ(got, want answer, external string) string {
	for _, text := range []struct {
		what      string
		got, want []string
	}{{"warnings", got.Warnings, want.Warnings}, {"infos", got.Infos, want.Infos}} {
		if !slices.Equal(slices.Sorted(slices.Values(text.got)), slices.Sorted(slices.Values(text.want))) {
			return fmt.Sprintf("%s %q, want %q", text.what, text.got, text.want)
		}
	}
	theirs := map[string]oneSeries{}
	for _, s := range want.Data.Result {
		theirs[key(s.Metric)] = s
	}
	if len(got.Data.Result) != len(want.Data.Result) {
		return fmt.Sprintf("%d series, want %d", len(got.Data.Result), len(want.Data.Result))
	}
	for _, s := range got.Data.Result {
		if s.Metric["prometheus"] == external {
			delete(s.Metric, "prometheus")
		}
		w, ok := theirs[key(s.Metric)]
		if !ok {
			return fmt.Sprintf("series %v is not among %v", s.Metric, want.Data.Result)
		}
		if d := unequal(s.Values, w.Values); d != "" {
			return fmt.Sprintf("%v: %s", s.Metric, d)
		}
		if d := unequal(s.Histograms, w.Histograms); d != "" {
			return fmt.Sprintf("%v: histogram %s", s.Metric, d)
		}
	}
	return ""
}

// key is a text that is the same for the same labels.
func key(metric map[string]string) string {
	text, err := json.Marshal(metric) // sorts
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return string(text)
}

func unequal(got, want [][2]any) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d values, want %d: %v, want %v", len(got), len(want), got, want)
	}
	for i := range got {
		if got[i][0] != want[i][0] || !sameValue(got[i][1], want[i][1]) {
			return fmt.Sprintf("value %d is %v, want %v", i, got[i], want[i])
		}
	}
	return ""
}

// sameValue compares decoded JSON. Numbers in text may differ in the last digits: the order in
// which series are added up is nowhere promised.
func sameValue(got, want any) bool {
	switch want := want.(type) {
	case string:
		got, ok := got.(string)
		if !ok || got == want {
			return ok
		}
		g, err1 := strconv.ParseFloat(got, 64)
		w, err2 := strconv.ParseFloat(want, 64)
		return err1 == nil && err2 == nil && math.Abs(g-w) <= 1e-13*math.Abs(w)
	case []any:
		got, ok := got.([]any)
		return ok && slices.EqualFunc(got, want, sameValue)
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok || len(got) != len(want) {
			return false
		}
		for k, w := range want {
			if !sameValue(got[k], w) {
				return false
			}
		}
		return true
	}
	return got == want
}

// sameMetadata compares what both know of metrics. Version 2.0 carries metadata with the series,
// which Prometheus does not do unless it keeps metadata in its log.
func sameMetadata(ctx context.Context, t *testing.T, n *harness.Node, base, tenant string, two bool) {
	t.Helper()
	if two {
		return
	}
	// What a process tells of first now, Prometheus sends within a second or so.
	within(ctx, t, "the same metadata", func() error {
		want, got := metadataOf(ctx, t, base, ""), metadataOf(ctx, t, n.URL("/prometheus"), tenant)
		if len(want) < 100 {
			return fmt.Errorf("Prometheus knows only %d metrics", len(want))
		}
		for name, w := range want {
			if !slices.Equal(got[name], w) {
				return fmt.Errorf("metadata of %s: %q, want %q", name, got[name], w)
			}
		}
		return nil
	})
}

// metadataOf returns sorted lines of type, help and unit by metric.
func metadataOf(ctx context.Context, t *testing.T, base, tenant string) map[string][]string {
	t.Helper()
	body, err := harness.Get(ctx, base+"/api/v1/metadata", "X-Scope-OrgID", tenant)
	must(t, err)
	var a struct {
		Data map[string][]struct{ Type, Help, Unit string }
	}
	must(t, json.Unmarshal(body, &a))
	out := map[string][]string{}
	for name, all := range a.Data {
		for _, m := range all {
			out[name] = append(out[name], m.Type+"|"+m.Help+"|"+m.Unit)
		}
		slices.Sort(out[name])
	}
	return out
}

// TestMetadataAndExemplarsComeBack pushes both by each version of remote write.
func TestMetadataAndExemplarsComeBack(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t, "-ingester.max-global-exemplars-per-user=1000")
	now := time.Now()
	one := floats(now, 1, "__name__", "requests_total", "path", "/")
	one.Exemplars = []prompb.Exemplar{
		{Labels: pairs("trace_id", "a"), Value: 0.5, Timestamp: now.UnixMilli() - 1000},
		{Labels: pairs("trace_id", "b", "span_id", "ä"), Value: 0.7, Timestamp: now.UnixMilli()},
	}
	stored(t, pushRequest(ctx, t, n.URL(""), "one", &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{one}, Metadata: []prompb.MetricMetadata{
		{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "requests_total", Help: "Requests.", Unit: "requests"},
	}}))
	two := request2(now, []string{"", "__name__", "requests_total", "path", "/", "trace_id", "a", "b", "span_id", "ä", "Requests.", "requests"}, 1, 2, 3, 4)
	two.Timeseries[0].Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: 10, UnitRef: 11}
	two.Timeseries[0].Exemplars = []writev2.Exemplar{
		{LabelsRefs: []uint32{5, 6}, Value: 0.5, Timestamp: now.UnixMilli() - 1000},
		{LabelsRefs: []uint32{5, 7, 8, 9}, Value: 0.7, Timestamp: now.UnixMilli()},
	}
	r := pushV2(ctx, t, n.URL(""), "two", two)
	stored(t, r)
	if written := r.header.Get("X-Prometheus-Remote-Write-Exemplars-Written"); written != "2" {
		t.Errorf("%q exemplars written, want 2", written)
	}
	for _, tenant := range []string{"one", "two"} {
		if m := metadataOf(ctx, t, n.URL("/prometheus"), tenant); len(m) != 1 || !slices.Equal(m["requests_total"], []string{"counter|Requests.|requests"}) {
			t.Errorf("metadata of %s: %q", tenant, m)
		}
		params := url.Values{"query": {`rate(requests_total{path="/"}[5m])`}, "start": {seconds(now.UnixMilli() - 1000)}, "end": {seconds(now.UnixMilli())}}
		r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query_exemplars?"+params.Encode()), nil, "X-Scope-OrgID", tenant)
		want := fmt.Sprintf(`{"status":"success","data":[{"seriesLabels":{"__name__":"requests_total","path":"/"},"exemplars":[`+
			`{"labels":{"trace_id":"a"},"value":"0.5","timestamp":%s},{"labels":{"span_id":"ä","trace_id":"b"},"value":"0.7","timestamp":%s}]}]}`,
			short(now.UnixMilli()-1000), short(now.UnixMilli()))
		if r.status != 200 || strings.TrimSpace(r.body) != want {
			t.Errorf("exemplars of %s: %s\nwant %s", tenant, r, want)
		}
		params.Set("end", seconds(now.UnixMilli()-1))
		r = call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query_exemplars?"+params.Encode()), nil, "X-Scope-OrgID", tenant)
		if strings.Count(r.body, "trace_id") != 1 {
			t.Errorf("exemplars of %s before the second: %s", tenant, r)
		}
	}
}

// short is how the API writes a time in milliseconds: three decimals, or none.
func short(ms int64) string { return strings.TrimSuffix(seconds(ms), ".000") }

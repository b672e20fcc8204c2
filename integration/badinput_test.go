package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	prometheus "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// maxPushBytes is the largest body that the process of TestBadInput takes.
const maxPushBytes = 4 << 20

func TestBadInputIsRefusedAndTheRestIsStored(t *testing.T) {
	ctx := bounded(t, 3*time.Minute)
	overrides := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte(`overrides:
  slow: {ingestion_rate: 1, ingestion_burst_size: 10}
  rare: {request_rate: 0.001, request_burst_size: 1}
  full: {max_global_series_per_user: 5}
  full-metric: {max_global_series_per_metric: 5}
  described: {max_global_metadata_per_user: 1}
  exemplars: {max_global_exemplars_per_user: 100}
  in-order: {out_of_order_time_window: 0s}
  past: {past_grace_period: 1h}
  coarse: {max_native_histogram_buckets: 4, reduce_native_histogram_over_max_buckets: false}
`), 0o600))
	n := everything(ctx, t, "-distributor.max-recv-msg-size="+strconv.Itoa(maxPushBytes), "-runtime-config.file="+overrides)
	pid := n.PID()
	t.Run("bodies", func(t *testing.T) { badBodies(ctx, t, n.URL("")) })
	t.Run("tenants", func(t *testing.T) { badTenants(ctx, t, n.URL("")) })
	t.Run("series", func(t *testing.T) { badSeries(ctx, t, n.URL("")) })
	t.Run("times", func(t *testing.T) { badTimes(ctx, t, n.URL("")) })
	t.Run("histograms", func(t *testing.T) { badHistograms(ctx, t, n.URL("")) })
	t.Run("version 2", func(t *testing.T) { badVersion2(ctx, t, n.URL("")) })
	t.Run("exemplars", func(t *testing.T) { badExemplars(ctx, t, n.URL("")) })
	t.Run("limits", func(t *testing.T) { limitsHit(ctx, t, n.URL("")) })
	if n.PID() != pid {
		t.Error("the process died")
	}
	must(t, n.WaitReady(ctx))
}

// refused asserts a refusal with the status, and with the error id if that is not empty.
func refused(t *testing.T, r reply, status int, id string) {
	t.Helper()
	if r.status != status || id != "" && !strings.Contains(r.body, "(err-amphora-"+id+")") {
		t.Errorf("answered %s; want status %d and id %q", r, status, id)
	}
	if retry := r.header.Get("Retry-After"); (retry != "") != (status == http.StatusTooManyRequests || status >= 500) {
		t.Errorf("status %d with Retry-After %q", r.status, retry)
	}
}

// has asserts that a selector finds exactly n series of a tenant with samples in the last two days.
func has(ctx context.Context, t *testing.T, base, tenant, selector string, n int) {
	t.Helper()
	now := time.Now().UnixMilli()
	got, err := matrix(ctx, base, tenant, fmt.Sprintf("%s[49h]", selector), now+time.Hour.Milliseconds())
	must(t, err)
	if len(got) != n {
		t.Errorf("%s of %s finds %d series, want %d: %v", selector, tenant, len(got), n, got)
	}
}

// inMemory is the number of series of a tenant that the ingester holds.
func inMemory(ctx context.Context, t *testing.T, base, tenant string) int {
	t.Helper()
	body, err := harness.Get(ctx, base+"/ingester/tsdb/"+tenant, "Accept", "application/json")
	must(t, err)
	var info struct{ Series int }
	must(t, json.Unmarshal(body, &info))
	return info.Series
}

func badBodies(ctx context.Context, t *testing.T, base string) {
	good, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{floats(time.Now(), 1, "__name__", "good")}}).Marshal()
	must(t, err)
	packed := snappy.Encode(nil, good)
	// Ten bytes that say that they are 4 GiB, and ten that say that they are a little too many.
	bomb := append(protowire.AppendVarint(nil, math.MaxUint32), 0, 0, 0, 0, 0)
	over := append(protowire.AppendVarint(nil, maxPushBytes+1), 0, 0, 0, 0, 0)
	huge := snappy.Encode(nil, make([]byte, maxPushBytes+1)) // small when packed
	noise := make([]byte, maxPushBytes+1)
	for i := range noise {
		noise[i] = byte(i*i>>3 ^ i>>11)
	}
	for _, c := range []struct {
		name, contentType, encoding string
		body                        []byte
		status                      int
		id                          string
	}{
		{"no snappy", typeV1, "snappy", []byte("this is not snappy"), 400, ""},
		{"empty body", typeV1, "snappy", nil, 400, ""},
		{"snappy cut short", typeV1, "snappy", packed[:len(packed)/2], 400, ""},
		{"snappy in frames", typeV1, "snappy", []byte("\xff\x06\x00\x00sNaPpY"), 400, ""},
		{"snappy declares 4 GiB", typeV1, "snappy", bomb, 400, "distributor-max-write-message-size"},
		{"snappy declares a byte too many", typeV1, "snappy", over, 400, "distributor-max-write-message-size"},
		{"too large unpacked", typeV1, "snappy", huge, 400, "distributor-max-write-message-size"},
		{"too large packed", typeV1, "snappy", noise, 400, "distributor-max-write-message-size"},
		{"no protobuf", typeV1, "snappy", snappy.Encode(nil, []byte("\xff\xff\xff\xffthis is no protobuf")), 400, ""},
		{"protobuf cut short", typeV1, "snappy", snappy.Encode(nil, good[:len(good)-3]), 400, ""},
		{"unknown message", "application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", packed, 415, ""},
		{"malformed content type", "application/x-protobuf;proto", "snappy", packed, 400, ""},
		{"unknown encoding", typeV1, "br", packed, 415, ""},
		{"not the encoding it says", typeV1, "gzip", packed, 400, ""},
		{"no content type is version 1", "", "snappy", packed, 200, ""},
		{"another content type is version 1", "text/plain", "snappy", packed, 200, ""},
		{"no encoding is snappy", typeV1, "", packed, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := []string{"X-Scope-OrgID", "bodies"}
			if c.contentType != "" {
				header = append(header, "Content-Type", c.contentType)
			}
			if c.encoding != "" {
				header = append(header, "Content-Encoding", c.encoding)
			}
			begin := time.Now()
			r := call(ctx, t, http.MethodPost, base+"/api/v1/push", c.body, header...)
			if took := time.Since(begin); took > soon {
				t.Errorf("answered after %s", took)
			}
			refused(t, r, c.status, c.id)
		})
	}
	// Some clients send a message of version 1.0 as 2.0. It must not look stored.
	r := call(ctx, t, http.MethodPost, base+"/api/v1/push", packed, "X-Scope-OrgID", "nobody", "Content-Type", typeV2)
	if written := r.header.Get("X-Prometheus-Remote-Write-Samples-Written"); written != "0" {
		t.Errorf("a body of version 1.0 as 2.0: %s, %q samples written", r, written)
	}
	if r := call(ctx, t, http.MethodGet, base+"/api/v1/push", nil, "X-Scope-OrgID", "bodies"); r.status != 405 || r.header.Get("Allow") != "POST" {
		t.Errorf("GET answered %s, Allow %q", r, r.header.Get("Allow"))
	}
	has(ctx, t, base, "bodies", "good", 1)
}

func badTenants(ctx context.Context, t *testing.T, base string) {
	body, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{floats(time.Now(), 1, "__name__", "good")}}).Marshal()
	must(t, err)
	body = snappy.Encode(nil, body)
	for _, c := range []struct {
		name, tenant string
		status       int
	}{
		{"path upwards", "..", 400}, {"here", ".", 400}, {"slash", "a/b", 400}, {"backslash", `a\b`, 400},
		{"reserved", "__mimir_cluster", 400}, {"too long", strings.Repeat("a", 151), 400}, {"space", "a b", 400},
		{"not ASCII", "ä", 400}, {"two tenants", "a|b", 422}, {"longest", strings.Repeat("a", 150), 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, call(ctx, t, http.MethodPost, base+"/api/v1/push", body, "X-Scope-OrgID", c.tenant), c.status, "")
			if r := call(ctx, t, http.MethodGet, base+"/prometheus/api/v1/labels", nil, "X-Scope-OrgID", c.tenant); r.status != c.status {
				t.Errorf("a query answered %s, want %d", r, c.status)
			}
		})
	}
	for _, r := range []reply{
		call(ctx, t, http.MethodPost, base+"/api/v1/push", body),
		call(ctx, t, http.MethodPost, base+"/api/v1/push", body, "X-Scope-OrgID", ""),
		call(ctx, t, http.MethodGet, base+"/prometheus/api/v1/query?query=1", nil),
	} {
		if r.status != http.StatusUnauthorized || strings.TrimSpace(r.body) != "no org id" {
			t.Errorf("without a tenant: %s, want 401: no org id", r)
		}
	}
}

// badSeries pushes each bad series between two good ones, which must be stored.
func badSeries(ctx context.Context, t *testing.T, base string) {
	many := []string{"__name__", "bad"}
	for i := range 30 {
		many = append(many, fmt.Sprintf("l%02d", i), "v")
	}
	for i, c := range []struct {
		name   string
		labels []string
		id     string // empty: it is stored
		reason string // of the counter of refused samples
	}{
		{"no labels", nil, "missing-metric-name", "missing_metric_name"},
		{"no metric name", []string{"a", "b"}, "missing-metric-name", "missing_metric_name"},
		{"empty metric name", []string{"__name__", ""}, "missing-metric-name", "missing_metric_name"},
		{"metric name with a dash", []string{"__name__", "bad-name"}, "metric-name-invalid", "metric_name_invalid"},
		{"metric name that is no UTF-8", []string{"__name__", "bad\xff"}, "metric-name-invalid", "metric_name_invalid"},
		{"label name with a dot", []string{"__name__", "bad", "a.b", "c"}, "label-invalid", "label_invalid"},
		{"empty label name", []string{"", "x", "__name__", "bad"}, "label-invalid", "label_invalid"},
		{"label value that is no UTF-8", []string{"__name__", "bad", "a", "\xc3\x28"}, "label-value-invalid", "label_value_invalid"},
		{"duplicate label", []string{"__name__", "bad", "a", "1", "a", "2"}, "duplicate-label-names", "duplicate_label_names"},
		{"same label twice", []string{"__name__", "bad", "a", "1", "a", "1"}, "duplicate-label-names", "duplicate_label_names"},
		{"too many labels", many, "max-label-names-per-series", "max_label_names_per_series"},
		{"too long label name", []string{"__name__", "bad", strings.Repeat("n", 1025), "v"}, "label-name-too-long", "label_name_too_long"},
		{"too long label value", []string{"__name__", "bad", "a", strings.Repeat("v", 2049)}, "label-value-too-long", "label_value_too_long"},
		{"too long metric name", []string{"__name__", strings.Repeat("m", 2049)}, "label-value-too-long", "label_value_too_long"},
		{"unsorted labels", []string{"z", "1", "a", "2", "__name__", "bad"}, "", ""},
		{"empty label value", []string{"__name__", "bad", "a", ""}, "", ""},
		{"reserved labels", []string{"__name__", "bad", "__org_id__", "other", "__tenant_id__", "other"}, "", ""},
		{"control characters", []string{"__name__", "bad", "a", "line\nfeed\x00\x1b[31m\"'<script>"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant := fmt.Sprintf("series-%d", i)
			now := time.Now()
			r := pushFirmly(ctx, t, base, tenant, floats(now, 1, "__name__", "good", "i", "1"), floats(now, 1, c.labels...), floats(now, 1, "__name__", "good", "i", "2"))
			has(ctx, t, base, tenant, "good", 2)
			if c.id == "" {
				stored(t, r)
				has(ctx, t, base, tenant, `bad`, 1)
				return
			}
			refused(t, r, 400, c.id)
			if n := inMemory(ctx, t, base, tenant); n != 2 {
				t.Errorf("%v series in memory, want the 2 good ones", n)
			}
			if got := scrape(ctx, t, base+"/metrics", "amphora_discarded_samples_total", "user", tenant, "reason", c.reason); got != 1 {
				t.Errorf("%v samples counted as discarded for %s, want 1", got, c.reason)
			}
		})
	}
}

func badTimes(ctx context.Context, t *testing.T, base string) {
	now := time.Now().Truncate(time.Millisecond)
	stale := math.Float64frombits(prometheus.StaleNaN)
	const endOfTime = "end of time"
	for i, c := range []struct {
		name, tenant string
		at           time.Duration // before now; negative: after
		v            float64
		id           string // empty: it is stored
	}{
		{"far future", "", -time.Hour, 1, "too-far-in-future"},
		{endOfTime, "", 0, 1, "too-far-in-future"},
		{"near future", "", -5 * time.Minute, 1, ""},
		{"too old for the head", "", 24 * time.Hour, 1, "sample-timestamp-too-old"},
		{"before the window", "", 30 * time.Minute, 1, "sample-timestamp-too-old"},
		{"before the window with a grace", "past", 24 * time.Hour, 1, "too-far-in-past"},
		{"late but inside the window", "", 5 * time.Minute, 1, ""},
		{"late without a window", "in-order", 5 * time.Minute, 1, "sample-out-of-order"},
		{"the same again", "", 0, 1, ""},
		{"another value at the same time", "", 0, 2, "sample-duplicate-timestamp"},
		{"not a number", "", -time.Second, math.NaN(), ""},
		{"stale", "", -time.Second, stale, ""},
		{"infinity", "", -time.Second, math.Inf(-1), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant := c.tenant
			if tenant == "" {
				tenant = fmt.Sprintf("times-%d", i)
			}
			stored(t, pushV1(ctx, t, base, tenant, floats(now, 1, "__name__", "edge")))
			at := now.Add(-c.at)
			if c.name == endOfTime {
				at = time.UnixMilli(math.MaxInt64)
			}
			r := pushFirmly(ctx, t, base, tenant, floats(at, c.v, "__name__", "edge"), floats(now, 1, "__name__", "good"))
			has(ctx, t, base, tenant, "good", 1)
			want := 2
			if c.id != "" {
				refused(t, r, 400, c.id)
				want = 1
			} else {
				stored(t, r)
			}
			if c.at == 0 || math.Float64bits(c.v) == prometheus.StaleNaN { // a range selector shows no stale markers
				want = 1
			}
			got, err := matrix(ctx, base, tenant, "edge[49h]", now.Add(time.Hour).UnixMilli())
			must(t, err)
			if len(got) != 1 || len(got[0].Values) != want {
				t.Errorf("stored %v, want %d samples", got, want)
			}
		})
	}
	// The stale marker ends the series at once.
	r := call(ctx, t, http.MethodGet, base+"/prometheus/api/v1/query?query=edge&time="+strconv.FormatInt(now.Unix()+2, 10), nil, "X-Scope-OrgID", "times-11")
	if r.status != 200 || !strings.Contains(r.body, `"result":[]`) {
		t.Errorf("after a stale marker: %s, want no result", r)
	}
}

// integers is a native histogram of three observations in two buckets.
func integers() *histogram.Histogram {
	return &histogram.Histogram{Count: 3, Sum: 5, Schema: 0, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
}

// custom is one with custom bounds.
func custom(bounds ...float64) *histogram.Histogram {
	h := integers()
	h.Schema, h.CustomValues = histogram.CustomBucketsSchema, bounds
	return h
}

func badHistograms(ctx context.Context, t *testing.T, base string) {
	with := func(change func(*histogram.Histogram)) *histogram.Histogram {
		h := integers()
		change(h)
		return h
	}
	for i, c := range []struct {
		name, tenant string
		h            *histogram.Histogram
		id           string // empty: it is stored
	}{
		{"good", "", integers(), ""},
		{"good with custom bounds", "", custom(1, 2), ""},
		{"fewer observations than in buckets", "", with(func(h *histogram.Histogram) { h.Count = 2 }), "native-histogram-count-mismatch"},
		{"more observations than in buckets", "", with(func(h *histogram.Histogram) { h.Count = 9 }), "native-histogram-count-mismatch"},
		{"more observations than in buckets, some not a number", "", with(func(h *histogram.Histogram) { h.Count, h.Sum = 9, math.NaN() }), ""},
		{"fewer observations, some not a number", "", with(func(h *histogram.Histogram) { h.Count, h.Sum = 2, math.NaN() }), "native-histogram-count-not-big-enough"},
		{"negative bucket", "", with(func(h *histogram.Histogram) { h.PositiveBuckets = []int64{1, -2} }), "native-histogram-negative-bucket-count"},
		{"negative offset", "", with(func(h *histogram.Histogram) {
			h.PositiveSpans = []histogram.Span{{Offset: 0, Length: 1}, {Offset: -1, Length: 1}}
		}), "native-histogram-span-negative-offset"},
		{"spans of more buckets", "", with(func(h *histogram.Histogram) { h.PositiveSpans[0].Length = 3 }), "native-histogram-spans-buckets-mismatch"},
		{"span of four thousand million buckets", "", with(func(h *histogram.Histogram) { h.PositiveSpans[0].Length = math.MaxUint32 }), "native-histogram-spans-buckets-mismatch"},
		{"schema that nobody knows", "", with(func(h *histogram.Histogram) { h.Schema = 100 }), "invalid-native-histogram-schema"},
		{"too few custom bounds", "", with(func(h *histogram.Histogram) { h.Schema = histogram.CustomBucketsSchema }), "native-histogram-custom-buckets-mismatch"},
		{"custom bounds out of order", "", custom(2, 1), "native-histogram-custom-buckets-invalid"},
		{"infinite custom bound", "", custom(1, math.Inf(1)), "native-histogram-custom-buckets-infinite"},
		{"too many buckets", "coarse", with(func(h *histogram.Histogram) {
			h.Count, h.PositiveSpans[0].Length, h.PositiveBuckets = 5, 5, []int64{1, 0, 0, 0, 0}
		}), "max-native-histogram-buckets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant := c.tenant
			if tenant == "" {
				tenant = fmt.Sprintf("histograms-%d", i)
			}
			now := time.Now()
			r := pushFirmly(ctx, t, base, tenant, floats(now, 1, "__name__", "good"), prompb.TimeSeries{
				Labels: pairs("__name__", "shape"), Histograms: []prompb.Histogram{prompb.FromIntHistogram(now.UnixMilli(), c.h)},
			}, prompb.TimeSeries{
				Labels: pairs("__name__", "floats"), Histograms: []prompb.Histogram{prompb.FromFloatHistogram(now.UnixMilli(), c.h.ToFloat(nil))},
			})
			has(ctx, t, base, tenant, "good", 1)
			if c.id == "" {
				stored(t, r)
				has(ctx, t, base, tenant, `{__name__=~"shape|floats"}`, 2)
				return
			}
			refused(t, r, 400, c.id)
			has(ctx, t, base, tenant, "shape", 0)
			if !strings.Contains(c.name, "observations") { // a count of floats need not be exact
				has(ctx, t, base, tenant, "floats", 0)
			}
		})
	}
}

// pushFirmly pushes again, as senders do, if the ingester took too long to answer: on a busy machine that says
// nothing about what was pushed.
func pushFirmly(ctx context.Context, t *testing.T, base, tenant string, series ...prompb.TimeSeries) (r reply) {
	t.Helper()
	for range 5 {
		if r = pushV1(ctx, t, base, tenant, series...); r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "no answer within") {
			return r
		}
	}
	return r
}

// request2 is a version 2.0 request of one series, whose labels the references name.
func request2(at time.Time, symbols []string, refs ...uint32) *writev2.Request {
	return &writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{
		{LabelsRefs: refs, Samples: []writev2.Sample{{Timestamp: at.UnixMilli(), Value: 1}}},
	}}
}

func badVersion2(ctx context.Context, t *testing.T, base string) {
	now := time.Now()
	symbols := []string{"", "__name__", "good", "a", "b"}
	for i, c := range []struct {
		name string
		req  *writev2.Request
		id   string
		bad  bool
	}{
		{"good", request2(now, symbols, 1, 2, 3, 4), "", false},
		{"unsorted labels", request2(now, symbols, 3, 4, 1, 2), "", false},
		{"symbol beyond the table", request2(now, symbols, 1, 2, 3, 5), "", true},
		{"symbol far beyond the table", request2(now, symbols, 1, 2, 3, math.MaxUint32), "", true},
		{"odd number of references", request2(now, symbols, 1, 2, 3), "", true},
		{"first symbol not empty", request2(now, symbols[1:], 0, 1), "", true},
		{"no symbols", request2(now, nil, 1, 2), "", true},
		{"no labels", request2(now, symbols), "missing-metric-name", true},
		{"duplicate label", request2(now, symbols, 1, 2, 3, 4, 3, 4), "duplicate-label-names", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant := fmt.Sprintf("v2-%d", i)
			r := pushV2(ctx, t, base, tenant, c.req)
			written := r.header.Get("X-Prometheus-Remote-Write-Samples-Written")
			if !c.bad {
				stored(t, r)
				has(ctx, t, base, tenant, `good{a="b"}`, 1)
				if written != "1" {
					t.Errorf("%q samples written, want 1", written)
				}
				return
			}
			refused(t, r, 400, c.id)
			has(ctx, t, base, tenant, `{__name__=~".+"}`, 0)
			if written != "0" {
				t.Errorf("%q samples written, want 0", written)
			}
		})
	}
	t.Run("metadata beyond the table", func(t *testing.T) {
		req := request2(now, symbols, 1, 2)
		req.Timeseries[0].Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: 99}
		refused(t, pushV2(ctx, t, base, "v2-metadata", req), 400, "")
	})
	t.Run("one series of two refused", func(t *testing.T) {
		req := request2(now, symbols, 1, 2, 3, 4)
		req.Timeseries = append(req.Timeseries, request2(now, symbols, 3, 4).Timeseries...)
		r := pushV2(ctx, t, base, "v2-partial", req)
		refused(t, r, 400, "missing-metric-name")
		if written := r.header.Get("X-Prometheus-Remote-Write-Samples-Written"); written != "1" {
			t.Errorf("%q samples written, want 1", written)
		}
		has(ctx, t, base, "v2-partial", "good", 1)
	})
}

// badExemplars: an exemplar that breaks a rule is dropped and counted; its request succeeds.
func badExemplars(ctx context.Context, t *testing.T, base string) {
	now := time.Now()
	for _, c := range []struct {
		name   string
		x      prompb.Exemplar
		reason string // empty: it is stored
	}{
		{"good", prompb.Exemplar{Labels: pairs("trace_id", "abc"), Value: 1, Timestamp: now.UnixMilli()}, ""},
		{"128 letters", prompb.Exemplar{Labels: pairs("id", strings.Repeat("ä", 126)), Value: 1, Timestamp: now.UnixMilli()}, ""},
		{"129 letters", prompb.Exemplar{Labels: pairs("id", strings.Repeat("ä", 127)), Value: 1, Timestamp: now.UnixMilli()}, "exemplar_labels_too_long"},
		{"no labels", prompb.Exemplar{Value: 1, Timestamp: now.UnixMilli()}, "exemplar_labels_missing"},
		{"no time", prompb.Exemplar{Labels: pairs("id", "x"), Value: 1}, "exemplar_timestamp_invalid"},
		{"far future", prompb.Exemplar{Labels: pairs("id", "x"), Value: 1, Timestamp: now.Add(time.Hour).UnixMilli()}, "exemplar_too_far_in_future"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := scrape(ctx, t, base+"/metrics", "amphora_discarded_exemplars_total", "user", "exemplars")
			name := "x_" + strings.ReplaceAll(c.name, " ", "_")
			s := floats(now, 1, "__name__", name)
			s.Exemplars = []prompb.Exemplar{c.x}
			stored(t, pushV1(ctx, t, base, "exemplars", s))
			has(ctx, t, base, "exemplars", name, 1)
			r := call(ctx, t, http.MethodGet, fmt.Sprintf("%s/prometheus/api/v1/query_exemplars?query=%s&start=%d&end=%d", base, name, now.Unix()-60, now.Unix()+7200), nil,
				"X-Scope-OrgID", "exemplars")
			if found := strings.Contains(r.body, `"exemplars":[{`); r.status != 200 || found != (c.reason == "") {
				t.Errorf("the exemplar API answered %s", r)
			}
			after := scrape(ctx, t, base+"/metrics", "amphora_discarded_exemplars_total", "user", "exemplars")
			if dropped := after - before; dropped != 0 != (c.reason != "") {
				t.Errorf("%v exemplars counted as discarded", dropped)
			}
			if c.reason != "" && scrape(ctx, t, base+"/metrics", "amphora_discarded_exemplars_total", "user", "exemplars", "reason", c.reason) == 0 {
				t.Errorf("not counted under %s", c.reason)
			}
		})
	}
}

func limitsHit(ctx context.Context, t *testing.T, base string) {
	now := time.Now()
	ten := func(name string) []prompb.TimeSeries {
		var out []prompb.TimeSeries
		for i := range 10 {
			out = append(out, floats(now, 1, "__name__", name, "i", strconv.Itoa(i)))
		}
		return out
	}
	t.Run("samples a second", func(t *testing.T) {
		refused(t, pushV1(ctx, t, base, "slow", append(ten("a"), ten("b")...)...), 429, "tenant-max-ingestion-rate")
		has(ctx, t, base, "slow", `{__name__=~".+"}`, 0)
		stored(t, pushV1(ctx, t, base, "slow", ten("a")...))
		refused(t, pushV1(ctx, t, base, "slow", ten("b")...), 429, "tenant-max-ingestion-rate")
		has(ctx, t, base, "slow", "a", 10)
		if n := scrape(ctx, t, base+"/metrics", "amphora_discarded_samples_total", "user", "slow", "reason", "rate_limited"); n != 30 {
			t.Errorf("%v samples counted as discarded, want 30", n)
		}
	})
	t.Run("requests a second", func(t *testing.T) {
		stored(t, pushV1(ctx, t, base, "rare", ten("a")...))
		refused(t, pushV1(ctx, t, base, "rare", ten("a")...), 429, "tenant-max-request-rate")
	})
	t.Run("metadata", func(t *testing.T) {
		describe := func(name string) reply {
			raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{floats(now, 1, "__name__", name)},
				Metadata: []prompb.MetricMetadata{{MetricFamilyName: name, Type: prompb.MetricMetadata_COUNTER, Help: "Counts."}}}).Marshal()
			must(t, err)
			return call(ctx, t, http.MethodPost, base+"/api/v1/push", snappy.Encode(nil, raw), "X-Scope-OrgID", "described")
		}
		stored(t, describe("one"))
		refused(t, describe("two"), 400, "max-metadata-per-user")
		stored(t, describe("one"))
		has(ctx, t, base, "described", "two", 1) // the sample has nothing to do with it
		body, err := harness.Get(ctx, base+"/prometheus/api/v1/metadata", "X-Scope-OrgID", "described")
		must(t, err)
		if text := string(body); !strings.Contains(text, `"one"`) || strings.Contains(text, `"two"`) {
			t.Errorf("metadata is %s", text)
		}
		if v := scrape(ctx, t, base+"/metrics", "amphora_discarded_metadata_total", "user", "described", "reason", "per_user_metadata_limit"); v != 1 {
			t.Errorf("%g pieces of metadata counted as discarded, want 1", v)
		}
	})
	for tenant, id := range map[string]string{"full": "max-series-per-user", "full-metric": "max-series-per-metric"} {
		t.Run(tenant, func(t *testing.T) {
			r := pushV1(ctx, t, base, tenant, ten("a")...)
			refused(t, r, 400, id)
			if !strings.Contains(r.body, "user="+tenant) {
				t.Errorf("the tenant is not named: %s", r.body)
			}
			has(ctx, t, base, tenant, "a", 5)
			// The five that are there go on.
			got, err := matrix(ctx, base, tenant, "a[1m]", now.UnixMilli())
			must(t, err)
			var again []prompb.TimeSeries
			for _, s := range got {
				again = append(again, floats(now.Add(time.Second), 2, "__name__", "a", "i", s.Metric["i"]))
			}
			stored(t, pushV1(ctx, t, base, tenant, again...))
		})
	}
}

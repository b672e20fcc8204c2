package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// stepsFile is the runtime file of TestWhatADistributorMakesOfPushes, but for its section
// distributor_limits.
const stepsFile = `overrides:
  collector:
    tenant_from_label_rules: [team, "env=dev:sandbox"]
    tenant_from_label_allowed: ["team-*"]
    tenant_from_label_remove: true
  team-slow: {ingestion_rate: 1, ingestion_burst_size: 1}
  truncated: {label_value_length_over_limit_strategy: truncate, max_label_value_length: 60}
  dropped: {label_value_length_over_limit_strategy: drop, max_label_value_length: 60}
  typed: {enable_type_and_unit_labels: true}
  started: {created_timestamp_zero_ingestion_enabled: true}
  delayed: {ingestion_artificial_delay: 300ms}
  bursts: {ingestion_rate: 0.001, ingestion_burst_factor: 2000}
  grouped: {separate_metrics_group_label: team}
`

func TestWhatADistributorMakesOfPushes(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	file := filepath.Join(t.TempDir(), "runtime.yaml")
	write := func(more string) {
		must(t, os.WriteFile(file+".new", []byte(stepsFile+more), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	write("")
	n := everything(ctx, t, "-runtime-config.file="+file, "-runtime-config.reload-period=1s", "-api.skip-label-name-validation-header-enabled=true",
		"-distributor.reactive-limiter.enabled=true", "-distributor.retry-after-header.min-backoff=2s", "-distributor.retry-after-header.max-backoff=3s")
	base := n.URL("")
	t.Run("tenant by label", func(t *testing.T) { tenantByLabel(ctx, t, base) })
	t.Run("long label values", func(t *testing.T) { longValues(ctx, t, base) })
	t.Run("type and unit", func(t *testing.T) { typeAndUnit(ctx, t, base) })
	t.Run("starts", func(t *testing.T) { starts(ctx, t, base) })
	t.Run("checks left out", func(t *testing.T) { checksLeftOut(ctx, t, base) })
	t.Run("labels of info", func(t *testing.T) { labelsOfInfo(ctx, t, base) })
	t.Run("artificial delay", func(t *testing.T) { artificialDelay(ctx, t, base) })
	t.Run("bursts and groups", func(t *testing.T) { burstsAndGroups(ctx, t, base) })
	t.Run("rate of the process", func(t *testing.T) {
		write("distributor_limits: {max_ingestion_rate: 0.000001}\n")
		eventually(ctx, t, "the limit to be read", func() error {
			r := pushV1(ctx, t, base, "rate", floats(time.Now(), 1, "__name__", "up"))
			if r.status != http.StatusServiceUnavailable {
				return errors.New(r.String())
			}
			refused(t, r, 503, "distributor-max-ingestion-rate")
			if s, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || s < 1 || s > 3 {
				t.Errorf("Retry-After is %q, want 1 to 3 seconds as set", r.header.Get("Retry-After"))
			}
			return nil
		})
		write("")
		eventually(ctx, t, "the limit to be gone", func() error {
			if r := pushV1(ctx, t, base, "rate", floats(time.Now(), 1, "__name__", "up")); r.status != http.StatusOK {
				return errors.New(r.String())
			}
			return nil
		})
	})
	if limit := scrape(ctx, t, n.URL("/metrics"), "amphora_distributor_reactive_limiter_inflight_limit"); limit < 2 {
		t.Errorf("the reactive limiter's limit is %g", limit)
	}
}

func tenantByLabel(ctx context.Context, t *testing.T, base string) {
	now := time.Now()
	series := []prompb.TimeSeries{floats(now, 1, "__name__", "up", "team", "team-a"), floats(now, 2, "__name__", "up", "team", "team-b"),
		floats(now, 3, "__name__", "up", "env", "dev"), floats(now, 4, "__name__", "up", "job", "own")}
	stored(t, pushV1(ctx, t, base, "collector", series...))
	for tenant, want := range map[string]string{"team-a": `up{}`, "team-b": `up{}`, "sandbox": `up{}`, "collector": `up{job="own"}`} {
		has(ctx, t, base, tenant, `{__name__=~".+"}`, 1)
		has(ctx, t, base, tenant, strings.Replace(want, "{}", `{team="",env=""}`, 1), 1)
	}
	// The good part is stored whatever the others are answered.
	refused(t, pushV1(ctx, t, base, "collector", floats(now, 1, "__name__", "good", "team", "team-a"), floats(now, 1, "__name__", "bad", "team", "other")), 400, "tenant-not-allowed")
	has(ctx, t, base, "team-a", "good", 1)
	has(ctx, t, base, "other", "bad", 0)
	refused(t, pushV1(ctx, t, base, "collector", floats(now, 1, "__name__", "a", "team", "team-slow"), floats(now, 1, "__name__", "b", "team", "team-slow"),
		floats(now, 1, "__name__", "quick", "team", "team-b")), 429, "tenant-max-ingestion-rate")
	has(ctx, t, base, "team-slow", `{__name__=~".+"}`, 0)
	has(ctx, t, base, "team-b", "quick", 1)
	if in := scrape(ctx, t, base+"/metrics", "amphora_distributor_received_samples_total", "user", "team-b"); in != 2 {
		t.Errorf("team-b received %g samples, want 2", in)
	}
}

func longValues(ctx context.Context, t *testing.T, base string) {
	long := strings.Repeat("v", 100)
	for tenant, want := range map[string]string{"truncated": strings.Repeat("v", 21) + "[(]hash:[0-9a-f]{32}[)]", "dropped": "[(]hash:[0-9a-f]{32}[)]"} {
		for range 2 {
			stored(t, pushV1(ctx, t, base, tenant, floats(time.Now(), 1, "__name__", "up", "url", long), floats(time.Now(), 1, "__name__", "up", "url", long+"w")))
		}
		has(ctx, t, base, tenant, fmt.Sprintf(`up{url=~"%s"}`, want), 2)
		has(ctx, t, base, tenant, "up", 2)
	}
	stored(t, pushV1(ctx, t, base, "others", floats(time.Now(), 1, "__name__", "up", "url", long)))
	has(ctx, t, base, "others", `up{url="`+long+`"}`, 1)
}

func typeAndUnit(ctx context.Context, t *testing.T, base string) {
	symbols := writev2.NewSymbolTable()
	req := &writev2.Request{Timeseries: []writev2.TimeSeries{{LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", "busy_seconds_total"), nil),
		Samples:  []writev2.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}},
		Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, UnitRef: symbols.Symbolize("seconds")}}}}
	req.Symbols = symbols.Symbols()
	stored(t, pushV2(ctx, t, base, "typed", req))
	stored(t, pushV2(ctx, t, base, "untyped", req))
	has(ctx, t, base, "typed", `busy_seconds_total{__type__="counter",__unit__="seconds"}`, 1)
	has(ctx, t, base, "untyped", `busy_seconds_total{__type__="",__unit__=""}`, 1)
}

func starts(ctx context.Context, t *testing.T, base string) {
	now := time.Now().Add(-time.Minute).UnixMilli()
	push := func(tenant string, at, start int64, v float64) {
		t.Helper()
		symbols := writev2.NewSymbolTable()
		req := &writev2.Request{Timeseries: []writev2.TimeSeries{{LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", "requests_total"), nil),
			Samples: []writev2.Sample{{Value: v, Timestamp: now + at, StartTimestamp: now + start}}}}}
		req.Symbols = symbols.Symbols()
		stored(t, pushV2(ctx, t, base, tenant, req))
	}
	for _, tenant := range []string{"started", "not-started"} {
		push(tenant, 1000, -500, 5)
		push(tenant, 2000, -500, 7)
		push(tenant, 3000, 2500, 2) // started anew
		push(tenant, 4000, 2500, 3)
	}
	for tenant, want := range map[string]string{"started": "0 5 7 0 2 3 ", "not-started": "5 7 2 3 "} {
		got, err := matrix(ctx, base, tenant, "requests_total[10m]", now+5000)
		must(t, err)
		text := ""
		for _, s := range got {
			for _, v := range s.Values {
				text += fmt.Sprint(v[1], " ")
			}
		}
		if text != want {
			t.Errorf("%s: samples %q, want %q", tenant, text, want)
		}
	}
}

func checksLeftOut(ctx context.Context, t *testing.T, base string) {
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{floats(time.Now(), 1, "__name__", "odd", "a-b", "c")}}).Marshal()
	must(t, err)
	push := func(header ...string) reply {
		return call(ctx, t, http.MethodPost, base+"/api/v1/push", snappy.Encode(nil, raw), append(header, "X-Scope-OrgID", "odd")...)
	}
	refused(t, push(), 400, "label-invalid")
	stored(t, push("X-Mimir-SkipLabelNameValidation", "true"))
	refused(t, push(), 400, "label-invalid")
	has(ctx, t, base, "odd", "odd", 1)
	many := []string{"__name__", "many"}
	for i := range 40 {
		many = append(many, fmt.Sprintf("l%02d", i), "v")
	}
	raw, err = (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{floats(time.Now(), 1, many...)}}).Marshal()
	must(t, err)
	refused(t, push("X-Mimir-SkipLabelCountValidation", "true"), 400, "max-label-names-per-series") // not allowed by a flag
}

// labelsOfInfo pushes series of more labels than others may have, which those that describe targets may.
func labelsOfInfo(ctx context.Context, t *testing.T, base string) {
	push := func(name string, n int) reply {
		kv := []string{"__name__", name}
		for i := range n - 1 {
			kv = append(kv, fmt.Sprintf("l%02d", i), "v")
		}
		return pushV1(ctx, t, base, "described", floats(time.Now(), 1, kv...))
	}
	refused(t, push("requests_total", 60), 400, "max-label-names-per-series")
	stored(t, push("target_info", 80))
	refused(t, push("target_info", 81), 400, "max-label-names-per-info-series")
	has(ctx, t, base, "described", `{__name__=~".+"}`, 1)
}

func artificialDelay(ctx context.Context, t *testing.T, base string) {
	begin := time.Now()
	eventually(ctx, t, "a push that takes less than the delay itself", func() error {
		begin = time.Now()
		r := pushV1(ctx, t, base, "delayed", floats(begin, 1, "__name__", "up"))
		took := time.Since(begin)
		stored(t, r)
		ms, err := strconv.ParseFloat(strings.TrimPrefix(r.header.Get("Server-Timing"), "artificial_delay;dur="), 64)
		if err != nil || ms < 0 || ms > 330 || took < 270*time.Millisecond {
			t.Fatalf("answered after %s with Server-Timing %q, want 270 ms at least, and to be told", took, r.header.Get("Server-Timing"))
		}
		if ms == 0 {
			return fmt.Errorf("nothing was left of the delay after %s", took)
		}
		return nil
	})
	if r := pushV1(ctx, t, base, "others", floats(begin, 1, "__name__", "up")); r.header.Get("Server-Timing") != "" {
		t.Errorf("another tenant was held back: %q", r.header.Get("Server-Timing"))
	}
}

func burstsAndGroups(ctx context.Context, t *testing.T, base string) {
	now := time.Now()
	stored(t, pushV1(ctx, t, base, "bursts", floats(now, 1, "__name__", "a"), floats(now, 1, "__name__", "b")))
	refused(t, pushV1(ctx, t, base, "bursts", floats(now, 1, "__name__", "a")), 429, "tenant-max-ingestion-rate")
	twice := floats(now, 1, "__name__", "up", "team", "blue")
	twice.Samples = append(twice.Samples, prompb.Sample{Timestamp: now.UnixMilli(), Value: 2})
	refused(t, pushV1(ctx, t, base, "grouped", twice), 400, "sample-duplicate-timestamp")
	if v := scrape(ctx, t, base+"/metrics", "amphora_discarded_samples_total", "user", "grouped", "reason", "sample_duplicate_timestamp", "group", "blue"); v != 1 {
		t.Errorf("%g samples counted as discarded for the group, want 1", v)
	}
}

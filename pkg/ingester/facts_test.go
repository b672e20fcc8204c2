package ingester

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func (s *site) metadataOf(t *testing.T, id string) []string {
	t.Helper()
	res, err := s.Metadata(tenant.Inject(t.Context(), tenant.ID(id)), &ingesterpb.MetadataRequest{Limit: -1, LimitPerMetric: -1})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range res.Metadata {
		out = append(out, m.Name+" "+m.Type+" "+m.Help)
	}
	return out
}

func TestMetadataIsKeptOverARestartAndForgottenInTime(t *testing.T) {
	s := newSite(t, siteOptions{})
	st := s.OpenStream()
	say := func(name string) {
		t.Helper()
		if res := st.Push(context.Background(), &frame.Frame{Tenant: "t1", Metadata: []frame.Metadata{{Name: name, Type: "counter", Help: "Of " + name}}}); res.Outcome != frame.Stored || res.Message != "" {
			t.Fatalf("%+v", res)
		}
	}
	say("a")
	s.keepHouse(t.Context())
	if got := s.crashed(t, siteOptions{}).metadataOf(t, "t1"); fmt.Sprint(got) != "[a counter Of a]" {
		t.Errorf("after a crash: %q", got)
	}
	say("b")
	if err := services.StopAndAwaitTerminated(t.Context(), s.Ingester); err != nil {
		t.Fatal(err)
	}
	again := newSite(t, siteOptions{dir: s.dir})
	if got := again.metadataOf(t, "t1"); fmt.Sprint(got) != "[a counter Of a b counter Of b]" {
		t.Errorf("after a stop: %q", got)
	}
	again.later(9 * minute)
	st = again.OpenStream()
	say("b")
	again.later(2 * minute)
	if got := again.metadataOf(t, "t1"); fmt.Sprint(got) != "[b counter Of b]" {
		t.Errorf("after the retention: %q", got)
	}
	again.keepHouse(t.Context())
	if got := again.crashed(t, siteOptions{}).metadataOf(t, "t1"); fmt.Sprint(got) != "[b counter Of b]" {
		t.Errorf("what was forgotten came back: %q", got)
	}
}

func TestRefusalsAreLoggedOneInSoMany(t *testing.T) {
	var log lockedBuffer
	s := newSite(t, siteOptions{view: limits.MaxGlobalSeriesPerUser.With(limits.View{}, 1), logger: slog.New(slog.NewTextHandler(&log, nil)),
		change: func(c *Config) { c.ErrorSampleRate = 10 }})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", point{metric("a"), base, 1})
	for range 25 {
		from.wantRefused(t, "t1", 1, "max-series-per-user", point{metric("b"), base, 1})
	}
	if n := strings.Count(log.String(), "(sampled 1/10)"); n != 3 {
		t.Errorf("%d of 25 refusals logged, want 3:\n%s", n, log.String())
	}
	if n := s.counter(t, "amphora_discarded_samples_total", "reason", "per_user_series_limit"); n != 25 {
		t.Errorf("%g refusals counted, want 25", n)
	}
}

func TestPushesUnderWayAreToldWithTheOldest(t *testing.T) {
	var w pending
	f := tokenFrame(0, 5, base, func(int) uint32 { return 0 })
	a, b, c := new(push), new(push), new(push)
	want := func(samples, bytes, since int64) {
		t.Helper()
		if s, n, at := w.lag(); s != samples || n != bytes || at != since {
			t.Errorf("lag = %d samples, %d bytes since %d; want %d, %d, %d", s, n, at, samples, bytes, since)
		}
	}
	want(0, 0, 0)
	w.begin(a, f, 100, 1)
	w.begin(b, f, 10, 2)
	w.begin(c, f, 1, 3)
	want(15, 111, 1)
	w.end(b)
	want(10, 101, 1)
	w.end(a)
	want(5, 1, 3)
	w.begin(a, f, 100, 4)
	w.end(c)
	want(5, 100, 4)
	w.end(a)
	want(0, 0, 0)
}

func TestTenantStatsTellSeriesRatesAndLag(t *testing.T) {
	s := newSite(t, siteOptions{})
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base, 1}, point{metric("b"), base + 1000, 1})
	s.later(idle + minute)
	newSender(s.Ingester).mustPush(t, "t1", point{metric("a"), base + idle, 1})
	st, err := s.TenantStats(tenant.Inject(t.Context(), "t1"), &ingesterpb.TenantStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if st.Series != 2 || st.ActiveSeries != 1 || st.OwnedSeries != 2 || st.NewestSample != base+idle || st.PendingSamples != 0 || st.OldestPending != 0 {
		t.Errorf("stats = %+v", st)
	}
}

func TestHeadsOfTenantsAreTold(t *testing.T) {
	s := newSite(t, siteOptions{view: limits.MaxGlobalExemplarsPerUser.With(limits.OutOfOrderTimeWindow.With(limits.View{}, time.Hour), 10)})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", point{metric("a"), base + minute, 1})
	from.mustPush(t, "t1", point{metric("a"), base, 1}, point{metric("b"), base + minute, 1})
	f := from.frame("t1", point{metric("a"), base + 2*minute, 1})
	f.Exemplars = []frame.Exemplar{{Ref: f.Refs[0], Time: base + 2*minute, Value: 1, Labels: labels.FromStrings("trace", "x")}}
	if res := from.push(t.Context(), f); res.Outcome != frame.Stored || res.Message != "" {
		t.Fatalf("%+v", res)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s.HeadMetrics())
	err := testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`
# HELP prometheus_tsdb_head_series Series in memory.
# TYPE prometheus_tsdb_head_series gauge
prometheus_tsdb_head_series{user="t1"} 2
# HELP prometheus_tsdb_head_out_of_order_samples_appended_total Late samples stored.
# TYPE prometheus_tsdb_head_out_of_order_samples_appended_total counter
prometheus_tsdb_head_out_of_order_samples_appended_total{user="t1"} 1
# HELP prometheus_tsdb_head_max_time Newest time in memory, in milliseconds.
# TYPE prometheus_tsdb_head_max_time gauge
prometheus_tsdb_head_max_time{user="t1"} %d
# HELP prometheus_tsdb_exemplar_exemplars_in_storage Exemplars kept.
# TYPE prometheus_tsdb_exemplar_exemplars_in_storage gauge
prometheus_tsdb_exemplar_exemplars_in_storage{user="t1"} 1
# HELP prometheus_tsdb_exemplar_max_exemplars Exemplars that there is room for.
# TYPE prometheus_tsdb_exemplar_max_exemplars gauge
prometheus_tsdb_exemplar_max_exemplars{user="t1"} 10
`, base+2*minute)), "prometheus_tsdb_head_series", "prometheus_tsdb_head_max_time", "prometheus_tsdb_exemplar_exemplars_in_storage",
		"prometheus_tsdb_head_out_of_order_samples_appended_total", "prometheus_tsdb_exemplar_max_exemplars")
	if err != nil {
		t.Error(err)
	}
	if _, err := s.Flush(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		"ingester_tsdb_out_of_order_samples_appended_total":       1,
		"ingester_tsdb_exemplar_exemplars_in_storage":             1,
		"ingester_tsdb_exemplar_series_with_exemplars_in_storage": 1,
		"ingester_tsdb_exemplar_last_exemplars_timestamp_seconds": float64(base+2*minute) / 1000,
		"ingester_tsdb_head_truncations_failed_total":             0,
		"ingester_tsdb_mmap_chunk_corruptions_total":              0,
		"ingester_ingested_exemplars_total":                       1,
	} {
		if got := s.counter(t, "amphora_"+name); got != want {
			t.Errorf("%s = %g, want %g", name, got, want)
		}
	}
	if n := s.counter(t, "amphora_ingester_tsdb_storage_blocks_bytes", "user", "t1"); n < 100 {
		t.Errorf("storage_blocks_bytes = %g", n)
	}
	s.dump(t, "t1") // opens the blocks
	if n := s.counter(t, "amphora_ingester_tsdb_symbol_table_size_bytes", "user", "t1"); n <= 0 {
		t.Errorf("symbol_table_size_bytes = %g", n)
	}
}

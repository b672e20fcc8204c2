package limits

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// started returns running overrides over one file with text.
func started(t *testing.T, text string) (o *Overrides, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "runtime.yaml")
	write(t, file, text)
	o = NewOverrides(&Defaults{}, RuntimeConfig{Files: []string{file}, Period: 10 * time.Second}, Deps{Reg: prometheus.NewRegistry()})
	if err := services.StartAndAwaitRunning(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := services.StopAndAwaitTerminated(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	return o, file
}

const plain = `
overrides:
  team-a:
    ingestion_rate: 5
    out_of_order_time_window: 1h
  "12345": &big
    max_global_series_per_user: 1e6
    native_histograms_ingestion_enabled: no
  team-b: *big
  team-c:
    <<: *big
    max_global_series_per_user: 2_000_000
    name_validation_scheme: utf8
  nobody:
ingester_limits:
  max_series: 5
  max_ingestion_rate: 2.5
  max_inflight_read_requests: 3
distributor_limits: {max_inflight_push_requests_bytes: 7, max_inflight_push_requests: 0, max_ingestion_rate: 1.5e3}
`

func TestTenantsHaveTheDefaultsChangedByTheFile(t *testing.T) {
	o, _ := started(t, plain)
	for id, want := range map[tenant.ID]string{
		"team-a": "5 1h0m0s 150000 true legacy", "12345": "10000 10m0s 1000000 false legacy", "team-b": "10000 10m0s 1000000 false legacy",
		"team-c": "10000 10m0s 2000000 false utf8", "nobody": "10000 10m0s 150000 true legacy", "other": "10000 10m0s 150000 true legacy",
	} {
		v := o.For(id)
		got := fmt.Sprintf("%v %v %v %v %v", IngestionRate.Of(v), OutOfOrderTimeWindow.Of(v), MaxGlobalSeriesPerUser.Of(v),
			NativeHistogramsIngestionEnabled.Of(v), NameValidationScheme.Of(v))
		if got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	if got := fmt.Sprint(o.Tenants()); got != "[12345 nobody team-a team-b team-c]" {
		t.Errorf("tenants = %s", got)
	}
	base := InstanceLimits{MaxTenants: 9, MaxSeries: 9, MaxInflightPushRequests: 9}
	if got := o.IngesterLimits(base); got != (InstanceLimits{9, 5, 9, 0, 2.5, 3}) {
		t.Errorf("ingester limits = %+v", got)
	}
	if got := o.DistributorLimits(base); got != (InstanceLimits{9, 9, 0, 7, 1500, 0}) {
		t.Errorf("distributor limits = %+v", got)
	}
}

func TestMistakesStopTheStartWithTheirLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "runtime.yaml")
	write(t, file, `overrides:
  "bad/tenant": {}
  team-a:
    ingestion_rte: 5
    ingestion_rate: fast
    max_query_lookback: -1h
    native_histograms_ingestion_enabled: [true]
    max_global_series_per_user: 1.5
    name_validation_scheme: utf9
    ingestion_burst_factor: 0.5
  team-b: 5
  team-a: {}
ingester_limit: {}
ingester_limits: {max_serie: 5, max_ingestion_rate: fast}
distributor_limits: {max_series: 5}
max_query_lookback: 1h
multi_kv_config: {primary: inmemory, mirror: true}
`)
	o := NewOverrides(&Defaults{}, RuntimeConfig{Files: []string{file}, Period: time.Second}, Deps{Reg: prometheus.NewRegistry()})
	err := services.StartAndAwaitRunning(t.Context(), o)
	if err == nil {
		t.Fatal("started with a bad file")
	}
	golden(t, "mistakes.txt", []byte(strings.ReplaceAll(o.FailureCase().Error(), file, "runtime.yaml")+"\n"))
	if got := MaxGlobalSeriesPerUser.Of(o.For("team-a")); got != 150_000 {
		t.Errorf("a bad file is in force in part: %d", got)
	}
}

func TestABadFileKeepsTheOlderLimitsAndAGoodOneReplacesThem(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		reg, file := prometheus.NewRegistry(), filepath.Join(dir, "runtime.yaml")
		write(t, file, "overrides: {a: {ingestion_rate: 1}}")
		o := NewOverrides(&Defaults{}, RuntimeConfig{Files: []string{file}, Period: 10 * time.Second},
			Deps{Reg: reg, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err := services.StartAndAwaitRunning(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		step := func(text string, rate float64, success int, epoch uint64) {
			t.Helper()
			write(t, file, text)
			time.Sleep(31 * time.Second) // fake time: three looks at the file
			synctest.Wait()
			if got := IngestionRate.Of(o.For("a")); got != rate || o.For("a").Epoch() != epoch || o.For("b").Epoch() != epoch {
				t.Errorf("rate %v, epoch %d and %d; want %v, %d", got, o.For("a").Epoch(), o.For("b").Epoch(), rate, epoch)
			}
			if got := gauge(t, reg, "amphora_runtime_config_last_reload_successful"); got != float64(success) {
				t.Errorf("last reload successful = %v, want %d", got, success)
			}
		}
		first := o.For("a").Epoch()
		step("overrides: {a: {ingestion_rate: 1}} # and a comment", 1, 1, first)
		step("overrides: {a: {ingestion_rat: 2}}", 1, 0, first)
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "runtime.yaml:1: ") {
			t.Errorf("a mistake is told %d times, want once with its line:\n%s", n, log.String())
		}
		step("overrides: {a: {ingestion_rate: 2}}", 2, 1, first+1)
		step("overrides: {}", 10_000, 1, first+2)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := gauge(t, reg, "amphora_runtime_config_last_reload_successful"); got != 0 {
			t.Errorf("last reload successful = %v without a file", got)
		}
		if n, err := testutil.GatherAndCount(reg, "amphora_runtime_config_hash"); err != nil || n != 1 {
			t.Errorf("%d hashes, %v", n, err)
		}
		if err := services.StopAndAwaitTerminated(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestALaterFileWinsLimitByLimitAndGzipIsUnpacked(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one.yaml"), filepath.Join(dir, "two.yaml.gz")
	write(t, one, "overrides:\n  a: {ingestion_rate: 1, ingestion_burst_size: 1}\n  b:\n    ingestion_rate: ${RATE}\n")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte("overrides: {a: {ingestion_rate: 2}}"))
	_ = z.Close()
	write(t, two, b.String())
	o := NewOverrides(&Defaults{}, RuntimeConfig{Files: []string{one, two}, Period: time.Second},
		Deps{Reg: prometheus.NewRegistry(), Env: func(string) string { return "3" }})
	if err := o.reload(); err != nil {
		t.Fatal(err)
	}
	if a := o.For("a"); IngestionRate.Of(a) != 2 || IngestionBurstSize.Of(a) != 1 || IngestionRate.Of(o.For("b")) != 3 {
		t.Errorf("a = %v %v, b = %v", IngestionRate.Of(a), IngestionBurstSize.Of(a), IngestionRate.Of(o.For("b")))
	}
}

func TestRuntimePage(t *testing.T) {
	o, _ := started(t, plain)
	for _, mode := range []string{"", "diff"} {
		var b bytes.Buffer
		if err := o.WriteRuntime(&b, mode); err != nil {
			t.Fatal(err)
		}
		if mode == "diff" {
			golden(t, "runtime_diff.yaml", b.Bytes())
		} else if n := strings.Count(b.String(), "\n    ingestion_rate:"); n != len(o.Tenants()) {
			t.Errorf("the full page shows ingestion_rate %d times, want once for each of %d tenants", n, len(o.Tenants()))
		}
		again, _ := started(t, b.String())
		for _, id := range o.Tenants() {
			for i, r := range Table {
				if !same(o.For(id).Value(i), again.For(id).Value(i)) {
					t.Errorf("mode %q, tenant %s: %s = %v after loading the page, was %v", mode, id, r.Name, again.For(id).Value(i), o.For(id).Value(i))
				}
			}
		}
	}
	if err := o.WriteRuntime(new(bytes.Buffer), "all"); err == nil {
		t.Error("unknown mode accepted")
	}
}

func TestWithoutFilesTheServiceOnlyWaits(t *testing.T) {
	o := NewOverrides(&Defaults{}, RuntimeConfig{}, Deps{})
	if err := services.StartAndAwaitRunning(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := services.StopAndAwaitTerminated(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

func TestLimitsMayBeReadWhileTheyChange(t *testing.T) {
	o := NewOverrides(&Defaults{}, RuntimeConfig{}, Deps{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := uint64(0)
			for {
				v := o.For("a")
				if rate := IngestionRate.Of(v); v.Epoch() < last || v.Epoch() > 1 && rate != float64(v.Epoch()) {
					t.Errorf("rate %v under epoch %d after %d", rate, v.Epoch(), last)
					return
				}
				last = v.Epoch()
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for epoch := 2; epoch < 500; epoch++ {
		file := newRuntimeFile()
		file.tenants["a"] = []change{{rowIndex("ingestion_rate"), float64(epoch)}}
		o.put(file)
	}
	close(stop)
	wg.Wait()
}

func BenchmarkFor(b *testing.B) {
	file := newRuntimeFile()
	ids := make([]tenant.ID, 10_000)
	for i := range ids {
		ids[i] = tenant.ID(fmt.Sprintf("ws-%08x-0000-0000-0000-000000000000", i))
		file.tenants[ids[i]] = []change{{0, float64(i % 7)}}
	}
	o := NewOverrides(&Defaults{}, RuntimeConfig{}, Deps{})
	o.put(file)
	for name, ids := range map[string][]tenant.ID{"overridden/tenants=10k": ids, "default": {"somebody", "else"}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				sink = MaxGlobalSeriesPerUser.Of(o.For(ids[i]))
				if i++; i == len(ids) {
					i = 0
				}
			}
		})
	}
	b.Run("same tenant/tenants=10k", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink = MaxGlobalSeriesPerUser.Of(o.For(ids[4711]))
		}
	})
}

func TestAnOverlayStandsAboveTheFilesUntilItIsReplaced(t *testing.T) {
	name := filepath.Join(t.TempDir(), "runtime.yaml")
	if err := os.WriteFile(name, []byte("overrides: {a: {ingestion_rate: 5, ingestion_burst_size: 7}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := NewOverrides(new(Defaults), RuntimeConfig{Files: []string{name}, Period: time.Hour}, Deps{Env: func(string) string { return "9" }})
	if err := services.StartAndAwaitRunning(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(t.Context(), o) })
	rate := func() float64 { return IngestionRate.Of(o.For("a")) }
	if err := o.Overlay("documents", []byte("overrides: {a: {ingestion_rate: 6}}")); err != nil || rate() != 6 {
		t.Fatalf("rate %v, %v; want 6 of the overlay", rate(), err)
	}
	if got := IngestionBurstSize.Of(o.For("a")); got != 7 {
		t.Errorf("burst %d, want 7 of the file", got)
	}
	if err := o.Overlay("documents", []byte("overrides: {a: {nonsense: 6}}")); err == nil || rate() != 6 {
		t.Fatalf("a bad overlay: rate %v, %v; want the earlier 6 and an error", rate(), err)
	}
	if err := o.Overlay("documents", []byte("overrides: {a: {ingestion_rate: '${SECRET}'}}")); err == nil {
		t.Fatal("an overlay read the environment")
	}
	if err := o.Overlay("documents", nil); err != nil || rate() != 5 {
		t.Fatalf("rate %v, %v; want 5 of the file again", rate(), err)
	}
}

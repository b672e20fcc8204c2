package integration

import (
	"context"
	"encoding/json"
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
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAProcessRefusesWhatIsTooMuchForIt changes the limits of a running process one after the other.
func TestAProcessRefusesWhatIsTooMuchForIt(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	file := filepath.Join(t.TempDir(), "runtime.yaml")
	write := func(text string) {
		must(t, os.WriteFile(file+".new", []byte(text), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	write("")
	n := everything(ctx, t, "-runtime-config.file="+file, "-runtime-config.reload-period=1s")
	push := func(tenant, name string) reply {
		return pushV1(ctx, t, n.URL(""), tenant, floats(time.Now(), 1, "__name__", name))
	}
	stored(t, push("team-a", "known"))
	again := 0 // other names each time, as what was stored once is let through
	for _, c := range []struct {
		limits, tenant, name, id, counter, reason string
	}{
		{"ingester_limits: {max_tenants: 1}", "other-b", "known", "ingester-max-tenants", "ingester", "ingester_max_tenants"},
		{"ingester_limits: {max_series: 1}", "team-a", "new", "ingester-max-series", "ingester", "ingester_max_series"},
		{"ingester_limits: {max_ingestion_rate: 0.000001}", "team-a", "known", "ingester-max-ingestion-rate", "ingester", "ingester_max_ingestion_rate"},
		{"ingester_limits: {max_inflight_push_requests_bytes: 1}", "team-a", "known", "ingester-max-inflight-push-requests-bytes", "ingester", "ingester_max_inflight_push_requests_bytes"},
		{"distributor_limits: {max_ingestion_rate: 0.000001}", "team-a", "known", "distributor-max-ingestion-rate", "distributor", "distributor_max_ingestion_rate"},
	} {
		write(c.limits + "\n")
		eventually(ctx, t, c.limits, func() error {
			known := push("team-a", "known") // what a rate is made of
			again++
			tenant, name := strings.Replace(c.tenant, "-b", fmt.Sprint("-b", again), 1), strings.Replace(c.name, "new", fmt.Sprint("new", again), 1)
			r := push(tenant, name)
			if r.status == http.StatusOK {
				return fmt.Errorf("answered %s and %s", known, r)
			}
			refused(t, r, 503, c.id)
			return nil
		})
		if v := scrape(ctx, t, n.URL("/metrics"), "amphora_"+c.counter+"_instance_rejected_requests_total", "reason", c.reason); v < 1 {
			t.Errorf("%s: %g refusals counted", c.limits, v)
		}
		if !strings.Contains(c.limits, "rate") && !strings.Contains(c.limits, "inflight") {
			stored(t, push("team-a", "known"))
		}
		write("")
		eventually(ctx, t, "the limit to be gone", func() error {
			if r := push(c.tenant, c.name); r.status != http.StatusOK {
				return errors.New(r.String())
			}
			return nil
		})
	}
}

// TestABreakerOpensAndTriesAgain has every push take longer than it may.
func TestABreakerOpensAndTriesAgain(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t, "-ingester.push-circuit-breaker.enabled=true", "-ingester.push-circuit-breaker.request-timeout=1us",
		"-ingester.push-circuit-breaker.failure-execution-threshold=5", "-ingester.push-circuit-breaker.cooldown-period=2s")
	push := func() reply {
		return pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "up"))
	}
	opens := func() {
		t.Helper()
		eventually(ctx, t, "the breaker to open", func() error {
			r := push()
			if r.status == http.StatusOK {
				return errors.New("a push was stored")
			}
			refused(t, r, 503, "ingester-circuit-breaker-open")
			return nil
		})
	}
	opens()
	state := func(name string) float64 {
		return scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_circuit_breaker_current_state", "request_type", "push", "state", name)
	}
	if state("open") != 1 {
		t.Error("the breaker is not shown to be open")
	}
	has(ctx, t, n.URL(""), "team-a", "up", 1) // queries have one of their own
	eventually(ctx, t, "a push that is let through to see", func() error {
		if r := push(); r.status != http.StatusOK {
			return errors.New(r.String())
		}
		return nil
	})
	opens()
	if v := scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_circuit_breaker_transitions_total", "request_type", "push", "state", "open"); v < 2 {
		t.Errorf("opened %g times, want 2", v)
	}
}

// TestNamesHintsAndWords are those of the tenant, of the attempt, and of the first of many refusals.
func TestNamesHintsAndWords(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(file, []byte(`overrides:
  any: {name_validation_scheme: utf8}
  grouped: {separate_metrics_group_label: team}
  slow: {request_rate: 0.001, request_burst_size: 1}
`), 0o600))
	n := everything(ctx, t, "-runtime-config.file="+file)
	base := n.URL("")

	dotted := floats(time.Now(), 1, "__name__", "http.requests", "http.status", "200", "größe", "ü")
	stored(t, pushV1(ctx, t, base, "any", dotted))
	has(ctx, t, base, "any", `{"http.requests","http.status"="200","größe"="ü"}`, 1)
	refused(t, pushV1(ctx, t, base, "legacy", dotted), 400, "metric-name-invalid")

	wide := func(name string) prompb.TimeSeries {
		kv := []string{"__name__", name}
		for k := range 70 {
			kv = append(kv, fmt.Sprintf("l%02d", k), "v")
		}
		return floats(time.Now(), 1, kv...)
	}
	stored(t, pushV1(ctx, t, base, "wide", wide("target_info"), wide("build_info")))
	refused(t, pushV1(ctx, t, base, "wide", wide("up")), 400, "max-label-names-per-series")

	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{floats(time.Now(), 1, "__name__", "up")}}).Marshal()
	must(t, err)
	stored(t, pushV1(ctx, t, base, "slow", floats(time.Now(), 1, "__name__", "up")))
	for attempt, between := range map[string][2]int{"": {3, 9}, "1": {3, 9}, "3": {12, 36}, "9": {48, 96}, "many": {3, 9}} {
		r := call(ctx, t, http.MethodPost, base+"/api/v1/push", snappy.Encode(nil, raw), "X-Scope-OrgID", "slow", "Retry-Attempt", attempt)
		refused(t, r, 429, "tenant-max-request-rate")
		if s, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || s < between[0] || s > between[1] {
			t.Errorf("attempt %q: Retry-After %q, want %d to %d", attempt, r.header.Get("Retry-After"), between[0], between[1])
		}
	}

	at := time.Now()
	stored(t, pushV1(ctx, t, base, "grouped", floats(at, 1, "__name__", "up", "team", "blue")))
	for range 11 {
		refused(t, pushV1(ctx, t, base, "grouped", floats(at, 2, "__name__", "up", "team", "blue")), 400, "sample-duplicate-timestamp")
	}
	if v := scrape(ctx, t, base+"/metrics", "amphora_discarded_samples_total", "user", "grouped", "reason", "new-value-for-timestamp", "group", "blue"); v != 11 {
		t.Errorf("%g samples counted as discarded for the group, want 11", v)
	}
	log, err := os.ReadFile(n.LogFile)
	must(t, err)
	if k := strings.Count(string(log), "(sampled 1/10)"); k != 2 {
		t.Errorf("%d of 11 refusals are in the log, want 2", k)
	}
}

// TestBlocksStayUntilTheyAreShippedAndAWhileLonger has the bucket refuse a block for a time.
func TestBlocksStayUntilTheyAreShippedAndAWhileLonger(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 2*time.Minute)
	dir := t.TempDir()
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{"-blocks-storage.tsdb.retention-period=10s",
		"-querier.query-ingesters-within=5s", "-blocks-storage.tsdb.head-compaction-interval=1s"}})
	n := c.Nodes()[0]
	local := func() int {
		found, err := filepath.Glob(filepath.Join(n.DataDir, "tenants", "team-a", "blocks", "*", "meta.json"))
		must(t, err)
		return len(found)
	}
	oldest := func() float64 {
		return scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_oldest_unshipped_block_timestamp_seconds")
	}
	flush := func() reply { return call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil) }
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now().Add(-time.Minute), 1, "__name__", "up")))
	inTheWay := filepath.Join(dir, "blocks", "team-a")
	must(t, os.MkdirAll(filepath.Dir(inTheWay), 0o750))
	must(t, os.WriteFile(inTheWay, nil, 0o600))
	if r := flush(); r.status/100 != 5 {
		t.Errorf("a flush without a bucket answered %s", r)
	}
	begin := time.Now()
	if at := oldest(); local() != 1 || at == 0 {
		t.Errorf("%d blocks on disk, the oldest unshipped of %g", local(), at)
	}
	pause(ctx, t, 12*time.Second)
	if local() != 1 {
		t.Errorf("a block that is not shipped was deleted after %s", time.Since(begin))
	}
	way := time.Now()
	must(t, os.Remove(inTheWay))
	eventually(ctx, t, "the block to be shipped", func() error {
		if at := oldest(); at != 0 {
			return fmt.Errorf("one of %g is not", at)
		}
		return nil
	})
	if left := local() != 1; left && time.Since(way) < 10*time.Second { // it may go that long after it was shipped
		t.Error("the block left the disk when it was shipped")
	}
	kept := func(ctx context.Context) error {
		if local() != 0 {
			return errors.New("still there")
		}
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	if err := harness.Poll(wait, kept); err != nil {
		t.Errorf("the block stays on disk: %v", err)
	}
	has(ctx, t, n.URL(""), "team-a", "up", 1) // from the bucket
}

// TestASelectionIsKnownTheSecondTime, and what is stored is found at once all the same.
func TestASelectionIsKnownTheSecondTime(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t)
	hits := func() float64 {
		return scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_tsdb_head_postings_for_matchers_cache_hits_total")
	}
	eventually(ctx, t, "a query that finds what the one before found", func() error {
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "up")))
		before := hits()
		has(ctx, t, n.URL(""), "team-a", "up", 1)
		has(ctx, t, n.URL(""), "team-a", "up", 1)
		if now := hits(); now == before {
			return fmt.Errorf("%g hits, as before", now)
		}
		return nil
	})
	for k := range 10 {
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "up", "k", fmt.Sprint(k))))
		has(ctx, t, n.URL(""), "team-a", "up", k+2)
	}
}

// TestMetadataIsKnownAsLongAsItsBlocks asks for the metadata of a metric that nobody sends any more.
func TestMetadataIsKnownAsLongAsItsBlocks(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t)
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{floats(time.Now(), 1, "__name__", "shelves")},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "shelves", Help: "Number of shelves."}}}).Marshal()
	must(t, err)
	stored(t, call(ctx, t, http.MethodPost, n.URL("/api/v1/push"), snappy.Encode(nil, raw), "X-Scope-OrgID", "team-a"))
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status != http.StatusOK {
		t.Fatalf("flush answered %s", r)
	}
	must(t, n.Process.Stop())
	must(t, os.RemoveAll(n.DataDir))
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	if got := metadataOf(ctx, t, n.URL("/prometheus"), "team-a"); len(got) != 1 || len(got["shelves"]) != 1 || got["shelves"][0] != "gauge|Number of shelves.|" {
		t.Errorf("metadata of the blocks alone: %q", got)
	}
	if got := metadataOf(ctx, t, n.URL("/prometheus"), "team-b"); len(got) != 0 {
		t.Errorf("metadata of another tenant: %q", got)
	}
}

// TestAStopShipsAndOldSamplesShareBlocks ends a process that flushes at its stop, with two days of
// late samples.
func TestAStopShipsAndOldSamplesShareBlocks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, time.Minute)
	dir := t.TempDir()
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{"-ingester.out-of-order-time-window=72h",
		"-blocks-storage.tsdb.bigger-out-of-order-blocks-for-old-samples=true", "-blocks-storage.tsdb.flush-blocks-on-shutdown=true",
		"-ingester.out-of-order-blocks-external-label-enabled=true"}})
	n := c.Nodes()[0]
	now := time.Now()
	today := now.UTC().Truncate(24 * time.Hour)
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(now, 1, "__name__", "old")))
	late := 0
	for at := today.Add(-48 * time.Hour); at.Before(today); at = at.Add(time.Hour) {
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(at, 1, "__name__", "old")))
		late++
	}
	must(t, n.Process.Stop())
	found, err := filepath.Glob(filepath.Join(dir, "blocks", "team-a", "*", "meta.json"))
	must(t, err)
	days, labelled := 0, 0
	for _, path := range found {
		b, err := os.ReadFile(path)
		must(t, err)
		var m struct {
			MinTime, MaxTime int64
			Thanos           struct{ Labels map[string]string }
		}
		must(t, json.Unmarshal(b, &m))
		if m.MaxTime-m.MinTime > (2 * time.Hour).Milliseconds() {
			days++
		}
		if m.Thanos.Labels["__out_of_order__"] == "true" {
			labelled++
		}
	}
	if days != 2 || labelled != 2 || len(found) != 3 {
		t.Errorf("%d blocks, %d of them of a day, %d of them labelled; want 3, 2 and 2", len(found), days, labelled)
	}
	must(t, os.RemoveAll(n.DataDir))
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	got, err := matrix(ctx, n.URL(""), "team-a", "count_over_time(old[73h])", now.Add(time.Second).UnixMilli())
	must(t, err)
	if text := fmt.Sprint(got); len(got) != 1 || !strings.Contains(text, fmt.Sprint(late+1)) {
		t.Errorf("%s, want %d samples", text, late+1)
	}
}

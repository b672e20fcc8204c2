package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestSeriesAreCountedAndLimitedPerTenant meets the limits of active series and of label sets, and
// finds the counts where operators and tenants look for them.
func TestSeriesAreCountedAndLimitedPerTenant(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(file, []byte(`overrides:
  few:
    max_active_series_per_user: 3
  sets:
    limits_per_label_set:
      - {label_set: {team: shop}, limits: {max_series: 3}}
      - {label_set: {team: shop, svc: web}, limits: {max_series: 2}}
    active_series_custom_trackers: {shop: '{team="shop"}', web: '{svc=~"w.b"}'}
    cost_attribution_labels: [team]
`), 0o600))
	n := everything(ctx, t, "-runtime-config.file="+file, "-ingester.active-series-metrics-idle-timeout=15s", "-cost-attribution.registry-path=/usage/labels")
	push := func(tenant string, names ...string) reply {
		var series []prompb.TimeSeries
		for _, name := range names {
			series = append(series, floats(time.Now(), 1, "__name__", name))
		}
		return pushV1(ctx, t, n.URL(""), tenant, series...)
	}
	stored(t, push("few", "a", "b", "c"))
	r := push("few", "a", "d", "e")
	refused(t, r, 429, "max-active-series")
	if !strings.Contains(r.body, "2 samples of this request") {
		t.Errorf("the refusal does not count: %s", r)
	}
	stored(t, push("few", "a", "b", "c"))
	stored(t, push("other", "d", "e", "f", "g"))

	web := func(n string) prompb.TimeSeries {
		return floats(time.Now(), 1, "__name__", "m", "n", n, "svc", "web", "team", "shop")
	}
	stored(t, pushV1(ctx, t, n.URL(""), "sets", web("1"), web("2"), floats(time.Now(), 1, "__name__", "m", "svc", "db", "team", "shop"), floats(time.Now(), 1, "__name__", "m")))
	r = pushV1(ctx, t, n.URL(""), "sets", web("1"), web("3"))
	refused(t, r, 400, "max-series-per-label-set")
	if !strings.Contains(r.body, `svc="web"`) {
		t.Errorf("the refusal does not name the label set: %s", r)
	}

	for _, want := range []struct {
		page, name string
		v          float64
		labels     []string
	}{
		{"/metrics", "amphora_ingester_active_series", 3, []string{"user", "few"}},
		{"/metrics", "amphora_ingester_owned_series", 4, []string{"user", "other"}},
		{"/metrics", "amphora_ingester_local_limits", 3, []string{"user", "few", "limit", "max_active_series_per_user"}},
		{"/metrics", "amphora_ingester_active_series_custom_tracker", 3, []string{"user", "sets", "name", "shop"}},
		{"/metrics", "amphora_ingester_active_series_custom_tracker", 2, []string{"user", "sets", "name", "web"}},
		{"/metrics", "amphora_ingester_usage_per_labelset", 3, []string{"user", "sets", "labelset", `{team="shop"}`}},
		{"/metrics", "amphora_discarded_samples_total", 2, []string{"user", "few", "reason", "per_user_active_series_limit"}},
		{"/metrics", "amphora_discarded_samples_total", 1, []string{"user", "sets", "reason", "per_labelset_series_limit"}},
		{"/usage/labels", "amphora_ingester_attributed_active_series", 3, []string{"tenant", "sets", "team", "shop"}},
		{"/usage/labels", "amphora_ingester_attributed_active_series", 1, []string{"tenant", "sets", "team", "__missing__"}},
		{"/metrics", "amphora_ingester_attributed_active_series", 0, nil},
		{"/usage/labels", "amphora_distributor_received_attributed_samples_total", 5, []string{"tenant", "sets", "team", "shop"}},
		{"/usage/labels", "amphora_discarded_attributed_samples_total", 1, []string{"tenant", "sets", "team", "shop", "reason", "per_labelset_series_limit"}},
		{"/ingester/tsdb_metrics", "prometheus_tsdb_head_series", 4, []string{"user", "sets"}},
	} {
		if got := scrape(ctx, t, n.URL(want.page), want.name, want.labels...); got != want.v {
			t.Errorf("%s%v at %s = %g, want %g", want.name, want.labels, want.page, got, want.v)
		}
	}
	statsOfTenants(ctx, t, n)

	// What becomes idle makes room.
	eventually(ctx, t, "room for other series", func() error {
		if r := push("few", "x", "y"); r.status != 200 {
			return errors.New(r.String())
		}
		return nil
	})
}

// statsOfTenants looks at the pages and calls that tell what tenants have.
func statsOfTenants(ctx context.Context, t *testing.T, n *harness.Node) {
	t.Helper()
	var usage struct {
		NumSeries     int `json:"numSeries"`
		ActiveSeries  int `json:"activeSeries"`
		IngestionRate *float64
	}
	r := call(ctx, t, http.MethodGet, n.URL("/api/v1/user_stats"), nil, "X-Scope-OrgID", "other")
	if err := json.Unmarshal([]byte(r.body), &usage); err != nil || usage.NumSeries != 4 || usage.ActiveSeries != 4 || !strings.Contains(r.body, "RuleIngestionRate") {
		t.Errorf("/api/v1/user_stats answered %s: %v", r, err)
	}
	var lag struct {
		Newest  *time.Time `json:"newestSampleTime"`
		Age     float64    `json:"newestSampleAgeSeconds"`
		Pending *int       `json:"pendingSamples"`
	}
	r = call(ctx, t, http.MethodGet, n.URL("/api/v1/user_lag"), nil, "X-Scope-OrgID", "other")
	if err := json.Unmarshal([]byte(r.body), &lag); err != nil || lag.Newest == nil || lag.Age > 60 || lag.Pending == nil || *lag.Pending != 0 {
		t.Errorf("/api/v1/user_lag answered %s: %v", r, err)
	}
	r = call(ctx, t, http.MethodGet, n.URL("/api/v1/user_lag"), nil, "X-Scope-OrgID", "nobody")
	if r.status != 200 || !strings.Contains(r.body, `"newestSampleTime":null`) {
		t.Errorf("/api/v1/user_lag of nobody answered %s", r)
	}
	r = call(ctx, t, http.MethodGet, n.URL("/distributor/all_user_stats?count_method=active"), nil, "Accept", "application/json")
	for _, want := range []string{`"userID":"few","ingestionRate"`, `"numSeries":3`, `"userID":"other"`} {
		if r.status != 200 || !strings.Contains(r.body, want) || strings.Contains(r.body, "missing") {
			t.Errorf("/distributor/all_user_stats has no %s: %s", want, r)
		}
	}
	r = call(ctx, t, http.MethodGet, n.URL("/ingester/tenants"), nil, "Accept", "application/json")
	if !strings.Contains(r.body, `"tenant":"few","series":3,"activeSeries":3,"ownedSeries":3`) {
		t.Errorf("/ingester/tenants answered %s", r)
	}
}

// TestIdleSeriesLeaveMemoryEarly cuts series that are not written any more while others are, kills
// the process, and finds every sample.
func TestIdleSeriesLeaveMemoryEarly(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-ingester.early-head-compaction-owned-series-threshold=50", "-ingester.active-series-metrics-idle-timeout=10s",
		"-blocks-storage.tsdb.head-compaction-interval=1s")
	const old, live = 100, 10
	var series []prompb.TimeSeries
	for k := range old {
		series = append(series, floats(time.Now(), float64(k), "__name__", "old", "n", fmt.Sprint(k)))
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", series...))
	writes := 0
	write := func() {
		writes++
		var series []prompb.TimeSeries
		for k := range live {
			series = append(series, floats(time.Now(), float64(writes), "__name__", "live", "n", fmt.Sprint(k)))
		}
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", series...))
	}
	eventually(ctx, t, "idle series to leave memory", func() error {
		write()
		if got := inMemory(ctx, t, n.URL(""), "team-a"); got != live {
			return fmt.Errorf("%d series", got)
		}
		return nil
	})
	eventually(ctx, t, "the series cut early to be counted", func() error { // they leave memory before the cut has ended
		return between(scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_tsdb_early_compaction_series_removed_total"), old, old)
	})
	check := func() {
		t.Helper()
		has(ctx, t, n.URL(""), "team-a", "old", old)
		has(ctx, t, n.URL(""), "team-a", "live", live)
		got, err := matrix(ctx, n.URL(""), "team-a", `count_over_time(live{n="0"}[1h])`, time.Now().UnixMilli())
		must(t, err)
		if text := fmt.Sprint(got); len(got) != 1 || !strings.Contains(text, fmt.Sprint(writes)) {
			t.Errorf("%s of %d writes", text, writes)
		}
	}
	write()
	check()
	must(t, n.Kill())
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	check()
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 1, "__name__", "old", "n", "5")))
	has(ctx, t, n.URL(""), "team-a", "old", old)
}

// TestUsageIsToldWhileAnIngesterIsDown asks for what tenants have when a third of it cannot be asked.
func TestUsageIsToldWhileAnIngesterIsDown(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	c := cluster(ctx, t)
	write := c.Of("distributor")[0]
	var series []prompb.TimeSeries
	for k := range 60 {
		series = append(series, floats(time.Now(), 1, "__name__", "m", "n", fmt.Sprint(k)))
	}
	stored(t, pushV1(ctx, t, write.URL(""), "team-a", series...))
	// Two of the three ingesters are enough for a push to be acknowledged.
	eventually(ctx, t, "every ingester to own every series: there are as many zones as copies", func() error {
		for _, n := range c.Of("ingester") {
			if v := scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_owned_series", "user", "team-a"); v != 60 {
				return fmt.Errorf("%s owns %g series", n.Spec.Name, v)
			}
		}
		return nil
	})
	must(t, c.Node("ingester-b").Kill())
	read := c.Nodes()[slices.IndexFunc(c.Nodes(), func(n *harness.Node) bool { return strings.Contains(n.Spec.Target, "querier") })]
	r := call(ctx, t, http.MethodGet, read.URL("/api/v1/user_stats"), nil, "X-Scope-OrgID", "team-a")
	if r.status != 200 || !strings.Contains(r.body, `"numSeries":60`) || !strings.Contains(r.body, `"missing":["ingester-b"]`) {
		t.Errorf("/api/v1/user_stats answered %s", r)
	}
	r = call(ctx, t, http.MethodGet, write.URL("/distributor/all_user_stats"), nil, "Accept", "application/json")
	if r.status != 200 || !strings.Contains(r.body, `"numSeries":40`) || !strings.Contains(r.body, `"missing":["ingester-b"]`) {
		t.Errorf("/distributor/all_user_stats answered %s", r)
	}
}

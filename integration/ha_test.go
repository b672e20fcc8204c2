package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// pairFlags deduplicate, with a failover that a test can wait for.
var pairFlags = []string{
	"-distributor.ha-tracker.enable=true", "-distributor.ha-tracker.enable-for-all-users=true",
	"-distributor.ha-tracker.update-timeout=1s", "-distributor.ha-tracker.update-timeout-jitter-max=0s",
	"-distributor.ha-tracker.failover-timeout=5s", "-distributor.ingestion-rate-limit=0",
}

func TestAPairOfPrometheusIsOne(t *testing.T) {
	t.Parallel()
	pairOfPrometheus(t, pairFlags, 15*time.Second)
}

// TestAPairFailsOverWithTheTimersOfUsers: after 30 s without a sign of life at the distributor that the other
// sends to. Of another distributor it learns up to 20 s late, and counts such news as at most 9 s old, because
// clocks may differ: 41 s, and the time until the other sends.
func TestAPairFailsOverWithTheTimersOfUsers(t *testing.T) {
	t.Parallel()
	pairOfPrometheus(t, []string{"-distributor.ha-tracker.enable=true", "-distributor.ha-tracker.enable-for-all-users=true", "-distributor.ingestion-rate-limit=0"}, 45*time.Second)
}

// pairOfPrometheus has two Prometheus servers scrape the same target and send to two distributors, and
// kills the one that is elected. The other's samples must be taken within the given time.
func pairOfPrometheus(t *testing.T, flags []string, within time.Duration) {
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1, Flags: flags, Nodes: []harness.Spec{
		{Name: "store", Target: "ingester,querier"}, {Name: "distributor-0", Target: "distributor"}, {Name: "distributor-1", Target: "distributor"},
	}})
	store, distributors := c.Node("store"), c.Of("distributor")
	servers := map[string]*harness.Prometheus{}
	for i, d := range distributors {
		name := fmt.Sprintf("replica-%d", i)
		p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{
			Name: name, Dir: t.TempDir(), Every: 500 * time.Millisecond, Targets: []string{fmt.Sprintf("127.0.0.1:%d", store.HTTP)},
			PushURL: d.URL("/api/v1/push"), Tenant: "pair", Version2: i == 1,
			Labels: map[string]string{"cluster": "eu", "__replica__": name, "prometheus": "pair"},
		})
		harness.Need(t, err)
		t.Cleanup(func() { _ = p.Kill() })
		servers[name] = p
	}

	var first string
	eventually(ctx, t, "one elected replica", func() (err error) {
		first, err = elected(ctx, distributors...)
		return err
	})
	begin := time.Now()
	pause(ctx, t, 6*time.Second)
	eventually(ctx, t, "one elected replica", func() (err error) { // on a very busy machine it may have fallen silent
		first, err = elected(ctx, distributors...)
		return err
	})
	second := "replica-1"
	if first == second {
		second = "replica-0"
	}
	lost := func(name string) float64 {
		return scrape(ctx, t, "http://"+servers[name].Address+"/metrics", "prometheus_remote_storage_samples_failed_total")
	}
	for name := range servers {
		if n := lost(name); n != 0 {
			t.Errorf("%s takes %v samples for lost", name, n)
		}
	}
	must(t, servers[first].Kill())
	killed := time.Now()
	waiting, done := context.WithTimeout(ctx, within+15*time.Second)
	defer done()
	must(t, harness.Poll(waiting, func(ctx context.Context) error {
		switch now, err := elected(ctx, distributors...); {
		case err != nil:
			return err
		case now != second:
			return fmt.Errorf("elected is %s", now)
		}
		return nil
	}))
	took := time.Since(killed)
	t.Logf("failed over after %s", took)
	if took > within {
		t.Errorf("failed over after %s, want at most %s", took, within)
	}
	eventually(ctx, t, "samples of the other", func() error {
		got, err := raw(ctx, store.URL(""), "pair", "up", killed.Add(took).UnixMilli(), time.Now().UnixMilli())
		if err == nil && len(got) == 0 {
			err = errors.New("there are none")
		}
		return err
	})
	if n := lost(second); n != 0 {
		t.Errorf("%s takes %v samples for lost", second, n)
	}
	onePrometheus(ctx, t, store, begin, killed, within+5*time.Second)
	for _, d := range distributors {
		if n := scrape(ctx, t, d.URL("/metrics"), "amphora_distributor_deduped_samples_total", "user", "pair", "cluster", "eu"); n == 0 && strings.HasSuffix(d.Spec.Name, second[len(second)-1:]) {
			t.Errorf("%s deduplicated nothing", d.Spec.Name)
		}
	}
}

// onePrometheus asserts that what is stored looks like what one server sent, without a gap longer than that.
func onePrometheus(ctx context.Context, t *testing.T, n *harness.Node, begin, killed time.Time, longest time.Duration) {
	t.Helper()
	end := time.Now()
	var names struct{ Data []string }
	body, err := harness.Get(ctx, n.URL("/prometheus/api/v1/labels"), "X-Scope-OrgID", "pair")
	must(t, err)
	must(t, json.Unmarshal(body, &names))
	if slices.Contains(names.Data, "__replica__") || !slices.Contains(names.Data, "cluster") {
		t.Errorf("labels = %v", names.Data)
	}
	same, err := matrix(ctx, n.URL(""), "pair", `count(up) == 1 and on () count(count by (__name__, instance, job, cluster, prometheus) (amphora_build_info)) == 1`, end.UnixMilli())
	must(t, err)
	if len(same) != 1 {
		t.Error("the target is stored more than once")
	}
	got, err := raw(ctx, n.URL(""), "pair", "up", begin.UnixMilli(), end.UnixMilli())
	must(t, err)
	if len(got) != 1 {
		t.Fatalf("%d series, want one", len(got))
	}
	gap, before := time.Duration(0), 0
	for _, list := range got {
		for i, s := range list {
			if s.t < killed.UnixMilli() {
				before++
			}
			if i > 0 {
				gap = max(gap, time.Duration(s.t-list[i-1].t)*time.Millisecond)
			}
		}
	}
	// A sample each half second, of one server and not of two.
	if most := int(killed.Sub(begin)/(500*time.Millisecond))*4/3 + 2; before == 0 || before > most {
		t.Errorf("%d samples in %s, want at most %d", before, killed.Sub(begin), most)
	}
	if gap > longest {
		t.Errorf("nothing was stored for %s", gap)
	}
	t.Logf("longest gap %s", gap)
}

// elected asks all distributors, who must agree.
func elected(ctx context.Context, nodes ...*harness.Node) (string, error) {
	replica := ""
	for _, n := range nodes {
		body, err := harness.Get(ctx, n.URL("/distributor/ha_tracker"), "Accept", "application/json")
		if err != nil {
			return "", err
		}
		var page struct {
			Enabled bool
			Elected []struct{ UserID, Cluster, Replica string }
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return "", err
		}
		if !page.Enabled || len(page.Elected) != 1 || replica != "" && page.Elected[0].Replica != replica {
			return "", fmt.Errorf("%s shows %s, another %s", n.Spec.Name, body, replica)
		}
		replica = page.Elected[0].Replica
	}
	return replica, nil
}

func TestReplicasAreToldApartSeriesBySeries(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t, append(slices.Clone(pairFlags), "-distributor.ha-tracker.max-clusters=2", "-distributor.ha-tracker.failover-timeout=10m")...) // nobody fails over here
	now := time.Now()
	of := func(cluster, replica string, kv ...string) prompb.TimeSeries {
		now = now.Add(time.Millisecond)
		return floats(now, 1, append([]string{"__name__", "up", "__replica__", replica, "cluster", cluster}, kv...)...)
	}
	push := func(series ...prompb.TimeSeries) reply { return pushV1(ctx, t, n.URL(""), "ha", series...) }
	stored(t, push(of("eu", "a"), of("eu", "a", "job", "x")))
	for range 2 { // new, and known
		if r := push(of("eu", "b"), of("eu", "b", "job", "x")); r.status != 202 || !strings.Contains(r.body, "replicas did not match") {
			t.Errorf("of another replica: %s", r)
		}
	}
	stored(t, push(of("eu", "b"), of("us", "b"), of("eu", "a")))
	if r := push(of("asia", "a"), of("us", "b")); r.status != 400 || !strings.Contains(r.body, "err-amphora-tenant-too-many-ha-clusters") {
		t.Errorf("of one more cluster: %s", r)
	}
	got, err := matrix(ctx, n.URL(""), "ha", `count_over_time({__name__="up"}[1m])`, now.Add(time.Second).UnixMilli())
	must(t, err)
	var have []string
	for _, s := range got {
		have = append(have, fmt.Sprint(s.Metric["cluster"], s.Metric["job"], s.Metric["__replica__"], "=", s.Value[1]))
	}
	slices.Sort(have)
	if want := "[eu=2 eux=1 us=2]"; fmt.Sprint(have) != want {
		t.Errorf("stored = %v, want %s", have, want)
	}
	if page := call(ctx, t, http.MethodGet, n.URL("/distributor/ha_tracker"), nil, "Accept", "text/html"); page.status != 200 || !strings.Contains(page.body, "<td>us</td><td>b</td>") {
		t.Errorf("page: %s", page)
	}
	for reason, want := range map[string]float64{"too_many_ha_clusters": 1} {
		if v := scrape(ctx, t, n.URL("/metrics"), "amphora_discarded_samples_total", "reason", reason); v != want {
			t.Errorf("%v samples discarded for %s, want %v", v, reason, want)
		}
	}
}

// TestARestartKeepsWhoIsElected: a process that is a whole cluster has nobody to tell it.
func TestARestartKeepsWhoIsElected(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t, append(slices.Clone(pairFlags), "-distributor.ha-tracker.failover-timeout=1m")...)
	push := func(replica string) reply {
		return pushV1(ctx, t, n.URL(""), "ha", floats(time.Now(), 1, "__name__", "up", "__replica__", replica, "cluster", "eu"))
	}
	stored(t, push("a"))
	must(t, n.Restart())
	must(t, n.WaitReady(ctx))
	if r := push("b"); r.status != http.StatusAccepted {
		t.Errorf("of the other replica after a restart: %s", r)
	}
	pause(ctx, t, 6*time.Second) // that is how often it is written down
	must(t, n.Kill())
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	if r := push("b"); r.status != http.StatusAccepted {
		t.Errorf("of the other replica after a crash: %s", r)
	}
	stored(t, push("a"))
}

func TestRulesOfATenantAreAppliedAndReadAgain(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	write := func(text string) {
		must(t, os.WriteFile(file+".new", []byte(text), 0o600))
		must(t, os.Rename(file+".new", file))
	}
	write(`
overrides:
  team-a:
    drop_labels: [pod]
    metric_relabel_configs:
    - {source_labels: [__name__], regex: "go_.*", action: drop}
    - {source_labels: [__meta_tenant_id], target_label: team}
`)
	n := everything(ctx, t, "-runtime-config.file="+file, "-runtime-config.reload-period=1s")
	now := time.Now()
	push := func() {
		now = now.Add(time.Millisecond)
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(now, 1, "__name__", "go_gc", "pod", "1"), floats(now, 1, "__name__", "up", "pod", "1"), floats(now, 2, "__name__", "up", "pod", "2")))
	}
	series := func() string {
		t.Helper()
		body, err := harness.Get(ctx, n.URL("/prometheus/api/v1/series?")+url.Values{"match[]": {`{__name__=~".+"}`}}.Encode(), "X-Scope-OrgID", "team-a")
		must(t, err)
		var a struct{ Data []map[string]string }
		must(t, json.Unmarshal(body, &a))
		var out []string
		for _, s := range a.Data {
			out = append(out, fmt.Sprint(s))
		}
		slices.Sort(out)
		return fmt.Sprint(out)
	}
	push()
	push()
	if got, want := series(), "[map[__name__:up team:team-a]]"; got != want {
		t.Errorf("series = %s, want %s", got, want)
	}
	for reason, want := range map[string]float64{"relabel_configuration": 2, "sample_duplicate_timestamp": 2} {
		if v := scrape(ctx, t, n.URL("/metrics"), "amphora_discarded_samples_total", "reason", reason, "user", "team-a"); v != want {
			t.Errorf("%v samples discarded for %s, want %v", v, reason, want)
		}
	}

	write("overrides: {}\n")
	eventually(ctx, t, "the rules to be gone", func() error {
		push()
		if got, want := series(), "[map[__name__:go_gc pod:1] map[__name__:up pod:1] map[__name__:up pod:2] map[__name__:up team:team-a]]"; got != want {
			return errors.New(got)
		}
		return nil
	})
}

package distributor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	gokitlog "github.com/go-kit/log"
	"github.com/grafana/dskit/kv/consul"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/distributor/ha"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// deduplicate makes c elect replicas.
func (c *cluster) deduplicate() *cluster {
	c.t.Helper()
	store, closer := consul.NewInMemoryClient(ha.Codec{}, gokitlog.NewNopLogger(), nil)
	c.t.Cleanup(func() { _ = closer.Close() })
	tracker, err := ha.New(ha.Deps{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Reg: c.reg, Store: store,
		Now: func() time.Time { return time.UnixMilli(c.clock.Load()) }})
	if err != nil {
		c.t.Fatal(err)
	}
	c.deps.Replicas = tracker
	c.acceptHA(true)
	return c
}

func (c *cluster) acceptHA(on bool) {
	c.limit(func(v limits.View) limits.View { return limits.AcceptHASamples.With(v, on) })
}

// from is c.series of a replica, "cluster/replica".
func (c *cluster) from(who, text string) prompb.TimeSeries {
	name, replica, _ := strings.Cut(who, "/")
	return c.series(text + ",cluster=" + name + ",__replica__=" + replica)
}

func (c *cluster) expectSamples(want string) {
	c.t.Helper()
	if got := c.samples(); got != want {
		c.t.Errorf("stored = %s, want %s", got, want)
	}
}

func (c *cluster) expectError(err error, kind errs.Kind, text string) {
	c.t.Helper()
	if err == nil || errs.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		c.t.Errorf("got %v %v, want %v: %s", errs.KindOf(err), err, kind, text)
	}
}

func TestOnlyTheElectedReplicaIsStoredWithoutItsName(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	for range 3 {
		c.advance(time.Second)
		if w, err := c.push(c.v1(c.from("eu/a", "up"), c.from("eu/a", "down"))); err != nil || w.Samples != 2 {
			t.Errorf("elected: written = %+v, %v", w, err)
		}
		w, err := c.push(c.v1(c.from("eu/b", "up"), c.from("eu/b", "down")))
		if c.expectError(err, errs.Accepted, "replicas did not match"); w.Samples != 2 || errs.HTTPStatus(err) != 202 {
			t.Errorf("not elected: written = %+v, %v; it is no loss", w, err)
		}
	}
	c.expectSamples(`[{__name__="down", cluster="eu"}=3 {__name__="up", cluster="eu"}=3]`)
	if n := c.metric("amphora_distributor_deduped_samples_total", "t1", "eu"); n != 6 {
		t.Errorf("%g samples deduplicated, want 6", n)
	}
	if n := c.metric("amphora_distributor_received_samples_total"); n != 6 {
		t.Errorf("%g samples received, want 6", n)
	}
	if n := c.metric("amphora_distributor_series_cache_misses_total"); n != 4 {
		t.Errorf("%g series looked into, want each once", n)
	}
}

func TestAMixedBatchIsSplit(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	c.mustPush(c.from("eu/a", "up"))
	for range 2 { // new, and known
		c.advance(time.Second)
		mixed := c.v1(c.from("eu/b", "up"), c.from("us/b", "up"), c.from("eu/a", "up"), c.series("up"), c.series("up,__replica__=x"), c.series("up,cluster=eu"), c.from("us/a", "up"))
		if w, err := c.push(mixed); err != nil || w.Samples != 7 {
			t.Errorf("written = %+v, %v", w, err)
		}
	}
	c.expectSamples(`[{__name__="up", __replica__="x"}=2 {__name__="up", cluster="eu"}=5 {__name__="up", cluster="us"}=2 {__name__="up"}=2]`)
	if n := c.metric("amphora_distributor_deduped_samples_total", "eu"); n != 2 {
		t.Errorf("%g samples of eu deduplicated, want 2", n)
	}
	if n := c.metric("amphora_distributor_non_ha_samples_received_total", "t1"); n != 6 {
		t.Errorf("%g samples without a replica, want 6", n)
	}
}

func TestAfterAFailoverTheSeriesGoOn(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3}).deduplicate()
	push := func(who string) (defs int, err error) {
		c.advance(time.Second)
		_, err = c.push(c.v1(c.from(who, "up"), c.from(who, "down")))
		return c.defs(), err
	}
	steps := []struct {
		who  string
		wait time.Duration
		defs int
		kind errs.Kind // Internal: none
	}{
		{"eu/a", 0, 6, 0}, {"eu/b", 0, 0, errs.Accepted}, {"eu/a", 0, 0, 0},
		{"eu/b", 30 * time.Second, 6, 0}, {"eu/a", 0, 0, errs.Accepted}, {"eu/b", 0, 0, 0},
		{"eu/a", 30 * time.Second, 0, 0}, // its references are still good
	}
	for i, s := range steps {
		c.advance(s.wait)
		if defs, err := push(s.who); defs != s.defs || s.kind == 0 && err != nil || s.kind != 0 && errs.KindOf(err) != s.kind {
			t.Errorf("step %d of %s: %d definitions, %v", i, s.who, defs, err)
		}
	}
	if n := c.copies(`{__name__="up", cluster="eu"}`); n != 3 {
		t.Errorf("on %d ingesters, want 3", n)
	}
	c.expectSamples(`[{__name__="down", cluster="eu"}=5 {__name__="up", cluster="eu"}=5]`)
}

func TestALimitMayChangeWhileAReplicaIsNotElected(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	c.mustPush(c.from("eu/a", "up,long=12345"))
	c.advance(31 * time.Second)
	c.mustPush(c.from("eu/b", "up,long=12345"))
	c.limit(func(v limits.View) limits.View { return limits.MaxLabelValueLength.With(v, 4) })
	for range 2 {
		_, err := c.push(c.v1(c.from("eu/a", "up,long=12345")))
		c.expectError(err, errs.Accepted, "replicas did not match")
	}
	c.advance(31 * time.Second)
	_, err := c.push(c.v1(c.from("eu/a", "up,long=12345")))
	c.expectError(err, errs.Invalid, "label-value-too-long")
	c.limit(func(v limits.View) limits.View { return limits.MaxLabelValueLength.With(v, 0) })
	c.mustPush(c.from("eu/a", "up,long=12345"))
	c.expectSamples(`[{__name__="up", cluster="eu", long="12345"}=3]`)
}

func TestClustersOverTheLimitAreRefusedAlone(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	c.limit(func(v limits.View) limits.View { return limits.HAMaxClusters.With(v, 2) })
	for range 2 {
		_, err := c.push(c.v1(c.from("a/r", "up"), c.from("b/r", "up"), c.from("c/r", "up"), c.from("a/r", "down"), c.series("up")))
		c.expectError(err, errs.Invalid, "too many HA clusters (limit: 2)")
		c.expectError(err, errs.Invalid, "err-amphora-tenant-too-many-ha-clusters")
	}
	c.expectSamples(`[{__name__="down", cluster="a"}=2 {__name__="up", cluster="a"}=2 {__name__="up", cluster="b"}=2 {__name__="up"}=2]`)
	if n := c.metric("amphora_discarded_samples_total", "too_many_ha_clusters"); n != 2 {
		t.Errorf("%g samples discarded, want 2", n)
	}
	c.limit(func(v limits.View) limits.View { return limits.HAMaxClusters.With(v, 3) })
	c.mustPush(c.from("c/r", "up"))
}

func TestSwitchingDeduplicationTakesEffectOnTheNextPush(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	a, b := func() prompb.TimeSeries { return c.from("eu/a", "up") }, func() prompb.TimeSeries { return c.from("eu/b", "up") }
	c.mustPush(a(), b())
	c.acceptHA(false)
	c.mustPush(a(), b())
	c.expectSamples(`[{__name__="up", __replica__="a", cluster="eu"}=1 {__name__="up", __replica__="b", cluster="eu"}=1 {__name__="up", cluster="eu"}=1]`)
	c.acceptHA(true)
	c.mustPush(a(), b())
	c.limit(func(v limits.View) limits.View { return limits.HAReplicaLabel.With(v, "cluster_of_b") })
	c.mustPush(a(), b())
	c.expectSamples(`[{__name__="up", __replica__="a", cluster="eu"}=2 {__name__="up", __replica__="b", cluster="eu"}=2 {__name__="up", cluster="eu"}=2]`)
}

func TestRulesSeeSeriesWithoutTheReplica(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	c.rules(`[{action: labelmap, regex: __replica__, replacement: seen}, {action: drop, source_labels: [__name__], regex: down}]`, "cluster")
	for range 2 {
		c.advance(time.Second)
		c.mustPush(c.from("eu/a", "up"), c.from("eu/b", "up"), c.from("eu/a", "down"), c.from("us/a", "up"))
		_, err := c.push(c.v1(c.from("eu/b", "down")))
		c.expectError(err, errs.Accepted, "replicas did not match")
	}
	c.expectSamples(`[{__name__="up"}=2]`) // eu and us became one
	for reason, want := range map[string]float64{"relabel_configuration": 2, "sample_duplicate_timestamp": 2} {
		if n := c.metric("amphora_discarded_samples_total", reason); n != want {
			t.Errorf("%g samples discarded for %s, want %g", n, reason, want)
		}
	}
}

func TestNamesOfReplicasAreBounded(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	for _, who := range []string{"eu/" + strings.Repeat("x", 3000), strings.Repeat("x", 3000) + "/a"} {
		_, err := c.push(c.v1(c.from(who, "up"), c.from("us/a", "up")))
		c.expectError(err, errs.Invalid, "label-value-too-long")
	}
	_, err := c.push(c.v1(c.from("eu\xff/a", "up")))
	c.expectError(err, errs.Invalid, "label-value-invalid")
	if n := len(c.deps.Replicas.Clusters()); n != 1 {
		t.Errorf("%d clusters, want us alone", n)
	}
}

// Replicas named after pods are ever new ones.
func TestVeryManyReplicasAreNumberedAnew(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	c.mustPush(c.from("eu/a", "up"))
	for round := range 3 {
		var series []prompb.TimeSeries
		for i := range maxPairs {
			series = append(series, c.from(fmt.Sprintf("eu/%d-%d", round, i), "up"))
		}
		_, err := c.push(c.v1(series...))
		c.expectError(err, errs.Accepted, "replicas did not match")
		before := c.tenants.byID["t1"].limits.Load().replicas.pairs
		c.advance(time.Second)
		c.mustPush(c.from("eu/a", "up"))
		if c.tenants.byID["t1"].limits.Load().replicas.pairs == before {
			t.Error("not numbered anew")
		}
		_, err = c.push(c.v1(series[7]))
		c.expectError(err, errs.Accepted, `and "a" is elected`)
	}
	c.expectSamples(`[{__name__="up", cluster="eu"}=4]`)
}

func TestMetadataOfALosingReplicaIsNotSent(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1}).deduplicate()
	push := func(replica string) error {
		symbols := writev2.NewSymbolTable()
		var refs []uint32
		for _, text := range []string{"__name__", "up", "__replica__", replica, "cluster", "eu"} {
			refs = append(refs, symbols.Symbolize(text))
		}
		req := writev2.Request{Timeseries: []writev2.TimeSeries{{LabelsRefs: refs, Samples: []writev2.Sample{{Value: 1, Timestamp: c.clock.Load()}},
			Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: symbols.Symbolize("of " + replica)}}}}
		req.Symbols = symbols.Symbols()
		_, err := c.push(&remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.MustMarshal(&req)})
		return err
	}
	for range 2 {
		if err := push("a"); err != nil {
			t.Fatal(err)
		}
		c.expectError(push("b"), errs.Accepted, "replicas did not match")
	}
	c.ingesters["ingester-0"].set(func(g *ingester) {
		if len(g.meta) != 1 || g.meta[0].Help != "of a" {
			t.Errorf("metadata = %v", g.meta)
		}
	})
}

func TestDeduplicationCostsNoAllocationForEachSeries(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3, zones: true}).deduplicate()
	instant(c)
	c.rules(someRules, "pod")
	series := remotewritetest.Series(2000)
	for i := range series {
		series[i] = with(series[i], "cluster", "eu", "__replica__", "a")
	}
	elected := &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series, 1, c.clock.Load())}
	for i := range series {
		series[i] = with(series[i], "__replica__", "b")
	}
	lost := &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series, 1, c.clock.Load())}
	for _, r := range []*remotewrite.Request{elected, lost} {
		push := func() { _, _ = c.Push(context.Background(), "t1", r) }
		push()
		if n := testing.AllocsPerRun(20, push); n > 200 {
			t.Errorf("%g allocations for 2000 known series", n)
		}
	}
}

// BenchmarkPushHitRelative pushes the same known series for a tenant without and one with rules and
// replicas, by turns, so that what else the machine does counts for both.
func BenchmarkPushHitRelative(b *testing.B) {
	c := newCluster(b, clusterOptions{replicas: 3, instances: 3, zones: true}).deduplicate()
	instant(c)
	r, err := limits.ParseRelabeling(someRules)
	if err != nil {
		b.Fatal(err)
	}
	plain := limits.IngestionRate.With(limits.View{}, 0)
	full := limits.DropLabels.With(limits.MetricRelabelConfigs.With(limits.AcceptHASamples.With(plain, true), r), []string{"pod", "uid"})
	c.deps.Limits = func(id tenant.ID) limits.View {
		if id == "full" {
			return full
		}
		return plain
	}
	series := remotewritetest.Series(benchSeries / 4)
	for i := range series {
		series[i] = with(series[i], "cluster", "eu", "__replica__", "a")
	}
	var reqs []*remotewrite.Request
	for lo := 0; lo < len(series); lo += benchRequest {
		reqs = append(reqs, &remotewrite.Request{Version: remotewrite.V1, Body: remotewritetest.V1(series[lo:lo+benchRequest], 42, c.clock.Load())})
	}
	var took [2]time.Duration
	for i := 0; b.Loop(); i++ {
		kind := i % 2
		req := reqs[(i/2+kind*len(reqs)/2)%len(reqs)] // not one that is in the cache
		start := remotewritetest.CPUTime()
		if _, err := c.Push(context.Background(), []tenant.ID{"plain", "full"}[kind], req); err != nil {
			b.Fatal(err)
		}
		if i >= 2*len(reqs) { // known
			took[kind] += remotewritetest.CPUTime() - start
		}
	}
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "full/plain")
	b.ReportMetric(0, "ns/op")
}

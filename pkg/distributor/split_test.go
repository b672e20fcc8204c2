package distributor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// splitCluster is a cluster whose tenant t1 may write for team-* and shared by the label team.
func splitCluster(t testing.TB, remove bool) *cluster {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.views = map[tenant.ID]limits.View{"t1": rules(*c.view.Load(), []string{"team"}, []string{"team-*", "shared"}, remove)}
	return c
}

func rules(v limits.View, list, allowed []string, remove bool) limits.View {
	return limits.TenantFromLabelRemove.With(limits.TenantFromLabelAllowed.With(limits.TenantFromLabelRules.With(v, list), allowed), remove)
}

// storedSeries returns the series stored, sorted.
func (c *cluster) storedSeries() []string {
	_, stored := c.ingesters["ingester-0"].read()
	return slices.Sorted(maps.Keys(stored))
}

func TestSeriesGoToTheTenantOfTheirLabel(t *testing.T) {
	for _, remove := range []bool{false, true} {
		for _, v := range []remotewrite.Version{remotewrite.V1, remotewrite.V2} {
			t.Run(fmt.Sprintf("remove=%t/v=%d", remove, v), func(t *testing.T) {
				c := splitCluster(t, remove)
				req := c.encoded(v, labels.FromStrings("__name__", "up", "team", "team-a"), labels.FromStrings("__name__", "up", "team", "team-b", "x", "1"),
					labels.FromStrings("__name__", "up"), labels.FromStrings("__name__", "up", "team", "shared"), labels.FromStrings("__name__", "up", "team", "t1"))
				want := []string{`shared {__name__="up", team="shared"}`, `t1 {__name__="up", team="t1"}`, `t1 {__name__="up"}`, `team-a {__name__="up", team="team-a"}`, `team-b {__name__="up", team="team-b", x="1"}`}
				samples := map[string]int{"t1": 2, "team-a": 1, "team-b": 1, "shared": 1}
				if remove {
					want = []string{`shared {__name__="up"}`, `t1 {__name__="up"}`, `team-a {__name__="up"}`, `team-b {__name__="up", x="1"}`}
				}
				for round := range 3 {
					w, err := c.push(req)
					if err != nil || w.Samples != 5 {
						t.Fatalf("round %d: %+v, %v", round, w, err)
					}
					if defs, wantDefs := c.defs(), 5; round == 0 && defs != wantDefs || round > 0 && defs != 0 {
						t.Errorf("round %d: %d definitions", round, defs)
					}
				}
				if got := c.storedSeries(); !slices.Equal(got, want) {
					t.Errorf("stored %q, want %q", got, want)
				}
				for user, n := range samples {
					if in, got := c.metric("amphora_distributor_samples_in_total", user), c.metric("amphora_distributor_received_samples_total", user); in != float64(3*n) || got != float64(3*n) {
						t.Errorf("%s: %g samples in and %g received, want %d", user, in, got, 3*n)
					}
					if got := c.metric("amphora_distributor_requests_in_total", user); got != 3 {
						t.Errorf("%s: %g requests in, want 3", user, got)
					}
				}
				// An ingester that forgot everything gets the same labels again.
				c.ingesters["ingester-0"].restart(9)
				c.ingesters["ingester-0"].set(func(g *ingester) { clear(g.stored) })
				if _, err := c.push(req); err != nil {
					t.Fatal(err)
				}
				if got := c.storedSeries(); !slices.Equal(got, want) {
					t.Errorf("defined anew: %q, want %q", got, want)
				}
			})
		}
	}
}

// encoded returns a request with one sample now for each series.
func (c *cluster) encoded(v remotewrite.Version, series ...labels.Labels) *remotewrite.Request {
	encode := map[remotewrite.Version]func([]labels.Labels, float64, int64) []byte{remotewrite.V1: remotewritetest.V1, remotewrite.V2: remotewritetest.V2}[v]
	return &remotewrite.Request{Version: v, Body: encode(series, 1, c.clock.Load())}
}

func TestASenderWritesOnlyForTheTenantsItMay(t *testing.T) {
	c := splitCluster(t, true)
	for _, bad := range []string{"other", "team", "shared2", "../t2", "a|b", strings.Repeat("team-", 100), "__mimir_cluster"} {
		w, err := c.push(c.v1(c.series("up,team="+bad), c.series("good,team=team-a"), c.series("good")))
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "(err-amphora-tenant-not-allowed)") {
			t.Errorf("%s: got %v, want Invalid", bad, err)
		}
		if w.Samples != 2 {
			t.Errorf("%s: written %+v, want the two good samples", bad, w)
		}
	}
	if n := c.metric("amphora_discarded_samples_total", "tenant_not_allowed", "t1"); n != 7 {
		t.Errorf("discarded = %g, want 7", n)
	}
	if got, want := c.storedSeries(), []string{`t1 {__name__="good"}`, `team-a {__name__="good"}`}; !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	// Who has no rules writes for nobody else, whatever the labels say.
	if _, err := c.Push(context.Background(), "t2", c.v1(c.series("mine,team=team-a"))); err != nil {
		t.Fatal(err)
	}
	if got := c.storedSeries(); !slices.Contains(got, `t2 {__name__="mine", team="team-a"}`) {
		t.Errorf("stored %q, want the series of t2 with t2", got)
	}
}

func TestRulesAreTriedInOrder(t *testing.T) {
	c := splitCluster(t, false)
	v := rules(*c.view.Load(), []string{"env=dev:sandbox", "env=a:b:sandbox", "team", "org"}, []string{"team-a", "org-a"}, true)
	c.views["t1"] = limits.TenantFromLabelDefault.With(limits.IngestionBurstSize.With(v, 1), "rest")
	if _, err := c.push(c.v1(c.series("a,env=dev,team=team-a"), c.series("b,env=a:b"), c.series("c,env=prod,team=team-a"), c.series("d,org=org-a"), c.series("e,env=x"))); err != nil {
		t.Fatal(err)
	}
	want := []string{`org-a {__name__="d"}`, `rest {__name__="e", env="x"}`, `sandbox {__name__="a", team="team-a"}`, `sandbox {__name__="b"}`, `team-a {__name__="c", env="prod"}`}
	if got := c.storedSeries(); !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func TestASeriesSentWithoutRulesIsNotTakenForOneThatLostItsLabel(t *testing.T) {
	c := splitCluster(t, true)
	s := c.series("up,team=team-a")
	for range 2 {
		if _, err := c.push(c.v1(s)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Push(context.Background(), "team-a", c.v1(s)); err != nil {
			t.Fatal(err)
		}
	}
	_, stored := c.ingesters["ingester-0"].read()
	if a, b := len(stored[`team-a {__name__="up"}`]), len(stored[`team-a {__name__="up", team="team-a"}`]); a != 2 || b != 2 {
		t.Errorf("%d samples without and %d with the label, want 2 each: %v", a, b, stored)
	}
}

func TestEachPartIsUnderTheLimitsOfItsTenantAndTheWorstAnswerWins(t *testing.T) {
	c := splitCluster(t, true)
	base := *c.view.Load()
	c.views["team-slow"] = limits.IngestionBurstSize.With(limits.IngestionRate.With(base, 1), 1)
	c.views["team-short"] = limits.MaxLabelValueLength.With(base, 5)
	ok, slow, short := c.series("a,team=team-a"), []prompb.TimeSeries{c.series("a,team=team-slow"), c.series("b,team=team-slow")}, c.series("much_too_long,team=team-short")
	for _, tc := range []struct {
		name    string
		series  []prompb.TimeSeries
		kind    errs.Kind
		samples int
	}{
		{"refused", []prompb.TimeSeries{ok, short}, errs.Invalid, 1},
		{"rate limited", append([]prompb.TimeSeries{short, ok}, slow...), errs.RateLimited, 1},
		{"tenant not allowed and rate limited", append([]prompb.TimeSeries{c.series("a,team=x"), ok}, slow...), errs.RateLimited, 1},
	} {
		if w, err := c.push(c.v1(tc.series...)); errs.KindOf(err) != tc.kind || w.Samples != tc.samples {
			t.Errorf("%s: %+v, %v, want %v", tc.name, w, err, tc.kind)
		}
	}
	c.ingesters["ingester-0"].set(func(g *ingester) {
		n := 0
		g.answer = func() (frame.Result, bool) { n++; return frame.FailedWith(errs.New(errs.Unavailable, "disk")), n == 1 }
	})
	if w, err := c.push(c.v1(append(slow, ok, c.series("b,team=team-b"), short)...)); errs.KindOf(err) != errs.Unavailable || w.Samples != 1 {
		t.Errorf("one part has no quorum: %+v, %v, want Unavailable", w, err)
	}
	if n := c.metric("amphora_discarded_samples_total", "rate_limited", "team-slow"); n != 6 {
		t.Errorf("rate limited = %g, want 6 of team-slow", n)
	}
	if n := c.metric("amphora_discarded_samples_total", "t1"); n != 1 {
		t.Errorf("discarded of the sender = %g, want the one series of a tenant that is not allowed", n)
	}
}

func TestAllThatASeriesBringsGoesAlong(t *testing.T) {
	c := splitCluster(t, true)
	v := limits.MaxGlobalExemplarsPerUser.With(*c.view.Load(), 10)
	c.views["team-a"], c.views["team-b"] = v, v
	symbols := writev2.NewSymbolTable()
	req := writev2.Request{}
	for _, team := range []string{"team-a", "team-b"} {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{
			LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", "h", "team", team), nil),
			Histograms: []writev2.Histogram{writev2.FromIntHistogram(0, c.clock.Load(), exponential(0, 2))},
			Exemplars:  []writev2.Exemplar{{LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("id", team), nil), Timestamp: c.clock.Load()}},
			Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_HISTOGRAM, HelpRef: symbols.Symbolize("of " + team)}})
	}
	req.Symbols = symbols.Symbols()
	w, err := c.push(&remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.MustMarshal(&req)})
	if err != nil || w.Histograms != 2 || w.Exemplars != 2 {
		t.Fatalf("got %+v, %v", w, err)
	}
	c.ingesters["ingester-0"].set(func(g *ingester) {
		helps := []string{g.meta[0].Help, g.meta[1].Help}
		ids := []string{g.exem[0].Labels.Get("id"), g.exem[1].Labels.Get("id")}
		slices.Sort(helps)
		slices.Sort(ids)
		if !slices.Equal(helps, []string{"of team-a", "of team-b"}) || !slices.Equal(ids, []string{"team-a", "team-b"}) {
			t.Errorf("metadata %v, exemplars %v", helps, ids)
		}
		g.meta = nil
	})
	if got, want := c.storedSeries(), []string{`team-a {__name__="h"}`, `team-b {__name__="h"}`}; !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	// Metadata that belongs to no series goes where series without a tenant of their own go.
	body := remotewritetest.MustMarshal(&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{{MetricFamilyName: "up"}}, Timeseries: []prompb.TimeSeries{c.series("up,team=team-a")}})
	if _, err := c.push(&remotewrite.Request{Version: remotewrite.V1, Body: body}); err != nil {
		t.Fatal(err)
	}
	if n, m := c.metric("amphora_distributor_received_metadata_total", "t1"), c.metric("amphora_distributor_received_metadata_total", "team-a"); n != 1 || m != 1 {
		t.Errorf("metadata of t1 = %g and of team-a = %g, want 1 and the 1 of before", n, m)
	}
}

func TestARequestIsSplitIntoABoundedNumberOfTenants(t *testing.T) {
	c := splitCluster(t, true)
	var series []prompb.TimeSeries
	for i := range maxTenantsPerPush + 3 {
		series = append(series, c.series(fmt.Sprintf("up,team=team-%d", i)))
	}
	w, err := c.push(c.v1(series...))
	if errs.KindOf(err) != errs.Invalid || w.Samples != maxTenantsPerPush {
		t.Errorf("got %+v, %v, want %d samples and Invalid", w, err, maxTenantsPerPush)
	}
	c.await(func() bool { return c.inflight.Load() == 0 })
}

func TestSplitPushesFromManySendersLoseNothing(t *testing.T) {
	c := splitCluster(t, true)
	var wg sync.WaitGroup
	for sender := range 8 {
		wg.Go(func() {
			for round := range 20 {
				var series []prompb.TimeSeries
				for team := range 5 {
					series = append(series, c.series(fmt.Sprintf("up,team=team-%d,sender=%d,round=%d", team, sender, round%3)))
				}
				if w, err := c.push(c.v1(series...)); err != nil || w.Samples != 5 {
					t.Errorf("%+v, %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	_, stored := c.ingesters["ingester-0"].read()
	n := 0
	for _, s := range stored {
		n += len(s)
	}
	if n != 8*20*5 || len(stored) != 5*8*3 {
		t.Errorf("%d samples of %d series, want %d of %d", n, len(stored), 8*20*5, 5*8*3)
	}
}

// BenchmarkPushSplit pushes known series by turns for a tenant whose requests are split by label and
// for one whose are not, and compares the processor time.
func BenchmarkPushSplit(b *testing.B) {
	for _, v := range []remotewrite.Version{remotewrite.V1, remotewrite.V2} {
		for _, tenants := range []int{1, 10, 1000} {
			b.Run(fmt.Sprintf("v=%d/tenants=%d", v, tenants), func(b *testing.B) {
				c := splitCluster(b, true)
				instant(c)
				series := remotewritetest.Series(benchSeries / 4)
				for i := range series {
					series[i] = with(series[i], "team", fmt.Sprintf("team-%d", i%tenants))
				}
				var reqs []*remotewrite.Request
				for lo := 0; lo < len(series); lo += benchRequest {
					reqs = append(reqs, c.encoded(v, series[lo:lo+benchRequest]...))
				}
				push := func(i int) time.Duration {
					start := remotewritetest.CPUTime()
					if _, err := c.Push(context.Background(), []tenant.ID{"t1", "plain"}[i%2], reqs[(i/2+i%2*len(reqs)/2)%len(reqs)]); err != nil {
						b.Fatal(err)
					}
					return remotewritetest.CPUTime() - start
				}
				for i := range 4 * len(reqs) {
					push(i)
				}
				var took [2]time.Duration
				b.ReportAllocs()
				i := 0
				for ; b.Loop(); i++ {
					took[i%2] += push(i)
				}
				b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "split/whole")
				b.ReportMetric(float64(took[0].Nanoseconds())/float64(max(i/2, 1)*benchRequest), "cpu-ns/sample")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func TestAPanicInOnePartFailsTheRequestAlone(t *testing.T) {
	c := splitCluster(t, true)
	c.ingesters["ingester-0"].set(func(g *ingester) {
		once := true
		g.answer = func() (frame.Result, bool) {
			if once {
				once = false
				panic("on purpose")
			}
			return frame.Result{}, false
		}
	})
	req := c.v1(c.series("up,team=team-a"), c.series("up,team=team-b"))
	if _, err := c.push(req); errs.KindOf(err) != errs.Internal {
		t.Errorf("got %v, want Internal", err)
	}
	if w, err := c.push(req); err != nil || w.Samples != 2 {
		t.Errorf("the next push: %+v, %v", w, err)
	}
}

package distributor

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

// rules changes the rules of all tenants.
func (c *cluster) rules(text string, drop ...string) {
	c.t.Helper()
	r, err := limits.ParseRelabeling(text)
	if err != nil {
		c.t.Fatal(err)
	}
	c.limit(func(v limits.View) limits.View {
		return limits.DropLabels.With(limits.MetricRelabelConfigs.With(v, r), drop)
	})
}

// samples is how many samples the first ingester has of each series.
func (c *cluster) samples() string {
	_, stored := c.ingesters["ingester-0"].read()
	var out []string
	for name, list := range stored {
		out = append(out, fmt.Sprintf("%s=%d", name[len("t1 "):], len(list)))
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

const someRules = `
- {source_labels: [__meta_tenant_id, job], target_label: owner, replacement: "$1"}
- {source_labels: [__name__], regex: go_.*, action: drop}
- {source_labels: [debug], regex: .+, action: drop}
`

func TestRulesDecideUnderWhichLabelsASeriesIsStored(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.rules(someRules, "pod", "gone")
	push := func() int {
		return c.mustPush(c.series("up,pod=a"), c.series("up,job=x"), c.series("go_gc,pod=a"), c.series("up,debug=1"))
	}
	push()
	if got, want := c.samples(), `[{__name__="up", job="x", owner="t1;x"}=1 {__name__="up", owner="t1;"}=1]`; got != want {
		t.Errorf("stored = %s, want %s", got, want)
	}
	misses := c.metric("amphora_distributor_series_cache_misses_total")
	if defs := push(); defs != 0 || c.metric("amphora_distributor_series_cache_misses_total") != misses {
		t.Errorf("%d definitions, %g misses when all series were known", defs, c.metric("amphora_distributor_series_cache_misses_total")-misses)
	}
	if n := c.metric("amphora_discarded_samples_total", "relabel_configuration"); n != 4 {
		t.Errorf("%g samples dropped by rules, want 4", n)
	}
	if got, want := c.samples(), `[{__name__="up", job="x", owner="t1;x"}=2 {__name__="up", owner="t1;"}=2]`; got != want {
		t.Errorf("stored = %s, want %s", got, want)
	}
	if n := c.metric("amphora_distributor_received_samples_total"); n != 4 {
		t.Errorf("%g samples received, want 4", n)
	}
}

func TestWhatRulesDropIsNoLossToTheClient(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.rules(`[{action: drop, source_labels: [__name__], regex: up}]`)
	for range 2 {
		if w, err := c.push(c.v1(c.series("up"), c.series("down"))); err != nil || w.Samples != 2 {
			t.Errorf("written = %+v, %v", w, err)
		}
	}
	c.rules(`[{action: labelkeep, regex: nothing}]`)
	if w, err := c.push(c.v1(c.series("up"))); err != nil || w.Samples != 1 {
		t.Errorf("a series without labels left: written = %+v, %v", w, err)
	}
}

func TestLabelsAreCheckedAfterTheRules(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	many := "up"
	for i := range 100 {
		many += fmt.Sprintf(",tmp_%d=x", i)
	}
	c.rules(`[{action: labeldrop, regex: tmp_.*}, {source_labels: [bad], target_label: __name__, regex: (.+)}]`)
	if _, err := c.push(c.v1(c.series(many))); err != nil {
		t.Errorf("100 labels of which rules leave none: %v", err)
	}
	if _, err := c.push(c.v1(c.series("up,bad=a b"))); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a bad metric name made by a rule: got %v, want Invalid", err)
	}
	s := c.series("up")
	for i := range mostLabels + 1 {
		s.Labels = append(s.Labels, prompb.Label{Name: fmt.Sprintf("tmp_%d", i), Value: "x"})
	}
	if _, err := c.push(c.v1(s)); errs.KindOf(err) != errs.Invalid {
		t.Errorf("more labels than are ever looked at: got %v, want Invalid", err)
	}
}

func TestAChangeOfRulesTakesEffectOnTheNextPush(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	s := func() prompb.TimeSeries { c.advance(time.Second); return c.series("up,pod=a") }
	if c.mustPush(s()); c.mustPush(s()) != 0 {
		t.Error("defined again without a change")
	}
	c.rules("[]", "pod")
	if defs := c.mustPush(s()) + c.mustPush(s()); defs != 1 {
		t.Errorf("%d definitions after labels were dropped, want 1", defs)
	}
	c.rules("[{action: drop, source_labels: [pod], regex: a}]")
	c.mustPush(s())
	c.rules("[]")
	if defs := c.mustPush(s()); defs != 1 {
		t.Errorf("%d definitions after the rules were taken back, want 1", defs)
	}
	if got, want := c.samples(), `[{__name__="up", pod="a"}=3 {__name__="up"}=2]`; got != want {
		t.Errorf("stored = %s, want %s", got, want)
	}
	c.limit(func(v limits.View) limits.View { return limits.MaxLabelNameLength.With(v, 100) })
	if defs := c.mustPush(s()); defs != 0 {
		t.Errorf("%d definitions after a limit changed that changes no labels, want 0", defs)
	}
	if n := c.budget.used.Load(); n != 1 {
		t.Errorf("%d series remembered, want 1", n)
	}
}

// A frame that is late must not be stored under labels that its series got meanwhile.
func TestAPushUnderWayKeepsTheLabelsItBeganWith(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.mustPush(c.series("up,pod=a"))
	g := c.ingesters["ingester-0"]
	hold := make(chan struct{})
	g.set(func(g *ingester) { g.hold = hold })
	late := make(chan error)
	c.advance(time.Second)
	req := c.v1(c.series("up,pod=a"))
	go func() {
		_, err := c.push(req)
		late <- err
	}()
	c.await(func() (sent bool) { g.set(func(g *ingester) { sent = g.waiting == 1 }); return sent })
	c.rules("[]", "pod")
	g.set(func(g *ingester) { g.hold = nil })
	c.advance(time.Second)
	c.mustPush(c.series("up,pod=a"))
	close(hold)
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	c.mustPush(c.series("up,pod=a"))
	if got, want := c.samples(), `[{__name__="up", pod="a"}=2 {__name__="up"}=2]`; got != want {
		t.Errorf("stored = %s, want %s", got, want)
	}
}

func TestAnOlderPushDoesNotUseWhatNewerRulesMade(t *testing.T) {
	table := newTable(&budget{limit: 10}, 1)
	topo := newTopology(1, nil)
	set := topo.intern([]string{"a"}, 1)
	h := remotewrite.Hash{Hi: 1, Lo: 2}
	var first, newer, older found
	table.remember(placement{hash: h, set: set, verdict: 1, shape: 1}, topo, 1, &first)
	table.remember(placement{hash: h, set: set, verdict: 2, shape: 2}, topo, 1, &newer)
	if first.ref == newer.ref {
		t.Error("labels changed, the reference did not")
	}
	transient, ok := table.remember(placement{hash: h, set: set, verdict: 1, shape: 1}, topo, 1, &older)
	if !ok || !transient || older.ref == newer.ref || older.ref == first.ref {
		t.Errorf("transient = %t, references = %v, %v, %v; want a reference of its own", transient, first.ref, newer.ref, older.ref)
	}
	table.release([]uint32{older.number - 1})
	if n := table.budget.used.Load(); n != 1 {
		t.Errorf("%d entries used, want 1", n)
	}
}

func TestSeriesThatRulesMakeOneAreOne(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 3})
	c.rules(`[{action: replace, source_labels: [__name__], regex: old_up, target_label: __name__, replacement: up}]`, "pod")
	for range 2 { // new, and known
		c.advance(time.Minute)
		now := c.clock.Load()
		a, b, d, other := c.series("up,pod=a"), c.series("up,pod=b"), c.series("old_up"), c.series("up,job=x,pod=a")
		a.Samples = []prompb.Sample{{Value: 1, Timestamp: now}, {Value: 2, Timestamp: now + 1}}
		b.Samples = []prompb.Sample{{Value: 3, Timestamp: now + 1}, {Value: 4, Timestamp: now + 2}, {Value: 9, Timestamp: now + int64(time.Hour/time.Millisecond)}}
		d.Samples = []prompb.Sample{{Value: 5, Timestamp: now + 2}, {Value: 6, Timestamp: now + 3}}
		d.Histograms = []prompb.Histogram{prompb.FromIntHistogram(now, exponential(2, 4)), prompb.FromIntHistogram(now+4, exponential(2, 4))}
		w, err := c.push(c.v1(a, b, d, other))
		if errs.KindOf(err) != errs.Invalid || w.Samples != 7 || w.Histograms != 2 {
			t.Errorf("written = %+v, %v; want all but the one in the far future", w, err)
		}
	}
	if n := c.metric("amphora_discarded_samples_total", "sample_duplicate_timestamp"); n != 6 {
		t.Errorf("%g samples of a time that another series has, want 6", n)
	}
	if n := c.copies(`{__name__="up"}`); n != 3 {
		t.Errorf("stored on %d ingesters", n)
	}
	for _, g := range c.ingesters {
		_, stored := g.read()
		if n := len(stored[`t1 {__name__="up"}`]); n != 10 {
			t.Errorf("%d samples, want 10: %v", n, stored)
		}
	}
}

// BenchmarkPushHitShaped is BenchmarkPushHit for a tenant whose rules look at every series.
func BenchmarkPushHitShaped(b *testing.B) {
	c := newCluster(b, clusterOptions{replicas: 3, instances: 3, zones: true})
	instant(c)
	c.rules(someRules, "pod", "uid")
	benchmarkHit(b, c, remotewrite.V1)
}

func benchmarkHit(b *testing.B, c *cluster, v remotewrite.Version) {
	reqs := benchRequests(c, v)
	for _, r := range reqs {
		if _, err := c.push(r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	i := 0
	start := remotewritetest.CPUTime()
	for b.Loop() {
		if _, err := c.push(reqs[i%len(reqs)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	remotewritetest.ReportPerSample(b, start, benchRequest)
}

// with returns ls with labels set.
func with(ls labels.Labels, pairs ...string) labels.Labels {
	b := labels.NewBuilder(ls)
	for i := 0; i < len(pairs); i += 2 {
		b.Set(pairs[i], pairs[i+1])
	}
	return b.Labels()
}

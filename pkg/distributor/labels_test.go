package distributor

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

// oneStored returns the labels of the only series stored.
func (c *cluster) oneStored() labels.Labels {
	c.t.Helper()
	var out []labels.Labels
	c.ingesters["ingester-0"].set(func(g *ingester) {
		for _, ls := range g.bound["t1"] {
			if len(g.stored["t1 "+ls.String()]) > 0 {
				out = append(out, ls)
			}
		}
	})
	if len(out) != 1 {
		c.t.Fatalf("stored %v, want one series", out)
	}
	return out[0]
}

func TestLongLabelValuesAreShortenedIfTheTenantWantsThat(t *testing.T) {
	long := strings.Repeat("ü", 40) // 80 bytes
	const hash = "(hash:1239082bd983af40bd1ff64ceaed0ed4)"
	for _, tc := range []struct {
		strategy string
		limit    int
		want     string // without the hash; "-" if refused
	}{
		{"error", 60, "-"},
		{"truncate", 60, strings.Repeat("ü", 10)}, // 21 bytes are left, of which a rune takes two
		{"drop", 60, ""},
		{"truncate", hashedBytes, ""},
		{"truncate", hashedBytes - 1, "-"},
		{"drop", 10, "-"},
		{"truncate", 80, long},
	} {
		c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
		c.limit(func(v limits.View) limits.View {
			return limits.MaxLabelValueLength.With(limits.LabelValueLengthOverLimitStrategy.With(v, tc.strategy), tc.limit)
		})
		for round := range 2 { // new, and known
			w, err := c.push(c.v1(c.series("up,a=b,url=" + long)))
			if tc.want == "-" {
				if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "(err-amphora-label-value-too-long)") {
					t.Errorf("%s %d: got %v, want Invalid", tc.strategy, tc.limit, err)
				}
				continue
			}
			if err != nil || w.Samples != 1 || c.defs() != 1-round {
				t.Fatalf("%s %d round %d: %+v, %v", tc.strategy, tc.limit, round, w, err)
			}
		}
		if tc.want == "-" {
			continue
		}
		got := c.oneStored().Get("url")
		prefix, tail, _ := strings.Cut(got, "(hash:")
		if prefix != tc.want || len(got) > tc.limit || !utf8.ValidString(got) || tc.want != long && len(tail) != len(hash)-len("(hash:") {
			t.Errorf("%s %d: stored as %q, want %q and a hash", tc.strategy, tc.limit, got, tc.want)
		}
		// An ingester that forgot everything gets the same labels.
		c.ingesters["ingester-0"].restart(9)
		c.ingesters["ingester-0"].set(func(g *ingester) { clear(g.stored) })
		c.mustPush(c.series("up,a=b,url=" + long))
		if again := c.oneStored().Get("url"); again != got {
			t.Errorf("%s %d: defined anew as %q, before as %q", tc.strategy, tc.limit, again, got)
		}
	}
}

func TestAShortenedValueIsTheSameInEveryRelease(t *testing.T) {
	if got, want := string(shortening{"truncate", 45}.shorten([]byte(strings.Repeat("x", 50)))), "xxxxxx(hash:"; !strings.HasPrefix(got, want) || len(got) != 45 {
		t.Errorf("got %q", got)
	}
	const want = "(hash:1239082bd983af40bd1ff64ceaed0ed4)"
	if got := string(shortening{"drop", 45}.shorten([]byte("a long value"))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMetricNamesAndWhatIsNoTextAreNotShortened(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View {
		return limits.MaxLabelValueLength.With(limits.LabelValueLengthOverLimitStrategy.With(v, "drop"), 60)
	})
	for _, s := range []string{strings.Repeat("m", 61), "up,a=" + strings.Repeat("\xff", 61)} {
		if _, err := c.push(c.v1(c.series(s))); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%.10q: got %v, want Invalid", s, err)
		}
	}
	if _, err := c.push(c.v1(c.series(""))); errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "missing-metric-name") {
		t.Errorf("no labels: got %v, want Invalid", err)
	}
}

func TestAChangedStrategyAppliesToKnownSeries(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	strategy := func(s string, limit int) {
		c.limit(func(v limits.View) limits.View {
			return limits.MaxLabelValueLength.With(limits.LabelValueLengthOverLimitStrategy.With(v, s), limit)
		})
	}
	long := c.series("up,url=" + strings.Repeat("x", 100))
	strategy("error", 200)
	c.mustPush(long)
	strategy("truncate", 60)
	if defs := c.mustPush(long); defs != 1 {
		t.Errorf("%d definitions under the new strategy, want 1", defs)
	}
	strategy("truncate", 50)
	c.mustPush(long)
	strategy("error", 50)
	if _, err := c.push(c.v1(long)); errs.KindOf(err) != errs.Invalid {
		t.Errorf("got %v, want Invalid", err)
	}
	_, stored := c.ingesters["ingester-0"].read()
	if len(stored) != 3 {
		t.Errorf("stored %v, want the value whole and of two lengths", stored)
	}
}

func TestShortenedValuesAreLoggedOnceForALabelOfAMetric(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	c.limit(func(v limits.View) limits.View {
		return limits.MaxLabelValueLength.With(limits.LabelValueLengthOverLimitStrategy.With(v, "drop"), 60)
	})
	for _, m := range []string{"a", "a", "b"} {
		for _, x := range []string{"x", "y", "z"} {
			c.mustPush(c.series(m + ",url=" + strings.Repeat(x, 100)))
		}
	}
	c.shortened.log(log, c.deps.Now())
	if n := strings.Count(out.String(), "\n"); n != 2 || !strings.Contains(out.String(), "metric=a label=url new_series=3") {
		t.Errorf("%d lines, want one for each of two metrics:\n%s", n, &out)
	}
	if n := c.metric("amphora_dropped_label_values_total", "t1"); n != 6 {
		t.Errorf("counted %g, want 6", n)
	}
	out.Reset()
	c.mustPush(c.series("c,url=" + strings.Repeat("x", 100)))
	c.advance(time.Second)
	c.shortened.log(log, c.deps.Now())
	if out.Len() > 0 {
		t.Errorf("logged again within a minute: %s", &out)
	}
	c.advance(time.Minute)
	c.shortened.log(log, c.deps.Now())
	if !strings.Contains(out.String(), "metric=c") {
		t.Errorf("not logged after a minute: %s", &out)
	}
}

func TestChecksAreLeftOutForTheSenderThatAsksAlone(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View {
		return limits.MaxLabelNamesPerSeries.With(limits.MaxLabelNamesPerInfoSeries.With(v, 3), 3)
	})
	odd, many := c.series("up,a-b=1"), c.series("up,a=1,b=2,c=3,d=4")
	push := func(names, count bool) (samples int) {
		t.Helper()
		req := c.v1(odd, many, c.series("up,a=1"))
		req.SkipLabelNames, req.SkipLabelCount = names, count
		w, _ := c.push(req)
		return w.Samples
	}
	for round, tc := range []struct {
		names, count bool
		want         int
	}{{false, false, 1}, {true, false, 2}, {false, false, 1}, {false, true, 2}, {true, true, 3}, {false, false, 1}, {true, true, 3}, {true, false, 2}} {
		if got := push(tc.names, tc.count); got != tc.want {
			t.Errorf("round %d: %d samples taken, want %d", round, got, tc.want)
		}
	}
	// What another sender's push has checked needs no second look.
	before := c.metric("amphora_distributor_series_cache_misses_total")
	req := c.v1(c.series("up,a=1"))
	req.SkipLabelNames, req.SkipLabelCount = true, true
	for range 2 {
		if _, err := c.push(req); err != nil {
			t.Fatal(err)
		}
		if _, err := c.push(c.v1(c.series("up,a=1"))); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.metric("amphora_distributor_series_cache_misses_total") - before; n != 0 {
		t.Errorf("%g misses, want 0", n)
	}
	for _, bad := range []string{"up,=x", "up,\xff=x"} {
		req := c.v1(c.series(bad))
		req.SkipLabelNames = true
		if _, err := c.push(req); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: got %v, want Invalid: it is no text", bad, err)
		}
	}
}

// typed returns a request of one series for each unit.
func (c *cluster) typed(kind writev2.Metadata_MetricType, unit, help string, kv ...string) *remotewrite.Request {
	symbols := writev2.NewSymbolTable()
	req := writev2.Request{Timeseries: []writev2.TimeSeries{{
		LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings(kv...), nil), Samples: []writev2.Sample{{Value: 1, Timestamp: c.clock.Load()}},
		Metadata: writev2.Metadata{Type: kind, HelpRef: symbols.Symbolize(help), UnitRef: symbols.Symbolize(unit)}}}}
	req.Symbols = symbols.Symbols()
	return &remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.MustMarshal(&req)}
}

func TestTypeAndUnitBecomeLabels(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	push := func(req *remotewrite.Request) {
		t.Helper()
		if _, err := c.push(req); err != nil {
			t.Fatal(err)
		}
	}
	up := []string{"__name__", "up", "a", "b"}
	own := []string{"__name__", "up", "__type__", "mine", "__unit__", "mine"}
	push(c.typed(writev2.Metadata_METRIC_TYPE_COUNTER, "seconds", "h", up...))
	c.limit(func(v limits.View) limits.View { return limits.EnableTypeAndUnitLabels.With(v, true) })
	for range 2 {
		push(c.typed(writev2.Metadata_METRIC_TYPE_COUNTER, "seconds", "h", up...))
		push(c.typed(writev2.Metadata_METRIC_TYPE_COUNTER, "seconds", "another text", up...))
		push(c.typed(writev2.Metadata_METRIC_TYPE_GAUGE, "", "h", up...))
		push(c.typed(writev2.Metadata_METRIC_TYPE_UNSPECIFIED, "bytes", "", up...))
		push(c.typed(writev2.Metadata_METRIC_TYPE_UNSPECIFIED, "", "help alone", own...))
		push(c.typed(writev2.Metadata_METRIC_TYPE_GAUGE, "", "", own...))
	}
	_, stored := c.ingesters["ingester-0"].read()
	var got []string
	for s := range stored {
		got = append(got, strings.TrimPrefix(s, "t1 "))
	}
	slices.Sort(got)
	want := []string{`{__name__="up", __type__="counter", __unit__="seconds", a="b"}`, `{__name__="up", __type__="gauge", __unit__="mine"}`,
		`{__name__="up", __type__="gauge", a="b"}`, `{__name__="up", __type__="mine", __unit__="mine"}`, `{__name__="up", __unit__="bytes", a="b"}`, `{__name__="up", a="b"}`}
	if !slices.Equal(got, want) {
		t.Errorf("stored\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := len(stored[`t1 {__name__="up", a="b"}`]); n != 1 {
		t.Errorf("%d samples of the series without a type, want the one of before the limit was set", n)
	}
	if _, err := c.push(c.typed(writev2.Metadata_METRIC_TYPE_GAUGE, "\xff", "", up...)); errs.KindOf(err) != errs.Invalid {
		t.Errorf("unit that is no text: got %v, want Invalid", err)
	}
	c.limit(func(v limits.View) limits.View { return limits.EnableTypeAndUnitLabels.With(v, false) })
	if push(c.typed(writev2.Metadata_METRIC_TYPE_COUNTER, "seconds", "h", up...)); c.defs() != 0 {
		t.Error("switched off again, the series of before is not found")
	}
}

func TestASeriesOfAReplicaThatIsNotHeardCountsAsUnchecked(t *testing.T) {
	topo := newTopology(1, nil)
	set := topo.intern([]string{"a"}, 1)
	table := newTable(&budget{limit: 10}, 1)
	leaves := func(w placement) uint16 {
		t.Helper()
		w.hash, w.set, w.verdict, w.shape = remotewrite.Hash{Hi: 1}, set, 1, 1
		var f found
		if _, ok := table.remember(w, topo, 1, &f); !ok {
			t.Fatal("not remembered")
		}
		return f.flags & leftOut
	}
	leaves(placement{lost: true})
	for i, tc := range []struct {
		w    placement
		want uint16
	}{
		{placement{leftOut: entryAnyName | entryAnyCount}, entryAnyName | entryAnyCount}, // the first to look at the labels
		{placement{lost: true}, entryAnyName | entryAnyCount},                            // did not look
		{placement{leftOut: entryAnyName}, entryAnyName},
		{placement{leftOut: entryAnyCount}, 0}, // the one checked this, the other that
		{placement{leftOut: entryAnyCount}, 0},
	} {
		if got := leaves(tc.w); got != tc.want {
			t.Errorf("step %d: %b left out, want %b", i, got, tc.want)
		}
	}
}

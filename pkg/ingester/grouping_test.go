package ingester

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// withShape sets a structured limit from its text.
func withShape[T any](t *testing.T, k limits.Key[T], v limits.View, text string) limits.View {
	t.Helper()
	out, err := k.WithText(v, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// facts returns the metrics of a family as "label=value ... count", sorted, without user and tenant.
func (s *site) facts(t *testing.T, costs bool, family string) []string {
	t.Helper()
	reg := s.reg
	if costs {
		reg = s.costs
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.Metric {
			var line []string
			for _, l := range m.Label {
				if !slices.Contains([]string{"user", "tenant", "tracker", "limit"}, l.GetName()) {
					line = append(line, l.GetName()+"="+l.GetValue())
				}
			}
			out = append(out, fmt.Sprintf("%s %g", strings.Join(line, ","), m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	slices.Sort(out)
	return out
}

func (s *site) wantFacts(t *testing.T, costs bool, family string, want ...string) {
	t.Helper()
	if got := s.facts(t, costs, family); !slices.Equal(got, want) {
		t.Errorf("%s = %q, want %q", family, got, want)
	}
}

// wait lets what refreshActivity began come to an end.
func (s *site) wait(t *testing.T) {
	t.Helper()
	s.refreshActivity()
	poll(t, "the series to be sorted", func() bool {
		return !slices.ContainsFunc(s.all(), func(h *tenantHead) bool { return h.activity.sorting.Load() })
	})
}

const custom = "amphora_ingester_active_series_custom_tracker"

func TestTrackersCountTheActiveSeriesTheyMatch(t *testing.T) {
	s := newSite(t, siteOptions{view: withShape(t, limits.ActiveSeriesCustomTrackers, limits.View{}, `{prod: '{env="prod"}', m: m, none: '{x="y"}'}`)})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", point{metric("m", "env", "prod"), base, 1}, point{metric("m", "env", "dev"), base, 1}, point{metric("n", "env", "prod"), base, 1})
	s.wantFacts(t, false, custom, "name=m 2", "name=none 0", "name=prod 2")
	s.later(idle / 2)
	from.mustPush(t, "t1", point{metric("m", "env", "dev"), base + idle/2, 2})
	s.later(idle/2 + minute)
	s.wantFacts(t, false, custom, "name=m 1", "name=none 0", "name=prod 0")
	if _, err := s.Flush(context.Background(), nil, true); err != nil {
		t.Fatal(err)
	}
	s.wantFacts(t, false, custom, "name=m 0", "name=none 0", "name=prod 0")
}

func TestTrackersCountNativeHistograms(t *testing.T) {
	s := newSite(t, siteOptions{view: withShape(t, limits.ActiveSeriesCustomTrackers, limits.View{}, `{all: '{__name__!=""}'}`)})
	h := &histogram.Histogram{Count: 3, Sum: 3, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	f := &frame.Frame{Tenant: "t1", Defs: []frame.Def{{Ref: 1, Labels: metric("h")}}, Histograms: []frame.Histogram{{Ref: 1, Time: base, H: h}}}
	if res := s.OpenStream().Push(context.Background(), f); res.Outcome != frame.Stored || res.Message != "" {
		t.Fatalf("%+v", res)
	}
	s.wantFacts(t, false, "amphora_ingester_active_native_histogram_series_custom_tracker", "name=all 1")
	s.wantFacts(t, false, "amphora_ingester_active_native_histogram_buckets_custom_tracker", "name=all 2")
}

func TestChangedTrackersCountWhatIsInMemory(t *testing.T) {
	view := withShape(t, limits.ActiveSeriesCustomTrackers, limits.View{}, `{a: '{k="1"}'}`)
	s := newSite(t, siteOptions{view: view})
	from := newSender(s.Ingester)
	for k := range 200 {
		from.mustPush(t, "t1", point{metric("m", "k", fmt.Sprint(k%4)), base, 1}, point{metric("m", "k", fmt.Sprint(k%4), "n", fmt.Sprint(k)), base, 1})
	}
	s.wantFacts(t, false, custom, "name=a 51")
	view = withShape(t, limits.ActiveSeriesCustomTrackers, view, `{b: '{k=~"1|2"}'}`)
	s.view.Store(&view)
	s.wait(t)
	s.wantFacts(t, false, custom, "name=b 102")
	// A restart has them from the log.
	again := s.crashed(t, siteOptions{view: view})
	again.wantFacts(t, false, custom, "name=b 102")
	view = withShape(t, limits.ActiveSeriesCustomTrackers, view, `{}`)
	s.view.Store(&view)
	s.wait(t)
	s.wantFacts(t, false, custom)
	if n := s.counter(t, "amphora_ingester_active_series"); n != 204 {
		t.Errorf("active_series = %g, want 204", n)
	}
}

func TestLabelSetsHaveNestedBudgets(t *testing.T) {
	sets := `[{label_set: {team: shop}, limits: {max_series: 4}}, {label_set: {team: shop, svc: web}, limits: {max_series: 2}},
		{label_set: {team: pay}, limits: {max_series: 0}}, {limits: {max_series: 1}}]`
	view := withShape(t, limits.LimitsPerLabelSet, limits.View{}, sets)
	s := newSite(t, siteOptions{view: view})
	from := newSender(s.Ingester)
	m := func(team, svc, n string) point {
		ls := metric("m", "n", n)
		if team != "" {
			ls = metric("m", "n", n, "svc", svc, "team", team)
		}
		return point{ls, base, 1}
	}
	from.mustPush(t, "t1", m("shop", "web", "1"), m("shop", "web", "2"), m("pay", "web", "1"), m("pay", "web", "2"), m("", "", "1"))
	res := from.wantRefused(t, "t1", 1, "max-series-per-label-set", m("shop", "web", "3"))
	if !strings.Contains(res.Message, `limit of 2 series with the labels {svc="web", team="shop"}`) || !strings.Contains(res.Message, `n="3"`) {
		t.Errorf("the refusal names no offender: %s", res.Message)
	}
	from.mustPush(t, "t1", m("shop", "db", "1"), m("shop", "db", "2"))
	if res := from.wantRefused(t, "t1", 1, "max-series-per-label-set", m("shop", "db", "3")); !strings.Contains(res.Message, `limit of 4 series with the labels {team="shop"}`) {
		t.Errorf("the outer budget: %s", res.Message)
	}
	if res := from.wantRefused(t, "t1", 1, "max-series-per-label-set", m("", "", "2")); !strings.Contains(res.Message, `limit of 1 series with the labels {}`) {
		t.Errorf("series in no set: %s", res.Message)
	}
	from.mustPush(t, "t1", m("pay", "web", "3"))
	s.wantFacts(t, false, "amphora_ingester_usage_per_labelset", `labelset={svc="web", team="shop"} 2`, `labelset={team="pay"} 3`, `labelset={team="shop"} 4`, "labelset={} 1")
	s.wantFacts(t, false, "amphora_ingester_limits_per_labelset", `labelset={svc="web", team="shop"} 2`, `labelset={team="pay"} 0`, `labelset={team="shop"} 4`, "labelset={} 1")
	if n := s.counter(t, "amphora_discarded_samples_total", "reason", "per_labelset_series_limit"); n != 3 {
		t.Errorf("discarded = %g, want 3", n)
	}
	// Known series go on, and what left memory makes room, also for a restarted ingester.
	again := s.crashed(t, siteOptions{view: view})
	from = newSender(again.Ingester)
	next := m("shop", "web", "1")
	next.t++
	from.mustPush(t, "t1", next)
	from.wantRefused(t, "t1", 1, "max-series-per-label-set", m("shop", "web", "3"))
	if _, err := again.Flush(context.Background(), nil, true); err != nil {
		t.Fatal(err)
	}
	late := m("shop", "web", "3")
	late.t += minute
	newSender(again.Ingester).mustPush(t, "t1", late)
}

func TestUsageIsAttributedToValuesOfLabels(t *testing.T) {
	view := withShape(t, limits.CostAttributionLabelsStructured, limits.View{}, `[{input: team, output: squad}, {input: env}]`)
	view = limits.MaxCostAttributionCardinality.With(view, 3)
	view = limits.CostAttributionCooldown.With(view, 0)
	s := newSite(t, siteOptions{view: view})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", point{metric("m", "team", "a", "env", "x"), base, 1}, point{metric("n", "team", "a", "env", "x"), base, 1},
		point{metric("m", "team", "b", "env", "x"), base, 1}, point{metric("m"), base, 1})
	const family = "amphora_ingester_attributed_active_series"
	s.wantFacts(t, true, family, "env=__missing__,squad=__missing__ 1", "env=x,squad=a 2", "env=x,squad=b 1")
	if len(s.facts(t, false, family)) != 0 {
		t.Error("attributed series are among the metrics of the process")
	}
	from.mustPush(t, "t1", point{metric("m", "team", "c"), base, 1}, point{metric("m", "team", "d"), base, 1})
	s.wantFacts(t, true, family, "env=__overflow__,squad=__overflow__ 6")
	s.wait(t)
	s.wantFacts(t, true, family, "env=__overflow__,squad=__overflow__ 6")
	// There are few again, and the next try tells them apart.
	s.later(idle + minute)
	if _, err := s.Flush(context.Background(), nil, true); err != nil {
		t.Fatal(err)
	}
	from = newSender(s.Ingester)
	from.mustPush(t, "t1", point{metric("m", "team", "c"), base + idle, 1}, point{metric("m", "team", "a"), base + idle, 1})
	s.wait(t)
	s.now.Add(minute)
	s.wait(t)
	s.wantFacts(t, true, family, "env=__missing__,squad=a 1", "env=__missing__,squad=c 1")
}

func TestCohortsOfGoneSeriesAreForgotten(t *testing.T) {
	view := limits.CostAttributionLabels.With(limits.View{}, []string{"team"})
	s := newSite(t, siteOptions{view: view})
	for round := range int64(3) {
		var ps []point
		for k := range 50 {
			ps = append(ps, point{metric("m", "team", fmt.Sprint(round, k)), base + round*hour, 1})
		}
		newSender(s.Ingester).mustPush(t, "t1", ps...)
		if _, err := s.Flush(context.Background(), nil, true); err != nil {
			t.Fatal(err)
		}
	}
	a := &s.lookup("t1").activity
	if n := len(a.byKey) + len(a.tuples); n != 0 || len(a.list) > 51 {
		t.Errorf("%d cohorts and tuples remembered, %d made", n, len(a.list))
	}
}

func TestRefusalsAreAttributedToValuesOfLabels(t *testing.T) {
	view := limits.CostAttributionLabels.With(limits.View{}, []string{"team"})
	view = limits.MaxGlobalSeriesPerUser.With(view, 2)
	s := newSite(t, siteOptions{view: view})
	from := newSender(s.Ingester)
	a, b := metric("m", "team", "a"), metric("m", "team", "b")
	from.mustPush(t, "t1", point{a, base, 1}, point{b, base, 1})
	from.wantRefused(t, "t1", 3, "max-series-per-user", point{metric("n", "team", "a"), base, 1}, point{metric("n", "team", "c"), base, 1}, point{b, base, 2})
	from.wantRefused(t, "t1", 1, "sample-timestamp-too-old", point{b, base - hour, 2})
	s.wantFacts(t, true, "amphora_discarded_attributed_samples_total", "reason=new-value-for-timestamp,team=b 1", "reason=per_user_series_limit,team=a 1",
		"reason=per_user_series_limit,team=c 1", "reason=sample-too-old,team=b 1")
}

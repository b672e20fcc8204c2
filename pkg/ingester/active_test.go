package ingester

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

const idle = 20 * minute

// later moves the clock and looks who is idle.
func (s *site) later(ms int64) {
	s.now.Add(ms)
	s.refreshActivity()
}

func (s *site) wantActive(t *testing.T, id string, active, histograms, buckets float64) {
	t.Helper()
	for name, want := range map[string]float64{"active_series": active, "active_native_histogram_series": histograms,
		"active_native_histogram_buckets": buckets} {
		if got := s.counter(t, "amphora_ingester_"+name, "user", id); got != want {
			t.Errorf("%s = %g, want %g", name, got, want)
		}
	}
}

func TestSeriesIsActiveForTheIdleTimeout(t *testing.T) {
	s := newSite(t, siteOptions{})
	from := newSender(s.Ingester)
	a, b := metric("a"), metric("b")
	from.mustPush(t, "t1", point{a, base, 1}, point{b, base, 1})
	s.wantActive(t, "t1", 2, 0, 0)
	s.later(idle / 2)
	from.mustPush(t, "t1", point{a, base + idle/2, 2})
	s.later(idle/2 + minute)
	s.wantActive(t, "t1", 1, 0, 0)
	from.mustPush(t, "t1", point{b, base + idle + minute, 2})
	s.wantActive(t, "t1", 2, 0, 0)
	s.later(idle + minute)
	s.wantActive(t, "t1", 0, 0, 0)
	if n := s.counter(t, "amphora_ingester_memory_series"); n != 2 {
		t.Errorf("memory_series = %g, want 2: what is idle stays in memory", n)
	}
}

func TestRefusedSampleIsNoActivity(t *testing.T) {
	s := newSite(t, siteOptions{})
	from := newSender(s.Ingester)
	a := metric("a")
	from.mustPush(t, "t1", point{a, base, 1})
	s.later(idle + minute)
	if res := from.push(context.Background(), from.frame("t1", point{a, base, 2})); res.Rejected != 1 {
		t.Fatalf("duplicate: %+v", res)
	}
	s.wantActive(t, "t1", 0, 0, 0)
}

func TestNativeHistogramsAreCountedWithTheirBuckets(t *testing.T) {
	s := newSite(t, siteOptions{})
	st := s.OpenStream()
	push := func(at int64, h *histogram.Histogram) {
		t.Helper()
		f := &frame.Frame{Tenant: "t1", Defs: []frame.Def{{Ref: 1, Labels: metric("h")}, {Ref: 2, Labels: metric("f")}},
			Refs: []frame.Ref{2}, Times: []int64{at}, Values: []float64{1}}
		if h != nil {
			f.Histograms = []frame.Histogram{{Ref: 1, Time: at, H: h}}
		} else {
			f.Refs, f.Times, f.Values = append(f.Refs, 1), append(f.Times, at), append(f.Values, 1)
		}
		if res := st.Push(context.Background(), f); res.Outcome != frame.Stored || res.Message != "" {
			t.Fatalf("push: %+v", res)
		}
	}
	h := &histogram.Histogram{Count: 3, Sum: 3, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	push(base, h)
	s.wantActive(t, "t1", 2, 1, 2)
	more := h.Copy()
	more.Count, more.PositiveSpans[0].Length, more.PositiveBuckets = 5, 3, []int64{1, 1, 0}
	push(base+1000, more)
	s.wantActive(t, "t1", 2, 1, 3)
	push(base+2000, nil)
	s.wantActive(t, "t1", 2, 0, 0)
	push(base+3000, h)
	s.later(idle + minute)
	s.wantActive(t, "t1", 0, 0, 0)
}

func TestActiveSeriesAreKnownAfterARestart(t *testing.T) {
	s := newSite(t, siteOptions{})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", point{metric("old"), base - idle - minute, 1}, point{metric("new"), base, 1})
	again := s.crashed(t, siteOptions{})
	again.wantActive(t, "t1", 1, 0, 0)
	again.now.Store(base)
	again.later(idle + minute)
	again.wantActive(t, "t1", 0, 0, 0)
	newSender(again.Ingester).mustPush(t, "t1", point{metric("old"), base + idle, 1})
	again.wantActive(t, "t1", 1, 0, 0)
}

func TestSeriesThatLeavesMemoryLeavesTheCounts(t *testing.T) {
	s := newSite(t, siteOptions{})
	from := newSender(s.Ingester)
	from.mustPush(t, "t1", point{metric("a"), base, 1}, point{metric("b"), base, 1})
	if _, err := s.Flush(context.Background(), nil, true); err != nil {
		t.Fatal(err)
	}
	s.wantActive(t, "t1", 0, 0, 0)
	if n := s.counter(t, "amphora_ingester_owned_series", "user", "t1"); n != 0 {
		t.Errorf("owned_series = %g, want 0", n)
	}
	from2 := newSender(s.Ingester)
	from2.mustPush(t, "t1", point{metric("a"), base + 1, 1})
	s.wantActive(t, "t1", 1, 0, 0)
}

func TestActivityDropsPagesOfGoneSeries(t *testing.T) {
	var a activity
	v := a.visit(7)
	for ref := range 3 * pageSeries {
		v.adopt(head.Ref(ref), 0, metric("m"))
		v.float(head.Ref(ref))
	}
	for ref := range 2 * pageSeries {
		a.forget(head.Ref(ref))
	}
	a.expire(8, 1)
	if a.page(0) != nil || a.page(1) != nil || a.page(2) == nil {
		t.Error("pages of series that are gone should be dropped, and only those")
	}
	if got, want := a.counts(), (tally{series: pageSeries, owned: pageSeries, active: pageSeries, activeOwned: pageSeries}); got != want {
		t.Errorf("counts = %+v, want %+v", got, want)
	}
	v.adopt(3, 0, metric("m"))
	v.float(3)
	if got := a.counts().active; got != pageSeries+1 {
		t.Errorf("active = %d after a row was made again, want %d", got, pageSeries+1)
	}
}

func TestClockTellsWhatIsTooOld(t *testing.T) {
	now := time.UnixMilli(base)
	c := newActiveClock(now, 20*time.Minute)
	if got := c.tick(base - 21*minute); got != 0 {
		t.Errorf("tick before the idle timeout = %d, want 0", got)
	}
	if got := c.tick(base - 20*minute); got == 0 || got < c.oldest(c.tick(base)) {
		t.Errorf("tick within the idle timeout = %d, oldest is %d", got, c.oldest(c.tick(base)))
	}
	late := c.tick(base + hour)
	if got := c.tick(base + hour - 21*minute); got >= c.oldest(late) {
		t.Errorf("tick %d outside the idle timeout is not older than %d", got, c.oldest(late))
	}
}

// BenchmarkActivity is what a sample of a known series costs here, at a scrape a tick.
func BenchmarkActivity(b *testing.B) {
	const series = 200_000
	var a activity
	v := a.visit(1)
	for ref := range series {
		v.adopt(head.Ref(ref), 0, metric("m"))
		v.float(head.Ref(ref))
	}
	b.Run("series=200k", func(b *testing.B) {
		tick := uint32(1)
		b.ReportAllocs()
		for b.Loop() {
			tick += 3 // 15 s at the default timeout
			v := a.visit(tick)
			for ref := range series {
				v.float(head.Ref(ref))
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/sample")
	})
	b.Run("expire/series=200k", func(b *testing.B) {
		for b.Loop() {
			a.expire(1<<20, 1)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/series")
	})
}

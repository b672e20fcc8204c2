package ingester

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// TestAStartMarksAResetOfAKnownSeries: a zero goes between the last sample of before and the first of
// after, on a series that is bound long since, and survives a crash.
func TestAStartMarksAResetOfAKnownSeries(t *testing.T) {
	view := limits.CreatedTimestampZeroIngestion.With(limits.View{}, true)
	s := newSite(t, siteOptions{view: view})
	a := newSender(s.Ingester)
	push := func(at int64, v float64, start int64) {
		t.Helper()
		f := a.frame("t1", point{metric("c"), base + at, v})
		f.StartTimes = []int64{base + start}
		f.Histograms = []frame.Histogram{{Ref: a.ref(f, metric("h")), Time: base + at, StartTime: base + start,
			H: &histogram.Histogram{Count: uint64(v), ZeroCount: uint64(v), Sum: v}}}
		if res := a.push(t.Context(), f); res.Outcome != frame.Stored || res.Message != "" || res.Rejected != 0 {
			t.Fatalf("%+v", res)
		}
	}
	push(1000, 5, 1) // a start of base itself would be none
	push(2000, 7, 1)
	push(3000, 2, 2500)
	push(4000, 3, 2500)
	push(5000, 1, 3500) // samples of after that start are known: nothing is written between them
	want := map[string]string{
		metric("c").String(): "1:0 1000:5 2000:7 2500:0 3000:2 4000:3 5000:1",
		metric("h").String(): "1:h0/0 1000:h5/5 2000:h7/7 2500:h0/0 3000:h2/2 4000:h3/3 5000:h1/1",
	}
	equal(t, s.dump(t, "t1"), want)
	equal(t, s.crashed(t, siteOptions{}).dump(t, "t1"), want)
}

// TestAStartIsNeverALateSample: whatever the tenant's window for late samples, a zero does not get
// between samples that are known.
func TestAStartIsNeverALateSample(t *testing.T) {
	view := limits.OutOfOrderTimeWindow.With(limits.CreatedTimestampZeroIngestion.With(limits.View{}, true), time.Hour)
	s := newSite(t, siteOptions{view: view})
	a := newSender(s.Ingester)
	a.push(t.Context(), a.frame("t1", point{metric("c"), base + 1000, 5}, point{metric("c"), base + 3000, 6}))
	f := a.frame("t1", point{metric("c"), base + 2000, 1}, point{metric("c"), base + 4000, 7})
	f.StartTimes = []int64{base + 1500, base + 2500}
	if res := a.push(t.Context(), f); res.Outcome != frame.Stored || res.Message != "" {
		t.Fatalf("%+v", res)
	}
	want := map[string]string{metric("c").String(): "1000:5 2000:1 3000:6 4000:7"}
	equal(t, s.dump(t, "t1"), want)
}

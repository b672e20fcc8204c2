package distributor

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// sinceMs returns times relative to now, 0 for those that are 0.
func sinceMs(now int64, times []int64) (out []int64) {
	for _, t := range times {
		if t != 0 {
			t -= now
		}
		out = append(out, t)
	}
	return out
}

// started is what one series of a request says: when it started and its samples.
type started struct {
	name  string
	start time.Duration // before now; 0: not said
	help  string
	hist  bool
	stale bool
	more  []time.Duration // starts of further samples, each a millisecond after the one before
}

// starts returns a request in which series say when they started.
func (c *cluster) starts(series ...started) *remotewrite.Request {
	symbols := writev2.NewSymbolTable()
	req := writev2.Request{}
	now := c.clock.Load()
	at := func(d time.Duration) int64 {
		if d == 0 {
			return 0
		}
		return now - d.Milliseconds()
	}
	for _, s := range series {
		ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", s.name), nil),
			Metadata: writev2.Metadata{HelpRef: symbols.Symbolize(s.help)}}
		v := 1.0
		if s.stale {
			v = math.Float64frombits(value.StaleNaN)
		}
		if s.hist {
			ts.Histograms = []writev2.Histogram{writev2.FromIntHistogram(at(s.start), now, &histogram.Histogram{Count: 1, ZeroCount: 1})}
		} else {
			ts.Samples = []writev2.Sample{{Value: v, Timestamp: now, StartTimestamp: at(s.start)}}
		}
		for k, d := range s.more {
			ts.Samples = append(ts.Samples, writev2.Sample{Value: 1, Timestamp: now + int64(k) + 1, StartTimestamp: at(d)})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	return &remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.MustMarshal(&req)}
}

// startCluster returns a cluster whose tenants want starts, and what the last frame says of them.
func startCluster(t *testing.T) (*cluster, func() string) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View { return limits.CreatedTimestampZeroIngestion.With(v, true) })
	var last string
	spy := &spyReplica{push: func(f *frame.Frame) {
		var hists []int64
		for _, h := range f.Histograms {
			hists = append(hists, h.StartTime)
		}
		last = fmt.Sprint(sinceMs(c.clock.Load(), f.StartTimes), sinceMs(c.clock.Load(), hists))
	}}
	c.deps.Replica = func(string) (frame.Replica, error) { return spy, nil }
	return c, func() string { return last }
}

func TestAStartIsToldOnceAndAgainWhenItChanges(t *testing.T) {
	c, last := startCluster(t)
	for i, step := range []struct {
		advance time.Duration
		series  []started
		want    string
	}{
		{0, []started{{name: "a", start: time.Second}, {name: "b"}, {name: "h", start: 2 * time.Second, hist: true}}, "[-1000 0] [-2000]"},
		{0, []started{{name: "a", start: time.Second}, {name: "b"}, {name: "h", start: 2 * time.Second, hist: true}}, "[] [0]"},
		{15 * time.Second, []started{{name: "a", start: 16 * time.Second}, {name: "h", start: 17 * time.Second, hist: true}}, "[] [0]"},
		{15 * time.Second, []started{{name: "a", start: 5 * time.Second}, {name: "h", start: 32 * time.Second, hist: true}}, "[-5000] [0]"},
		{15 * time.Second, []started{{name: "a", start: 20 * time.Second}, {name: "h", start: time.Second, hist: true}}, "[] [-1000]"},
		{10 * time.Minute, []started{{name: "a", start: 10*time.Minute + 20*time.Second}, {name: "h", start: 10*time.Minute + time.Second, hist: true}}, "[] [0]"},
		{0, []started{{name: "b", start: time.Second}}, "[-1000] []"}, // known, but said nothing before
		{0, []started{{name: "b"}}, "[] []"},
	} {
		c.advance(step.advance)
		if w, err := c.push(c.starts(step.series...)); err != nil || w.Samples+w.Histograms != len(step.series) {
			t.Fatalf("step %d: %+v, %v", i, w, err)
		}
		if got := last(); got != step.want {
			t.Errorf("step %d: told %s, want %s", i, got, step.want)
		}
	}
}

func TestOnlyStartsThatAZeroCanMarkAreTold(t *testing.T) {
	for name, tc := range map[string]struct {
		s    started
		want string
	}{
		"at the sample":      {started{name: "a", start: time.Nanosecond}, "[] []"},
		"after the sample":   {started{name: "a", start: -time.Second}, "[] []"},
		"long before it":     {started{name: "a", start: 2 * time.Hour}, "[] []"},
		"an hour before it":  {started{name: "a", start: time.Hour}, "[-3600000] []"},
		"of a stale marker":  {started{name: "a", start: time.Second, stale: true}, "[] []"},
		"histogram, too old": {started{name: "a", start: 2 * time.Hour, hist: true}, "[] [0]"},
		"one for many":       {started{name: "a", start: time.Second, more: []time.Duration{time.Second, time.Second}}, "[-1000 0 0] []"},
		"two for many":       {started{name: "a", start: 2 * time.Second, more: []time.Duration{2 * time.Second, time.Second}}, "[-2000 0 -1000] []"},
		"with metadata":      {started{name: "a", start: time.Second, help: "h"}, "[-1000] []"},
	} {
		c, last := startCluster(t)
		if _, err := c.push(c.starts(tc.s)); err != nil {
			t.Fatal(err)
		}
		if got := last(); got != tc.want {
			t.Errorf("%s: told %s, want %s", name, got, tc.want)
		}
	}
}

func TestAStartThatWasNotStoredIsToldAgain(t *testing.T) {
	c, last := startCluster(t)
	storing := c.deps.Replica
	req := c.starts(started{name: "a", start: time.Second})
	c.deps.Replica = func(string) (frame.Replica, error) { return nil, errs.New(errs.Unavailable, "away") }
	if _, err := c.push(req); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("got %v", err)
	}
	c.deps.Replica = storing
	for _, want := range []string{"[-1000] []", "[] []"} {
		if _, err := c.push(req); err != nil {
			t.Fatal(err)
		}
		if got := last(); got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	}
}

func TestStartsGoToTheIngestersOfTheirSeries(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 7})
	c.limit(func(v limits.View) limits.View { return limits.CreatedTimestampZeroIngestion.With(v, true) })
	told := 0
	spy := &spyReplica{push: func(f *frame.Frame) {
		if len(f.StartTimes) != 0 && len(f.StartTimes) != len(f.Refs) {
			t.Errorf("%d start times for %d samples", len(f.StartTimes), len(f.Refs))
		}
		told += len(f.StartTimes) - len(slices.DeleteFunc(slices.Clone(f.StartTimes), func(s int64) bool { return s != 0 }))
	}}
	c.deps.Replica = func(string) (frame.Replica, error) { return spy, nil }
	var series []started
	for i := range 50 {
		series = append(series, started{name: fmt.Sprintf("s%d", i), start: time.Duration(i%2) * time.Second})
	}
	if _, err := c.push(c.starts(series...)); err != nil {
		t.Fatal(err)
	}
	if told != 25*3 {
		t.Errorf("told %d starts, want those of 25 series to 3 ingesters each", told)
	}
}

// BenchmarkPushStarts pushes known series that say when they started.
func BenchmarkPushStarts(b *testing.B) {
	for _, want := range []bool{false, true} {
		b.Run(fmt.Sprintf("wanted=%t", want), func(b *testing.B) {
			c := newCluster(b, clusterOptions{replicas: 3, instances: 3})
			instant(c)
			c.limit(func(v limits.View) limits.View { return limits.CreatedTimestampZeroIngestion.With(v, want) })
			var series []started
			for i := range benchRequest {
				series = append(series, started{name: fmt.Sprintf("s%d", i), start: time.Minute})
			}
			req := c.starts(series...)
			if _, err := c.push(req); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			start := remotewritetest.CPUTime()
			for b.Loop() {
				if _, err := c.push(req); err != nil {
					b.Fatal(err)
				}
			}
			remotewritetest.ReportPerSample(b, start, benchRequest)
		})
	}
}

package ingester

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

func TestUnknownReferencesStoreNothingAndAreNamed(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base, 1})
	f := a.frame("t1", point{metric("m"), base + 1000, 2})
	f.Refs = append(f.Refs, frame.MakeRef(77, 0), frame.MakeRef(f.Refs[0].Index(), 1))
	f.Times = append(f.Times, base, base)
	f.Values = append(f.Values, 0, 0)
	f.Histograms = []frame.Histogram{{Ref: frame.MakeRef(78, 0), Time: base, H: tsdbutil.GenerateTestHistogram(1)}}
	res := a.push(t.Context(), f)
	if res.Outcome != frame.UnknownRefs || fmt.Sprint(res.Unknown) != fmt.Sprint([]frame.Ref{77, 78, f.Refs[2]}) {
		t.Fatalf("got %+v", res)
	}
	// Another stream has bindings of its own.
	b := newSender(s.Ingester)
	res = b.push(t.Context(), &frame.Frame{Tenant: "t1", Refs: f.Refs[:1], Times: f.Times[:1], Values: f.Values[:1]})
	if res.Outcome != frame.UnknownRefs {
		t.Fatalf("reference of another stream: %+v", res)
	}
	equal(t, s.dump(t, "t1"), map[string]string{metric("m").String(): "0:1"})
}

func TestRefusedSamplesAreCountedAndTheRestIsStored(t *testing.T) {
	view := limits.OutOfOrderTimeWindow.With(limits.View{}, time.Minute)
	s := newSite(t, siteOptions{view: view})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base + 30*minute, 1}, point{metric("n"), base + 30*minute, 1})
	for _, c := range []struct {
		reason, id string
		window     time.Duration
		p          point
	}{
		{"sample-too-old", "sample-timestamp-too-old", time.Minute, point{metric("m"), base + 28*minute, 1}},
		{"new-value-for-timestamp", "sample-duplicate-timestamp", time.Minute, point{metric("m"), base + 30*minute, 2}},
		{"sample-out-of-order", "sample-out-of-order", 0, point{metric("m"), base + 29*minute, 2}},
		{"sample-timestamp-too-old", "sample-timestamp-too-old", 0, point{metric("m"), base - 40*minute, 2}},
	} {
		v := limits.OutOfOrderTimeWindow.With(limits.View{}, c.window)
		s.view.Store(&v)
		s.keepHouse(t.Context()) // applies the window
		res := a.push(t.Context(), a.frame("t1", c.p, point{metric("n"), base + 30*minute, 1}))
		if res.Outcome != frame.Stored || res.Rejected != 1 || res.Kind != errs.Invalid ||
			!strings.Contains(res.Message, "(err-amphora-"+c.id+")") || !strings.HasPrefix(res.Message, "user=t1: ") {
			t.Errorf("%s: %+v", c.reason, res)
		}
		if n := s.counter(t, "amphora_discarded_samples_total", "reason", c.reason, "user", "t1"); n != 1 {
			t.Errorf("%s counted %g times", c.reason, n)
		}
	}
	bad := tsdbutil.GenerateTestHistogram(1)
	bad.Count = 1
	f := a.frame("t1")
	f.Histograms = []frame.Histogram{{Ref: a.ref(f, metric("h")), Time: base + 30*minute, H: bad}}
	f.Exemplars = []frame.Exemplar{}
	res := a.push(t.Context(), f)
	if res.Rejected != 1 || !strings.Contains(res.Message, "err-amphora-native-histogram-") {
		t.Errorf("bad histogram: %+v", res)
	}
	if n := s.counter(t, "amphora_ingester_ingested_samples_failures_total"); n != 5 {
		t.Errorf("failures counted: %g", n)
	}
	if n := s.counter(t, "amphora_ingester_ingested_samples_total"); n != 6 {
		t.Errorf("stored samples counted: %g", n)
	}
}

func TestSeriesLimitsRefuseNewSeriesOnly(t *testing.T) {
	view := limits.MaxGlobalSeriesPerUser.With(limits.View{}, 3)
	view = limits.MaxGlobalSeriesPerMetric.With(view, 2)
	s := newSite(t, siteOptions{view: view})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m", "i", "1"), base, 1}, point{metric("m", "i", "2"), base, 1})
	res := a.push(t.Context(), a.frame("t1", point{metric("m", "i", "3"), base, 1}, point{metric("m", "i", "1"), base + 1, 1}))
	if res.Rejected != 1 || res.Kind.HTTPStatus() != 400 || !strings.Contains(res.Message, "(err-amphora-max-series-per-metric)") ||
		!strings.HasSuffix(res.Message, `{__name__="m", i="3"}`) {
		t.Errorf("third series of a metric: %+v", res)
	}
	a.mustPush(t, "t1", point{metric("n"), base, 1})
	res = a.push(t.Context(), a.frame("t1", point{metric("o"), base, 1}))
	if res.Outcome != frame.Stored || res.Rejected != 1 || !strings.Contains(res.Message, "per-user series limit of 3 exceeded (err-amphora-max-series-per-user)") {
		t.Errorf("fourth series: %+v", res)
	}
	for _, reason := range []string{"per_user_series_limit", "per_metric_series_limit"} {
		if n := s.counter(t, "amphora_discarded_samples_total", "reason", reason); n != 1 {
			t.Errorf("%s counted %g times", reason, n)
		}
	}
	if n := s.counter(t, "amphora_ingester_memory_series"); n != 3 {
		t.Errorf("series in memory: %g", n)
	}
	equal(t, s.dump(t, "t1"), map[string]string{metric("m", "i", "1").String(): "0:1 1:1", metric("m", "i", "2").String(): "0:1", metric("n").String(): "0:1"})
}

func TestInstanceLimitsRefuseTheWholePush(t *testing.T) {
	s := newSite(t, siteOptions{change: func(c *Config) {
		c.InstanceLimits.MaxSeries = 2
		c.InstanceLimits.MaxTenants = 1
	}})
	a := newSender(s.Ingester)
	res := a.push(t.Context(), a.frame("t1", point{metric("a"), base, 1}, point{metric("b"), base, 1}, point{metric("c"), base, 1}))
	if res.Outcome != frame.Failed || res.Kind != errs.Unavailable || !strings.Contains(res.Message, "(err-amphora-ingester-max-series)") {
		t.Errorf("over max-series: %+v", res)
	}
	if got := s.dump(t, "t1"); len(got) != 0 {
		t.Errorf("part of a failed push was stored: %v", got)
	}
	res = a.push(t.Context(), a.frame("t2", point{metric("a"), base, 1}))
	if res.Outcome != frame.Failed || !strings.Contains(res.Message, "(err-amphora-ingester-max-tenants)") {
		t.Errorf("over max-tenants: %+v", res)
	}
	s.cfg.InstanceLimits.MaxInflightPushBytes = 10
	if res = a.push(t.Context(), a.frame("t1", point{metric("a"), base, 1})); !strings.Contains(res.Message, "ingester-max-inflight-push-requests-bytes") {
		t.Errorf("over bytes: %+v", res)
	}
}

func TestMalformedFramesAreInvalid(t *testing.T) {
	s := newSite(t, siteOptions{})
	st := s.OpenStream()
	for name, f := range map[string]*frame.Frame{
		"columns": {Tenant: "t1", Refs: make([]frame.Ref, 2), Times: make([]int64, 1), Values: make([]float64, 2)},
		"tenant":  {Tenant: "../x"},
		"index":   {Tenant: "t1", Defs: []frame.Def{{Ref: frame.MakeRef(math.MaxUint32, 0), Labels: metric("m")}}},
	} {
		if res := st.Push(t.Context(), f); res.Outcome != frame.Failed || res.Kind != errs.Invalid {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

func TestCreatedTimestampsMakeZeroSamples(t *testing.T) {
	view := limits.CreatedTimestampZeroIngestion.With(limits.View{}, true)
	s := newSite(t, siteOptions{view: view})
	a := newSender(s.Ingester)
	f := a.frame("t1", point{metric("c"), base + 1000, 5}, point{metric("d"), base + 1000, 6})
	f.StartTimes = []int64{base, 0}
	fh := &histogram.FloatHistogram{Count: 2, Sum: 3, ZeroCount: 2}
	f.Histograms = []frame.Histogram{{Ref: a.ref(f, metric("h")), Time: base + 1000, StartTime: base + 500, FH: fh}}
	if res := a.push(t.Context(), f); res.Outcome != frame.Stored || res.Message != "" {
		t.Fatalf("%+v", res)
	}
	f = a.frame("t1", point{metric("c"), base + 2000, 7})
	f.StartTimes = []int64{base + 1500}
	a.push(t.Context(), f)
	want := map[string]string{metric("c").String(): "0:0 1000:5 1500:0 2000:7", metric("d").String(): "1000:6", metric("h").String(): "500:h0/0 1000:h2/3"}
	equal(t, s.dump(t, "t1"), want)
	equal(t, s.crashed(t, siteOptions{}).dump(t, "t1"), want)
}

// TestEmptyStartTimesAreNone: a sender that used start times before keeps the memory of the column.
func TestEmptyStartTimesAreNone(t *testing.T) {
	view := limits.OTelCreatedTimestampZeroIngestion.With(limits.View{}, true)
	s := newSite(t, siteOptions{view: view})
	a := newSender(s.Ingester)
	f := a.frame("t1", point{metric("c"), base + 1000, 5})
	f.StartTimes = []int64{}
	if res := a.push(t.Context(), f); res.Outcome != frame.Stored || res.Message != "" {
		t.Fatalf("%+v", res)
	}
	f = a.frame("t1", point{metric("d"), base + 1000, 6})
	f.StartTimes = []int64{base}
	a.push(t.Context(), f)
	equal(t, s.dump(t, "t1"), map[string]string{metric("c").String(): "1000:5", metric("d").String(): "0:0 1000:6"})
}

func TestMetadataIsLimitedAndForgotten(t *testing.T) {
	view := limits.MaxGlobalMetadataPerUser.With(limits.View{}, 2)
	view = limits.MaxGlobalMetadataPerMetric.With(view, 1)
	s := newSite(t, siteOptions{view: view})
	st := s.OpenStream()
	res := st.Push(t.Context(), &frame.Frame{Tenant: "t1", Metadata: []frame.Metadata{
		{Name: "b", Type: "gauge", Help: "one"}, {Name: "b", Type: "gauge", Help: "two"}, {Name: "a", Type: "counter"}, {Name: "c"}}})
	if res.Outcome != frame.Stored || res.Rejected != 0 || !strings.Contains(res.Message, "(err-amphora-max-metadata-per-metric)") {
		t.Errorf("push: %+v", res)
	}
	for _, reason := range []string{"per_user_metadata_limit", "per_metric_metadata_limit"} {
		if n := s.counter(t, "amphora_discarded_metadata_total", "reason", reason); n != 1 {
			t.Errorf("%s counted %g times", reason, n)
		}
	}
	ctx := tenant.Inject(t.Context(), "t1")
	ask := &ingesterpb.MetadataRequest{Limit: -1, LimitPerMetric: -1}
	out, err := s.Metadata(ctx, ask)
	if err != nil || len(out.Metadata) != 2 || out.Metadata[0].Name != "a" || out.Metadata[1].Help != "one" {
		t.Errorf("metadata: %v, %v", out, err)
	}
	s.now.Add(11 * minute)
	s.refreshActivity()
	if out, err = s.Metadata(ctx, ask); err != nil || len(out.Metadata) != 0 {
		t.Errorf("after the retention: %v, %v", out, err)
	}
}

func TestAPushIsNeverSeenHalf(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	points := make([]point, 300)
	write := func(k int64) {
		for j := range points {
			points[j] = point{metric("m", "le", fmt.Sprint(j)), base + k*1000, float64(k)}
		}
		a.mustPush(t, "t1", points...)
	}
	write(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for k := int64(1); k <= 150; k++ {
			write(k)
		}
	}()
	reads := 0
	for running := true; running; reads++ {
		select {
		case <-done:
			running = false
		default:
		}
		last := map[string]int{}
		for _, samples := range s.dump(t, "t1") {
			last[samples[strings.LastIndexByte(samples, ' ')+1:]]++
		}
		if len(last) != 1 {
			t.Fatalf("read %d saw half a push: %v", reads, last)
		}
	}
	t.Logf("%d reads", reads)
}

// Many streams create and use the same series at once; whatever order the log got, all of it must
// come back.
func TestConcurrentStreamsShareSeries(t *testing.T) {
	s := newSite(t, siteOptions{view: limits.OutOfOrderTimeWindow.With(limits.View{}, time.Hour)})
	const streams, pushes = 8, 40
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for n := range streams {
		a := newSender(s.Ingester)
		wg.Go(func() {
			for k := range int64(pushes) {
				at := base + k*1000 + int64(n)
				var ps []point
				for j := range int64(20) {
					ps = append(ps, point{metric("m", "i", fmt.Sprint((k+j)%60)), at, 1})
				}
				f := a.frame("t1", ps...)
				res := a.push(context.Background(), f)
				// A flush cuts series away, or holds a push back for longer than it waits. Nothing is
				// stored then, and the push is sent again.
				for (res.Outcome == frame.UnknownRefs || res.Kind == errs.Unavailable) && t.Context().Err() == nil {
					a.mu.Lock()
					for _, r := range res.Unknown {
						a.bound[r] = false
					}
					a.mu.Unlock()
					res = a.push(context.Background(), a.frame("t1", ps...))
				}
				if res.Outcome != frame.Stored || res.Rejected > 0 {
					t.Errorf("stream %d push %d: %+v", n, k, res)
				}
			}
		})
	}
	var others sync.WaitGroup
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			s.dump(t, "t1")
			if err := s.truncate(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	others.Go(func() {
		for range 3 {
			if _, err := s.Flush(context.Background(), nil, true); err != nil {
				t.Error(err)
			}
			s.keepHouse(context.Background())
		}
	})
	wg.Wait()
	close(stop)
	others.Wait()
	want := s.dump(t, "t1")
	n := 0
	for _, samples := range want {
		n += strings.Count(samples, ":")
	}
	if n != streams*pushes*20 {
		t.Errorf("%d samples stored, want %d", n, streams*pushes*20)
	}
	equal(t, s.crashed(t, siteOptions{}).dump(t, "t1"), want)
}

func TestLabelsOfABoundSeriesAreNotNeeded(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := newSender(s.Ingester)
	a.mustPush(t, "t1", point{metric("m"), base, 1})
	f := a.frame("t1", point{metric("m"), base + 1000, 2})
	if len(f.Defs) != 0 {
		t.Fatal("the test defines the series again")
	}
	if res := a.push(t.Context(), f); res.Outcome != frame.Stored {
		t.Fatalf("%+v", res)
	}
	// A definition replaces what the index named before.
	f = &frame.Frame{Tenant: "t1", Defs: []frame.Def{{Ref: frame.MakeRef(0, 1), Labels: labels.FromStrings("__name__", "n")}},
		Refs: []frame.Ref{frame.MakeRef(0, 1)}, Times: []int64{base}, Values: []float64{9}}
	if res := a.stream.Push(t.Context(), f); res.Outcome != frame.Stored {
		t.Fatalf("%+v", res)
	}
	if res := a.stream.Push(t.Context(), a.frame("t1", point{metric("m"), base + 2000, 3})); res.Outcome != frame.UnknownRefs {
		t.Fatalf("reference of an older generation: %+v", res)
	}
	equal(t, s.dump(t, "t1"), map[string]string{metric("m").String(): "0:1 1000:2", metric("n").String(): "0:9"})
}

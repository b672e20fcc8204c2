package distributor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// exponential is a histogram with n positive buckets of one observation.
func exponential(schema int32, n int) *histogram.Histogram {
	h := &histogram.Histogram{Schema: schema, Count: uint64(n), Sum: 1, PositiveSpans: []histogram.Span{{Length: uint32(n)}}, PositiveBuckets: make([]int64, n)}
	h.PositiveBuckets[0] = 1
	return h
}

func TestHistograms(t *testing.T) {
	custom := &histogram.FloatHistogram{Schema: histogram.CustomBucketsSchema, Count: 20, CustomValues: make([]float64, 20),
		PositiveSpans: []histogram.Span{{Length: 20}}, PositiveBuckets: make([]float64, 20)}
	for i := range custom.CustomValues {
		custom.CustomValues[i] = float64(i)
	}
	broken := exponential(0, 3)
	broken.Count = 9
	unknown := exponential(-7, 1)
	for _, tc := range []struct {
		name       string
		h          *histogram.Histogram
		fh         *histogram.FloatHistogram
		noReduce   bool
		offset     time.Duration
		id, reason string
	}{
		{name: "small", h: exponential(2, 8)},
		{name: "reduced", h: exponential(2, 40)},
		{name: "float reduced", fh: exponential(2, 40).ToFloat(nil)},
		{"over the limit", exponential(2, 40), nil, true, 0, "max-native-histogram-buckets", "max_native_histogram_buckets"},
		{"coarsest already", exponential(-4, 20), nil, false, 0, "not-reducible-native-histogram", "not_reducible_native_histogram"},
		{"custom", nil, custom, false, 0, "native-histogram-custom-buckets-not-reducible", "native_histogram_custom_buckets_not_reducible"},
		{"count", broken, nil, false, 0, "native-histogram-count-mismatch", "invalid_native_histogram"},
		{"schema", unknown, nil, false, 0, "invalid-native-histogram-schema", "invalid_native_histogram_schema"},
		{"future", exponential(2, 8), nil, false, time.Hour, "too-far-in-future", "too_far_in_future"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
			c.limit(func(v limits.View) limits.View {
				v = limits.ReduceNativeHistogramOverMaxBuckets.With(v, !tc.noReduce)
				return limits.MaxNativeHistogramBuckets.With(v, 10)
			})
			s := c.series("h")
			s.Samples = nil
			ms := c.clock.Load() + tc.offset.Milliseconds()
			if tc.h != nil {
				s.Histograms = []prompb.Histogram{prompb.FromIntHistogram(ms, tc.h)}
			} else {
				s.Histograms = []prompb.Histogram{prompb.FromFloatHistogram(ms, tc.fh)}
			}
			w, err := c.push(c.v1(s, c.series("good")))
			if tc.id == "" {
				if err != nil || w.Histograms != 1 || w.Samples != 1 || c.copies(`{__name__="h"}`) != 1 {
					t.Fatalf("got %+v, %v", w, err)
				}
				return
			}
			if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "(err-amphora-"+tc.id+")") || w.Histograms != 0 || w.Samples != 1 {
				t.Errorf("got %+v, %v, want Invalid with id %s", w, err, tc.id)
			}
			if n := c.metric("amphora_discarded_samples_total", tc.reason); n != 1 {
				t.Errorf("discarded = %g, want 1", n)
			}
		})
	}
}

func TestHistogramsAreIgnoredIfSwitchedOff(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	c.limit(func(v limits.View) limits.View { return limits.NativeHistogramsIngestionEnabled.With(v, false) })
	s := c.series("h")
	s.Samples, s.Histograms = nil, []prompb.Histogram{prompb.FromIntHistogram(c.clock.Load(), exponential(0, 1))}
	if w, err := c.push(c.v1(s, c.series("good"))); err != nil || w.Histograms != 0 || c.copies(`{__name__="h"}`) != 0 {
		t.Errorf("got %+v, %v, want it ignored", w, err)
	}
}

func TestExemplarsThatBreakARuleAreDropped(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	now := c.clock.Load()
	long := strings.Repeat("ü", 65)
	x := func(ms int64, kv ...string) prompb.Exemplar {
		return prompb.Exemplar{Timestamp: ms, Value: 1, Labels: prompb.FromLabels(labels.FromStrings(kv...), nil)}
	}
	s := c.series("up")
	s.Exemplars = []prompb.Exemplar{x(now, "trace_id", "good"), x(now), x(now, "a", long, "b", long), x(0, "a", "b"), x(now, "a", ""),
		x(now-6*60*1000, "a", "b"), x(now+60*60*1000, "a", "b"), x(now, "a", strings.Repeat("x", 127))}
	if w, err := c.push(c.v1(s)); err != nil || w.Exemplars != 0 {
		t.Fatalf("switched off: %+v, %v", w, err)
	}
	c.limit(func(v limits.View) limits.View { return limits.MaxGlobalExemplarsPerUser.With(v, 100) })
	w, err := c.push(c.v1(s))
	if err != nil || w.Exemplars != 2 {
		t.Errorf("got %+v, %v, want 2 exemplars and no error", w, err)
	}
	for _, reason := range []string{"exemplar_labels_missing", "exemplar_labels_too_long", "exemplar_timestamp_invalid", "exemplar_labels_blank",
		"exemplar_too_old", "exemplar_too_far_in_future"} {
		if n := c.metric("amphora_discarded_exemplars_total", reason, "t1"); n != 1 {
			t.Errorf("%s = %g, want 1", reason, n)
		}
	}
	var got []frame.Exemplar
	c.ingesters["ingester-0"].set(func(g *ingester) { got = slices.Clone(g.exem) })
	if len(got) != 2 || got[0].Labels.Get("trace_id") != "good" {
		t.Errorf("stored = %v", got)
	}
}

func TestMetadataOfBothVersions(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 3, instances: 7})
	c.limit(func(v limits.View) limits.View { return limits.MaxMetadataLength.With(v, 10) })
	meta := func(name, help, unit string) prompb.MetricMetadata {
		return prompb.MetricMetadata{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: name, Help: help, Unit: unit}
	}
	body := remotewritetest.MustMarshal(&prompb.WriteRequest{Metadata: []prompb.MetricMetadata{meta("", "", ""),
		meta("requests", "a long hëlp", "s"), meta("name_too_long", "", ""), meta("x", "", "unit_too_long")}})
	_, err := c.push(&remotewrite.Request{Version: remotewrite.V1, Body: body})
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "metadata-missing-metric-name") {
		t.Errorf("got %v", err)
	}
	for _, reason := range []string{"missing_metric_name", "metric_name_too_long", "unit_too_long"} {
		if n := c.metric("amphora_discarded_metadata_total", reason); n != 1 {
			t.Errorf("%s = %g, want 1", reason, n)
		}
	}
	count := func() (n int, last frame.Metadata) {
		for _, g := range c.ingesters {
			g.set(func(g *ingester) {
				if n += len(g.meta); len(g.meta) > 0 {
					last = g.meta[0]
				}
				g.meta = nil
			})
		}
		return n, last
	}
	if n, m := count(); n != 3 || m != (frame.Metadata{Name: "requests", Type: "counter", Help: "a long hë"[:10], Unit: "s"}) {
		t.Errorf("%d copies of %+v, want 3", n, m)
	}

	symbols := writev2.NewSymbolTable()
	req := writev2.Request{}
	for _, le := range []string{"1", "2", "+Inf"} {
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{
			LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", "h_bucket", "le", le), nil),
			Samples:    []writev2.Sample{{Value: 1, Timestamp: c.clock.Load()}},
			Metadata:   writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_HISTOGRAM, HelpRef: symbols.Symbolize("help")}})
	}
	req.Symbols = symbols.Symbols()
	v2 := &remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.MustMarshal(&req)}
	for round, want := range []int{3, 0} {
		if _, err := c.push(v2); err != nil {
			t.Fatal(err)
		}
		if n, m := count(); n != want || n > 0 && m != (frame.Metadata{Name: "h", Type: "histogram", Help: "help"}) {
			t.Errorf("round %d: %d copies of %+v, want %d", round, n, m, want)
		}
	}
	c.advance(metadataPeriod)
	if _, err := c.push(v2); err != nil {
		t.Fatal(err)
	}
	if n, _ := count(); n != 3 {
		t.Errorf("after the period: %d copies, want 3", n)
	}
}

// TestStartTimesTravel: as far as the tenant wants them for the protocol that brought them.
func TestStartTimesTravel(t *testing.T) {
	for name, c := range map[string]struct {
		view   limits.View
		origin remotewrite.Origin
		want   []int64
	}{
		"remote write":             {limits.CreatedTimestampZeroIngestion.With(limits.View{}, true), remotewrite.RemoteWrite, []int64{-5, 0}},
		"OTLP":                     {limits.OTelCreatedTimestampZeroIngestion.With(limits.View{}, true), remotewrite.OTLP, []int64{-5, 0}},
		"nobody wants them":        {limits.View{}, remotewrite.RemoteWrite, nil},
		"wanted from OTLP alone":   {limits.OTelCreatedTimestampZeroIngestion.With(limits.View{}, true), remotewrite.RemoteWrite, nil},
		"wanted from others alone": {limits.CreatedTimestampZeroIngestion.With(limits.View{}, true), remotewrite.OTLP, nil},
	} {
		cl := newCluster(t, clusterOptions{replicas: 1, instances: 1})
		cl.limit(func(limits.View) limits.View { return c.view })
		var got []int64
		now := cl.clock.Load()
		symbols := writev2.NewSymbolTable()
		h := writev2.FromIntHistogram(now-5, now, &histogram.Histogram{Count: 1, ZeroCount: 1})
		req := writev2.Request{Timeseries: []writev2.TimeSeries{{LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", "up"), nil),
			Samples:    []writev2.Sample{{Value: 1, Timestamp: cl.clock.Load(), StartTimestamp: now - 5}, {Value: 1, Timestamp: cl.clock.Load() + 1}},
			Histograms: []writev2.Histogram{h}}}}
		req.Symbols = symbols.Symbols()
		var inHistogram int64
		spy := &spyReplica{push: func(f *frame.Frame) { got, inHistogram = sinceMs(now, f.StartTimes), f.Histograms[0].StartTime }}
		cl.deps.Replica = func(string) (frame.Replica, error) { return spy, nil }
		if _, err := cl.push(&remotewrite.Request{Version: remotewrite.V2, Body: remotewritetest.MustMarshal(&req), Origin: c.origin}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) || (inHistogram == now-5) != (c.want != nil) {
			t.Errorf("%s: start times %v and %d, want %v", name, got, inHistogram, c.want)
		}
	}
}

func TestPushesAreCountedByTheirProtocol(t *testing.T) {
	c := newCluster(t, clusterOptions{replicas: 1, instances: 1})
	body := remotewritetest.V2(remotewritetest.Series(2), 1, c.clock.Load())
	for _, origin := range []remotewrite.Origin{remotewrite.OTLP, remotewrite.Influx, remotewrite.RemoteWrite} {
		if _, err := c.push(&remotewrite.Request{Version: remotewrite.V2, Body: body, Origin: origin, Refused: 3}); err != nil {
			t.Fatal(err)
		}
	}
	for _, counter := range [][]string{
		{"amphora_distributor_otlp_requests_total"}, {"amphora_distributor_influx_requests_total"}, {"amphora_distributor_requests_in_total", "2.0"},
		{"amphora_distributor_requests_in_total", "otlp"}, {"amphora_distributor_requests_in_total", "influx"},
	} {
		if got := c.metric(counter[0], counter[1:]...); got != 1 {
			t.Errorf("%q: %g requests, want 1", counter, got)
		}
	}
	if got := c.metric("amphora_discarded_samples_total", "otlp_parse_error"); got != 9 {
		t.Errorf("%g samples not translated, want 9", got)
	}
}

// spyReplica stores everything at once and shows the frames.
type spyReplica struct{ push func(*frame.Frame) }

func (s *spyReplica) Push(f *frame.Frame, done func(frame.Result)) {
	s.push(f)
	done(frame.Result{})
}
func (s *spyReplica) Incarnation() uint32 { return 1 }

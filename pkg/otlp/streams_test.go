package otlp

import (
	"fmt"
	"math"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// adder is a tenant whose deltas are added up, at a time that tests move.
type adder struct {
	t   *testing.T
	tr  *Translator
	set Settings
	now time.Time
}

func newAdder(t *testing.T, most int64) *adder {
	a := &adder{t: t, tr: NewTranslator(), now: base}
	a.set = Settings{Tenant: "t1", StartTimes: true, Streams: NewStreams(StreamsOptions{MaxBytes: most, Idle: 15 * time.Minute, Now: func() time.Time { return a.now }})}
	return a
}

func sec(n int) pcommon.Timestamp {
	return pcommon.NewTimestampFromTime(base.Add(time.Duration(n) * time.Second))
}

// sum sends the change v in the interval from start to end and returns the samples as "value@end".
func (a *adder) sum(start, end int, v int64) string {
	a.t.Helper()
	md := one(func(ms pmetric.MetricSlice) {
		m := ms.AppendEmpty()
		m.SetName("requests")
		s := m.SetEmptySum()
		s.SetIsMonotonic(true)
		s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		p := s.DataPoints().AppendEmpty()
		p.SetStartTimestamp(sec(start))
		p.SetTimestamp(sec(end))
		p.SetIntValue(v)
	})
	req, res := a.translate(md)
	if res.First != nil {
		return "refused: " + res.First.Error()
	}
	var out []string
	for _, ts := range req.Timeseries {
		for _, s := range ts.Samples {
			out = append(out, fmt.Sprintf("%g@%d from %d", s.Value, (s.Timestamp-base.UnixMilli())/1000, (s.StartTimestamp-base.UnixMilli())/1000))
		}
		if m, _ := ts.ToMetadata(req.Symbols); m.Type != "counter" {
			a.t.Errorf("the type is %s", m.Type)
		}
	}
	return strings.Join(out, " ")
}

func (a *adder) translate(md pmetric.Metrics) (req writev2.Request, res Result) {
	a.t.Helper()
	res, err := a.tr.Translate(marshal(a.t, md), &a.set, nil, plenty{})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := req.Unmarshal(res.Body); err != nil {
		a.t.Fatal(err)
	}
	return req, res
}

// TestDeltasAreAddedUp in the order in which they come, each once.
func TestDeltasAreAddedUp(t *testing.T) {
	a := newAdder(t, 1<<20)
	for _, step := range []struct {
		what       string
		start, end int
		v          int64
		want       string
	}{
		{"the first", 0, 10, 5, "5@10 from 0"},
		{"the next", 10, 20, 3, "8@20 from 0"},
		{"sent again", 10, 20, 3, "8@20 from 0"},
		{"the first sent again", 0, 10, 5, ""},
		{"behind a gap", 30, 40, 2, "10@40 from 0"},
		{"the gap filled late", 20, 30, 7, ""},
		{"filled again", 20, 30, 7, ""},
		{"the next with all before", 40, 50, 1, "18@50 from 0"},
		{"another sender at the same time", 45, 50, 4, "22@50 from 0"},
		{"no change", 50, 60, 0, "22@60 from 0"},
	} {
		if got := a.sum(step.start, step.end, step.v); got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
	if got := a.sum(60, 70, -1); !strings.HasPrefix(got, "refused") {
		t.Errorf("a change below zero: %q", got)
	}
	a.set.Tenant = "t2"
	if got := a.sum(60, 70, 1); got != "1@70 from 60" {
		t.Errorf("another tenant: %q", got)
	}
}

func TestIdleStreamsAreForgotten(t *testing.T) {
	a := newAdder(t, 1<<20)
	a.sum(0, 10, 5)
	a.now = a.now.Add(16 * time.Minute)
	a.set.Streams.Sweep()
	if n, b := a.set.Streams.Len(), a.set.Streams.Bytes(); n != 0 || b != 0 {
		t.Errorf("%d streams of %d bytes stay", n, b)
	}
	if got := a.sum(10, 20, 3); got != "3@20 from 10" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	a := newAdder(t, streamBytes)
	a.sum(0, 10, 5)
	a.set.Tenant = "t2"
	if got := a.sum(0, 10, 5); !strings.Contains(got, "max-otlp-delta-bytes") {
		t.Errorf("one too many: %q", got)
	}
	a.set.Tenant = "t1"
	if got := a.sum(10, 20, 1); got != "6@20 from 0" {
		t.Errorf("one that is known: %q", got)
	}
}

// TestExplicitDeltasAreAddedUp until the bounds change, when they begin anew.
func TestExplicitDeltasAreAddedUp(t *testing.T) {
	a := newAdder(t, 1<<20)
	point := func(end int, bounds []float64, counts ...uint64) (out string) {
		md := one(func(ms pmetric.MetricSlice) {
			m := ms.AppendEmpty()
			m.SetName("h")
			h := m.SetEmptyHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			p := h.DataPoints().AppendEmpty()
			p.SetStartTimestamp(sec(end - 10))
			p.SetTimestamp(sec(end))
			p.ExplicitBounds().FromRaw(bounds)
			p.BucketCounts().FromRaw(counts)
			n := uint64(0)
			for _, c := range counts {
				n += c
			}
			p.SetCount(n)
			p.SetSum(float64(n))
		})
		req, _ := a.translate(md)
		for _, ts := range req.Timeseries {
			out += fmt.Sprintf("%g ", ts.Samples[0].Value)
		}
		return out
	}
	for i, want := range []string{"6 6 1 3 6 ", "12 12 2 6 12 "} {
		if got := point(10*i+10, []float64{1, 2}, 1, 2, 3); got != want {
			t.Errorf("point %d: %q, want %q", i, got, want)
		}
	}
	if got := point(30, []float64{1}, 1, 1); got != "2 2 1 2 " {
		t.Errorf("with other bounds: %q", got)
	}
}

// TestExponentialDeltasAddUpAsPrometheusAddsThem compares with the sums that the engine makes.
func TestExponentialDeltasAddUpAsPrometheusAddsThem(t *testing.T) {
	for seed := range int64(200) {
		r := rand.New(rand.NewSource(seed))
		a := newAdder(t, 1<<20)
		native := Settings{Deltas: true}
		var want *histogram.FloatHistogram
		for i := range 6 {
			md := one(func(ms pmetric.MetricSlice) {
				m := ms.AppendEmpty()
				m.SetName("h")
				h := m.SetEmptyExponentialHistogram()
				h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
				p := h.DataPoints().AppendEmpty()
				p.SetStartTimestamp(sec(10 * i))
				p.SetTimestamp(sec(10*i + 10))
				p.SetScale(int32(r.Intn(6)))
				p.SetZeroCount(uint64(r.Intn(3)))
				n := p.ZeroCount()
				for _, b := range []pmetric.ExponentialHistogramDataPointBuckets{p.Positive(), p.Negative()} {
					b.SetOffset(int32(r.Intn(40) - 20))
					for range r.Intn(30) {
						c := uint64(r.Intn(4))
						n += c
						b.BucketCounts().Append(c)
					}
				}
				p.SetCount(n)
				p.SetSum(float64(r.Intn(100)))
			})
			delta := only(t, NewTranslator(), md, &native)
			delta.CounterResetHint = histogram.UnknownCounterReset
			if want == nil {
				want = delta
			} else if _, _, _, err := want.Add(delta); err != nil {
				t.Fatal(err)
			}
			got := only(t, a.tr, md, &a.set)
			if !got.Compact(0).Equals(want.Copy().Compact(0)) {
				t.Fatalf("seed %d, point %d:\n got %v\nwant %v", seed, i, got, want)
			}
		}
	}
}

// only returns the one histogram that md has.
func only(t *testing.T, tr *Translator, md pmetric.Metrics, s *Settings) *histogram.FloatHistogram {
	t.Helper()
	res, err := tr.Translate(marshal(t, md), s, nil, plenty{})
	if err != nil || res.First != nil {
		t.Fatal(err, res.First)
	}
	var b remotewrite.Batch
	if err := b.Scan(remotewrite.NewKeys(), &remotewrite.Request{Version: remotewrite.V2, Body: res.Body}); err != nil || b.HistogramCount() != 1 {
		t.Fatal(err, b.HistogramCount())
	}
	h, err := b.Histogram(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Validate(); err != nil {
		t.Fatal(err)
	}
	return h.H.ToFloat(nil)
}

// TestHostileExponentialDeltasTakeNoMemory: bucket numbers may be anything.
func TestHostileExponentialDeltasTakeNoMemory(t *testing.T) {
	a := newAdder(t, 1<<20)
	for i, offset := range []int32{math.MinInt32, math.MaxInt32 - 3, -1 << 20, 1 << 20, 0} {
		for _, scale := range []int32{-4, 0, 8, 31, math.MaxInt32} {
			md := one(func(ms pmetric.MetricSlice) {
				m := ms.AppendEmpty()
				m.SetName("h")
				h := m.SetEmptyExponentialHistogram()
				h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
				p := h.DataPoints().AppendEmpty()
				p.SetTimestamp(sec(i + 1))
				p.SetScale(scale)
				p.SetCount(2)
				p.Positive().SetOffset(offset)
				p.Positive().BucketCounts().FromRaw([]uint64{1, 0, 1})
			})
			if _, err := a.tr.Translate(marshal(t, md), &a.set, nil, plenty{}); err != nil {
				t.Fatal(err)
			}
			if n := a.set.Streams.Bytes(); n > 16<<10 {
				t.Fatalf("offset %d, scale %d: %d bytes", offset, scale, n)
			}
		}
	}
}

func TestOnlyWhatRisesIsAddedUp(t *testing.T) {
	a := newAdder(t, 1<<20)
	md := one(func(ms pmetric.MetricSlice) {
		m := ms.AppendEmpty()
		m.SetName("queue")
		s := m.SetEmptySum()
		s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		s.DataPoints().AppendEmpty().SetIntValue(1)
	})
	if _, res := a.translate(md); res.Refused != 1 || !strings.Contains(res.First.Error(), "may fall") {
		t.Errorf("%d refused: %v", res.Refused, res.First)
	}
}

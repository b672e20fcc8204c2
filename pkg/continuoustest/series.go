package continuoustest

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
)

// The metrics that are written, which the version of their content ends: other content needs other names,
// as the series of before are still there.
const (
	floatMetric     = "amphora_continuous_test_sine_wave_v1"
	histogramMetric = "amphora_continuous_test_histogram_v1"
	protocolLabel   = "protocol"
	seriesLabel     = "series_id"
)

const (
	wavePeriod    = 10 * time.Minute
	zeroThreshold = 1e-128 // of histograms that come by OTLP
	most          = 60     // by so much the largest bucket changes
	tolerance     = 1e-9   // of what is added up in another order
)

// wave is the value of the first float at t; series i, counted from 1, has i times as much, so that no
// series can take the place of another.
func wave(t time.Time) float64 {
	at := float64(t.UnixMilli()%wavePeriod.Milliseconds()) / float64(wavePeriod.Milliseconds())
	return 2 + math.Sin(2*math.Pi*at)
}

// cup is the histogram of the first series at t; series i has i times as much. Its buckets are those
// from 1/2 to 1 and from 1 to 2, and the one from -1 to -1/2.
func cup(t time.Time, i int64) *histogram.Histogram {
	n := 1 + t.Unix()%most
	h := &histogram.Histogram{
		CounterResetHint: histogram.GaugeType, ZeroThreshold: zeroThreshold, ZeroCount: uint64(i),
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{2 * i, n*i - 2*i},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{3 * i},
		Sum: wave(t) * float64(i),
	}
	h.Count = uint64((1 + 2 + n + 3) * i)
	return h
}

// weight is what all of n series together have, in parts of the first.
func weight(n int) float64 { return float64(n) * float64(n+1) / 2 }

// bucket is one of a histogram in an answer.
type bucket struct{ from, to, count float64 }

// value is what a query answered for one time: a float, or a histogram.
type value struct {
	float   float64 // of a histogram: the sum of its observations
	count   float64
	buckets []bucket // nil: it is a float
}

// wanted is what n series of a kind add up to at t.
func wanted(histograms bool, t time.Time, n int) value {
	w := weight(n)
	if !histograms {
		return value{float: wave(t) * w}
	}
	h := cup(t, 1)
	return value{float: h.Sum * w, count: float64(h.Count) * w, buckets: []bucket{
		{-1, -0.5, 3 * w},
		{-zeroThreshold, zeroThreshold, w},
		{0.5, 1, 2 * w},
		{1, 2, float64(h.PositiveBuckets[0]+h.PositiveBuckets[1]) * w},
	}}
}

// differs says how v differs from want; empty: not at all.
func (v value) differs(want value) string {
	switch {
	case (v.buckets == nil) != (want.buckets == nil):
		return "it is a float instead of a histogram, or the reverse"
	case !near(v.float, want.float):
		return fmt.Sprintf("the sum is %g, want %g", v.float, want.float)
	case !near(v.count, want.count):
		return fmt.Sprintf("the count is %g, want %g", v.count, want.count)
	case len(v.buckets) != len(want.buckets):
		return fmt.Sprintf("there are %d buckets, want %d", len(v.buckets), len(want.buckets))
	}
	for i, b := range v.buckets {
		if w := want.buckets[i]; !near(b.from, w.from) || !near(b.to, w.to) || !near(b.count, w.count) {
			return fmt.Sprintf("the bucket from %g to %g has %g, want from %g to %g with %g", b.from, b.to, b.count, w.from, w.to, w.count)
		}
	}
	return ""
}

func near(a, b float64) bool {
	return a == b || math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b))
}

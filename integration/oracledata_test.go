package integration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	marker "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

const (
	// oracleEvery is how far apart the samples of most series are, and oracleSpan how long there are any.
	oracleEvery = int64(120_000)
	oracleSpan  = int64(30 * 3_600_000)
)

// oracleSeries is a series and what it has at a time; i counts its samples.
type oracleSeries struct {
	labels []prompb.Label
	at     func(rng *rand.Rand, i int) sampled
}

// sampled is one sample: a float, unless it is of another kind.
type sampled struct {
	f     float64
	ints  *histogram.Histogram
	float *histogram.FloatHistogram
	none  bool
}

// oracleAll are series of all kinds there are, and some that are broken.
func oracleAll() []oracleSeries {
	var out []oracleSeries
	add := func(at func(*rand.Rand, int) sampled, kv ...string) {
		ls := pairs(kv...)
		slices.SortFunc(ls, func(a, b prompb.Label) int {
			if a.Name < b.Name {
				return -1
			}
			return 1
		})
		out = append(out, oracleSeries{ls, at})
	}
	for ai, a := range []string{"x", "y", "z"} {
		for b := range ai + 1 {
			of := func(name string, more ...string) []string {
				return append([]string{"__name__", name, "a", a, "b", fmt.Sprint(b), "instance", "i" + a, "job", "j"}, more...)
			}
			add(counting(), of("c_total")...)
			add(counting(), of("d_total", "only", "d")...)
			add(wandering(5), of("g")...)
			add(wandering(40), of("k")...)
			sums := 0.0
			for n, le := range []string{"0.1", "1", "5", "+Inf", "odd"} {
				if le != "odd" || a == "y" {
					add(func(rng *rand.Rand, i int) sampled { // not always monotonous
						if sums += float64(rng.IntN(4)); i%97 == 96 {
							sums = 0
						}
						return sampled{f: sums*float64(n+1) - float64(rng.IntN(60)/59)}
					}, of("h_bucket", "le", le)...)
				}
			}
			histogramsOf(add, of, ai, b)
		}
		add(func(_ *rand.Rand, i int) sampled { return sampled{f: 1, none: i%211 > 180} },
			"__name__", "target_info", "instance", "i"+a, "job", "j", "version", fmt.Sprint("v", ai), "zone", "eu")
	}
	add(wandering(50), "__name__", "näme with dots.and/more", "la bel", "ü", "a", "x")
	add(wandering(50), "__name__", "build_info", "instance", "ix", "job", "j", "rev", "abc")
	return out
}

// histogramsOf adds native histograms: counters, gauges, with custom buckets, of other layouts, and beside
// floats.
func histogramsOf(add func(func(*rand.Rand, int) sampled, ...string), of func(string, ...string) []string, a, b int) {
	add(func(_ *rand.Rand, i int) sampled {
		return sampled{ints: tsdbutil.GenerateTestHistogram(int64(i%83 + a))}
	}, of("nh")...)
	add(func(_ *rand.Rand, i int) sampled {
		return sampled{float: tsdbutil.GenerateTestGaugeFloatHistogram(int64(i%50 + a))}
	}, of("nhgauge")...)
	add(func(_ *rand.Rand, i int) sampled {
		h := tsdbutil.GenerateTestCustomBucketsHistogram(int64(i%61 + b))
		if b == 1 {
			h.CustomValues = []float64{0, 1.5, 2, 3.25, 4}
		}
		return sampled{ints: h}
	}, of("nhcb")...)
	add(func(_ *rand.Rand, i int) sampled {
		h := tsdbutil.GenerateTestFloatHistogram(int64(i%70 + 1))
		h.CounterResetHint = histogram.UnknownCounterReset
		if (a+b)%2 == 0 {
			h = h.CopyToSchema(0)
		}
		return sampled{float: h}
	}, of("nhschema")...)
	add(func(_ *rand.Rand, i int) sampled {
		if i/20%2 == (a+b)%2 {
			return sampled{f: float64(i)}
		}
		return sampled{ints: tsdbutil.GenerateTestHistogram(int64(i%30 + 1))}
	}, of("mixed")...)
	add(func(_ *rand.Rand, i int) sampled {
		if (a+b)%2 == 0 {
			return sampled{f: float64(i % 17)}
		}
		return sampled{ints: tsdbutil.GenerateTestHistogram(int64(i % 40))}
	}, of("kinds")...)
}

func counting() func(*rand.Rand, int) sampled {
	v := 0.0
	return func(rng *rand.Rand, i int) sampled {
		if v += math.Floor(rng.ExpFloat64() * 10); i%151 == 150 {
			v = 0
		}
		return sampled{f: v, none: rng.IntN(90) == 0}
	}
}

// wandering goes up and down, and every so often is something strange.
func wandering(scale float64) func(*rand.Rand, int) sampled {
	return func(rng *rand.Rand, i int) sampled {
		v := math.Round(scale * math.Sin(float64(i)/17))
		switch rng.IntN(120) {
		case 0:
			v = math.NaN()
		case 1:
			v = math.Inf(1 - 2*rng.IntN(2))
		case 2:
			v = math.Float64frombits(marker.StaleNaN)
		case 3:
			v = math.MaxFloat64
		case 4:
			v = math.Copysign(0, -1)
		}
		return sampled{f: v, none: i%300 > 280}
	}
}

// oracleData are write requests of the series in the order of time, an hour each, that begin at start.
func oracleData(seed uint64, start int64) []*prompb.WriteRequest {
	rng := rand.New(rand.NewPCG(seed, 7))
	all := oracleAll()
	counts, phases := make([]int, len(all)), make([]int64, len(all))
	for i := range phases {
		phases[i] = rng.Int64N(oracleEvery)
	}
	var out []*prompb.WriteRequest
	const hour = int64(3_600_000)
	for from := int64(0); from < oracleSpan; from += hour {
		req := &prompb.WriteRequest{}
		for i := range all {
			ts := prompb.TimeSeries{Labels: all[i].labels}
			for at := from + phases[i]; at < from+hour; at += oracleEvery {
				s := all[i].at(rng, counts[i])
				counts[i]++
				switch {
				case s.none:
				case s.ints != nil:
					ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(start+at, s.ints))
				case s.float != nil:
					ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(start+at, s.float))
				default:
					ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: start + at, Value: s.f})
				}
			}
			req.Timeseries = append(req.Timeseries, ts)
		}
		out = append(out, req)
	}
	return out
}

package stream

import (
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/kahansum"
)

// kernelOf returns the function of range vectors that a name stands for, over windows of length rng.
func kernelOf(name string, rng time.Duration) (kernel, bool) {
	switch name {
	case "rate":
		return kernel{value: extrapolated(true, true, rng), resets: true, counter: true}, true
	case "increase":
		return kernel{value: extrapolated(true, false, rng), resets: true, counter: true}, true
	case "delta":
		return kernel{value: extrapolated(false, false, rng)}, true
	case "irate":
		return kernel{value: lastTwo(true)}, true
	case "idelta":
		return kernel{value: lastTwo(false)}, true
	case "last_over_time":
		return kernel{value: func(w *window) float64 { return w.vs[w.hi-1] }, keeps: true}, true
	case "first_over_time":
		return kernel{value: func(w *window) float64 { return w.vs[w.lo] }, keeps: true}, true
	}
	f := map[string]func(*window) float64{
		"sum_over_time": sumOver, "avg_over_time": avgOver, "min_over_time": minOver, "max_over_time": maxOver,
		"count_over_time":   func(w *window) float64 { return float64(w.hi - w.lo) },
		"present_over_time": func(*window) float64 { return 1 },
		"absent_over_time":  func(*window) float64 { return 1 },
		"changes":           changesIn,
		"resets":            resetsIn,
		"stdvar_over_time":  varianceOver,
		"stddev_over_time":  func(w *window) float64 { return math.Sqrt(varianceOver(w)) },
	}[name]
	return kernel{value: f}, f != nil
}

// quantileOver is quantile_over_time, with params of which the first is the quantile. The Prometheus engine
// makes a copy of the window for each step, most of what a query allocates.
func quantileOver(r *run, param parser.Expr, params *[][]float64) kernel {
	none := func(q float64) bool { return math.IsNaN(q) || q < 0 || q > 1 }
	return kernel{
		warns: func(params [][]float64) bool { return slices.ContainsFunc(params[0], none) },
		value: func(w *window) float64 {
			q := (*params)[0][w.step]
			if none(q) {
				r.annos.Add(annotations.NewInvalidQuantileWarning(q, param.PositionRange()))
			}
			if w.sortedLo != w.lo || w.sortedHi != w.hi {
				w.sortedLo, w.sortedHi = w.lo, w.hi
				w.sorted = append(w.sorted[:0], w.vs[w.lo:w.hi]...)
				slices.Sort(w.sorted) // NaN comes first
			}
			return quantileOf(q, w.sorted)
		},
	}
}

// extrapolated is rate, increase and delta: the difference of the last and the first sample, with
// what resets took off a counter, extended to the bounds of the window as far as samples may be
// expected there.
func extrapolated(counter, perSecond bool, rng time.Duration) func(*window) float64 {
	seconds := rng.Seconds()
	return func(w *window) float64 {
		gaps := w.hi - w.lo - 1
		if gaps == 0 {
			return absent()
		}
		first, last := w.vs[w.lo], w.vs[w.hi-1]
		firstT, lastT := w.ts[w.lo], w.ts[w.hi-1]
		result := last - first
		if counter {
			for i := w.next; i < len(w.resets) && int(w.resets[i]) < w.hi; i++ {
				result += w.vs[w.resets[i]-1]
			}
		}
		toStart, toEnd := float64(firstT-w.from)/1000, float64(w.to-lastT)/1000
		sampled := float64(lastT-firstT) / 1000
		average := sampled / float64(gaps)
		threshold := average * 1.1
		if toStart >= threshold {
			toStart = average / 2
		}
		if counter {
			// A counter does not start below zero.
			toZero := toStart
			if result > 0 && first >= 0 {
				toZero = sampled * (first / result)
			}
			if toZero < toStart {
				toStart = toZero
			}
		}
		if toEnd >= threshold {
			toEnd = average / 2
		}
		factor := 1.0
		if sampled != 0 {
			factor = (sampled + toStart + toEnd) / sampled
		}
		if perSecond {
			factor /= seconds
		}
		return result * factor
	}
}

// lastTwo is irate and idelta.
func lastTwo(rate bool) func(*window) float64 {
	return func(w *window) float64 {
		if w.hi-w.lo < 2 {
			return absent()
		}
		before, last := w.vs[w.hi-2], w.vs[w.hi-1]
		interval := w.ts[w.hi-1] - w.ts[w.hi-2]
		if interval == 0 {
			return absent()
		}
		if !rate {
			return last - before
		}
		if !(last < before) {
			last -= before
		}
		return last / (float64(interval) / 1000)
	}
}

func sumOver(w *window) float64 {
	var sum, c float64
	for _, v := range w.vs[w.lo:w.hi] {
		sum, c = kahansum.Inc(v, sum, c)
	}
	if math.IsInf(sum, 0) {
		return sum
	}
	return sum + c
}

// avgOver divides the sum by the number of samples, unless the sum overflows: then it goes on with
// the mean.
func avgOver(w *window) float64 {
	vs := w.vs[w.lo:w.hi]
	sum, n := vs[0], 1.0
	var mean, c float64
	overflown := false
	for i, v := range vs[1:] {
		n = float64(i + 2)
		if !overflown {
			newSum, newC := kahansum.Inc(v, sum, c)
			if !math.IsInf(newSum, 0) {
				sum, c = newSum, newC
				continue
			}
			overflown = true
			mean = sum / (n - 1)
			c /= n - 1
		}
		q := (n - 1) / n
		mean, c = kahansum.Inc(v/n, q*mean, q*c)
	}
	if overflown {
		return mean + c
	}
	return sum/n + c/n
}

func minOver(w *window) float64 {
	vs := w.vs[w.lo:w.hi]
	least := vs[0]
	for _, v := range vs {
		if v < least || math.IsNaN(least) {
			least = v
		}
	}
	return least
}

func maxOver(w *window) float64 {
	vs := w.vs[w.lo:w.hi]
	most := vs[0]
	for _, v := range vs {
		if v > most || math.IsNaN(most) {
			most = v
		}
	}
	return most
}

func changesIn(w *window) float64 {
	n := 0
	vs := w.vs[w.lo:w.hi]
	for i, v := range vs[1:] {
		if v != vs[i] && !(math.IsNaN(v) && math.IsNaN(vs[i])) {
			n++
		}
	}
	return float64(n)
}

func resetsIn(w *window) float64 {
	n := 0
	vs := w.vs[w.lo:w.hi]
	for i, v := range vs[1:] {
		if v < vs[i] {
			n++
		}
	}
	return float64(n)
}

func varianceOver(w *window) float64 {
	var n, mean, cMean, aux, cAux float64
	for _, v := range w.vs[w.lo:w.hi] {
		n++
		delta := v - (mean + cMean)
		mean, cMean = kahansum.Inc(delta/n, mean, cMean)
		aux, cAux = kahansum.Inc(delta*(v-(mean+cMean)), aux, cAux)
	}
	return (aux + cAux) / n
}

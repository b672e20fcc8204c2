package stream

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

// window is what a function of a range vector sees at one step: the samples from lo up to hi, at
// least one, with from < t <= to.
type window struct {
	ts     []int64
	vs     []float64
	lo, hi int

	from, to int64
	step     int
	at       int64 // time of the step

	// resets are the indexes of samples that are lower than the one before; next is the first of
	// them behind lo. Functions that want them set them.
	resets []int32
	next   int
	lset   labels.Labels

	// sorted has the values from sortedLo up to sortedHi, for functions that want them so.
	sorted             []float64
	sortedLo, sortedHi int
}

// kernel is a function of a range vector.
type kernel struct {
	value   func(w *window) float64       // or absent
	resets  bool                          // it wants resets
	keeps   bool                          // the result has the name of the series
	counter bool                          // names of series should be those of counters
	warns   func(params [][]float64) bool // says whether it will, which only one goroutine can; nil: never
}

// windows evaluates a function over windows of a selection or of a subquery.
type windows struct {
	when
	leaf   *leaf
	crew   *crew     // of leaf
	sub    *subquery // instead of leaf
	tally  tally
	rng    time.Duration
	kernel kernel
	names  *unique
	noted  func(lset labels.Labels) // is told series of the result
	params []scalar                 // of the call
	values [][]float64              // of params
	ready  bool
	w      window
	vals   []float64 // of sub
	out    series
}

func (o *windows) oneName() bool {
	switch {
	case !o.kernel.keeps:
		return !o.names.keep
	case o.leaf != nil:
		return o.leaf.oneName()
	}
	return o.sub.oneName()
}

func (o *windows) keepNames() { o.names.keep = !o.kernel.keeps }

func (o *windows) next(ctx context.Context) (*series, error) {
	for !o.ready {
		for _, p := range o.params {
			vals, err := p.eval(ctx)
			if err != nil {
				return nil, err
			}
			o.values = append(o.values, vals)
		}
		if o.crew != nil && o.kernel.warns != nil && o.kernel.warns(o.values) {
			o.crew.single = true
		}
		o.ready = true
	}
	for {
		f, drop, ok, err := o.read(ctx)
		if err != nil || !ok {
			return nil, err
		}
		o.tally.add(f.total, f.read)
		if !some(f.vals) {
			continue
		}
		o.out = series{lset: f.lset, drop: drop, vals: f.vals, lent: true}
		if o.noted != nil {
			o.noted(f.lset)
		}
		if !o.kernel.keeps {
			if err := o.names.unname(&o.out); err != nil {
				return nil, err
			}
		}
		return &o.out, nil
	}
}

// read evaluates the next series; drop says whether its name is to be removed.
func (o *windows) read(ctx context.Context) (f found, drop, ok bool, err error) {
	if o.crew != nil {
		f, ok, err = o.crew.next(ctx)
		return f, false, ok, err
	}
	if f.lset, drop, ok, err = o.sub.next(ctx); ok {
		f.vals = o.vals
		f.total, f.read, err = o.slide(ctx, &o.w, &o.sub.samples, f.lset, f.vals, o.tally.run.turn)
	}
	return f, drop, ok, err
}

// worker returns who evaluates series of the leaf.
func (o *windows) worker() *worker {
	w := &window{}
	return &worker{leaf: o.leaf, values: func(ctx context.Context, by *worker, lset labels.Labels, vals []float64) (total, read int64, err error) {
		return o.slide(ctx, w, &by.samples, lset, vals, by.turn)
	}}
}

func (w *window) findResets() {
	w.resets, w.next = w.resets[:0], 0
	vs := w.vs
	for i := 1; i < len(vs); i++ {
		if vs[i] < vs[i-1] {
			w.resets = append(w.resets, int32(i))
		}
	}
}

// samplesAtOnce is how many samples functions are given without a look at who else is due and whether the query has
// ended, and stepSamples how many a step counts for beside its own: all steps of a series over long windows take
// seconds together.
const (
	samplesAtOnce = 8 << 10
	stepSamples   = samplesAtOnce / 32
)

// slide moves w over the steps of a series. It returns how many samples the windows have, and how many there
// are in all of them together. Its error is that of ctx.
func (o *windows) slide(ctx context.Context, w *window, in *samples, lset labels.Labels, vals []float64, turn *turns.Turn) (total, read int64, err error) {
	w.ts, w.vs, w.lset, w.sortedHi = in.ts, in.vs, lset, 0
	if o.kernel.resets {
		w.findResets()
	}
	ts, rng := w.ts, o.rng.Milliseconds()
	lo, hi, seen, given := 0, 0, 0, 0
	for i := range vals {
		w.to = o.ref(i)
		w.from = w.to - rng
		for hi < len(ts) && ts[hi] <= w.to {
			hi++
		}
		for lo < hi && ts[lo] <= w.from {
			lo++
		}
		if lo == hi {
			vals[i] = absent()
			continue
		}
		for w.next < len(w.resets) && int(w.resets[w.next]) <= lo {
			w.next++
		}
		fresh := hi - max(lo, seen)
		seen = hi
		total += int64(hi - lo)
		read += int64(fresh)
		o.tally.at(i, int64(hi-lo), int64(fresh))
		w.lo, w.hi, w.step, w.at = lo, hi, i, o.when.at(i)
		vals[i] = o.kernel.value(w)
		if given += stepSamples + hi - lo; given >= samplesAtOnce {
			given = 0
			turn.Yield()
			if err := Interrupted(ctx); err != nil {
				return 0, 0, err
			}
		}
	}
	return total, read, nil
}

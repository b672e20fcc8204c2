package stream

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// source yields series as samples.
type source interface {
	// nextSamples reads the next series that has samples; drop says whether its name is to be removed.
	nextSamples(ctx context.Context) (lset labels.Labels, drop, ok bool, err error)
	taken() *samples
}

func (l *leaf) nextSamples(ctx context.Context) (labels.Labels, bool, bool, error) {
	lset, ok, err := l.next(ctx)
	return lset, false, ok, err
}

func (l *leaf) taken() *samples { return &l.samples }

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
}

// kernel is a function of a range vector.
type kernel struct {
	value   func(w *window) float64 // or absent
	resets  bool                    // it wants resets
	keeps   bool                    // the result has the name of the series
	counter bool                    // names of series should be those of counters
}

// windows evaluates a function over windows of its source.
type windows struct {
	when
	src    source
	tally  tally
	rng    time.Duration
	kernel kernel
	names  *unique
	noted  func(lset labels.Labels) // is told series of the result
	params []scalar                 // of the call
	values [][]float64              // of params
	ready  bool
	w      window
	out    series
}

func (o *windows) oneName() bool {
	if o.kernel.keeps {
		n, ok := o.src.(interface{ oneName() bool })
		return ok && n.oneName()
	}
	return !o.names.keep
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
		o.ready = true
	}
	for {
		lset, drop, ok, err := o.src.nextSamples(ctx)
		if err != nil || !ok {
			return nil, err
		}
		in := o.src.taken()
		w := &o.w
		w.ts, w.vs, w.lset = in.ts, in.vs, lset
		if o.kernel.resets {
			w.findResets()
		}
		total, read := o.slide()
		o.tally.add(total, read)
		if !some(o.out.vals) {
			continue
		}
		o.out.lset, o.out.drop = lset, drop
		if o.noted != nil {
			o.noted(lset)
		}
		if !o.kernel.keeps {
			if err := o.names.unname(&o.out); err != nil {
				return nil, err
			}
		}
		return &o.out, nil
	}
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

// stepsAtOnce is how many steps of a series are evaluated without a look at who else is due: those of a
// long series over long windows take seconds.
const stepsAtOnce = 32

// slide moves the window over the steps. It returns how many samples the windows have, and how many
// there are in all of them together.
func (o *windows) slide() (total, read int64) {
	w, rng := &o.w, o.rng.Milliseconds()
	ts, vals := w.ts, o.out.vals
	lo, hi, seen := 0, 0, 0
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
		if i%stepsAtOnce == stepsAtOnce-1 {
			o.tally.run.turn.Yield()
		}
	}
	return total, read
}

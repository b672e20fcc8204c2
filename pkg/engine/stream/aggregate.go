package stream

import (
	"context"
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/kahansum"
)

// grouping puts series into the groups of an aggregation.
type grouping struct {
	names   []string // sorted
	without bool
	buf     []byte
	builder *labels.Builder
	index   map[uint64]int
}

func newGrouping(e *parser.AggregateExpr) *grouping {
	return &grouping{names: sortedNames(e.Grouping), without: e.Without, builder: labels.NewBuilder(labels.EmptyLabels()), index: map[uint64]int{}}
}

// of returns the number of l's group, and whether it is a new one.
func (g *grouping) of(l labels.Labels) (n int, fresh bool) {
	var key uint64
	switch {
	case g.without:
		key, g.buf = l.HashWithoutLabels(g.buf, g.names...)
	case len(g.names) > 0:
		key, g.buf = l.HashForLabels(g.buf, g.names...)
	}
	n, ok := g.index[key]
	if !ok {
		n = len(g.index)
		g.index[key] = n
	}
	return n, !ok
}

// labels returns the labels of l's group.
func (g *grouping) labels(l labels.Labels) labels.Labels {
	switch {
	case g.without:
		g.builder.Reset(l)
		g.builder.Del(g.names...)
		g.builder.Del(model.MetricNameLabel)
	case len(g.names) > 0:
		g.builder.Reset(l)
		g.builder.Keep(g.names...)
	default:
		return labels.EmptyLabels()
	}
	return g.builder.Labels()
}

// reserved says whether names or the like are among the labels that groups go by.
func (g *grouping) reserved() bool {
	for _, n := range g.names {
		if isReserved(n) {
			return true
		}
	}
	return g.without
}

// fold collects the values of one group at each step.
type fold interface {
	// add adds the values of one more series.
	add(vals []float64)
	// result sets the value of the group at each step.
	result(out []float64)
}

// aggregate is an aggregation that keeps some numbers for each group and step.
type aggregate struct {
	in     operator
	groups *grouping
	make   func() (fold, error)

	done  bool
	folds []fold
	lsets []labels.Labels
	drops []bool
	i     int
	out   series
}

func (a *aggregate) oneName() bool { return !a.groups.reserved() }

func (a *aggregate) next(ctx context.Context) (*series, error) {
	if !a.done {
		if err := a.drain(ctx); err != nil {
			return nil, err
		}
		a.done = true
	}
	if a.i == len(a.folds) {
		return nil, nil
	}
	a.out.lset, a.out.drop = a.lsets[a.i], a.drops[a.i]
	a.folds[a.i].result(a.out.vals)
	a.i++
	return &a.out, nil
}

func (a *aggregate) drain(ctx context.Context) error {
	for {
		s, err := a.in.next(ctx)
		if err != nil || s == nil {
			return err
		}
		if !some(s.vals) {
			continue
		}
		n, fresh := a.groups.of(s.lset)
		if fresh {
			f, err := a.make()
			if err != nil {
				return err
			}
			a.folds = append(a.folds, f)
			a.lsets = append(a.lsets, a.groups.labels(s.lset))
			a.drops = append(a.drops, false)
		}
		a.drops[n] = a.drops[n] || s.drop
		a.folds[n].add(s.vals)
	}
}

// sumFold is sum.
type sumFold struct{ sum, c []float64 }

func (f *sumFold) add(vals []float64) {
	sum, c := f.sum[:len(vals)], f.c[:len(vals)]
	for i, v := range vals {
		switch s := sum[i]; {
		case !present(v):
		case !present(s):
			sum[i] = v
		default:
			sum[i], c[i] = kahansum.Inc(v, s, c[i])
		}
	}
}

func (f *sumFold) result(out []float64) {
	for i, s := range f.sum {
		if present(s) {
			s += f.c[i]
		}
		out[i] = s
	}
}

// avgFold is avg. Like avgOver, it goes on with means where the sum overflows.
type avgFold struct {
	sum, c, n []float64
	mean      []float64 // where present, the sum has overflown
}

func (f *avgFold) add(vals []float64) {
	for i, v := range vals {
		if !present(v) {
			continue
		}
		if !present(f.sum[i]) {
			f.sum[i], f.n[i] = v, 1
			continue
		}
		f.n[i]++
		n := f.n[i]
		if f.mean == nil || !present(f.mean[i]) {
			sum, c := kahansum.Inc(v, f.sum[i], f.c[i])
			if !math.IsInf(sum, 0) {
				f.sum[i], f.c[i] = sum, c
				continue
			}
			if f.mean == nil {
				f.mean = make([]float64, len(f.sum))
				for j := range f.mean {
					f.mean[j] = absent()
				}
			}
			f.mean[i] = f.sum[i] / (n - 1)
			f.c[i] /= n - 1
		}
		q := (n - 1) / n
		f.mean[i], f.c[i] = kahansum.Inc(v/n, q*f.mean[i], q*f.c[i])
	}
}

func (f *avgFold) result(out []float64) {
	for i, s := range f.sum {
		switch {
		case !present(s):
			out[i] = s
		case f.mean != nil && present(f.mean[i]):
			out[i] = f.mean[i] + f.c[i]
		default:
			out[i] = s/f.n[i] + f.c[i]/f.n[i]
		}
	}
}

// extremeFold is min and max.
type extremeFold struct {
	best []float64
	max  bool
}

func (f *extremeFold) add(vals []float64) {
	for i, v := range vals {
		b := f.best[i]
		if present(v) && (!present(b) || math.IsNaN(b) || f.max && b < v || !f.max && b > v) {
			f.best[i] = v
		}
	}
}

func (f *extremeFold) result(out []float64) { copy(out, f.best) }

// countFold is count, and group if one is set.
type countFold struct {
	n   []float64
	one bool
}

func (f *countFold) add(vals []float64) {
	for i, v := range vals {
		if present(v) {
			f.n[i]++
		}
	}
}

func (f *countFold) result(out []float64) {
	for i, n := range f.n {
		switch {
		case n == 0:
			n = absent()
		case f.one:
			n = 1
		}
		out[i] = n
	}
}

// varianceFold is stdvar, and stddev if root is set.
type varianceFold struct {
	n, mean, sum []float64
	root         bool
}

func (f *varianceFold) add(vals []float64) {
	for i, v := range vals {
		if !present(v) {
			continue
		}
		f.n[i]++
		if f.n[i] == 1 {
			f.mean[i] = v
			if math.IsNaN(v) || math.IsInf(v, 0) {
				f.sum[i] = math.NaN()
			}
			continue
		}
		delta := v - f.mean[i]
		f.mean[i] += delta / f.n[i]
		f.sum[i] += delta * (v - f.mean[i])
	}
}

func (f *varianceFold) result(out []float64) {
	for i, n := range f.n {
		switch {
		case n == 0:
			out[i] = absent()
		case f.root:
			out[i] = math.Sqrt(f.sum[i] / n)
		default:
			out[i] = f.sum[i] / n
		}
	}
}

// foldOf returns what makes the folds of an aggregation, and whether there is one.
func (r *run) foldOf(op parser.ItemType, n int) (func() (fold, error), bool) {
	var err error
	// The first error is kept: the operator ends with it.
	take := func(get func(int) ([]float64, error)) []float64 {
		if err != nil {
			return nil
		}
		var vals []float64
		vals, err = get(n)
		return vals
	}
	var f func() fold
	switch op {
	case parser.SUM:
		f = func() fold { return &sumFold{take(r.blank), take(r.zeroes)} }
	case parser.AVG:
		f = func() fold { return &avgFold{sum: take(r.blank), c: take(r.zeroes), n: take(r.zeroes)} }
	case parser.MIN, parser.MAX:
		f = func() fold { return &extremeFold{take(r.blank), op == parser.MAX} }
	case parser.COUNT, parser.GROUP:
		f = func() fold { return &countFold{take(r.zeroes), op == parser.GROUP} }
	case parser.STDVAR, parser.STDDEV:
		f = func() fold { return &varianceFold{take(r.zeroes), take(r.zeroes), take(r.zeroes), op == parser.STDDEV} }
	default:
		return nil, false
	}
	return func() (fold, error) { made := f(); return made, err }, true
}

// aggregate plans an aggregation.
func (p *planner) aggregate(e *parser.AggregateExpr, sc scope) (operator, error) {
	g := newGrouping(e)
	if p.run.eval.settings.DelayedNames && g.reserved() {
		return nil, unsupported("grouping by names that are removed later")
	}
	f, ok := p.run.foldOf(e.Op, sc.n)
	if !ok {
		return p.rank(e, sc)
	}
	in, err := p.vector(e.Expr, sc.within(e))
	if err != nil {
		return nil, err
	}
	if k, ok := in.(interface{ keepNames() }); ok && !g.reserved() {
		k.keepNames()
	}
	o := &aggregate{in: in, groups: g, make: f}
	p.run.reserve(&o.out.vals, sc.n)
	return o, nil
}

// within returns the scope of what e aggregates.
func (s scope) within(e *parser.AggregateExpr) scope {
	s.fn, s.by, s.grouping = e.Op.String(), !e.Without, e.Grouping
	return s
}

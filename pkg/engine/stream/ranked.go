package stream

import (
	"context"
	"math"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
)

// ranked is topk and bottomk: the series of each group with the k highest or lowest values at each
// step.
type ranked struct {
	run    *run
	in     operator
	k      scalar
	groups *grouping
	bottom bool
	n      int

	done  bool
	rows  []ranking // of the series that may be in the result
	heaps [][]heap  // by group and step
	order []int     // of the rows in the result
	i     int
	out   series
}

// ranking is a series of the input of which some value was among the k, at least for a time.
type ranking struct {
	lset labels.Labels
	drop bool
	vals []float64 // made at the end
}

// entry is one value and its row.
type entry struct {
	v   float64
	row int32
}

// heap keeps the worst of the k entries in front, as container/heap would.
type heap struct {
	entries []entry
	bottom  bool
}

func (h *heap) Len() int { return len(h.entries) }
func (h *heap) Less(i, j int) bool {
	a, b := h.entries[i].v, h.entries[j].v
	return math.IsNaN(a) || !h.bottom && a < b || h.bottom && a > b
}
func (h *heap) Swap(i, j int) { h.entries[i], h.entries[j] = h.entries[j], h.entries[i] }

// offer adds e if it is among the best k. It says whether it did.
func (h *heap) offer(e entry, k int64) bool {
	if int64(len(h.entries)) < k {
		h.entries = append(h.entries, e)
		for j := len(h.entries) - 1; j > 0; {
			parent := (j - 1) / 2
			if !h.Less(j, parent) {
				break
			}
			h.Swap(parent, j)
			j = parent
		}
		return true
	}
	worst := h.entries[0].v
	if !(!h.bottom && worst < e.v || h.bottom && worst > e.v || math.IsNaN(worst) && !math.IsNaN(e.v)) {
		return false
	}
	h.entries[0] = e
	for i, n := 0, len(h.entries); ; {
		child := 2*i + 1
		if child >= n {
			break
		}
		if right := child + 1; right < n && h.Less(right, child) {
			child = right
		}
		if !h.Less(child, i) {
			break
		}
		h.Swap(i, child)
		i = child
	}
	return true
}

const entryBytes = 16

func (o *ranked) oneName() bool {
	n, ok := o.in.(interface{ oneName() bool })
	return ok && n.oneName()
}

func (o *ranked) next(ctx context.Context) (*series, error) {
	if !o.done {
		o.done = true
		if err := o.read(ctx); err != nil {
			return nil, err
		}
		if err := o.finish(); err != nil {
			return nil, err
		}
	}
	if o.i == len(o.order) {
		return nil, nil
	}
	row := &o.rows[o.order[o.i]]
	o.i++
	o.out = series{lset: row.lset, drop: row.drop, vals: row.vals}
	return &o.out, nil
}

func (o *ranked) read(ctx context.Context) error {
	ks, err := o.k.eval(ctx)
	if err != nil {
		return err
	}
	for _, k := range ks {
		if math.IsNaN(k) || k <= math.MinInt64 || k >= math.MaxInt64 {
			return unsupported("a k that is no number of series")
		}
	}
	for {
		s, err := o.in.next(ctx)
		if err != nil || s == nil {
			return err
		}
		if !some(s.vals) {
			continue
		}
		g, fresh := o.groups.of(s.lset)
		if fresh {
			steps := make([]heap, o.n)
			for i := range steps {
				steps[i].bottom = o.bottom
			}
			o.heaps = append(o.heaps, steps)
			if err := o.run.loan.Use(int64(o.n) * 32); err != nil {
				return err
			}
		}
		row, taken := int32(len(o.rows)), false
		for i, v := range s.vals {
			if k := int64(ks[i]); k >= 1 && present(v) {
				h := &o.heaps[g][i]
				before := len(h.entries)
				if !h.offer(entry{v, row}, k) {
					continue
				}
				taken = true
				if len(h.entries) > before {
					if err := o.holdEntry(); err != nil {
						return err
					}
				}
			}
		}
		if taken {
			o.rows = append(o.rows, ranking{lset: s.lset, drop: s.drop})
		}
	}
}

func (o *ranked) holdEntry() error {
	if err := o.run.hold(1); err != nil {
		return err
	}
	return o.run.loan.Use(entryBytes)
}

// finish makes the series of the result out of the heaps.
func (o *ranked) finish() error {
	for _, steps := range o.heaps {
		for i := range steps {
			h := &steps[i]
			if o.n == 1 && h.Len() > 1 {
				sort.Sort(sort.Reverse(h))
			}
			for _, e := range h.entries {
				row := &o.rows[e.row]
				if row.vals == nil {
					var err error
					if row.vals, err = o.run.blank(o.n); err != nil {
						return err
					}
					o.order = append(o.order, int(e.row))
				}
				row.vals[i] = e.v
			}
		}
	}
	return nil
}

// quantiles is the aggregation quantile. It holds the values of all series.
type quantiles struct {
	run    *run
	in     operator
	q      scalar
	groups *grouping
	param  parser.Expr

	done bool
	qs   []float64
	rows []quantileGroup
	i    int
	out  series
	work []float64
}

type quantileGroup struct {
	lset labels.Labels
	drop bool
	vals [][]float64
}

func (o *quantiles) oneName() bool { return !o.groups.reserved() }

func (o *quantiles) next(ctx context.Context) (*series, error) {
	if !o.done {
		o.done = true
		if err := o.read(ctx); err != nil {
			return nil, err
		}
	}
	if o.i == len(o.rows) {
		return nil, nil
	}
	g := &o.rows[o.i]
	o.i++
	o.out.lset, o.out.drop = g.lset, g.drop
	for step := range o.out.vals {
		o.work = o.work[:0]
		for _, vals := range g.vals {
			if v := vals[step]; present(v) {
				o.work = append(o.work, v)
			}
		}
		o.out.vals[step] = absent()
		if len(o.work) > 0 {
			o.out.vals[step] = quantile(o.qs[step], o.work)
		}
	}
	return &o.out, nil
}

func (o *quantiles) read(ctx context.Context) (err error) {
	if o.qs, err = o.q.eval(ctx); err != nil {
		return err
	}
	o.note()
	for {
		s, err := o.in.next(ctx)
		if err != nil || s == nil {
			return err
		}
		if !some(s.vals) {
			continue
		}
		n, fresh := o.groups.of(s.lset)
		if fresh {
			o.rows = append(o.rows, quantileGroup{lset: o.groups.labels(s.lset)})
		}
		kept, err := o.run.copied(s)
		if err != nil {
			return err
		}
		g := &o.rows[n]
		g.vals, g.drop = append(g.vals, kept.vals), g.drop || s.drop
	}
}

// note warns of quantiles that are none: the highest and the lowest, and one that is no number.
func (o *quantiles) note() {
	most, least, nan := -math.MaxFloat64, math.MaxFloat64, false
	if n, ok := o.param.(*parser.NumberLiteral); ok {
		most, least, nan = n.Val, n.Val, math.IsNaN(n.Val)
	} else {
		for _, q := range o.qs {
			most, least, nan = math.Max(most, q), math.Min(least, q), nan || math.IsNaN(q)
		}
	}
	warn := func(q float64) {
		o.run.annos.Add(annotations.NewInvalidQuantileWarning(q, o.param.PositionRange()))
	}
	if nan {
		warn(math.NaN())
	}
	if most > 1 {
		warn(most)
	}
	if least < 0 {
		warn(least)
	}
}

// quantile returns the q-quantile of values, at least one, which it sorts.
func quantile(q float64, values []float64) float64 {
	slices.Sort(values) // NaN comes first
	return quantileOf(q, values)
}

// quantileOf returns the q-quantile of values, at least one, which are sorted.
func quantileOf(q float64, values []float64) float64 {
	switch {
	case math.IsNaN(q):
		return math.NaN()
	case q < 0:
		return math.Inf(-1)
	case q > 1:
		return math.Inf(1)
	}
	n := float64(len(values))
	rank := q * (n - 1)
	lower := math.Max(0, math.Floor(rank))
	upper := math.Min(n-1, lower+1)
	weight := rank - math.Floor(rank)
	return values[int(lower)]*(1-weight) + values[int(upper)]*weight
}

// rank plans topk, bottomk and quantile.
func (p *planner) rank(e *parser.AggregateExpr, sc scope) (operator, error) {
	if e.Op != parser.TOPK && e.Op != parser.BOTTOMK && e.Op != parser.QUANTILE {
		return nil, unsupported("aggregation " + e.Op.String())
	}
	if fixed(e.Param) {
		return nil, unsupported("a parameter at a fixed time")
	}
	param, err := p.scalar(e.Param, sc)
	if err != nil {
		return nil, err
	}
	in, err := p.vector(e.Expr, sc.within(e))
	if err != nil {
		return nil, err
	}
	g := newGrouping(e)
	if e.Op == parser.QUANTILE {
		if k, ok := in.(interface{ keepNames() }); ok && !g.reserved() {
			k.keepNames()
		}
		o := &quantiles{run: p.run, in: in, q: param, groups: g, param: e.Param}
		p.run.reserve(&o.out.vals, sc.n)
		return o, nil
	}
	return &ranked{run: p.run, in: in, k: param, groups: g, bottom: e.Op == parser.BOTTOMK, n: sc.n}, nil
}

// fixed says whether a parameter looks at a fixed time. The Prometheus engine, which resolves such
// times for the expression of an aggregation alone, lets them move with the steps.
func fixed(e parser.Expr) bool {
	found := false
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			found = found || n.Timestamp != nil || n.StartOrEnd != 0
		case *parser.SubqueryExpr:
			found = found || n.Timestamp != nil || n.StartOrEnd != 0
		}
		return nil
	})
	return found
}

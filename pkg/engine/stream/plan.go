package stream

import (
	"context"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
)

// planner makes operators of an expression.
type planner struct {
	run *run
}

// scope is what the parents of an expression say about it.
type scope struct {
	grid
	fn       string // the function or aggregation around a selector
	by       bool
	grouping []string

	ranged bool  // it is evaluated over a range, be it of one step
	nested bool  // in a subquery, whose samples are counted by the function around it
	repeat int64 // 0, or for how many steps of the query its only step counts
}

func (s scope) tally(r *run) tally {
	t := tally{run: r, steps: 1}
	switch {
	case s.nested:
		t.steps, t.single = 0, true
	case s.repeat > 0:
		t.steps, t.single = s.repeat, true
	}
	return t
}

// vector plans an expression of instant vectors. Errors: ErrUnsupported.
func (p *planner) vector(e parser.Expr, sc scope) (operator, error) {
	switch e := e.(type) {
	case *parser.ParenExpr:
		return p.vector(e.Expr, sc)
	case *parser.StepInvariantExpr:
		return p.invariant(e, sc)
	case *parser.VectorSelector:
		return p.selector(e, sc, false)
	case *parser.AggregateExpr:
		return p.aggregate(e, sc)
	case *parser.Call:
		return p.call(e, sc)
	case *parser.BinaryExpr:
		return p.binary(e, sc)
	case *parser.UnaryExpr:
		return p.unary(e, sc)
	}
	return nil, unsupported("this kind of expression")
}

func (p *planner) selector(e *parser.VectorSelector, sc scope, times bool) (operator, error) {
	l, w, err := p.leafOf(e, sc, p.run.lookback)
	if err != nil {
		return nil, err
	}
	l.stale = true
	o := &instants{leaf: l, when: w, times: times, names: newUnique(p.run, l)}
	o.crew = p.crewOf(l, sc.n, func() *worker { return &worker{leaf: l, values: o.fill} })
	return o, nil
}

// counterNames notes series of a rate whose names are not those of counters.
func (p *planner) counterNames(args parser.Expressions) func(labels.Labels) {
	last := ""
	return func(l labels.Labels) {
		name := l.Get(model.MetricNameLabel)
		if name == last || name == "" {
			return
		}
		last = name
		for _, suffix := range []string{"_total", "_sum", "_count", "_bucket"} {
			if strings.HasSuffix(name, suffix) {
				return
			}
		}
		p.run.annos.Add(annotations.NewPossibleNonCounterInfo(name, args[0].PositionRange()))
	}
}

// invariant is an expression that has the same value at all steps. It is evaluated at the first.
type invariant struct {
	in  operator
	out series
}

func (o *invariant) oneName() bool {
	n, ok := o.in.(interface{ oneName() bool })
	return ok && n.oneName()
}

func (o *invariant) next(ctx context.Context) (*series, error) {
	s, err := o.in.next(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	o.out.lset, o.out.drop = s.lset, s.drop
	for i := range o.out.vals {
		o.out.vals[i] = s.vals[0]
	}
	return &o.out, nil
}

// first returns the scope of an expression that is evaluated at the first step for all.
func (s scope) first() scope {
	if !s.nested {
		s.repeat = max(s.repeat, 1) * int64(s.n)
	}
	s.n, s.ranged = 1, false
	return s
}

func (p *planner) invariant(e *parser.StepInvariantExpr, sc scope) (operator, error) {
	in, err := p.vector(e.Expr, sc.first())
	if err != nil {
		return nil, err
	}
	o := &invariant{in: in}
	p.run.reserve(&o.out.vals, sc.n)
	return o, nil
}

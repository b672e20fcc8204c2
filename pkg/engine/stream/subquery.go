package stream

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
)

// subquery is an expression at steps of its own, whose values are samples to what is around it.
type subquery struct {
	run  *run
	grid grid
	in   operator
	samples
}

func (o *subquery) oneName() bool {
	n, ok := o.in.(interface{ oneName() bool })
	return ok && n.oneName()
}

// next reads the next series that has samples; drop says whether its name is to be removed.
func (o *subquery) next(ctx context.Context) (lset labels.Labels, drop, ok bool, err error) {
	for {
		if err := o.run.interrupted(ctx); err != nil {
			return labels.EmptyLabels(), false, false, err
		}
		s, err := o.in.next(ctx)
		if err != nil || s == nil {
			return labels.EmptyLabels(), false, false, err
		}
		o.ts, o.vs = o.ts[:0], o.vs[:0]
		for i, v := range s.vals {
			if present(v) {
				o.ts, o.vs = append(o.ts, o.grid.at(i)), append(o.vs, v)
			}
		}
		if len(o.ts) > 0 {
			return s.lset, s.drop, true, nil
		}
	}
}

// subquery plans a subquery and returns the times at which its windows end.
func (p *planner) subquery(e *parser.SubqueryExpr, sc scope) (*subquery, when, error) {
	w := whenOf(sc.grid, e.Timestamp, e.OriginalOffset.Milliseconds())
	rng, step := e.Range.Milliseconds(), e.Step.Milliseconds()
	if step == 0 {
		step = p.run.eval.settings.SubqueryStep(rng)
	}
	first, last := w.ref(0)-rng, w.ref(sc.n-1)
	// The first of its steps, which are multiples, behind the start of the first window.
	start := step * (first / step)
	if start <= first {
		start += step
	}
	inner := scope{grid: grid{start: start, step: step, n: max(int((last-start)/step)+1, 0)}, nested: true, ranged: start != last}
	if last < start || inner.n == 0 {
		return nil, w, unsupported("subqueries without a step")
	}
	in, err := p.vector(e.Expr, inner)
	return &subquery{run: p.run, grid: inner.grid, in: in}, w, err
}

// rangeCall plans a function of a range vector.
func (p *planner) rangeCall(e *parser.Call, sc scope) (operator, error) {
	settings := p.run.eval.settings
	switch e.Func.Name {
	case "rate", "irate", "increase", "resets":
		if settings.StartTimes || settings.TypedNames {
			return nil, unsupported("start timestamps and typed names")
		}
	}
	o := &windows{}
	args := append(parser.Expressions(nil), e.Args...)
	var params []scalar
	for i, a := range e.Args {
		var err error
		switch a := a.(type) {
		case *parser.MatrixSelector:
			var l *leaf
			if l, o.when, err = p.leafOf(a.VectorSelector.(*parser.VectorSelector), sc, a.Range.Milliseconds()); err == nil {
				o.leaf, o.tally, o.rng = l, l.tally, a.Range
				o.crew = p.crewOf(l, sc.n, o.worker)
			}
		case *parser.SubqueryExpr:
			var s *subquery
			if s, o.when, err = p.subquery(a, sc); err == nil {
				o.sub, o.tally, o.rng = s, sc.tally(p.run), a.Range
				o.tally.unread = true
				p.run.reserve(&o.vals, sc.n)
			}
			// What the Prometheus engine puts in the place of a subquery has no text.
			args[i] = &parser.MatrixSelector{Range: a.Range, VectorSelector: &parser.VectorSelector{}}
		default:
			var s scalar
			if s, err = p.scalar(a, sc); err == nil {
				params = append(params, s)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case o.leaf != nil:
		o.names = newUnique(p.run, o.leaf)
	case o.sub != nil:
		o.names = newUnique(p.run, o.sub)
	default:
		return nil, unsupported("function " + e.Func.Name)
	}
	var ok bool
	if o.kernel, ok = kernelOf(e.Func.Name, o.rng); !ok && e.Func.Name == "quantile_over_time" {
		o.params = params
		o.kernel = quantileOver(p.run, args[0], &o.values)
	} else if !ok {
		call := promql.FunctionCalls[e.Func.Name]
		if call == nil {
			return nil, unsupported("function " + e.Func.Name)
		}
		o.params = params
		o.kernel.value = called(p.run, call, args, &o.values)
		if o.crew != nil {
			o.crew.single = true
		}
	}
	if o.kernel.counter {
		o.noted = p.counterNames(args)
	}
	if e.Func.Name == "absent_over_time" {
		o.names.keep, o.names.hashed = true, false
		return p.missing(o, absentLabels(args[0]), sc.n), nil
	}
	return o, nil
}

// called is a function of the Prometheus engine.
func called(r *run, call promql.FunctionCall, args parser.Expressions, params *[][]float64) func(*window) float64 {
	var (
		enh     promql.EvalNodeHelper
		matrix  = promql.Matrix{{}}
		vectors []promql.Vector
		points  []promql.FPoint
	)
	return func(w *window) float64 {
		points = points[:0]
		for i := w.lo; i < w.hi; i++ {
			points = append(points, promql.FPoint{T: w.ts[i], F: w.vs[i]})
		}
		vectors = vectors[:0]
		for _, p := range *params {
			vectors = append(vectors, promql.Vector{{F: p[w.step]}})
		}
		matrix[0] = promql.Series{Metric: w.lset, Floats: points}
		enh.Ts = w.at
		out, notes := invoke(call, vectors, matrix, args, &enh)
		mergeNotes(r, notes)
		enh.Out = out[:0]
		if len(out) == 0 {
			return absent()
		}
		return out[0].F
	}
}

func mergeNotes(r *run, notes annotations.Annotations) {
	if len(notes) > 0 {
		r.annos.Merge(notes)
	}
}

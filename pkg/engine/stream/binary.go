package stream

import (
	"context"

	"github.com/prometheus/prometheus/promql/parser"
)

// binary plans an operator of two vectors, or of a vector and a scalar.
func (p *planner) binary(e *parser.BinaryExpr, sc scope) (operator, error) {
	sc.fn = ""
	left, right := e.LHS.Type(), e.RHS.Type()
	switch {
	case left == parser.ValueTypeVector && right == parser.ValueTypeVector:
		return p.match(e, sc)
	case left == parser.ValueTypeVector:
		return p.withScalar(e, e.LHS, e.RHS, sc, false)
	default:
		return p.withScalar(e, e.RHS, e.LHS, sc, true)
	}
}

// element returns what an operator makes of two values, absent where a comparison does not hold.
// Comparisons yield the left value, 0 or 1 if asBool.
func element(op parser.ItemType, asBool bool) func(l, r float64) float64 {
	if f := arithmetic(op); f != nil {
		return f
	}
	keep := comparison(op)
	switch {
	case keep == nil:
		return nil
	case asBool:
		return func(l, r float64) float64 { return oneIf(keep(l, r)) }
	}
	return func(l, r float64) float64 {
		if keep(l, r) {
			return l
		}
		return absent()
	}
}

// renames says whether results of an operator are of another meaning than its left side.
func renames(op parser.ItemType, asBool bool) bool { return asBool || arithmetic(op) != nil }

// withScalar plans an operator of a vector and a scalar. swapped is set if the scalar stands on the
// left.
func (p *planner) withScalar(e *parser.BinaryExpr, vector, number parser.Expr, sc scope, swapped bool) (operator, error) {
	f := element(e.Op, e.ReturnBool)
	if f == nil {
		return nil, unsupported("operator " + e.Op.String() + " with a scalar")
	}
	in, err := p.vector(vector, sc)
	if err != nil {
		return nil, err
	}
	s, err := p.scalar(number, sc)
	if err != nil {
		return nil, err
	}
	keep := comparison(e.Op)
	change := func(vals []float64, params [][]float64) {
		for i, v := range vals {
			if !present(v) {
				continue
			}
			switch {
			case !swapped:
				vals[i] = f(v, params[0][i])
			case keep != nil && !e.ReturnBool:
				if !keep(params[0][i], v) {
					vals[i] = absent()
				}
			default:
				vals[i] = f(params[0][i], v)
			}
		}
	}
	m := &mapped{in: in, names: newUnique(p.run, in), params: []scalar{s}, change: change}
	if !renames(e.Op, e.ReturnBool) {
		return &filtered{m}, nil
	}
	return m, nil
}

// filtered is mapped for what leaves the names of series.
type filtered struct{ m *mapped }

func (o *filtered) oneName() bool {
	n, ok := o.m.in.(interface{ oneName() bool })
	return ok && n.oneName()
}

func (o *filtered) next(ctx context.Context) (*series, error) {
	if err := o.m.prepare(ctx); err != nil {
		return nil, err
	}
	s, err := o.m.in.next(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	o.m.change(s.vals, o.m.values)
	return s, nil
}

// unary plans a sign.
func (p *planner) unary(e *parser.UnaryExpr, sc scope) (operator, error) {
	in, err := p.vector(e.Expr, sc)
	if err != nil || e.Op != parser.SUB {
		return in, err
	}
	return &mapped{in: in, names: newUnique(p.run, in), change: each(func(v float64) float64 { return -v })}, nil
}

package stream

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/promql/parser"
)

// known is a scalar of which the value at each step is known.
type known struct {
	run *run
	n   int
	at  func(step int) float64
}

func (k known) eval(context.Context) ([]float64, error) {
	out, err := k.run.keep(k.n)
	for i := range out {
		out[i] = k.at(i)
	}
	return out, err
}

// constantly is the same value at all of n steps.
func (r *run) constantly(v float64, n int) known {
	return known{r, n, func(int) float64 { return v }}
}

// scalar plans an expression of scalars. Errors: ErrUnsupported.
func (p *planner) scalar(e parser.Expr, sc scope) (scalar, error) {
	switch e := e.(type) {
	case *parser.ParenExpr:
		return p.scalar(e.Expr, sc)
	case *parser.StepInvariantExpr:
		in, err := p.scalar(e.Expr, sc.first())
		return &spread{p.run, in, sc.n}, err
	case *parser.NumberLiteral:
		return p.run.constantly(e.Val, sc.n), nil
	case *parser.UnaryExpr:
		in, err := p.scalar(e.Expr, sc)
		if e.Op != parser.SUB {
			return in, err
		}
		return &combined{[]scalar{in}, func(v []float64) float64 { return -v[0] }}, err
	case *parser.BinaryExpr:
		left, err := p.scalar(e.LHS, sc)
		if err != nil {
			return nil, err
		}
		right, err := p.scalar(e.RHS, sc)
		op := scalarOp(e.Op)
		if err == nil && op == nil {
			err = unsupported("operator " + e.Op.String() + " of scalars")
		}
		return &combined{[]scalar{left, right}, func(v []float64) float64 { return op(v[0], v[1]) }}, err
	case *parser.Call:
		return p.scalarCall(e, sc)
	}
	return nil, unsupported("this kind of scalar")
}

func (p *planner) scalarCall(e *parser.Call, sc scope) (scalar, error) {
	switch e.Func.Name {
	case "time":
		return known{p.run, sc.n, func(i int) float64 { return float64(sc.at(i)) / 1000 }}, nil
	case "pi":
		return p.run.constantly(math.Pi, sc.n), nil
	case "scalar":
		sc.fn = e.Func.Name
		in, err := p.vector(e.Args[0], sc)
		return &only{p.run, in, sc.n}, err
	}
	return nil, unsupported("function " + e.Func.Name)
}

// spread is a scalar that has the value of the first step at all steps.
type spread struct {
	run *run
	in  scalar
	n   int
}

func (o *spread) eval(ctx context.Context) ([]float64, error) {
	vals, err := o.in.eval(ctx)
	if err != nil {
		return nil, err
	}
	return o.run.constantly(vals[0], o.n).eval(ctx)
}

// combined is a function of scalars.
type combined struct {
	in []scalar
	f  func([]float64) float64
}

func (o *combined) eval(ctx context.Context) ([]float64, error) {
	args := make([][]float64, len(o.in))
	for i, s := range o.in {
		var err error
		if args[i], err = s.eval(ctx); err != nil {
			return nil, err
		}
	}
	out, row := args[0], make([]float64, len(args))
	for step := range out {
		for i := range args {
			row[i] = args[i][step]
		}
		out[step] = o.f(row)
	}
	return out, nil
}

// only is scalar: the value where a single series has one, else NaN.
type only struct {
	run *run
	in  operator
	n   int
}

func (o *only) eval(ctx context.Context) ([]float64, error) {
	out, err := o.run.constantly(math.NaN(), o.n).eval(ctx)
	if err != nil {
		return nil, err
	}
	seen := make([]bool, o.n)
	for {
		s, err := o.in.next(ctx)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return out, nil
		}
		for i, v := range s.vals {
			switch {
			case !present(v):
			case seen[i]:
				out[i] = math.NaN()
			default:
				out[i], seen[i] = v, true
			}
		}
	}
}

// scalarOp returns an operator on scalars, nil if there is none.
func scalarOp(op parser.ItemType) func(l, r float64) float64 {
	if f := arithmetic(op); f != nil {
		return f
	}
	if keep := comparison(op); keep != nil {
		return func(l, r float64) float64 { return oneIf(keep(l, r)) }
	}
	return nil
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func arithmetic(op parser.ItemType) func(l, r float64) float64 {
	switch op {
	case parser.ADD:
		return func(l, r float64) float64 { return l + r }
	case parser.SUB:
		return func(l, r float64) float64 { return l - r }
	case parser.MUL:
		return func(l, r float64) float64 { return l * r }
	case parser.DIV:
		return func(l, r float64) float64 { return l / r }
	case parser.POW:
		return math.Pow
	case parser.MOD:
		return math.Mod
	case parser.ATAN2:
		return math.Atan2
	}
	return nil
}

func comparison(op parser.ItemType) func(l, r float64) bool {
	switch op {
	case parser.EQLC:
		return func(l, r float64) bool { return l == r }
	case parser.NEQ:
		return func(l, r float64) bool { return l != r }
	case parser.GTR:
		return func(l, r float64) bool { return l > r }
	case parser.LSS:
		return func(l, r float64) bool { return l < r }
	case parser.GTE:
		return func(l, r float64) bool { return l >= r }
	case parser.LTE:
		return func(l, r float64) bool { return l <= r }
	}
	return nil
}

package stream

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
)

// stepwise calls a function of the Prometheus engine at each step, with the vectors of its arguments.
type stepwise struct {
	table
	call promql.FunctionCall
	args parser.Expressions
	grid grid
	in   []stepArg
	done bool
}

// stepArg is one argument: a vector, a scalar, or neither for a text.
type stepArg struct {
	vector operator
	scalar scalar
	rows   []series
	values []float64
}

// stepwise plans a function of vectors and scalars that has no operator of its own.
func (p *planner) stepwise(e *parser.Call, sc scope) (operator, error) {
	switch e.Func.Name {
	case "sort", "sort_desc", "sort_by_label", "sort_by_label_desc":
		if sc.ranged { // the order is not seen
			in, err := p.vector(e.Args[0], sc)
			p.run.annos.Add(annotations.NewSortInRangeQueryWarning(e.PositionRange())) // of several, the outermost is told of
			return in, err
		}
	case "histogram_fraction", "histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar":
		if p.run.eval.settings.DelayedNames {
			return nil, unsupported("function " + e.Func.Name)
		}
	default:
		return nil, unsupported("function " + e.Func.Name)
	}
	o := &stepwise{table: newTable(p.run, sc.n), call: promql.FunctionCalls[e.Func.Name], args: e.Args, grid: sc.grid}
	for _, a := range e.Args {
		var arg stepArg
		var err error
		switch a.Type() {
		case parser.ValueTypeVector:
			arg.vector, err = p.vector(a, sc)
		case parser.ValueTypeScalar:
			arg.scalar, err = p.scalar(a, sc)
		}
		if err != nil {
			return nil, err
		}
		o.in = append(o.in, arg)
	}
	return o, nil
}

func (o *stepwise) next(ctx context.Context) (*series, error) {
	if o.done {
		return o.pop(), nil
	}
	o.done = true
	for i := range o.in {
		if err := o.in[i].read(ctx, o.run); err != nil {
			return nil, err
		}
	}
	vectors := make([]promql.Vector, len(o.in))
	var enh promql.EvalNodeHelper
	for step := range o.grid.n {
		if err := o.run.interrupted(ctx); err != nil {
			return nil, err
		}
		for i := range o.in {
			vectors[i] = o.in[i].at(step, o.grid.at(step), vectors[i][:0])
		}
		enh.Ts = o.grid.at(step)
		out, notes := invoke(o.call, vectors, nil, o.args, &enh)
		o.run.annos.Merge(notes)
		for _, s := range out {
			row, err := o.row(s.Metric, s.DropName)
			if err != nil {
				return nil, err
			}
			if present(row.vals[step]) {
				return nil, errConflict
			}
			row.vals[step] = s.F
		}
		enh.Out = out[:0]
	}
	return o.pop(), nil
}

// read reads the whole argument.
func (a *stepArg) read(ctx context.Context, r *run) (err error) {
	if a.scalar != nil {
		a.values, err = a.scalar.eval(ctx)
		return err
	}
	for a.vector != nil {
		s, err := a.vector.next(ctx)
		if err != nil || s == nil {
			return err
		}
		kept, err := r.copied(s)
		if err != nil {
			return err
		}
		a.rows = append(a.rows, kept)
	}
	return nil
}

// at appends the vector of a step.
func (a *stepArg) at(step int, ts int64, vec promql.Vector) promql.Vector {
	if a.scalar != nil {
		return append(vec, promql.Sample{F: a.values[step], T: ts, Metric: labels.EmptyLabels()})
	}
	for i := range a.rows {
		if v := a.rows[i].vals[step]; present(v) {
			vec = append(vec, promql.Sample{Metric: a.rows[i].lset, F: v, T: ts, DropName: a.rows[i].drop})
		}
	}
	return vec
}

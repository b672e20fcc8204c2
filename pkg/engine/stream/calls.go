package stream

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// valueFunc returns what a function makes of one value, whatever the step; nil if name is none of
// that kind.
func valueFunc(name string) func(float64) float64 {
	switch name {
	case "abs":
		return math.Abs
	case "ceil":
		return math.Ceil
	case "floor":
		return math.Floor
	case "exp":
		return math.Exp
	case "sqrt":
		return math.Sqrt
	case "ln":
		return math.Log
	case "log2":
		return math.Log2
	case "log10":
		return math.Log10
	case "rad":
		return func(v float64) float64 { return v * math.Pi / 180 }
	case "deg":
		return func(v float64) float64 { return v * 180 / math.Pi }
	case "sgn":
		return sign
	}
	if f := trigonometry(name); f != nil {
		return f
	}
	if f := dateFunc(name); f != nil {
		return func(v float64) float64 { return f(time.Unix(int64(v), 0).UTC()) }
	}
	return nil
}

func sign(v float64) float64 {
	switch {
	case v < 0:
		return -1
	case v > 0:
		return 1
	}
	return v
}

func trigonometry(name string) func(float64) float64 {
	return map[string]func(float64) float64{
		"sin": math.Sin, "cos": math.Cos, "tan": math.Tan, "asin": math.Asin, "acos": math.Acos, "atan": math.Atan,
		"sinh": math.Sinh, "cosh": math.Cosh, "tanh": math.Tanh, "asinh": math.Asinh, "acosh": math.Acosh, "atanh": math.Atanh,
	}[name]
}

// dateFunc returns what a function says of a time; nil if name is none of that kind.
func dateFunc(name string) func(time.Time) float64 {
	return map[string]func(time.Time) float64{
		"days_in_month": func(t time.Time) float64 {
			return float64(32 - time.Date(t.Year(), t.Month(), 32, 0, 0, 0, 0, time.UTC).Day())
		},
		"day_of_month": func(t time.Time) float64 { return float64(t.Day()) },
		"day_of_week":  func(t time.Time) float64 { return float64(t.Weekday()) },
		"day_of_year":  func(t time.Time) float64 { return float64(t.YearDay()) },
		"hour":         func(t time.Time) float64 { return float64(t.Hour()) },
		"minute":       func(t time.Time) float64 { return float64(t.Minute()) },
		"month":        func(t time.Time) float64 { return float64(t.Month()) },
		"year":         func(t time.Time) float64 { return float64(t.Year()) },
	}[name]
}

// mapped changes the values of each series and takes its name.
type mapped struct {
	in     operator
	names  *unique
	params []scalar
	// change changes values; params are the scalars of the call.
	change func(vals []float64, params [][]float64)

	ready  bool
	values [][]float64
}

func (o *mapped) oneName() bool { return !o.names.keep }
func (o *mapped) keepNames()    { o.names.keep = true }

// prepare evaluates the scalars of the call, once.
func (o *mapped) prepare(ctx context.Context) error {
	if o.ready {
		return nil
	}
	o.ready = true
	for _, p := range o.params {
		vals, err := p.eval(ctx)
		if err != nil {
			return err
		}
		o.values = append(o.values, vals)
	}
	return nil
}

func (o *mapped) next(ctx context.Context) (*series, error) {
	if err := o.prepare(ctx); err != nil {
		return nil, err
	}
	for {
		s, err := o.in.next(ctx)
		if err != nil || s == nil {
			return nil, err
		}
		o.change(s.vals, o.values)
		if !some(s.vals) {
			continue
		}
		if err := o.names.unname(s); err != nil {
			return nil, err
		}
		return s, nil
	}
}

// each returns a change that makes f of each value.
func each(f func(float64) float64) func([]float64, [][]float64) {
	return func(vals []float64, _ [][]float64) {
		for i, v := range vals {
			if present(v) {
				vals[i] = f(v)
			}
		}
	}
}

// clamped bounds values from below by low and from above by high; where they cross, nothing is left.
func clamped(low, high func(params [][]float64, step int) float64) func([]float64, [][]float64) {
	return func(vals []float64, params [][]float64) {
		for i, v := range vals {
			if !present(v) {
				continue
			}
			least, most := low(params, i), high(params, i)
			if most < least {
				vals[i] = absent()
				continue
			}
			vals[i] = math.Max(least, math.Min(most, v))
		}
	}
}

func rounded(vals []float64, params [][]float64) {
	for i, v := range vals {
		if !present(v) {
			continue
		}
		nearest := 1.0
		if len(params) > 0 {
			nearest = params[0][i]
		}
		inverse := 1.0 / nearest
		vals[i] = math.Floor(v*inverse+0.5) / inverse
	}
}

// changeOf returns what a function makes of values, nil if it is not of that kind.
func changeOf(name string) func([]float64, [][]float64) {
	param := func(n int) func([][]float64, int) float64 {
		return func(params [][]float64, step int) float64 { return params[n][step] }
	}
	bound := func(sign int) func([][]float64, int) float64 {
		return func([][]float64, int) float64 { return math.Inf(sign) }
	}
	switch name {
	case "clamp":
		return clamped(param(0), param(1))
	case "clamp_min":
		return clamped(param(0), bound(1))
	case "clamp_max":
		return clamped(bound(-1), param(0))
	case "round":
		return rounded
	}
	if f := valueFunc(name); f != nil {
		return each(f)
	}
	return nil
}

// call plans a function that yields a vector.
func (p *planner) call(e *parser.Call, sc scope) (operator, error) {
	sc.fn = e.Func.Name
	for _, a := range e.Args {
		if a.Type() == parser.ValueTypeMatrix {
			return p.rangeCall(e, sc)
		}
	}
	switch e.Func.Name {
	case "vector":
		return p.constant(e.Args[0], sc)
	case "timestamp":
		return p.timestamp(e, sc)
	case "absent":
		in, err := p.vector(e.Args[0], sc)
		return p.missing(in, absentLabels(e.Args[0]), sc.n), err
	case "label_replace", "label_join":
		return p.relabel(e, sc)
	case "histogram_quantile":
		return p.bucketQuantile(e, sc)
	}
	if f := dateFunc(e.Func.Name); f != nil && len(e.Args) == 0 {
		return &single{in: known{p.run, sc.n, func(i int) float64 { return f(time.Unix(sc.at(i)/1000, 0).UTC()) }}}, nil
	}
	if change := changeOf(e.Func.Name); change != nil {
		return p.mapped(e, sc, change)
	}
	return p.stepwise(e, sc)
}

func (p *planner) mapped(e *parser.Call, sc scope, change func([]float64, [][]float64)) (operator, error) {
	in, err := p.vector(e.Args[0], sc)
	if err != nil {
		return nil, err
	}
	o := &mapped{in: in, names: newUnique(p.run, in), change: change}
	for _, a := range e.Args[1:] {
		s, err := p.scalar(a, sc)
		if err != nil {
			return nil, err
		}
		o.params = append(o.params, s)
	}
	return o, nil
}

// single is a scalar as a vector of one series without labels.
type single struct {
	in   scalar
	done bool
}

func (o *single) next(ctx context.Context) (*series, error) {
	if o.done {
		return nil, nil
	}
	o.done = true
	vals, err := o.in.eval(ctx)
	return &series{vals: vals}, err
}

func (p *planner) constant(e parser.Expr, sc scope) (operator, error) {
	s, err := p.scalar(e, sc)
	return &single{in: s}, err
}

// timestamp plans the times of samples: those of a selector, and else those of the steps.
func (p *planner) timestamp(e *parser.Call, sc scope) (operator, error) {
	if vs, ok := e.Args[0].(*parser.VectorSelector); ok {
		if vs.Timestamp != nil && vs.OriginalOffset != 0 {
			return nil, unsupported("the time of samples at a fixed time with an offset")
		}
		return p.selector(vs, sc, true)
	}
	return p.mapped(e, sc, func(vals []float64, _ [][]float64) {
		for i, v := range vals {
			if present(v) {
				vals[i] = float64(sc.at(i)) / 1000
			}
		}
	})
}

// missing is absent and absent_over_time: 1 where no series has a value.
type missing struct {
	in   operator
	done bool
	out  series
}

func (o *missing) next(ctx context.Context) (*series, error) {
	if o.done {
		return nil, nil
	}
	o.done = true
	for i := range o.out.vals {
		o.out.vals[i] = 1
	}
	for {
		s, err := o.in.next(ctx)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return &o.out, nil
		}
		for i, v := range s.vals {
			if present(v) {
				o.out.vals[i] = absent()
			}
		}
	}
}

func (p *planner) missing(in operator, lset labels.Labels, n int) *missing {
	o := &missing{in: in, out: series{lset: lset, drop: true}}
	p.run.reserve(&o.out.vals, n)
	return o
}

// absentLabels returns what a selector says of the labels of series that are not there.
func absentLabels(e parser.Expr) labels.Labels {
	if m, ok := e.(*parser.MatrixSelector); ok {
		e = m.VectorSelector
	}
	vs, ok := e.(*parser.VectorSelector)
	if !ok {
		return labels.EmptyLabels()
	}
	b := labels.NewBuilder(labels.EmptyLabels())
	seen := map[string]bool{}
	for _, m := range vs.LabelMatchers {
		switch {
		case m.Name == model.MetricNameLabel:
		case m.Type == labels.MatchEqual && !seen[m.Name]:
			b.Set(m.Name, m.Value)
			seen[m.Name] = true
		default:
			b.Del(m.Name)
		}
	}
	return b.Labels()
}

// Package stream owns Amphora's own evaluation of PromQL: operators that pass on one series at a
// time, with its values at all steps of the query, so that a query holds its groups in memory and not
// all the series it reads. Its results are bit for bit those of the Prometheus engine.
//
// It covers queries over floats. Anything else, and any error in the data that Prometheus reports by
// the step at which it occurs, is ErrUnsupported: the caller then uses the Prometheus engine.
package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

// ErrUnsupported says that the Prometheus engine must evaluate the query. Errors that wrap it name
// the reason.
var ErrUnsupported = errors.New("not evaluated series by series")

func unsupported(what string) error { return fmt.Errorf("%w: %s", ErrUnsupported, what) }

// The reasons that data gives for ErrUnsupported.
var (
	errHistograms = unsupported("native histograms")
	errConflict   = unsupported("several values of one series at one step")
)

// phase is the name of what ends with the context, as errors of the Prometheus engine have it.
const phase = "expression evaluation"

// Chunked is a storage.Series that can append its chunks to buf, sorted by time; they should not
// overlap. Samples outside of mint <= t <= maxt are not part of the series. Without ok it has to be
// read by its iterator.
type Chunked interface {
	Chunks(buf []chunks.Meta) (metas []chunks.Meta, mint, maxt int64, ok bool)
}

// Settings are the switches of the language.
type Settings struct {
	MaxSamples   int  // values that one query may hold at the same time
	DelayedNames bool // metric names are removed from the result, not by the functions
	StartTimes   bool // rates look at start timestamps
	TypedNames   bool // annotations look at types and units
	SubqueryStep func(rangeMillis int64) int64
}

// Evaluator plans queries and keeps the memory that they use again. It is safe for use by many
// goroutines.
type Evaluator struct {
	settings Settings
	values   sync.Pool // of *[]float64
	points   sync.Pool // of *[]promql.FPoint
}

// New returns an evaluator.
func New(s Settings) *Evaluator { return &Evaluator{settings: s} }

// Query is a preprocessed expression and the times to evaluate it at, in milliseconds.
type Query struct {
	Expr             parser.Expr
	Start, End, Step int64 // Step 0: an instant
	Lookback         time.Duration
}

// Plan is a query that can be run, once.
type Plan struct {
	run    *run
	root   operator
	scalar scalar // instead of root
}

// Plan returns how q is evaluated. Errors: ErrUnsupported.
func (e *Evaluator) Plan(q Query) (*Plan, error) {
	g := grid{start: q.Start, step: q.Step, n: 1}
	if q.Step > 0 {
		g.n = int((q.End-q.Start)/q.Step) + 1
	} else {
		g.step = 1
	}
	r := &run{eval: e, lookback: q.Lookback.Milliseconds(), instant: q.Step == 0}
	p := planner{run: r}
	plan := &Plan{run: r}
	var err error
	switch q.Expr.Type() {
	case parser.ValueTypeScalar:
		plan.scalar, err = p.scalar(q.Expr, scope{grid: g, ranged: q.Start != q.End})
	case parser.ValueTypeVector:
		plan.root, err = p.vector(q.Expr, scope{grid: g, ranged: q.Start != q.End})
	default:
		err = unsupported("results of type " + string(q.Expr.Type()))
	}
	if err != nil {
		return nil, err
	}
	r.grid = g
	return plan, nil
}

// Loan is what a query holds of the process's memory. Use is called by one goroutine at a time.
type Loan interface {
	Use(bytes int64) error
}

// Run evaluates the plan over q, which the caller closes after the result is used no more. Instants
// yield a Vector or Scalar, others a sorted Matrix. Errors: ErrUnsupported, those of the Prometheus
// engine, of q and of loan.
func (p *Plan) Run(ctx context.Context, q storage.Querier, samples *stats.QuerySamples, loan Loan) (v parser.Value, notes annotations.Annotations, err error) {
	defer refused(&err)
	r := p.run
	r.samples, r.loan, r.turn = samples, loan, turns.Of(ctx)
	samples.InitStepTracking(r.grid.start, r.grid.at(r.grid.n-1), r.grid.step)
	if err := r.allot(); err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, c := range r.crews {
			c.dismiss()
		}
	}()
	for _, l := range r.leaves {
		l.set = q.Select(ctx, false, &l.hints, l.matchers...)
	}
	if p.scalar != nil {
		v, err = p.runScalar(ctx)
	} else {
		v, err = r.collect(ctx, p.root)
	}
	for _, l := range r.leaves {
		r.annos.Merge(l.set.Warnings())
	}
	return v, r.annos, err
}

// refusal is what a function of the Prometheus engine says of its arguments. It panics, and its evaluator
// makes an error of that.
type refusal struct{ error }

// invoke calls a function of the Prometheus engine.
func invoke(call promql.FunctionCall, vectors []promql.Vector, matrix promql.Matrix, args parser.Expressions, enh *promql.EvalNodeHelper) (promql.Vector, annotations.Annotations) {
	defer func() {
		p := recover()
		err, ok := p.(error)
		switch _, bug := p.(runtime.Error); {
		case p == nil:
		case !ok || bug:
			panic(p)
		default:
			panic(refusal{err})
		}
	}()
	return call(vectors, matrix, args, enh)
}

// refused makes a refusal an error.
func refused(errp *error) {
	switch p := recover().(type) {
	case nil:
	case refusal:
		*errp = p.error
	default:
		panic(p)
	}
}

// Close gives the memory of the plan and its result back; neither may be used any more.
func (p *Plan) Close() { p.run.release() }

// grid is the times at which something is evaluated, in milliseconds.
type grid struct {
	start, step int64
	n           int
}

// hint is the step as storage is told it, which holds room for the points of all steps: of one evaluation
// there is none.
func (g grid) hint() int64 {
	if g.n == 1 {
		return 0
	}
	return g.step
}

func (g grid) at(i int) int64 { return g.start + int64(i)*g.step }

// absentBits mark a step without a value. They are those of the staleness marker, which no result
// has: selectors leave it out, and arithmetic does not make it.
const absentBits = value.StaleNaN

func present(v float64) bool { return floatBits(v) != absentBits }

// interrupted returns the error of the Prometheus engine for a context that has ended. Before that, it
// lets others compute that are due: operators call it between series and between steps.
func (r *run) interrupted(ctx context.Context) error {
	r.turn.Yield()
	return Interrupted(ctx)
}

// Interrupted returns the error of the Prometheus engine for a context that has ended.
func Interrupted(ctx context.Context) error {
	err := ctx.Err()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return promql.ErrQueryCanceled(phase)
	case errors.Is(err, context.DeadlineExceeded):
		return promql.ErrQueryTimeout(phase)
	}
	return err
}

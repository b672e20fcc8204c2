package engine

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// maxLabelGrowth is how many times as long as a stored label a label may become by label_replace
// and label_join. Without it, 25 nested calls that write a label twice make 32 million of one byte.
const maxLabelGrowth = 256

// Parts of max_samples that one expression may need for one series, before any data is looked at.
const (
	// One series evaluated at more points than a tenth of max_samples leaves no room for the
	// nine other copies that a query over few series easily makes.
	pointsPart = 10

	// Windows are read, not kept: 20 times max_samples are a billion reads by default, some
	// 5 s of one core.
	workFactor = 20
)

// bounds is what an expression may cost, derived from max_samples.
type bounds struct {
	points float64 // at which one part of the expression is evaluated
	work   float64 // evaluations and reads of subquery points, for one series
}

func boundsFor(maxSamples int) bounds {
	return bounds{points: max(float64(maxSamples)/pointsPart, 1), work: float64(maxSamples) * workFactor}
}

// window is the times at which a query is evaluated; step is 0 for an instant.
type window struct {
	start, end time.Time
	step       time.Duration
}

// maxMillis is how far from 1970 a query may be evaluated, 146 million years: with room to add ranges
// and offsets without an overflow, after which the stock engine would step for ever.
const maxMillis = 1 << 62

// validate refuses times that the engine cannot step through.
func (w window) validate() error {
	for _, t := range []time.Time{w.start, w.end} {
		if s := t.Unix(); s > maxMillis/1000 || s < -maxMillis/1000 {
			return errs.New(errs.Invalid, "evaluation time %d s is out of range", s)
		}
	}
	if w.end.Before(w.start) {
		return errs.New(errs.Invalid, "end %s is before start %s", w.end, w.start)
	}
	return nil
}

// span returns nanoseconds. They may be more than a Duration holds.
func (w window) span() float64 {
	return (float64(w.end.UnixMilli()) - float64(w.start.UnixMilli())) * float64(time.Millisecond)
}

// check refuses an expression that costs too much over w whatever the data. expr is used up: it
// returns its preprocessed form, and the reason as a metric has it.
func (b bounds) check(expr parser.Expr, w window) (parser.Expr, string, error) {
	expr, err := promql.PreprocessExpr(expr, w.start, w.end, w.step)
	if err != nil {
		return nil, "expression", errs.Wrap(errs.Invalid, err)
	}
	if g := labelGrowth(expr).most(); g > maxLabelGrowth {
		return nil, "labels", errs.New(errs.TooLarge, "nested label_replace or label_join may make a label %.0f times as long as it was stored, %d times are allowed", g, maxLabelGrowth)
	}
	span, step := w.span(), float64(w.step)
	c := cost{bounds: b}
	c.walk(expr, span, points(span, step))
	switch {
	case c.most > b.points:
		return nil, "points", errs.New(errs.TooLarge, "expression is evaluated at %.3g points in time, %.3g are allowed; use a larger step or a shorter range", c.most, b.points)
	case c.work > b.work:
		return nil, "work", errs.New(errs.TooLarge, "expression needs %.3g evaluations for each series, %.3g are allowed; use larger steps or shorter ranges in its subqueries", c.work, b.work)
	}
	return expr, "", nil
}

// points returns how many steps a span has. Both are nanoseconds.
func points(span, step float64) float64 {
	if step <= 0 {
		return 1
	}
	return math.Floor(span/step) + 1
}

// cost adds up an expression. It counts in floating point, which does not overflow.
type cost struct {
	bounds bounds
	most   float64 // evaluation points of one part
	work   float64
}

// walk adds node, which is evaluated at n points over span nanoseconds. A subquery is evaluated
// once, over the span of what reads it and its own range, at its own step; and each of the n
// points reads as many of its points as its range holds.
func (c *cost) walk(node parser.Node, span, n float64) {
	c.most = max(c.most, n)
	c.work += n
	switch e := node.(type) {
	case *parser.StepInvariantExpr:
		span, n = 0, 1
	case *parser.SubqueryExpr:
		step := float64(e.Step)
		if step <= 0 {
			step = float64(defaultStep)
		}
		c.work += n * points(float64(e.Range), step)
		span += float64(e.Range)
		n = points(span, step)
	}
	for child := range parser.ChildrenIter(node) {
		c.walk(child, span, n)
	}
}

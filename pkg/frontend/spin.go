package frontend

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

const (
	// subqueryStep is the step of a subquery that names none, as in the engine.
	subqueryStep = time.Minute
	// leastSpun is how many steps a subquery has at least that is evaluated by itself: for fewer, one
	// piece of work is quicker.
	leastSpun = 10
	// mostSpans bounds the parts of the range of a selector.
	mostSpans = 64
)

// spun is how a leaf of an instant query is asked for by queries of its own, which are split, sharded
// and kept as those of users are.
type spun struct {
	// at is where the leaf is evaluated: for a subquery at all of its steps.
	at grid
	// spans are the parts of the range of the one selector; merge makes one value of them. None: the
	// leaf is asked as it is.
	spans []span
	merge parser.ItemType
}

// span is a part of a range: text, evaluated at a time.
type span struct {
	text, count string // count is for averages
	at          int64
}

// spinner finds the parts of an instant query that are to be asked for by themselves.
type spinner struct {
	planner
	at         int64
	subqueries bool
	interval   int64 // of ranges, in milliseconds; 0: these stay whole
	found      bool
}

// spin returns the plan of an instant query of which parts are asked for by themselves; ok is false if
// there are none.
func (q *query) spin(ctx context.Context) (p plan, ok bool) {
	if q.asked.Step != 0 || q.nested || q.asked.PerStepStats || len(q.asked.Text) > longestNormalised || unsafe(q.expr) {
		return p, false
	}
	parse := func(text string) (parser.Expr, error) { return q.f.deps.Engine.ParseExpr(ctx, text) }
	s := &spinner{planner: planner{text: q.asked.Text, parse: parse}, at: q.asked.Start,
		subqueries: every(q, limits.SubquerySpinOffEnabled), interval: leastDuration(q, limits.SplitInstantQueriesByInterval).Milliseconds()}
	s.pick = s.apart
	s.rest = func(e parser.Expr) { s.leaf(e, &spun{at: grid{start: s.at, end: s.at}}) }
	if !s.has(q.expr) {
		return p, false
	}
	s.visit(q.expr)
	if s.broken || !s.found || len(s.leaves) == 0 {
		return p, false
	}
	p = plan{leaves: s.leaves, outer: s.outer()}
	if len(p.leaves) == 1 && p.leaves[0].spun.spans != nil && strings.TrimSpace(p.outer) == p.leaves[0].name {
		return plan{leaves: p.leaves}, true
	}
	if _, err := parse(p.outer); err != nil {
		return p, false
	}
	return p, true
}

// leastDuration is the smallest limit of the tenants of q; 0 if any has none.
func leastDuration(q *query, key limits.Key[time.Duration]) time.Duration {
	least := key.Of(q.f.deps.Limits(q.tenants[0]))
	for _, id := range q.tenants {
		least = min(least, key.Of(q.f.deps.Limits(id)))
	}
	return least
}

// apart returns what has a part be asked for by itself; nil: it is not.
func (s *spinner) apart(e parser.Expr) func() {
	if x := s.ranged(e); x != nil {
		return func() { s.leaf(e, x) }
	}
	n, ok := e.(*parser.SubqueryExpr)
	if !ok {
		return nil
	}
	w, ok := s.window(n)
	if !ok {
		return nil
	}
	return func() { s.leaf(n.Expr, &spun{at: w}) }
}

func (s *spinner) leaf(e parser.Expr, x *spun) {
	s.found = s.found || x.at.step > 0 || x.spans != nil
	text := s.cut(e.PositionRange())
	s.add(e, leaf{text: text, original: text, spun: x})
}

// window is when the expression of a subquery is evaluated, if that is worth queries of its own.
func (s *spinner) window(n *parser.SubqueryExpr) (grid, bool) {
	if !s.subqueries || n.StartOrEnd != 0 || !splittable(n.Expr) || len(parser.ExtractSelectors(n.Expr)) == 0 {
		return grid{}, false
	}
	if _, plain := n.Expr.(*parser.VectorSelector); plain {
		return grid{}, false
	}
	step, base := n.Step.Milliseconds(), s.at
	if step == 0 {
		step = subqueryStep.Milliseconds()
	}
	if n.Timestamp != nil {
		base = *n.Timestamp
	}
	end := base - n.OriginalOffset.Milliseconds()
	before := end - n.Range.Milliseconds() // the first step is later
	if before < 0 || step <= 0 {
		return grid{}, false
	}
	w := grid{start: (before/step + 1) * step, end: end / step * step, step: step}
	return w, w.end >= w.start && w.len() >= leastSpun
}

// overTime are the functions of a range that follow from their values for its parts, with what makes one
// of those.
func overTime(name string) (merge parser.ItemType, ok bool) {
	switch name {
	case "sum_over_time", "count_over_time":
		return parser.SUM, true
	case "min_over_time":
		return parser.MIN, true
	case "max_over_time":
		return parser.MAX, true
	case "present_over_time":
		return parser.GROUP, true
	case "avg_over_time":
		return parser.AVG, true
	}
	return 0, false
}

// ranged returns how a function of a long range, and an aggregation of it of the same kind, is asked for
// in parts of the range; nil: it is not. The parts end at multiples of the interval, so that they are
// the same for queries at other times.
func (s *spinner) ranged(e parser.Expr) *spun {
	if s.interval <= 0 {
		return nil
	}
	inner := e
	agg, aggregated := e.(*parser.AggregateExpr)
	if aggregated {
		inner = agg.Expr
	}
	for {
		p, ok := inner.(*parser.ParenExpr)
		if !ok {
			break
		}
		inner = p.Expr
	}
	call, ok := inner.(*parser.Call)
	if !ok || len(call.Args) != 1 {
		return nil
	}
	merge, ok := overTime(call.Func.Name)
	m, matrix := call.Args[0].(*parser.MatrixSelector)
	if !ok || !matrix || aggregated && (agg.Op != merge || merge == parser.AVG || call.Func.Name == "present_over_time") {
		return nil
	}
	v, ok := m.VectorSelector.(*parser.VectorSelector)
	// Without their names, series that are not there at the same time may become the same.
	if !ok || v.Timestamp != nil || v.StartOrEnd != 0 || v.Anchored || v.Smoothed || !named(v) || m.Range.Milliseconds() <= s.interval {
		return nil
	}
	return s.spans(e, m.Range.Milliseconds(), merge)
}

func (s *spinner) spans(e parser.Expr, length int64, merge parser.ItemType) *spun {
	interval := s.interval
	for length/interval > mostSpans-2 {
		interval *= 2
	}
	out := &spun{at: grid{start: s.at, end: s.at}, merge: merge}
	for from := s.at - length; from < s.at; {
		to := min((floorDiv(from, interval)+1)*interval, s.at)
		one := span{at: to}
		var ok bool
		if merge == parser.AVG {
			if one.count, ok = s.shorter(e, to-from, "count_over_time"); !ok {
				return nil
			}
			one.text, ok = s.shorter(e, to-from, "sum_over_time")
		} else {
			one.text, ok = s.shorter(e, to-from, "")
		}
		if !ok {
			return nil
		}
		out.spans, from = append(out.spans, one), to
	}
	return out
}

// shorter is e with another range, and function unless that is empty.
func (s *spinner) shorter(e parser.Expr, length int64, function string) (string, bool) {
	again, err := s.parse(e.String())
	if err != nil {
		return "", false
	}
	parser.Inspect(again, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.MatrixSelector:
			n.Range = time.Duration(length) * time.Millisecond
		case *parser.Call:
			if function != "" {
				n.Func = parser.Functions[function]
			}
		}
		return nil
	})
	return again.String(), true
}

// spun asks for a leaf by queries of its own.
func (r *run) spun(ctx context.Context, l leaf) (answer, error) {
	x := l.spun
	if x.spans == nil {
		return r.nested(ctx, l.text, x.at)
	}
	values, counts := make([]answer, len(x.spans)), make([]answer, len(x.spans))
	g, gctx := errs.Together(ctx)
	one := func(into *answer, text string, at int64) {
		g.Go(func() (err error) {
			*into, err = r.nested(gctx, text, grid{start: at, end: at})
			return err
		})
	}
	for i, s := range x.spans {
		if one(&values[i], s.text, s.at); s.count != "" {
			one(&counts[i], s.count, s.at)
		}
	}
	if err := g.Wait(); err != nil {
		return answer{}, err
	}
	if out, ok := r.united(ctx, x, values, counts); ok {
		return answer{value: vectorOf(out)}, nil
	}
	r.mu.Lock()
	r.again++
	r.mu.Unlock()
	return r.nested(ctx, l.original, x.at)
}

// united merges the answers of spans. ok is false if they do not tell what the whole is.
func (r *run) united(ctx context.Context, x *spun, values, counts []answer) (_ promql.Matrix, ok bool) {
	_, turn, end := r.q.f.deps.Turns.Begin(ctx)
	defer end()
	m := newMerger(x.merge, x.at)
	for i := range x.spans {
		if len(values[i].notes)+len(counts[i].notes) > 0 || hasHistograms(values[i].value) {
			// The positions of notes are those of another text, and whether the resets of histograms
			// contradict each other is a warning that parts do not see.
			return nil, false
		}
		m.add(at(values[i].value, x.at.start), false, turn)
		if counts[i].value != nil {
			m.add(at(counts[i].value, x.at.start), true, turn)
		}
	}
	return m.matrix(turn)
}

func hasHistograms(v parser.Value) bool {
	list, ok := v.(promql.Vector)
	return ok && slices.ContainsFunc(list, func(s promql.Sample) bool { return s.H != nil })
}

// at is a vector with its samples at the time t.
func at(v parser.Value, t int64) parser.Value {
	list, ok := v.(promql.Vector)
	if !ok {
		return v
	}
	out := slices.Clone(list)
	for i := range out {
		out[i].T = t
	}
	return out
}

// nested asks for a query that is a part of r's.
func (r *run) nested(ctx context.Context, text string, at grid) (answer, error) {
	f := r.q.f
	expr, err := f.deps.Engine.ParseExpr(ctx, text)
	if err != nil {
		return answer{}, err
	}
	asked := r.q.asked
	asked.Text, asked.Start, asked.End, asked.Step = text, at.start, at.end, at.step
	q := &query{f: f, asked: asked, expr: expr, tenants: r.q.tenants, timers: stats.NewQueryTimers(), nested: true, trace: r.q.trace}
	q.lay(ctx)
	q.run.slots = r.slots
	if q.run.kept = q.keep(ctx); q.run.kept != nil {
		q.run.kept.r = q.run
	}
	out, err := q.run.whole(ctx, q.ranges())
	r.adopt(q.run)
	return out, err
}

// adopt takes over what a part took, and what its answer holds.
func (r *run) adopt(o *run) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, o.held...)
	o.held = nil
	r.works += o.works
	r.again += o.again
	r.samples.TotalSamples += o.samples.TotalSamples
	r.samples.SamplesRead += o.samples.SamplesRead
	r.fetched.Add(o.fetched)
	r.samples.PeakSamples = max(r.samples.PeakSamples, o.samples.PeakSamples)
	r.spunBytes += o.kept.hits()
}

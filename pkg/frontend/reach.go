package frontend

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/frontend/results"
)

// reachOf returns where the samples lie that e is made of. ok is false if that does not follow from the
// time at which it is evaluated alone.
func reachOf(e parser.Expr, lookback time.Duration) (out results.Reach, ok bool) {
	if !splittable(e) {
		return out, false
	}
	ok, first := true, true
	parser.Inspect(e, func(n parser.Node, path []parser.Node) error {
		switch n := n.(type) {
		case *parser.Call:
			ok = ok && n.Func.Name != "info" // it reads series that are not in the text
		case *parser.VectorSelector:
			w := window{}
			for _, p := range path {
				w.enter(p)
			}
			w.selector(n, path, lookback.Milliseconds())
			w.widen(&out, first)
			first = false
		}
		return nil
	})
	return out, ok
}

// window is what a selector reads: from lo to hi beside the time of evaluation, or if fixed beside a
// time of its own.
type window struct {
	lo, hi int64
	fixed  bool
	at     int64
}

// enter goes into a subquery.
func (w *window) enter(n parser.Node) {
	s, ok := n.(*parser.SubqueryExpr)
	if !ok {
		return
	}
	w.fix(s.Timestamp)
	w.lo -= (s.OriginalOffset + s.Range).Milliseconds()
	w.hi -= s.OriginalOffset.Milliseconds()
}

func (w *window) fix(at *int64) {
	if at != nil {
		*w = window{fixed: true, at: *at}
	}
}

func (w *window) selector(n *parser.VectorSelector, path []parser.Node, lookback int64) {
	w.fix(n.Timestamp)
	w.lo -= n.OriginalOffset.Milliseconds() + lookback
	w.hi -= n.OriginalOffset.Milliseconds()
	if i := len(path) - 1; i >= 0 {
		if m, ok := path[i].(*parser.MatrixSelector); ok {
			w.lo -= m.Range.Milliseconds()
		}
	}
	if n.Anchored || n.Smoothed {
		w.lo -= lookback
		w.hi += lookback
	}
}

// widen makes r contain w.
func (w *window) widen(r *results.Reach, first bool) {
	if first {
		*r = results.Reach{}
	}
	if !w.fixed {
		r.Back, r.Ahead = max(r.Back, -w.lo), max(r.Ahead, w.hi)
		return
	}
	lo, hi := w.at+w.lo, w.at+w.hi
	if !r.Fixed {
		r.Fixed, r.MinTime, r.MaxTime = true, lo, hi
		return
	}
	r.MinTime, r.MaxTime = min(r.MinTime, lo), max(r.MaxTime, hi)
}

// cacheable says whether the answer to e is one that is kept: numbers of series.
func cacheable(e parser.Expr) bool {
	return slices.Contains([]parser.ValueType{parser.ValueTypeVector, parser.ValueTypeScalar}, e.Type()) && len(parser.ExtractSelectors(e)) > 0
}

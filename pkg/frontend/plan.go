package frontend

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
)

// plan is a query taken apart: leaves, which queriers evaluate, and what the frontend makes of them.
// Every text has its leaves at the places where they stand in the query, so that the positions in
// warnings are right wherever they arise.
type plan struct {
	leaves []leaf
	// outer is the query with names in the place of the leaves; empty: the one leaf is the query.
	outer string
}

// leaf is a part of the expression.
type leaf struct {
	name string // in the outer text
	text string
	// merge is the aggregation by which the answers of shards become one; 0: it is not sharded.
	merge parser.ItemType
	// original is the text of the part as it stands in the query, and count the one that counts what an
	// average is over.
	original, count string
	// spun is how the leaf is asked for by queries of its own; nil: it is not.
	spun *spun
}

// planner takes a query apart.
type planner struct {
	text  string
	parse func(string) (parser.Expr, error)
	// pick returns what makes a part that is looked for a leaf; nil: it is none.
	pick func(parser.Expr) func()
	// rest makes a leaf of a vector that has no such part and stands beside one.
	rest   func(parser.Expr)
	leaves []leaf
	cuts   []posrange.PositionRange
	broken bool // a part is not where the parser says it is
}

// whole is the plan of a query that is not taken apart.
func whole(text string) plan { return plan{leaves: []leaf{{text: text}}} }

// takeApart returns the plan of expr, which is the syntax tree of text.
func takeApart(expr parser.Expr, text string, maxRegexp int, parse func(string) (parser.Expr, error)) plan {
	p := &planner{text: text, parse: parse}
	look := sharder{maxRegexp}
	p.pick = func(e parser.Expr) func() {
		if n, ok := e.(*parser.AggregateExpr); ok && look.shardable(n) {
			return func() { p.sharded(n) }
		}
		return nil
	}
	p.rest = func(e parser.Expr) { p.add(e, leaf{text: p.cut(e.PositionRange())}) }
	if !p.has(expr) || unsafe(expr) {
		return whole(text)
	}
	p.visit(expr)
	if p.broken || len(p.leaves) == 0 || len(p.leaves) > len(leafNames) {
		return whole(text)
	}
	if len(p.leaves) == 1 && p.cuts[0] == (posrange.PositionRange{Start: 0, End: posrange.Pos(len(strings.TrimRight(text, " \t\r\n")))}) {
		p.leaves[0].name = ""
		return plan{leaves: p.leaves}
	}
	out := plan{leaves: p.leaves, outer: p.outer()}
	if _, err := parse(out.outer); err != nil {
		return whole(text)
	}
	return out
}

// leafNames are the names of leaves, each short enough to stand where any selector stands.
const leafNames = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// outer is the text with the names of the leaves in their places.
func (p *planner) outer() string {
	var b strings.Builder
	at := 0
	for i, c := range p.cuts {
		b.WriteString(p.text[at:c.Start])
		b.WriteString(p.leaves[i].name)
		b.WriteString(blank(p.text[c.Start:c.End])[len(p.leaves[i].name):])
		at = int(c.End)
	}
	b.WriteString(p.text[at:])
	return b.String()
}

// blank is s with spaces in the place of all but line breaks.
func blank(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c != '\n' {
			b[i] = ' '
		}
	}
	return string(b)
}

// has says whether a part of e, evaluated at the times of e, is looked for.
func (p *planner) has(e parser.Expr) bool {
	if p.pick(e) != nil {
		return true
	}
	switch n := e.(type) {
	case *parser.AggregateExpr:
		return p.has(n.Expr) || n.Param != nil && p.has(n.Param)
	case *parser.ParenExpr:
		return p.has(n.Expr)
	case *parser.UnaryExpr:
		return p.has(n.Expr)
	case *parser.BinaryExpr:
		return p.has(n.LHS) || p.has(n.RHS)
	case *parser.Call:
		switch n.Func.Name {
		case "info", "absent", "timestamp":
			return false // they look at the selector in their argument
		case "histogram_count", "histogram_sum", "histogram_avg":
			return false // the engine then reads of histograms no more than that, and tells of resets otherwise
		}
		return slices.ContainsFunc(n.Args, p.has)
	}
	return false
}

// visit makes leaves of the parts of e, of which one at least is looked for.
func (p *planner) visit(e parser.Expr) {
	if take := p.pick(e); take != nil {
		take()
		return
	}
	switch n := e.(type) {
	case *parser.AggregateExpr:
		if n.Param != nil {
			p.enter(n.Param)
		}
		p.enter(n.Expr)
	case *parser.ParenExpr:
		p.visit(n.Expr)
	case *parser.UnaryExpr:
		p.visit(n.Expr)
	case *parser.BinaryExpr:
		p.enter(n.LHS)
		p.enter(n.RHS)
	case *parser.Call:
		for _, a := range n.Args {
			p.enter(a)
		}
	default:
		p.broken = true
	}
}

// enter takes a child apart, makes it a leaf, or leaves it if it needs no data.
func (p *planner) enter(e parser.Expr) {
	switch {
	case p.has(e):
		p.visit(e)
	case len(parser.ExtractSelectors(e)) == 0:
	case e.Type() == parser.ValueTypeVector:
		p.rest(e)
	case e.Type() == parser.ValueTypeScalar:
		p.visit(e) // a scalar of data stands in a function of it, which goes on
	default:
		p.broken = true
	}
}

// cut is the text of a part at its place.
func (p *planner) cut(r posrange.PositionRange) string {
	if r.Start < 0 || int(r.End) > len(p.text) || r.Start >= r.End {
		p.broken = true
		return ""
	}
	return blank(p.text[:r.Start]) + p.text[r.Start:r.End]
}

func (p *planner) add(e parser.Expr, l leaf) {
	r := e.PositionRange()
	if p.broken || len(p.leaves) >= len(leafNames) {
		p.broken = true
		return
	}
	// The parser is not exact about where some expressions end.
	if again, err := p.parse(l.text); err != nil || again.String() != e.String() {
		p.broken = true
		return
	}
	l.name = leafNames[len(p.leaves) : len(p.leaves)+1]
	p.leaves, p.cuts = append(p.leaves, l), append(p.cuts, r)
}

// sharded makes a leaf of an aggregation whose shards are merged.
func (p *planner) sharded(n *parser.AggregateExpr) {
	r := n.PositionRange()
	l := leaf{text: p.cut(r), original: p.cut(r), merge: n.Op}
	p.add(n, l)
	if p.broken || n.Op != parser.AVG {
		return
	}
	// Of an average, the sums and the numbers of the shards are asked for.
	rest := p.text[int(r.Start)+len("avg") : r.End]
	last := &p.leaves[len(p.leaves)-1]
	last.text = blank(p.text[:r.Start]) + "sum" + rest
	last.count = blank(p.text[:r.Start]) + "count" + rest
}

// sharder finds what can be sharded.
type sharder struct{ maxRegexp int } // bytes of a matcher; 0: no limit

// shardable says whether the shards of an aggregation can be merged to the whole.
func (p sharder) shardable(n *parser.AggregateExpr) bool {
	switch n.Op {
	case parser.SUM, parser.COUNT, parser.MIN, parser.MAX, parser.GROUP, parser.AVG:
	default:
		return false
	}
	drops := false
	sel := p.perSeries(n.Expr, &drops)
	if sel == nil {
		return false
	}
	// Series of different names may become the same without them, which is an error that no shard of
	// its own sees.
	return !drops || named(sel)
}

// perSeries returns the selector of an expression in which each series of the result comes from one
// series of the selector; nil: there is none. drops is set if the results have no names.
func (p sharder) perSeries(e parser.Expr, drops *bool) *parser.VectorSelector {
	switch n := e.(type) {
	case *parser.VectorSelector:
		if n.Timestamp != nil || n.StartOrEnd != 0 {
			return nil // it is evaluated once, and what stands around it as well
		}
		for _, m := range n.LabelMatchers {
			if p.maxRegexp > 0 && len(m.Value) > p.maxRegexp && (m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp) {
				return nil
			}
		}
		return n
	case *parser.MatrixSelector:
		return p.perSeries(n.VectorSelector, drops)
	case *parser.SubqueryExpr:
		if n.Timestamp != nil || n.StartOrEnd != 0 {
			return nil
		}
		return p.perSeries(n.Expr, drops)
	case *parser.ParenExpr:
		return p.perSeries(n.Expr, drops)
	case *parser.UnaryExpr:
		*drops = true
		return p.perSeries(n.Expr, drops)
	case *parser.BinaryExpr:
		*drops = *drops || !n.Op.IsComparisonOperator() || n.ReturnBool
		switch {
		case constant(n.LHS):
			return p.perSeries(n.RHS, drops)
		case constant(n.RHS):
			return p.perSeries(n.LHS, drops)
		}
	case *parser.Call:
		return p.perSeriesCall(n, drops)
	}
	return nil
}

func (p sharder) perSeriesCall(n *parser.Call, drops *bool) *parser.VectorSelector {
	if !seriesFunction(n.Func.Name) {
		return nil
	}
	*drops = true
	var sel *parser.VectorSelector
	for _, a := range n.Args {
		if constant(a) {
			continue
		}
		if sel != nil {
			return nil
		}
		if sel = p.perSeries(a, drops); sel == nil {
			return nil
		}
	}
	return sel
}

// constant says whether e is a number that needs no data.
func constant(e parser.Expr) bool {
	return e.Type() == parser.ValueTypeScalar && len(parser.ExtractSelectors(e)) == 0
}

// named says whether all series of a selector have the same name.
func named(s *parser.VectorSelector) bool {
	for _, m := range s.LabelMatchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			return true
		}
	}
	return false
}

// seriesFunction says whether a function makes of each series one series, whatever the others are.
func seriesFunction(name string) bool {
	if strings.HasSuffix(name, "_over_time") {
		return name != "absent_over_time"
	}
	switch name {
	case "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "changes", "clamp", "clamp_max", "clamp_min", "cos", "cosh",
		"days_in_month", "day_of_month", "day_of_week", "day_of_year", "deg", "delta", "deriv", "double_exponential_smoothing", "exp", "floor",
		"histogram_avg", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar", "hour", "idelta", "increase", "irate",
		"ln", "log10", "log2", "minute", "month", "predict_linear", "rad", "rate", "resets", "round", "sgn", "sin", "sinh", "sqrt", "tan", "tanh",
		"timestamp", "year":
		return true
	}
	return false
}

// unsafe says whether e has parts that mean something else at another place: what they answer follows
// from the ends of the query.
func unsafe(e parser.Expr) bool {
	found := false
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			found = found || n.OriginalOffsetExpr != nil || n.BypassEmptyMatcherCheck
		case *parser.MatrixSelector:
			found = found || n.RangeExpr != nil
		case *parser.SubqueryExpr:
			found = found || n.RangeExpr != nil || n.StepExpr != nil || n.OriginalOffsetExpr != nil
		case *parser.AggregateExpr:
			found = found || n.Op == parser.LIMITK || n.Op == parser.LIMIT_RATIO
		case *parser.Call:
			switch n.Func.Name {
			case "start", "end", "range", "step":
				found = true
			}
		}
		return nil
	})
	return found
}

// splittable says whether e answers for each time the same, whatever the ends of the query are.
func splittable(e parser.Expr) bool {
	if unsafe(e) {
		return false
	}
	fixed := false
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			fixed = fixed || n.StartOrEnd != 0
		case *parser.SubqueryExpr:
			fixed = fixed || n.StartOrEnd != 0
		}
		return nil
	})
	return !fixed
}

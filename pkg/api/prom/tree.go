package prom

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// FormatQuery answers the query, well laid out.
func (a *API) FormatQuery(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	expr, err := a.parse(r.Context(), r.Form.Get("query"))
	if err != nil {
		return err
	}
	pretty := expr.Pretty(0)
	a.success(w, r, nil, "", func(out *answer) { out.buf = appendString(out.buf, pretty) })
	return nil
}

// ParseQuery answers the syntax tree of the query.
func (a *API) ParseQuery(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	expr, err := a.parse(r.Context(), r.Form.Get("query"))
	if err != nil {
		return err
	}
	tree, err := json.Marshal(treeOf(expr))
	if err != nil {
		return fmt.Errorf("encode syntax tree: %w", err)
	}
	a.success(w, r, nil, "", func(out *answer) { out.buf = append(out.buf, tree...) })
	return nil
}

// node is one node of the tree; the fields are those that Prometheus's user interface reads.
type node = map[string]any

func treeOf(expr parser.Expr) any {
	switch n := expr.(type) {
	case nil:
		return nil
	case *parser.AggregateExpr:
		return node{"type": "aggregation", "op": n.Op.String(), "expr": treeOf(n.Expr), "param": treeOf(n.Param),
			"grouping": listOf(n.Grouping), "without": n.Without}
	case *parser.BinaryExpr:
		return node{"type": "binaryExpr", "op": n.Op.String(), "lhs": treeOf(n.LHS), "rhs": treeOf(n.RHS),
			"matching": matchingOf(n.VectorMatching), "bool": n.ReturnBool}
	case *parser.Call:
		args := make([]any, 0, len(n.Args))
		for _, arg := range n.Args {
			args = append(args, treeOf(arg))
		}
		return node{"type": "call", "args": args, "func": node{"name": n.Func.Name, "argTypes": n.Func.ArgTypes,
			"variadic": n.Func.Variadic, "returnType": n.Func.ReturnType}}
	case *parser.MatrixSelector:
		sel := node{}
		if vs, ok := n.VectorSelector.(*parser.VectorSelector); ok {
			sel = selectorOf(vs)
		}
		sel["type"], sel["range"], sel["rangeExpr"] = "matrixSelector", n.Range.Milliseconds(), durationOf(n.RangeExpr)
		return sel
	case *parser.SubqueryExpr:
		return node{"type": "subquery", "expr": treeOf(n.Expr), "range": n.Range.Milliseconds(), "rangeExpr": durationOf(n.RangeExpr),
			"offset": n.OriginalOffset.Milliseconds(), "offsetExpr": durationOf(n.OriginalOffsetExpr),
			"step": n.Step.Milliseconds(), "stepExpr": durationOf(n.StepExpr),
			"timestamp": n.Timestamp, "startOrEnd": edgeOf(n.StartOrEnd)}
	case *parser.DurationExpr:
		return durationOf(n)
	case *parser.NumberLiteral:
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(n.Val, 'f', -1, 64)}
	case *parser.ParenExpr:
		return node{"type": "parenExpr", "expr": treeOf(n.Expr)}
	case *parser.StringLiteral:
		return node{"type": "stringLiteral", "val": n.Val}
	case *parser.UnaryExpr:
		return node{"type": "unaryExpr", "op": n.Op.String(), "expr": treeOf(n.Expr)}
	case *parser.VectorSelector:
		return selectorOf(n)
	}
	panic(fmt.Sprintf("BUG: syntax tree node %T", expr))
}

func selectorOf(n *parser.VectorSelector) node {
	matchers := make([]node, 0, len(n.LabelMatchers))
	for _, m := range n.LabelMatchers {
		matchers = append(matchers, matcherOf(m))
	}
	return node{"type": "vectorSelector", "name": n.Name, "offset": n.OriginalOffset.Milliseconds(),
		"offsetExpr": durationOf(n.OriginalOffsetExpr), "matchers": matchers, "timestamp": n.Timestamp,
		"startOrEnd": edgeOf(n.StartOrEnd), "anchored": n.Anchored, "smoothed": n.Smoothed}
}

func matcherOf(m *labels.Matcher) node {
	return node{"name": m.Name, "value": m.Value, "type": m.Type.String()}
}

func matchingOf(m *parser.VectorMatching) any {
	if m == nil {
		return nil
	}
	return node{"card": m.Card.String(), "labels": listOf(m.MatchingLabels), "on": m.On, "include": listOf(m.Include),
		"fillValues": map[string]*float64{"lhs": m.FillValues.LHS, "rhs": m.FillValues.RHS}}
}

// durationOf also takes the typed nil that a selector without such an expression holds.
func durationOf(expr parser.Expr) any {
	switch n := expr.(type) {
	case nil:
		return nil
	case *parser.DurationExpr:
		if n == nil {
			return nil
		}
		return node{"type": "durationExpr", "op": n.Op.String(), "lhs": durationOf(n.LHS), "rhs": durationOf(n.RHS), "wrapped": n.Wrapped}
	case *parser.NumberLiteral:
		if n == nil {
			return nil
		}
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(n.Val, 'f', -1, 64), "duration": n.Duration}
	}
	return treeOf(expr)
}

func edgeOf(t parser.ItemType) any {
	if t == 0 {
		return nil
	}
	return t.String()
}

func listOf(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

package engine

import (
	"fmt"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// object is one node as parse_query shows it. Times and durations are milliseconds.
type object map[string]any

// tree returns a syntax tree as parse_query shows it.
func tree(e parser.Expr) any {
	switch n := e.(type) {
	case nil:
		return nil
	case *parser.AggregateExpr:
		return object{
			"type": "aggregation", "op": n.Op.String(), "expr": tree(n.Expr), "param": tree(n.Param),
			"grouping": list(n.Grouping), "without": n.Without,
		}
	case *parser.BinaryExpr:
		return object{
			"type": "binaryExpr", "op": n.Op.String(), "lhs": tree(n.LHS), "rhs": tree(n.RHS),
			"matching": matching(n.VectorMatching), "bool": n.ReturnBool,
		}
	case *parser.Call:
		args := make([]any, len(n.Args))
		for i, a := range n.Args {
			args[i] = tree(a)
		}
		f := object{"name": n.Func.Name, "argTypes": n.Func.ArgTypes, "variadic": n.Func.Variadic, "returnType": n.Func.ReturnType}
		return object{"type": "call", "func": f, "args": args}
	case *parser.MatrixSelector:
		o := selector("matrixSelector", n.VectorSelector.(*parser.VectorSelector))
		o["range"], o["rangeExpr"] = n.Range.Milliseconds(), duration(n.RangeExpr)
		return o
	case *parser.VectorSelector:
		return selector("vectorSelector", n)
	case *parser.SubqueryExpr:
		return object{
			"type": "subquery", "expr": tree(n.Expr),
			"range": n.Range.Milliseconds(), "rangeExpr": duration(n.RangeExpr),
			"step": n.Step.Milliseconds(), "stepExpr": duration(n.StepExpr),
			"offset": n.OriginalOffset.Milliseconds(), "offsetExpr": duration(n.OriginalOffsetExpr),
			"timestamp": n.Timestamp, "startOrEnd": preprocessor(n.StartOrEnd),
		}
	case *parser.NumberLiteral:
		return object{"type": "numberLiteral", "val": number(n)}
	case *parser.StringLiteral:
		return object{"type": "stringLiteral", "val": n.Val}
	case *parser.ParenExpr:
		return object{"type": "parenExpr", "expr": tree(n.Expr)}
	case *parser.UnaryExpr:
		return object{"type": "unaryExpr", "op": n.Op.String(), "expr": tree(n.Expr)}
	case *parser.DurationExpr:
		return duration(n)
	}
	panic(fmt.Sprintf("BUG: syntax node of type %T", e))
}

func selector(kind string, n *parser.VectorSelector) object {
	matchers := make([]object, len(n.LabelMatchers))
	for i, m := range n.LabelMatchers {
		matchers[i] = matcher(m)
	}
	return object{
		"type": kind, "name": n.Name, "matchers": matchers,
		"offset": n.OriginalOffset.Milliseconds(), "offsetExpr": duration(n.OriginalOffsetExpr),
		"timestamp": n.Timestamp, "startOrEnd": preprocessor(n.StartOrEnd),
		"anchored": n.Anchored, "smoothed": n.Smoothed,
	}
}

func matcher(m *labels.Matcher) object {
	return object{"name": m.Name, "value": m.Value, "type": m.Type.String()}
}

func matching(m *parser.VectorMatching) any {
	if m == nil {
		return nil
	}
	return object{
		"card": m.Card.String(), "labels": list(m.MatchingLabels), "on": m.On, "include": list(m.Include),
		"fillValues": object{"lhs": fill(m.FillValues.LHS), "rhs": fill(m.FillValues.RHS)},
	}
}

// fill shows the value that stands for an absent side: a number where JSON has it, else a text.
func fill(v *float64) any {
	if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0)) {
		return strconv.FormatFloat(*v, 'f', -1, 64)
	}
	return v
}

// duration shows a calculated duration, which has numbers and durations as its leaves.
func duration(n *parser.DurationExpr) any {
	if n == nil {
		return nil
	}
	side := func(e parser.Expr) any {
		switch e := e.(type) {
		case *parser.DurationExpr:
			return duration(e)
		case *parser.NumberLiteral:
			return object{"type": "numberLiteral", "val": number(e), "duration": e.Duration}
		}
		return tree(e)
	}
	return object{"type": "durationExpr", "op": n.Op.String(), "lhs": side(n.LHS), "rhs": side(n.RHS), "wrapped": n.Wrapped}
}

func number(n *parser.NumberLiteral) string { return strconv.FormatFloat(n.Val, 'f', -1, 64) }

// list makes an absent list an empty one.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func preprocessor(t parser.ItemType) any {
	if t == 0 {
		return nil
	}
	return t.String()
}

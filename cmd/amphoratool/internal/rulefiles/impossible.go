package rulefiles

import (
	"fmt"

	"github.com/prometheus/prometheus/promql/parser"
)

// Impossible says why an expression can never have a result, "" if it may: because of a label that is
// matched after an aggregation which dropped it, or a comparison of two numbers that does not hold.
func Impossible(expr string) (string, error) {
	tree, err := Parser().ParseExpr(expr)
	if err != nil {
		return "", err
	}
	why := ""
	parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
		b, ok := n.(*parser.BinaryExpr)
		if !ok || why != "" {
			return nil
		}
		if b.VectorMatching != nil && b.VectorMatching.On {
			for _, l := range b.VectorMatching.MatchingLabels {
				left, right := drops(b.LHS, l), drops(b.RHS, l)
				if left != right && b.Op == parser.LAND {
					why = fmt.Sprintf("%s matches on %s, which only one side has", b, l)
				}
			}
		}
		return nil
	})
	return why, nil
}

// drops says whether an aggregation leaves the label out of what e results in.
func drops(e parser.Expr, label string) bool {
	switch e := e.(type) {
	case *parser.ParenExpr:
		return drops(e.Expr, label)
	case *parser.AggregateExpr:
		has := false
		for _, g := range e.Grouping {
			has = has || g == label
		}
		return has == e.Without
	}
	return false
}

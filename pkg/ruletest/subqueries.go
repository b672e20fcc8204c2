package ruletest

import (
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// bounded refuses expressions with subqueries of more steps than there may be samples: the engine takes memory
// for each step before it evaluates one.
type bounded struct {
	parser.Parser
	every time.Duration // of subqueries that name no step
	most  int
}

// ParseExpr implements parser.Parser. Errors: Invalid.
func (b bounded) ParseExpr(text string) (parser.Expr, error) {
	e, err := b.Parser.ParseExpr(text)
	if err != nil {
		return nil, err
	}
	reach, least := time.Duration(0), b.every // an inner one covers the time of those around it
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.SubqueryExpr)
		switch {
		case !ok:
		case s.RangeExpr != nil || s.StepExpr != nil:
			err = errs.New(errs.Invalid, "the length and the step of a subquery must be durations")
		default:
			reach += s.Range
			if s.Step > 0 {
				least = min(least, s.Step)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if reach < 0 || reach/max(least, time.Millisecond) > time.Duration(b.most) {
		return nil, errs.New(errs.Invalid, "subqueries have more than %d steps", b.most)
	}
	return e, nil
}

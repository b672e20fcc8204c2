package prom

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// maxQueryBytes bounds a query text for everyone. Machine-made queries of hundreds of KiB exist;
	// beyond 1 MiB there are only attacks.
	maxQueryBytes = 1 << 20
	// maxQueryTokens bounds operators, brackets and commas of one query. The checks of the parser
	// take time in the square of the nesting, and its walks a stack frame for each level.
	maxQueryTokens = 10_000
	// maxQueryDepth bounds brackets within brackets.
	maxQueryDepth = 200
	// maxTreeDepth bounds the syntax tree, which a chain of operators makes as deep as it is long:
	// evaluating one of 10,000 additions takes the stock engine 18 s.
	maxTreeDepth = 500
	// maxPoints is Prometheus's bound on the points of one series in an answer.
	maxPoints = 11_000
)

// parse checks the size of qs, parses it and checks what of it the tenants may use. Errors: Invalid.
func (a *API) parse(ctx context.Context, qs string) (parser.Expr, error) {
	a.metrics.expressionBytes.Observe(float64(len(qs)))
	if most := smallest(ctx, a, limits.MaxQueryExpressionSize); most > 0 && len(qs) > most {
		row := limits.MaxQueryExpressionSize.Row()
		return nil, errs.Limit(errs.Invalid, "max-query-expression-size-bytes", row.Flag, row.Name,
			"the query expression size exceeds the limit (query size: %d bytes, limit: %d bytes)", len(qs), most)
	}
	if len(qs) > maxQueryBytes {
		return nil, badParam("query", errors.New("the query text is larger than 1 MiB"))
	}
	if err := tooNested(qs); err != nil {
		return nil, badParam("query", err)
	}
	expr, err := a.parserFor(ctx).ParseExpr(qs)
	if err != nil {
		return nil, badParam("query", err)
	}
	if depth := depthOf(expr); depth > maxTreeDepth {
		return nil, badParam("query", fmt.Errorf("the query nests %d expressions, at most %d are allowed", depth, maxTreeDepth))
	}
	if err := a.allowExperimental(ctx, experimental(expr)); err != nil {
		return nil, badParam("query", err)
	}
	return expr, nil
}

// tooNested measures what can nest before anything recursive sees the text, and says what is too
// much. Most texts are too short, or have too few brackets, to need a look at their tokens.
func tooNested(qs string) error {
	opens := strings.Count(qs, "(") + strings.Count(qs, "[") + strings.Count(qs, "{")
	if len(qs) <= maxQueryTokens && opens <= maxQueryDepth {
		return nil
	}
	tokens, depth := 0, 0
	lex := parser.Lex(qs)
	for {
		var it parser.Item
		lex.NextItem(&it)
		switch {
		case it.Typ == parser.EOF || it.Typ == parser.ERROR:
			return nil
		case it.Typ == parser.LEFT_PAREN, it.Typ == parser.LEFT_BRACKET, it.Typ == parser.LEFT_BRACE:
			tokens++
			depth++
		case it.Typ == parser.RIGHT_PAREN, it.Typ == parser.RIGHT_BRACKET, it.Typ == parser.RIGHT_BRACE:
			depth--
		case it.Typ.IsOperator(), it.Typ == parser.COMMA:
			tokens++
		}
		if tokens > maxQueryTokens {
			return fmt.Errorf("the query has more than %d operators and brackets", maxQueryTokens)
		}
		if depth > maxQueryDepth {
			return fmt.Errorf("the query nests more than %d brackets", maxQueryDepth)
		}
	}
}

// depthOf returns the height of the syntax tree, without recursion.
func depthOf(expr parser.Expr) int {
	type level struct {
		node  parser.Node
		depth int
	}
	deepest, todo := 0, []level{{expr, 1}}
	for len(todo) > 0 {
		l := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		deepest = max(deepest, l.depth)
		for child := range parser.ChildrenIter(l.node) {
			todo = append(todo, level{child, l.depth + 1})
		}
	}
	return deepest
}

// experimental returns the names of experimental functions and aggregations in expr.
func experimental(expr parser.Expr) []string {
	var names []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.Call:
			if n.Func.Experimental {
				names = append(names, n.Func.Name)
			}
		case *parser.AggregateExpr:
			if n.Op.IsExperimentalAggregator() {
				names = append(names, n.Op.String())
			}
		}
		return nil
	})
	return names
}

// allowExperimental refuses the names that one of the tenants may not use.
func (a *API) allowExperimental(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	ids, err := tenant.Many(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		allowed := strings.Split(limits.EnabledExperimentalFunctions.Of(a.b.Limits(id)), ",")
		if slices.Contains(allowed, "all") {
			continue
		}
		for _, name := range names {
			if !slices.Contains(allowed, name) {
				return errs.New(errs.Invalid, "experimental function %q is not enabled for tenant %s", name, id)
			}
		}
	}
	return nil
}

// checkLength refuses a query that reaches over more time than the tenants may ask for. What
// the selectors reach back counts, because it is read.
func (a *API) checkLength(ctx context.Context, expr parser.Expr, start, end time.Time, step time.Duration) error {
	most := smallest(ctx, a, limits.MaxTotalQueryLength)
	if most == 0 {
		return nil
	}
	length := end.Sub(start)
	from, to := promql.FindMinMaxTime(&parser.EvalStmt{Expr: expr, Start: start, End: end, Interval: step})
	if from != 0 || to != 0 {
		length = max(length, timestamp.Time(to).Sub(timestamp.Time(from)))
	}
	if length <= most {
		return nil
	}
	row := limits.MaxTotalQueryLength.Row()
	return errs.Limit(errs.Invalid, "max-total-query-length", row.Flag, row.Name,
		"the total query time range exceeds the limit (query length: %s, limit: %s)", length, most)
}

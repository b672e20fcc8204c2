package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// everything in a tenant's list allows all experimental parts of the language.
const everything = "all"

// The names by which a tenant's list allows experimental syntax. Functions and aggregations go by
// their own names.
const (
	rangeModifiers = "extended_range_selectors"
	fillModifiers  = "binop_fill_modifiers"
)

type allowedKey struct{}

// Allow returns ctx for queries that may use the experimental parts of the language in lists, of
// which each is a tenant's value of limits.EnabledExperimentalFunctions: names separated by commas,
// or all. What one list lacks is not allowed; without a list nothing is.
func Allow(ctx context.Context, lists ...string) context.Context {
	return context.WithValue(ctx, allowedKey{}, lists)
}

// allows says whether one tenant's list has name.
func allows(list, name string) bool {
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == name || entry == everything {
			return true
		}
	}
	return false
}

// checkAllowed refuses experimental parts that ctx does not allow.
func checkAllowed(ctx context.Context, expr parser.Expr) error {
	lists, _ := ctx.Value(allowedKey{}).([]string)
	var refused string
	need := func(cond bool, name string) {
		if !cond || refused != "" {
			return
		}
		if len(lists) == 0 || slices.ContainsFunc(lists, func(l string) bool { return !allows(l, name) }) {
			refused = name
		}
	}
	for n := range nodes(expr) {
		switch n := n.(type) {
		case *parser.Call:
			need(n.Func.Experimental, n.Func.Name)
		case *parser.AggregateExpr:
			need(n.Op.IsExperimentalAggregator(), n.Op.String())
		case *parser.VectorSelector:
			need(n.Anchored || n.Smoothed, rangeModifiers)
		case *parser.BinaryExpr:
			m := n.VectorMatching
			need(m != nil && (m.FillValues.LHS != nil || m.FillValues.RHS != nil), fillModifiers)
		}
	}
	if refused != "" {
		return errs.New(errs.Invalid, "%q is experimental and not enabled; an administrator can add it to the tenant's enabled_promql_experimental_functions", refused)
	}
	return nil
}

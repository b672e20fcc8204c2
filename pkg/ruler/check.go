package ruler

import (
	"context"
	"fmt"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Parser parses expressions as the tenants of a context may write them.
type Parser interface {
	ParseExpr(ctx context.Context, qs string) (parser.Expr, error)
}

// Checker says whether rules may be put.
type Checker struct {
	Limits     func(tenant.ID) limits.View
	Engine     Parser
	Federation bool // groups may read other tenants
}

// File refuses a rule file that cannot be all of a namespace: for what it says, or for the limits of
// its tenant on single groups. Errors: Invalid, with lines and reasons.
func (c *Checker) File(ctx context.Context, id tenant.ID, namespace string, data []byte) error {
	_, err := c.file(ctx, id, namespace, data)
	return err
}

func (c *Checker) file(ctx context.Context, id tenant.ID, namespace string, data []byte) (*document, error) {
	d, err := parseDocument(data)
	if err != nil {
		return nil, err
	}
	if len(d.groups) == 0 {
		return nil, errs.New(errs.Invalid, "the namespace would have no groups; delete it instead")
	}
	scheme, p := c.rulesOf(ctx, id)
	if err := d.check(scheme, p); err != nil {
		return nil, err
	}
	return d, c.allowed(id, namespace, d.groups)
}

// exprParser parses expressions as a tenant may write them.
type exprParser struct {
	parser.Parser
	ctx    context.Context // acts for the tenant
	engine Parser
}

// ParseExpr implements parser.Parser.
func (p exprParser) ParseExpr(text string) (parser.Expr, error) {
	return p.engine.ParseExpr(p.ctx, text)
}

// rulesOf returns how names and expressions of a tenant are checked.
func (c *Checker) rulesOf(ctx context.Context, id tenant.ID) (model.ValidationScheme, parser.Parser) {
	scheme := model.LegacyValidation
	if limits.NameValidationScheme.Of(c.Limits(id)) == "utf8" {
		scheme = model.UTF8Validation
	}
	return scheme, exprParser{parser.NewParser(parser.Options{}), tenant.Inject(ctx, id), c.Engine}
}

// allowed refuses groups that the limits of the tenant do not let be put into a namespace.
func (c *Checker) allowed(id tenant.ID, namespace string, groups []Group) error {
	v := c.Limits(id)
	most := limits.RulerMaxRulesPerRuleGroup.Of(v)
	if own, ok := limits.RulerMaxRulesPerRuleGroupByNamespace.Of(v).Of(namespace); ok {
		most = own
	}
	least := limits.RulerMinRuleEvaluationInterval.Of(v)
	for _, g := range groups {
		if most > 0 && len(g.Rules) > most {
			return errs.New(errs.Invalid, "per-user rules per rule group limit (limit: %d actual: %d) exceeded", most, len(g.Rules))
		}
		if g.Interval > 0 && least > 0 && g.Interval < model.Duration(least) {
			return errs.New(errs.Invalid, "group %q: its interval %s is below the %s that are allowed", g.Name, g.Interval, model.Duration(least))
		}
		if len(g.SourceTenants) > 0 && !c.Federation {
			return errs.New(errs.Invalid, "group %q: source_tenants are not allowed; set -ruler.tenant-federation.enabled to allow them", g.Name)
		}
		for _, s := range g.SourceTenants {
			if _, err := tenant.Parse(s); err != nil {
				return fmt.Errorf("group %q: source_tenants: %w", g.Name, err)
			}
		}
	}
	return nil
}

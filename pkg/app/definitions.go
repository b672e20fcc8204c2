package app

import (
	"context"

	"github.com/amphora-metrics/amphora/pkg/alertmanager"
	"github.com/amphora-metrics/amphora/pkg/ruler"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// rulesChecker says of rule files, in a process that need not evaluate any, what is wrong with them.
func (a *App) rulesChecker() (func(ctx context.Context, id tenant.ID, namespace string, data []byte) error, error) {
	e, err := a.ruleEngine()
	if err != nil {
		return nil, err
	}
	c := &ruler.Checker{Limits: a.limits.For, Engine: promql{e, a.limits}, Federation: a.cfg.Rules.Ruler.Federation.Enabled}
	return c.File, nil
}

func definitionKey(id tenant.ID) string { return alertDocs + string(id) }

func (a *App) checkDefinition(id tenant.ID, data []byte) error {
	return alertmanager.Validate(a.cfg.Alertmanager, id, data, a.limits.For(id))
}

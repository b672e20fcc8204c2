package app

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/frontend"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// FederationConfig is about reads of several tenants at once, mounted as tenant_federation.
type FederationConfig struct {
	Enabled       bool
	MaxConcurrent int
	MaxTenants    int
	Patterns      bool
	Partial       bool
}

// Declare names the settings.
func (c *FederationConfig) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", false, "Answer reads of several tenants, named as a|b in X-Scope-OrgID: their series have the label __tenant_id__.")
	s.Bool(&c.Patterns, "regex-matcher-enabled", false, "Let X-Scope-OrgID: ~regex name all tenants that match and that the caller may read. The gateway resolves them.").Expert()
	s.Bool(&c.Partial, "partial-data-enabled", false, "Answer queries, series and labels of several tenants without those that cannot be read, with a warning for each, if the request says X-Amphora-Partial-Data: true. Otherwise it fails.").Expert()
	s.Int(&c.MaxConcurrent, "max-concurrent", 16, "Tenants of one read that are queried at the same time.").Expert()
	s.Int(&c.MaxTenants, "max-tenants", 0, "Tenants that one read may name; more is refused with 422. 0: no limit.").Expert()
}

// Validate implements config.Validator.
func (c *FederationConfig) Validate() error {
	if c.Patterns && !c.Enabled {
		return config.Wrong("regex_matcher_enabled", "needs enabled")
	}
	return nil
}

// most is how many tenants one read may be for.
func (c *FederationConfig) most() int {
	switch {
	case !c.Enabled:
		return 0
	case c.MaxTenants > 0:
		return c.MaxTenants
	}
	return math.MaxInt
}

// overseer is the frontend as the API sees it.
type overseer struct{ f *frontend.Frontend }

// Running is part of prom.Overseer.
func (o overseer) Running(ctx context.Context, all bool) (any, annotations.Annotations, error) {
	of, err := frontend.WhoseOf(ctx, all)
	if err != nil {
		return nil, nil, err
	}
	list, problems := o.f.Running(ctx, of)
	var warnings annotations.Annotations
	for _, p := range problems {
		warnings.Add(p)
	}
	return list, warnings, nil
}

// Stop is part of prom.Overseer.
func (o overseer) Stop(ctx context.Context, id string, all bool) error {
	of, err := frontend.WhoseOf(ctx, all)
	if err != nil {
		return err
	}
	return o.f.Stop(ctx, of, id)
}

// Explain is part of prom.Overseer.
func (o overseer) Explain(ctx context.Context, qs string, at prom.Window, run bool) (any, error) {
	return o.f.Explain(ctx, work.Query{Text: qs, Start: at.Start.UnixMilli(), End: at.End.UnixMilli(), Step: at.Step.Milliseconds()}, run)
}

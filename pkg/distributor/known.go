package distributor

import (
	"context"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// checkKnown refuses what clients send for a tenant that nobody knows, before anything is remembered of
// it. What rules record is of tenants that have rules. Errors: Denied, Unavailable.
func (d *Distributor) checkKnown(ctx context.Context, id tenant.ID, source frame.Source) error {
	if !d.cfg.KnownTenantsOnly || source == frame.Rule {
		return nil
	}
	known, err := d.deps.Known(ctx, id)
	switch {
	case err != nil:
		return errs.New(errs.Unavailable, "whether tenant %s is known cannot be found out now: %w", id, err)
	case known:
		return nil
	}
	d.metrics.rejected.WithLabelValues("distributor_unknown_tenant").Inc()
	return errs.WithID(errs.Denied, "unknown-tenant", "Have the tenant named in the overrides of the runtime file, or make a workspace of this id; -distributor.known-tenants-only asks for that.",
		"tenant %s is not known here", id)
}

package ruler

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// Announcer tells rulers of changed rules from a process that has none.
type Announcer struct {
	Logger  *slog.Logger
	Limits  func(tenant.ID) limits.View
	Cluster Cluster // without Self
}

// Announce tells every ruler that may evaluate groups of the tenant that its rules have changed. One that
// cannot be told finds out by itself, later.
func (a *Announcer) Announce(ctx context.Context, id tenant.ID) {
	if !limits.RulerSyncRulesOnChangesEnabled.Of(a.Limits(id)) {
		return
	}
	members, err := a.Cluster.Alive()
	if err != nil {
		a.Logger.Debug("no ruler is known, none is told of changed rules", "tenant", id, "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(tenant.Inject(context.WithoutCancel(ctx), id), announceWait)
	defer cancel()
	members = shard(members, id, limits.RulerTenantShardSize.Of(a.Limits(id)))
	problems := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			c, err := a.Cluster.Client(m.Addr)
			if err == nil {
				_, err = c.Changed(ctx, &rulerpb.ChangedRequest{})
			}
			problems[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(problems...); err != nil {
		a.Logger.Warn("not all rulers were told of changed rules, they will find out by themselves", "tenant", id, "err", err)
	}
}

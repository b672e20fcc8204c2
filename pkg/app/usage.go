package app

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// usageTimeout bounds what one ingester may take to say what its tenants do.
const usageTimeout = 10 * time.Second

// usage asks the ingesters what tenants do, for the pages about it.
type usage struct {
	ring    ring.ReadRing
	clients *transport.Clients
}

// Usage is part of admin.UsageSource. Errors: Unavailable if an ingester does not answer.
func (u usage) Usage(ctx context.Context, id tenant.ID) (admin.Usage, error) {
	all, err := u.AllUsage(ctx)
	if err != nil {
		return admin.Usage{}, err
	}
	if len(all.Missing) > 0 {
		return admin.Usage{}, errs.New(errs.Unavailable, "ingesters %v did not answer, the sum would be too low", all.Missing)
	}
	for _, t := range all.Tenants {
		if t.Tenant == id {
			return t.Usage, nil
		}
	}
	return admin.Usage{}, nil
}

// AllUsage is part of admin.UsageSource. It names the ingesters that did not answer.
func (u usage) AllUsage(ctx context.Context) (admin.AllUsage, error) {
	set, err := u.ring.GetAllHealthy(members.Readable())
	if err != nil && !errors.Is(err, ring.ErrEmptyRing) {
		return admin.AllUsage{}, errs.Wrap(errs.Unavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	answers := make([]*ingesterpb.AllTenantStatsResponse, len(set.Instances))
	var wg sync.WaitGroup
	for i, inst := range set.Instances {
		wg.Go(func() {
			if c, err := u.clients.For(inst.Addr); err == nil {
				// A missing answer is what the page reports; the call's own metrics count it.
				answers[i], _ = c.AllTenantStats(ctx, &ingesterpb.TenantStatsRequest{})
			}
		})
	}
	wg.Wait()
	return u.sum(set, answers), nil
}

// sum adds up the answers and divides by the number of copies of each series.
func (u usage) sum(set ring.ReplicationSet, answers []*ingesterpb.AllTenantStatsResponse) admin.AllUsage {
	var out admin.AllUsage
	sums := map[tenant.ID]*admin.Usage{}
	for i, a := range answers {
		if a == nil {
			out.Missing = append(out.Missing, cmp.Or(set.Instances[i].Id, set.Instances[i].Addr))
			continue
		}
		for _, t := range a.Tenants {
			id := tenant.ID(t.Tenant)
			if sums[id] == nil {
				sums[id] = new(admin.Usage)
			}
			sums[id].NumSeries += t.Stats.Series
			sums[id].ActiveSeries += t.Stats.ActiveSeries
			sums[id].IngestionRate += t.Stats.IngestionRate
			sums[id].APIIngestionRate += t.Stats.ApiIngestionRate
			sums[id].RuleIngestionRate += t.Stats.RuleIngestionRate
		}
	}
	copies := max(1, min(u.ring.ReplicationFactor(), len(set.Instances)))
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		s := *sums[id]
		s.NumSeries /= uint64(copies)
		s.ActiveSeries /= uint64(copies)
		s.IngestionRate /= float64(copies)
		s.APIIngestionRate /= float64(copies)
		s.RuleIngestionRate /= float64(copies)
		out.Tenants = append(out.Tenants, admin.TenantUsage{Tenant: id, Usage: s})
	}
	return out
}

package app

import (
	"context"
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
	ring    *ring.Ring
	clients *transport.Clients
	shard   func(tenant.ID) int // size of a tenant's shard; 0: all ingesters

	mu sync.Mutex // guards in
	in registered
}

func newUsage(r *ring.Ring, clients *transport.Clients, shard func(tenant.ID) int) *usage {
	return &usage{ring: r, clients: clients, shard: shard, in: newRegistered(r)}
}

// ingesters returns the ingesters of the ring that belong to shard, healthy or not, by name.
func (u *usage) ingesters(shard ring.ReadRing) []ring.InstanceDesc {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.in.learn()
	var out []ring.InstanceDesc
	for _, id := range slices.Sorted(maps.Keys(u.in.known)) {
		if d := u.in.known[id]; shard.HasInstance(id) {
			d.Id = id
			out = append(out, d)
		}
	}
	return out
}

// asked is what one ingester answered, nil if it did not.
type asked[T any] struct {
	ingester string
	answer   *T
}

// ask asks all ingesters at once. A missing answer is for the caller to report; the call's own
// metrics count it.
func ask[T any](ctx context.Context, u *usage, ingesters []ring.InstanceDesc, do func(context.Context, ingesterpb.IngesterQueryClient) (*T, error)) []asked[T] {
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	out := make([]asked[T], len(ingesters))
	var wg sync.WaitGroup
	for i, inst := range ingesters {
		out[i].ingester = inst.Id
		if !u.ring.IsHealthy(&inst, ring.Reporting, time.Now()) {
			continue
		}
		wg.Go(func() {
			if c, err := u.clients.For(inst.Addr); err == nil {
				if answer, err := do(ctx, c); err == nil {
					out[i].answer = answer
				}
			}
		})
	}
	wg.Wait()
	return out
}

// Usage is part of admin.UsageSource. It names the ingesters that did not answer, and assumes of them
// what the others have on average. Errors: Unavailable if none answers.
func (u *usage) Usage(ctx context.Context, id tenant.ID) (admin.Usage, error) {
	shard := u.ring.ShuffleShard(string(id), u.shard(id))
	answers := ask(ctx, u, u.ingesters(shard), func(ctx context.Context, c ingesterpb.IngesterQueryClient) (*ingesterpb.TenantStatsResponse, error) {
		return c.TenantStats(ctx, &ingesterpb.TenantStatsRequest{})
	})
	var sum usageSum
	var missing []string
	for _, a := range answers {
		if a.answer == nil {
			missing = append(missing, a.ingester)
		} else {
			sum.add(a.answer)
		}
	}
	if len(missing) > 0 && len(missing) == len(answers) {
		return admin.Usage{}, errs.New(errs.Unavailable, "no ingester answered")
	}
	answered := len(answers) - len(missing)
	out := sum.usage(float64(len(answers)) / float64(max(1, answered)) / float64(u.copies(len(answers))))
	out.Missing = missing
	return out, nil
}

// copies is on how many of n ingesters a series is.
func (u *usage) copies(n int) int { return max(1, min(u.ring.ReplicationFactor(), n)) }

// AllUsage is part of admin.UsageSource. It names the ingesters that did not answer.
func (u *usage) AllUsage(ctx context.Context) (admin.AllUsage, error) {
	answers := ask(ctx, u, u.ingesters(u.ring), func(ctx context.Context, c ingesterpb.IngesterQueryClient) (*ingesterpb.AllTenantStatsResponse, error) {
		return c.AllTenantStats(ctx, &ingesterpb.TenantStatsRequest{})
	})
	var out admin.AllUsage
	sums := map[tenant.ID]*usageSum{}
	for _, a := range answers {
		if a.answer == nil {
			out.Missing = append(out.Missing, a.ingester)
			continue
		}
		for _, t := range a.answer.Tenants {
			id := tenant.ID(t.Tenant)
			if sums[id] == nil {
				sums[id] = new(usageSum)
			}
			sums[id].add(t.Stats)
		}
	}
	out.Whole = whole(u.ring, out.Missing)
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		out.Tenants = append(out.Tenants, admin.TenantUsage{Tenant: id, Usage: sums[id].usage(1 / float64(u.copies(len(answers))))})
	}
	return out, nil
}

// whole says whether each acknowledged sample is on an ingester of r that answered, without the missing ones: by the
// rule of reads.
func whole(r ring.ReadRing, missing []string) bool {
	set, err := members.ReadSet(r)
	if err != nil {
		return false
	}
	failed := 0
	zones := map[string]bool{}
	for i := range set.Instances {
		if slices.Contains(missing, set.Instances[i].Id) {
			failed++
			zones[set.Instances[i].Zone] = true
		}
	}
	if set.ZoneAwarenessEnabled {
		return len(zones) <= set.MaxUnavailableZones
	}
	return failed <= set.MaxErrors
}

// usageSum adds up what ingesters say of one tenant.
type usageSum struct {
	series, active, pendingSamples, pendingBytes uint64
	rate, api, rule                              float64
	newest, oldestPending                        int64 // Unix milliseconds; 0: none
}

func (s *usageSum) add(t *ingesterpb.TenantStatsResponse) {
	s.series += t.Series
	s.active += t.ActiveSeries
	s.rate += t.IngestionRate
	s.api += t.ApiIngestionRate
	s.rule += t.RuleIngestionRate
	s.pendingSamples += t.PendingSamples
	s.pendingBytes += t.PendingBytes
	s.newest = max(s.newest, t.NewestSample)
	if t.OldestPending > 0 && (s.oldestPending == 0 || t.OldestPending < s.oldestPending) {
		s.oldestPending = t.OldestPending
	}
}

// usage returns the sums times factor.
func (s *usageSum) usage(factor float64) admin.Usage {
	count := func(n uint64) uint64 { return uint64(float64(n)*factor + 0.5) }
	return admin.Usage{
		NumSeries: count(s.series), ActiveSeries: count(s.active),
		IngestionRate: s.rate * factor, APIIngestionRate: s.api * factor, RuleIngestionRate: s.rule * factor,
		Lag: admin.Lag{PendingSamples: count(s.pendingSamples), PendingBytes: count(s.pendingBytes),
			NewestSample: timeOf(s.newest), OldestPending: timeOf(s.oldestPending)},
	}
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

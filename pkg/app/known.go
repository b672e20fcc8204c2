package app

import (
	"context"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/control"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// knownAge is how long it is believed that a workspace is active, or that there is none: a stranger
	// who tries names costs a look into the bucket for each of them in this time, and no more.
	knownAge = 5 * time.Second
	// mostKnown bounds what is remembered.
	mostKnown = 100_000
	// activeWorkspace is the state of a workspace that may be used.
	activeWorkspace = "ACTIVE"
)

// knownTenants says which tenants are known; nil if nobody asks.
func (a *App) knownTenants() (func(context.Context, tenant.ID) (bool, error), error) {
	if !a.cfg.Distributor.KnownTenantsOnly {
		return nil, nil
	}
	k := &known{has: a.limits.Has, now: time.Now, seen: map[tenant.ID]sighting{}}
	if !a.cfg.API.Tenancy.Enabled {
		k.own = tenant.ID(a.cfg.API.Tenancy.NoAuthTenant)
	}
	if a.cfg.runs("control") {
		c, err := a.control()
		if err != nil {
			return nil, err
		}
		k.lookup = c.Lookup
		return k.is, nil
	}
	docs, err := a.documents()
	if err != nil {
		return nil, err
	}
	k.lookup = control.NewDirectory(docs).Lookup
	return k.is, nil
}

// known remembers which tenants are known.
type known struct {
	has    func(tenant.ID) bool // overrides
	own    tenant.ID            // of everybody, where there is one tenant only
	lookup func(ctx context.Context, id string) (account string, tags map[string]string, state string, err error)
	now    func() time.Time

	mu   sync.Mutex // guards seen
	seen map[tenant.ID]sighting
}

type sighting struct {
	active bool
	at     time.Time
}

// is says whether a tenant is known. While workspaces cannot be looked up, those stay known that were.
func (k *known) is(ctx context.Context, id tenant.ID) (bool, error) {
	if id == k.own || k.has(id) {
		return true, nil
	}
	now := k.now()
	k.mu.Lock()
	last, ok := k.seen[id]
	k.mu.Unlock()
	if ok && now.Sub(last.at) < knownAge {
		return last.active, nil
	}
	_, _, state, err := k.lookup(ctx, string(id))
	switch {
	case errs.KindOf(err) == errs.NotFound && err != nil:
		state = ""
	case err != nil && last.active:
		return true, nil
	case err != nil:
		return false, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.seen) >= mostKnown {
		clear(k.seen)
	}
	k.seen[id] = sighting{state == activeWorkspace, now}
	return state == activeWorkspace, nil
}

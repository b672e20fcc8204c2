package block

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// listAge is how old a list of blocks may be. Ingesters keep what they uploaded for hours,
	// so a block may be seen late without a gap.
	listAge = time.Minute

	// staleListAge is how old a list may be while the storage cannot be listed. It is far below
	// the time ingesters keep uploaded samples, so queries of recent data outlive an outage of
	// the storage without a gap.
	staleListAge = 15 * time.Minute

	// idleListAge is when the list of a tenant nobody queries is forgotten.
	idleListAge = time.Hour
)

// lists remembers the blocks of the tenants that were queried lately.
type lists struct {
	deps    Deps
	metrics *metrics

	mu      sync.Mutex // guards tenants
	tenants map[tenant.ID]*list
}

// list is the blocks of one tenant. Its lock is a channel so that waiting for a listing ends with
// the waiter's context.
type list struct {
	lock  chan struct{}
	used  time.Time // guarded by lists.mu
	known listing   // guarded by lock
}

// listing is the outcome of one listing, immutable.
type listing struct {
	began time.Time
	metas map[ulid.ULID]Meta
}

// at returns the tenant's blocks as of notBefore, or as of a minute ago if that is zero.
func (ls *lists) at(ctx context.Context, id tenant.ID, notBefore time.Time) (listing, error) {
	l := ls.of(id)
	select {
	case l.lock <- struct{}{}:
	case <-ctx.Done():
		return listing{}, context.Cause(ctx)
	}
	defer func() { <-l.lock }()

	now := ls.deps.Now()
	age := now.Sub(l.known.began)
	if l.known.metas != nil && age < listAge && !l.known.began.Before(notBefore) {
		return l.known, nil
	}
	ls.metrics.listings.Inc()
	metas, err := listMetas(ctx, objstore.NewPrefixedBucket(ls.deps.Bucket, string(id)), l.known.metas)
	if err != nil {
		ls.metrics.listFailures.Inc()
		if l.known.metas != nil && age < staleListAge && notBefore.IsZero() && ctx.Err() == nil {
			ls.deps.Logger.Warn("blocks not listed, the last list is used", "tenant", id, "age", age, "err", err)
			return l.known, nil
		}
		return listing{}, err
	}
	known := make(map[ulid.ULID]Meta, len(metas))
	for _, m := range metas {
		known[m.ULID] = m
	}
	l.known = listing{began: now, metas: known}
	return l.known, nil
}

func (ls *lists) of(id tenant.ID) *list {
	now := ls.deps.Now()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.tenants[id]
	if l == nil {
		l = &list{lock: make(chan struct{}, 1)}
		maps.DeleteFunc(ls.tenants, func(_ tenant.ID, l *list) bool { return now.Sub(l.used) > idleListAge })
		ls.tenants[id] = l
	}
	l.used = now
	return l
}

// overlapping returns the blocks that may have samples in mint <= t <= maxt, oldest first.
func overlapping(metas map[ulid.ULID]Meta, mint, maxt int64) []Meta {
	var out []Meta
	for _, m := range metas {
		if m.Overlaps(mint, maxt) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Meta) int { return a.ULID.Compare(b.ULID) })
	return out
}

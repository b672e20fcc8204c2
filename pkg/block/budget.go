package block

import (
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"
	"golang.org/x/time/rate"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// budgetSpan is the time that budgets are for. What was saved up is at most that of one span.
	budgetSpan = time.Hour
	// budgetTenants is at how many accounts those are dropped that nobody spent from for a span: they are full,
	// as new ones are.
	budgetTenants = 1000
)

// BudgetDeps are what a Budget works with.
type BudgetDeps struct {
	Limits func(tenant.ID) limits.View
	// Sharers is how many processes share a tenant's reads. nil: this one has them all.
	Sharers func(tenant.ID) int
	Reg     prometheus.Registerer
	Now     func() time.Time // nil: time.Now
}

// Budget bounds what the queries of each tenant ask of object storage. It is safe for concurrent use.
type Budget struct {
	deps    BudgetDeps
	refused *prometheus.CounterVec

	mu       sync.Mutex // guards accounts
	accounts map[tenant.ID]*budgetAccount
}

// budgetAccount is what a tenant has left. A limiter is nil as long as nothing was asked of it.
type budgetAccount struct {
	gets, lists *rate.Limiter
	used        time.Time
}

// NewBudget returns a budget of which nothing is spent.
func NewBudget(deps BudgetDeps) *Budget {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &Budget{deps: deps, accounts: map[tenant.ID]*budgetAccount{}, refused: promauto.With(deps.Reg).NewCounterVec(prometheus.CounterOpts{
		Name: "amphora_bucket_store_over_budget_requests_total",
		Help: "Requests to object storage that were not made because the queries of a tenant have used up its budget of an hour; the queries failed with status 429."},
		[]string{"request"})}
}

// Bucket is a bucket within the budget, for what queries read of blocks.
func (b *Budget) Bucket(of objstore.Bucket) objstore.Bucket { return &budgeted{listings{of, b}} }

// Listings is a bucket of which only listings are within the budget, for bucket indexes, of which few are read
// however many queries there are.
func (b *Budget) Listings(of objstore.Bucket) objstore.Bucket { return &listings{of, b} }

// get takes one read of an object. Errors: RateLimited.
func (b *Budget) get(name string) error {
	id, v, ok := b.owner(name)
	most := limits.MaxObjectStoreGetsPerHour.Of(v)
	if !ok || most <= 0 {
		return nil
	}
	share := float64(most)
	if b.deps.Sharers != nil {
		share /= float64(max(1, b.deps.Sharers(id)))
	}
	if b.take(id, share, func(a *budgetAccount) **rate.Limiter { return &a.gets }) {
		return nil
	}
	b.refused.WithLabelValues("get").Inc()
	r := limits.MaxObjectStoreGetsPerHour.Row()
	return errs.Limit(errs.RateLimited, "max-object-store-gets-per-hour", r.Flag, r.Name,
		"the queries of tenant %s have used up what they may read from object storage, %d requests an hour; ask for less, or later", id, most)
}

// list takes one listing. Errors: RateLimited.
func (b *Budget) list(name string) error {
	id, v, ok := b.owner(name)
	most := limits.MaxObjectStoreListsPerHour.Of(v)
	if !ok || most <= 0 || b.take(id, float64(most), func(a *budgetAccount) **rate.Limiter { return &a.lists }) {
		return nil
	}
	b.refused.WithLabelValues("list").Inc()
	r := limits.MaxObjectStoreListsPerHour.Row()
	return errs.Limit(errs.RateLimited, "max-object-store-lists-per-hour", r.Flag, r.Name,
		"the queries of tenant %s have used up what they may list of object storage, %d requests an hour; it has no bucket index, which a compactor writes", id, most)
}

// owner is the tenant of an object or directory, and its limits.
func (b *Budget) owner(name string) (tenant.ID, limits.View, bool) {
	dir, _, _ := strings.Cut(name, "/")
	id, err := tenant.Parse(dir)
	if err != nil {
		return "", limits.View{}, false
	}
	return id, b.deps.Limits(id), true
}

// take takes one of share requests a span from an account.
func (b *Budget) take(id tenant.ID, share float64, which func(*budgetAccount) **rate.Limiter) bool {
	now := b.deps.Now()
	per, burst := rate.Limit(share/budgetSpan.Seconds()), max(1, int(share))
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[id]
	if a == nil {
		if len(b.accounts) >= budgetTenants {
			for other, a := range b.accounts {
				if now.Sub(a.used) > budgetSpan {
					delete(b.accounts, other)
				}
			}
		}
		a = &budgetAccount{}
		b.accounts[id] = a
	}
	a.used = now
	l := which(a)
	switch {
	case *l == nil:
		*l = rate.NewLimiter(per, burst)
	case (*l).Limit() != per:
		(*l).SetLimitAt(now, per)
		(*l).SetBurstAt(now, burst)
	}
	return (*l).AllowN(now, 1)
}

// listings is a bucket whose listings have a budget.
type listings struct {
	objstore.Bucket
	b *Budget
}

func (b *listings) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	if err := b.b.list(dir); err != nil {
		return err
	}
	return b.Bucket.Iter(ctx, dir, f, options...)
}

func (b *listings) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if err := b.b.list(dir); err != nil {
		return err
	}
	return b.Bucket.IterWithAttributes(ctx, dir, f, options...)
}

// budgeted is a bucket whose reads have a budget, too.
type budgeted struct{ listings }

func (b *budgeted) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := b.b.get(name); err != nil {
		return nil, err
	}
	return b.Bucket.Get(ctx, name)
}

func (b *budgeted) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if err := b.b.get(name); err != nil {
		return nil, err
	}
	return b.Bucket.GetRange(ctx, name, off, length)
}

func (b *budgeted) Exists(ctx context.Context, name string) (bool, error) {
	if err := b.b.get(name); err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

func (b *budgeted) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if err := b.b.get(name); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}

package clustercache

import (
	"context"
	"time"

	"github.com/grafana/dskit/cache"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// named gives a Cache the shape that readers of caches know.
type named struct {
	c    *Cache
	name string
}

// GetMulti implements cache.Cache.
func (n *named) GetMulti(ctx context.Context, keys []string, _ ...cache.Option) map[string][]byte {
	return n.c.get(ctx, keys)
}

// GetMultiWithError implements cache.Cache. It never fails: what an owner does not answer is not there.
func (n *named) GetMultiWithError(ctx context.Context, keys []string, _ ...cache.Option) (map[string][]byte, error) {
	return n.c.get(ctx, keys), nil
}

// SetAsync implements cache.Cache. The value must not be changed afterwards.
func (n *named) SetAsync(key string, value []byte, ttl time.Duration) { n.c.set(key, value, ttl) }

// SetMultiAsync implements cache.Cache.
func (n *named) SetMultiAsync(data map[string][]byte, ttl time.Duration) {
	for key, value := range data {
		n.c.set(key, value, ttl)
	}
}

// Set implements cache.Cache. It does not wait.
func (n *named) Set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	n.c.set(key, value, ttl)
	return nil
}

// Add implements cache.Cache. Errors: Invalid, as owners only keep what comes last.
func (n *named) Add(context.Context, string, []byte, time.Duration) error {
	return errs.New(errs.Invalid, "the cache %s has no way to add an item only if it is new", n.name)
}

// Delete implements cache.Cache. Errors: Invalid, as items are only dropped by age and for room.
func (n *named) Delete(context.Context, string) error {
	return errs.New(errs.Invalid, "the cache %s has no way to delete an item", n.name)
}

// Stop implements cache.Cache.
func (n *named) Stop() {}

// Name implements cache.Cache.
func (n *named) Name() string { return n.name }

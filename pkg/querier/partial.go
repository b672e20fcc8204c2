package querier

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// spares says whether the work of ctx goes on without tenants that fail.
func (f *Federation) spares(ctx context.Context) bool {
	return f.partial && work.ReadingOf(ctx).Partial
}

// missing says whether err is about one tenant. When ctx has ended, all of them fail for that.
func missing(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && errs.KindOf(err) != errs.Canceled
}

// leftOut is the warning about a tenant that failed.
func leftOut(id tenant.ID, err error) error {
	return fmt.Errorf("%w: tenant %s could not be read, the answer lacks some or all of its series: %w", annotations.PromQLWarning, id, err)
}

// partialSet is the series of those tenants that could be read. If none could, it fails as each of them did.
type partialSet struct {
	storage.SeriesSet
	of []*tenantSet
}

// Err implements storage.SeriesSet.
func (s *partialSet) Err() error {
	if err := s.SeriesSet.Err(); err != nil {
		return err
	}
	var first error
	for _, x := range s.of {
		err := x.SeriesSet.Err()
		if err == nil {
			return nil
		}
		if first == nil {
			first = about(x.id, err)
		}
	}
	return first
}

// spare is each, without tenants that fail where the work of ctx goes on without them, of which notes tell.
func spare[T any](ctx context.Context, f *Federation, ids []tenant.ID, call func(ctx context.Context, id tenant.ID) (T, error)) (out []T, notes annotations.Annotations, err error) {
	if !f.spares(ctx) {
		out, err = each(ctx, f, ids, call)
		return out, nil, err
	}
	var mu sync.Mutex
	failed := map[tenant.ID]error{}
	out, err = each(ctx, f, ids, func(one context.Context, id tenant.ID) (T, error) {
		x, err := call(one, id)
		if !missing(ctx, err) {
			return x, err
		}
		mu.Lock()
		defer mu.Unlock()
		failed[id] = err
		if len(failed) == len(ids) {
			return x, err
		}
		var none T
		return none, nil
	})
	for id, err := range failed {
		notes.Add(leftOut(id, err))
	}
	return out, notes, err
}

package frontend

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/frontend/results"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// failing calls run, unless the same query failed a moment ago in a way that it would fail again.
func (q *query) failing(ctx context.Context, run func() (answer, error)) (answer, error) {
	f := q.f
	if !f.cfg.CacheErrors || f.deps.Results == nil || withoutCache(ctx) {
		return run()
	}
	ttl := limits.ResultsCacheTTLForErrors.Of(f.deps.Limits(q.tenants[0]))
	for _, id := range q.tenants {
		ttl = min(ttl, limits.ResultsCacheTTLForErrors.Of(f.deps.Limits(id)))
	}
	if ttl <= 0 {
		return run()
	}
	key := results.Key(results.Failure, q.tenancy(), fmt.Sprintf("%+v", q.asked))
	if item, ok := f.deps.Results.Get(ctx, key); ok {
		if kind, text, err := results.DecodeFailure(item); err == nil && errs.Kind(kind).Valid() {
			f.deps.Results.Asked(results.Failure, 1)
			return answer{}, errs.Wrap(errs.Kind(kind), errors.New(text))
		}
		f.deps.Results.Damaged()
	}
	f.deps.Results.Asked(results.Failure, 0)
	out, err := run()
	if err == nil || ctx.Err() != nil {
		return out, err
	}
	switch kind := errs.KindOf(err); {
	case strings.Contains(err.Error(), "query-evicted"), strings.Contains(err.Error(), "(err-amphora-query-timeout)"): // it is not the query's fault alone
	case kind == errs.Invalid, kind == errs.TooLarge, kind == errs.Unprocessable:
		f.deps.Results.Set(key, results.EncodeFailure(byte(kind), err.Error()), ttl)
	}
	return out, err
}

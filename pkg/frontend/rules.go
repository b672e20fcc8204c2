package frontend

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// mostAsked bounds how many limited queries are remembered.
const mostAsked = 10_000

// rules keeps to what administrators say of single queries.
type rules struct {
	limits func(tenant.ID) limits.View
	now    func() time.Time

	mu    sync.Mutex // guards asked
	asked map[asked]time.Time
}

// asked is a limited query of a tenant.
type asked struct {
	id      tenant.ID
	pattern string
}

// check refuses a query that one of the tenants of ctx must not ask, or not so soon. Errors: Invalid,
// RateLimited.
func (r *rules) check(ctx context.Context, text string, expr parser.Expr) error {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		v := r.limits(id)
		blocked, limited := limits.BlockedQueries.Of(v).List(), limits.LimitedQueries.Of(v).List()
		if len(blocked) == 0 && len(limited) == 0 {
			continue
		}
		texts := []string{strings.TrimSpace(text), expr.String()}
		for i := range blocked {
			if blocked[i].Matches(texts...) {
				return blocked[i].Refusal()
			}
		}
		for i := range limited {
			if limited[i].Matches(texts...) && !r.due(asked{id, limited[i].Pattern}, limited[i].Every) {
				return errs.WithID(errs.RateLimited, "query-limited", "", "the query has been limited by the cluster administrator: it may be asked once in %s", limited[i].Every)
			}
		}
	}
	return nil
}

// due says whether a limited query may be asked now, and if so notes that it was.
func (r *rules) due(a asked, every time.Duration) bool {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.asked[a]; ok && now.Sub(last) < every {
		return false
	}
	if len(r.asked) >= mostAsked {
		clear(r.asked)
	}
	r.asked[a] = now
	return true
}

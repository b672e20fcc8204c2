package engine

import (
	"context"
	"sync/atomic"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
)

// bound is how the memory of queries is bounded.
type bound struct {
	workings *memory.Workings
	limits   func(tenant.ID) limits.View
	last     *atomic.Pointer[exceeded]
}

// Bound makes queries take what they use of the process's memory, and keep to the limits of their tenants.
// It is called before the first query.
func (e *Engine) Bound(m *memory.Ledger, of func(tenant.ID) limits.View) {
	e.bound = bound{m.Workings(), of, new(atomic.Pointer[exceeded])}
}

// TakeTurns makes queries take turns on the processors. It is called before the first query.
func (e *Engine) TakeTurns(g *turns.Gate) { e.turns = g }

// Watch tells t of the queries that are evaluated. It is called before the first one.
func (e *Engine) Watch(t *activity.Tracker) { e.activity = t }

// begin returns ctx for one query; the caller ends what it uses.
func (b *bound) begin(ctx context.Context) (context.Context, *memory.Working) {
	if b.workings == nil || memory.WorkingOf(ctx) != nil {
		return ctx, nil // or it is part of a query
	}
	most := 0
	if ids, err := tenant.Many(ctx); err == nil {
		for _, id := range ids {
			if n := limits.MaxEstimatedMemoryConsumptionPerQuery.Of(b.limits(id)); n > 0 && (most == 0 || n < most) {
				most = n
			}
		}
	}
	return b.workings.Begin(ctx, int64(most), b.exceeds(most))
}

// exceeded is the error of queries that use more than most.
type exceeded struct {
	most int
	err  error
}

// exceeds returns that error. Most queries have the limit of the one before and never need it, and to word it costs
// more than the rest of a small one.
func (b *bound) exceeds(most int) error {
	if last := b.last.Load(); last != nil && last.most == most {
		return last.err
	}
	row := limits.MaxEstimatedMemoryConsumptionPerQuery.Row()
	err := errs.Limit(errs.TooLarge, "max-estimated-memory-consumption-per-query", row.Flag, row.Name,
		"the query exceeded the maximum allowed estimated amount of memory consumed by a single query (limit: %d bytes)", most)
	b.last.Store(&exceeded{most, err})
	return err
}

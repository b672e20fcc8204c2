package engine

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

// observed is a storage that sees whether who selects has a turn.
type observed struct {
	nothing
	turn **turns.Turn
}

func (o observed) Querier(int64, int64) (storage.Querier, error) { return o, nil }
func (o observed) Select(ctx context.Context, sorted bool, h *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	*o.turn = turns.Of(ctx)
	return o.nothing.Select(ctx, sorted, h, ms...)
}

func TestAQueryIsEvaluatedInATurnAndThenGivesItBack(t *testing.T) {
	for _, by := range []string{engineAmphora, enginePrometheus} {
		cfg := defaults()
		cfg.QueryEngine = by
		e := open(t, cfg)
		g := turns.New(1, func(context.Context) (string, turns.Class) { return "t", 0 }, prometheus.NewRegistry())
		e.TakeTurns(g)
		for range 3 { // the one place is free again each time
			var turn *turns.Turn
			if err := run(t.Context(), e, observed{turn: &turn}, "sum(up)"); err != nil || turn == nil {
				t.Errorf("%s: turn %v, %v", by, turn, err)
			}
		}
	}
}

func TestAQueryThatWaitsForASlotLeavesItsTurnToTheOneThatHasTheSlot(t *testing.T) {
	cfg := defaults()
	cfg.MaxConcurrent = 1
	e := open(t, cfg)
	e.TakeTurns(turns.New(1, func(context.Context) (string, turns.Class) { return "t", 0 }, prometheus.NewRegistry()))
	done := make(chan error)
	for range 20 {
		go func() { done <- run(t.Context(), e, nothing{}, "sum(up)") }()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

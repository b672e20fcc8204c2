package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
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

// lengthy is a storage with a thousand series, each of which takes a second: to compute the first of them,
// and to wait for the others.
type lengthy struct {
	nothing
	computed int
}

func (l lengthy) Querier(int64, int64) (storage.Querier, error) { return l, nil }
func (l lengthy) Select(ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	return &lengthySet{l: l, ctx: ctx}
}

type lengthySet struct {
	l   lengthy
	ctx context.Context
	n   int
	err error
}

func (s *lengthySet) Next() bool {
	if s.n++; s.n <= s.l.computed {
		<-time.After(time.Second) // nobody is told of it
		return s.n <= 1000
	}
	turn := turns.Of(s.ctx)
	turn.Rest()
	defer turn.Resume()
	select {
	case <-time.After(time.Second):
	case <-s.ctx.Done():
		s.err = context.Cause(s.ctx)
	}
	return s.err == nil && s.n <= 1000
}

func (s *lengthySet) At() storage.Series {
	return &storage.SeriesEntry{Lset: labels.FromStrings("__name__", "up", "i", fmt.Sprint(s.n)), SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return chunkenc.NewNopIterator() }}
}
func (s *lengthySet) Err() error                        { return s.err }
func (s *lengthySet) Warnings() annotations.Annotations { return nil }

func TestATimeoutIsTheQuerysFaultIfItComputedForLong(t *testing.T) {
	for _, c := range []struct {
		what     string
		judged   bool
		turns    bool
		computed int // seconds
		timeout  time.Duration
		want     errs.Kind
	}{
		{"it computes", true, true, 1000, 2 * time.Minute, errs.Unprocessable},
		{"it computes for more than half of the time", true, true, 70, 2 * time.Minute, errs.Unprocessable},
		{"it waits for more than half of the time", true, true, 50, 2 * time.Minute, errs.Timeout},
		{"it waits", true, true, 0, 2 * time.Minute, errs.Timeout},
		{"it was in a queue before", true, true, 1000, 30 * time.Second, errs.Timeout},
		{"it computes, where nobody takes turns", true, false, 1000, 2 * time.Minute, errs.Timeout},
		{"it computes, and nobody judges", false, true, 1000, 2 * time.Minute, errs.Timeout},
	} {
		for _, by := range []string{engineAmphora, enginePrometheus} {
			synctest.Test(t, func(t *testing.T) {
				cfg := defaults()
				cfg.QueryEngine, cfg.JudgeTimeouts = by, c.judged
				e := open(t, cfg)
				if c.turns {
					e.TakeTurns(turns.New(1, func(context.Context) (string, turns.Class) { return "t", 0 }, prometheus.NewRegistry()))
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				defer cancel()
				err := run(ctx, e, lengthy{computed: c.computed}, "sum(up)")
				if got := errs.KindOf(err); got != c.want || strings.Contains(fmt.Sprint(err), "(err-amphora-query-timeout)") != (c.want == errs.Unprocessable) {
					t.Errorf("%s, %s: %v, want kind %v", by, c.what, err, c.want)
				}
				if c.want == errs.Unprocessable && ctx.Err() != nil && c.computed < 1000 {
					t.Errorf("%s, %s: the verdict came when nobody waited for it any more", by, c.what)
				}
			})
		}
	}
}

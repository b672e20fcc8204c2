package memory

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// roomFor returns the working sets of a process in which queries may take about so many bytes.
func roomFor(t *testing.T, bytes int64) (*Workings, *Account) {
	t.Helper()
	l := New(Limits{Process: 1 << 50, Go: 1 << 50}, Deps{})
	a := l.Account(Queries)
	a.line = l.inUse() + bytes
	return l.Workings(), a
}

func TestAQueryOverItsLimitIsRefusedAndOthersAreNot(t *testing.T) {
	w, a := roomFor(t, 1<<40)
	over := errors.New("over")
	ctx, q := w.Begin(t.Context(), 1000, over)
	if WorkingOf(ctx) != q {
		t.Error("the context does not carry the query")
	}
	_, other := w.Begin(t.Context(), 0, over)
	if err := q.Use(1000); err != nil {
		t.Error(err)
	}
	if err := q.Use(1); !errors.Is(err, over) {
		t.Errorf("over its limit: %v", err)
	}
	if err := other.Use(1 << 20); err != nil {
		t.Error(err)
	}
	q.Return(500)
	if err := q.Use(400); err != nil || q.Peak() != 1000 {
		t.Errorf("after a return: %v, peak %d", err, q.Peak())
	}
	q.End()
	q.End()
	other.End()
	if a.Held() != 0 {
		t.Errorf("%d bytes held by no query", a.Held())
	}
	if ctx.Err() == nil {
		t.Error("the context outlives its query")
	}
}

func TestALastingReadIsRefusedAndNobodyIsEnded(t *testing.T) {
	w, a := roomFor(t, 100<<20)
	over := errors.New("over")
	ctx, read := a.Lasting(t.Context(), 90<<20, over)
	queryCtx, query := w.Begin(t.Context(), 0, nil)
	for q, n := range map[*Working]int64{read: 60 << 20, query: 39 << 20} {
		if err := q.Use(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := read.Use(31 << 20); !errors.Is(err, over) {
		t.Errorf("over its limit: %v", err)
	}
	_, small := a.Lasting(t.Context(), 0, over) // beside which the query is heavy
	for name, q := range map[string]*Working{"the read": read, "the query": query, "a small read": small} {
		if err := q.Use(5 << 20); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("%s in a process without room: %v", name, err)
		}
	}
	if WorkingOf(ctx) != read || ctx.Err() != nil || queryCtx.Err() != nil {
		t.Errorf("ended: %v, %v", context.Cause(ctx), context.Cause(queryCtx))
	}
	read.End()
	query.End()
	small.End()
	if a.Held() != 0 || ctx.Err() == nil {
		t.Errorf("%d bytes held by nobody, the context ended with %v", a.Held(), ctx.Err())
	}
}

func TestTheHeaviestQueryEndsWhenMemoryIsShort(t *testing.T) {
	w, a := roomFor(t, 100<<20)
	heavyCtx, heavy := w.Begin(t.Context(), 0, nil)
	_, middle := w.Begin(t.Context(), 0, nil)
	_, light := w.Begin(t.Context(), 0, nil)
	for q, n := range map[*Working]int64{heavy: 70 << 20, middle: 28 << 20, light: 1 << 20} {
		if err := q.Use(n); err != nil {
			t.Fatal(err)
		}
	}
	go func() { // as its engine does
		<-heavyCtx.Done()
		heavy.End()
	}()
	if err := light.Use(5 << 20); err != nil {
		t.Errorf("the light query was refused: %v", err)
	}
	if errs.KindOf(context.Cause(heavyCtx)) != errs.TooLarge || heavy.Evicted() == nil || middle.Evicted() != nil {
		t.Errorf("ended: %v; heavy %v, middle %v", context.Cause(heavyCtx), heavy.Evicted(), middle.Evicted())
	}
	if err := heavy.Use(1 << 20); errs.KindOf(err) != errs.TooLarge {
		t.Errorf("the ended query goes on: %v", err)
	}
	if err := middle.Use(90 << 20); errs.KindOf(err) != errs.Unavailable || light.Evicted() != nil {
		t.Errorf("the heaviest asks for more: %v; a lighter one: %v", err, light.Evicted())
	}
	middle.End()
	light.End()
	if a.Held() != 0 {
		t.Errorf("%d bytes held by no query", a.Held())
	}
}

// TestQueriesEndBeforeTheProcessDoes has a query make more than it says: it may be any, but the heaviest goes
// first, and one at a time.
func TestQueriesEndBeforeTheProcessDoes(t *testing.T) {
	p := newProcess(t)
	begin := func(n int64) *Working {
		_, q := p.Workings().Begin(t.Context(), 0, nil)
		if err := q.Use(n); err != nil {
			t.Fatal(err)
		}
		return q
	}
	line, reads := p.limits.line(writes), p.limits.line(reads)
	light, heavy := begin(1), begin(reads/4)
	ended := func(when string, first, second bool) {
		t.Helper()
		if heavy.Evicted() != nil != first || light.Evicted() != nil != second {
			t.Errorf("%s: the heavy query ended: %v, the light one: %v", when, heavy.Evicted(), light.Evicted())
		}
	}
	p.collected(line - 1)
	ended("below the line", false, false)
	p.collected(line + 1)
	ended("above the line", true, false)
	p.collected(line + 1)
	ended("before the first is gone", true, false)
	heavy.End()
	p.collected(line - 1)
	ended("below the line again", true, false)
	p.collected(line + 1)
	ended("above the line again", true, true)
	light.End()
	p.collected(line + 1) // without queries nobody ends
}

func TestManyQueriesAtOnceLeaveNothingBehind(t *testing.T) {
	w, a := roomFor(t, 20<<20)
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1))
			for range 30 {
				_, q := w.Begin(context.Background(), 0, nil)
				for range rng.IntN(10) {
					if q.Use(rng.Int64N(2<<20)) != nil {
						break
					}
				}
				q.End()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("queries wait for each other")
	}
	if a.Held() != 0 || len(w.running) != 0 {
		t.Errorf("%d bytes held by %d queries", a.Held(), len(w.running))
	}
}

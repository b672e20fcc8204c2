package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/user"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/seeds"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// asked is one piece of work, as its caller sees it and as a model that looks at all of them one by
// one does.
type asked struct {
	tenant  string
	class   work.Class
	work    *work.Work
	cancel  context.CancelCauseFunc
	outcome chan error

	gone    bool  // its caller gave up
	given   *Task // what a worker has of it
	lost    int   // how often a querier that had it was lost
	told    error // what the worker that had it said, once it is over
	over    bool  // told was said
	settled bool  // the caller knows
}

// hand is a worker that waits.
type hand struct {
	querier string
	cancel  context.CancelFunc
	got     chan *Task
}

// game is a schedule: callers, workers and what happens to them.
type game struct {
	t     *testing.T
	rnd   *rand.Rand
	s     *Scheduler
	most  map[string]int // queriers of each tenant
	all   []*asked
	hands []*hand
	asks  int
	steps []string
}

var (
	errAnswer = errors.New("the query is wrong")
	errGone   = errors.New("the caller is gone")
)

func (g *game) fail(format string, args ...any) {
	g.t.Helper()
	if len(g.steps) > 40 {
		g.steps = g.steps[len(g.steps)-40:]
	}
	for _, a := range g.all { // so that what is said is not that goroutines are left
		a.cancel(errGone)
		if a.given != nil {
			a.given.Finish(nil)
		}
	}
	g.t.Fatalf("%s\nafter %v", fmt.Sprintf(format, args...), g.steps)
}

func (g *game) scheduler(cfg Config) *Scheduler {
	g.t.Helper()
	s, err := New(cfg, Deps{Logger: slog.New(slog.DiscardHandler), Limits: func(id tenant.ID) limits.View {
		return limits.MaxQueriersPerTenant.With(limits.View{}, g.most[string(id)])
	}})
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// ask queues work, or learns that the tenant has too much of it.
func (g *game) ask() {
	a := &asked{tenant: fmt.Sprint("t", g.rnd.IntN(4)), class: work.Class(g.rnd.IntN(int(work.Classes))), outcome: make(chan error, 1)}
	a.work = &work.Work{Class: a.class, Query: &work.Query{Text: fmt.Sprint(g.asks)}}
	g.asks++
	ctx, cancel := context.WithCancelCause(user.InjectOrgID(g.t.Context(), a.tenant))
	a.cancel = cancel
	waiting := 0
	for _, o := range g.all {
		if o.tenant == a.tenant && o.given == nil && !o.over && !o.settled {
			waiting++
		}
	}
	g.steps = append(g.steps, fmt.Sprintf("ask %s of %s class %d", a.work.Query.Text, a.tenant, a.class))
	go func() { a.outcome <- g.s.Run(ctx, a.work) }()
	synctest.Wait()
	if waiting >= g.s.cfg.MaxOutstanding {
		if err := <-a.outcome; errs.KindOf(err) != errs.RateLimited {
			g.fail("with %d waiting, one more is told %v", waiting, err)
		}
		return
	}
	g.all = append(g.all, a)
}

func (g *game) wait() {
	ctx, cancel := context.WithCancel(g.t.Context())
	h := &hand{querier: fmt.Sprint("q", g.rnd.IntN(3)), cancel: cancel, got: make(chan *Task, 1)}
	g.hands = append(g.hands, h)
	g.steps = append(g.steps, "a worker of "+h.querier)
	go func() {
		defer close(h.got)
		if t, err := g.s.Next(ctx, h.querier); err == nil {
			h.got <- t
		}
	}()
	synctest.Wait()
}

// holding are those that workers have.
func (g *game) holding() (out []*asked) {
	for _, a := range g.all {
		if a.given != nil {
			out = append(out, a)
		}
	}
	return out
}

func some[T any](g *game, of []T) (one T, ok bool) {
	if len(of) == 0 {
		return one, false
	}
	return of[g.rnd.IntN(len(of))], true
}

func (g *game) end(lost bool) {
	a, ok := some(g, g.holding())
	if !ok {
		return
	}
	t := a.given
	a.given = nil
	switch {
	case !lost:
		if g.rnd.IntN(4) == 0 {
			a.told = errAnswer
		}
		a.over = true
		g.steps = append(g.steps, fmt.Sprint("finish ", a.work.Query.Text))
		t.Finish(a.told)
	default:
		a.lost++
		a.over = a.gone || a.lost >= mostTries
		a.told = errs.New(errs.Unavailable, "lost")
		g.steps = append(g.steps, fmt.Sprint("lose ", a.work.Query.Text))
		t.Return()
	}
	synctest.Wait()
}

func (g *game) giveUp() {
	a, ok := some(g, g.all)
	if !ok {
		return
	}
	a.gone = true
	g.steps = append(g.steps, fmt.Sprint("give up ", a.work.Query.Text))
	a.cancel(errGone)
	synctest.Wait()
}

func (g *game) goHome() {
	h, ok := some(g, g.hands)
	if !ok {
		return
	}
	g.steps = append(g.steps, "a worker of "+h.querier+" goes")
	h.cancel()
	synctest.Wait()
}

// settle takes notice of what came, and checks it.
func (g *game) settle() {
	var now []*asked
	for i := 0; i < len(g.hands); i++ {
		h := g.hands[i]
		select {
		case t, ok := <-h.got:
			g.hands = slices.Delete(g.hands, i, i+1)
			i--
			if ok {
				now = append(now, g.given(h, t))
			}
		default:
		}
	}
	for _, a := range now {
		g.inTurn(a)
	}
	kept := g.all[:0]
	for _, a := range g.all {
		select {
		case err := <-a.outcome:
			g.outcome(a, err)
		default:
			if a.over || a.gone && a.given == nil {
				g.fail("%s is over and its caller does not know", a.work.Query.Text)
			}
			kept = append(kept, a)
		}
	}
	clear(g.all[len(kept):])
	g.all = kept
	g.idle()
}

// given checks that what a worker is given is to be done.
func (g *game) given(h *hand, t *Task) *asked {
	i := slices.IndexFunc(g.all, func(a *asked) bool { return a.work == t.Work })
	if i < 0 {
		g.fail("%s is given to a worker after its end", t.Work.Query.Text)
	}
	a := g.all[i]
	if a.given != nil || a.over {
		g.fail("%s is given to two workers", t.Work.Query.Text)
	}
	a.given = t
	g.steps = append(g.steps, fmt.Sprintf("%s has %s", h.querier, a.work.Query.Text))
	return a
}

// inTurn checks that nothing waits that was before a.
func (g *game) inTurn(a *asked) {
	for _, o := range g.all {
		switch {
		case o.given != nil || o.over:
		case o.tenant == a.tenant && o.class == a.class && o.lost == 0 && a.lost == 0 && seq(o) < seq(a):
			g.fail("%s is given before %s, which is older", a.work.Query.Text, o.work.Query.Text)
		}
	}
}

func seq(a *asked) (n int) {
	_, _ = fmt.Sscan(a.work.Query.Text, &n)
	return n
}

func (g *game) allowed(querier string, a *asked) bool {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	q := g.s.queue.tenants[a.tenant]
	return q != nil && q.active < max(1, int(g.s.cfg.MaxShare*float64(g.s.workers))) && g.s.queue.allowed(q, querier)
}

// outcome checks what a caller is told.
func (g *game) outcome(a *asked, err error) {
	a.settled = true
	switch {
	case a.given != nil:
		g.fail("%s ends with %v while a worker has it", a.work.Query.Text, err)
	case a.gone && errors.Is(err, errGone):
	case !a.over:
		g.fail("%s ends with %v, and nobody said so", a.work.Query.Text, err)
	case errs.KindOf(a.told) != errs.KindOf(err) && !a.gone, (a.told == nil) != (err == nil):
		g.fail("%s ends with %v, want %v", a.work.Query.Text, err, a.told)
	}
}

// idle checks that no worker waits for work that waits for it.
func (g *game) idle() {
	for _, h := range g.hands {
		for _, a := range g.all {
			if a.given == nil && g.allowed(h.querier, a) {
				g.fail("%s waits, and so does a worker of %s that may do it", a.work.Query.Text, h.querier)
			}
		}
	}
}

// TestAtAnyScheduleAllWorkIsDoneOnceAndInTurn compares a scheduler with a list of all work, while
// callers give up, queriers are lost and workers come and go.
func TestAtAnyScheduleAllWorkIsDoneOnceAndInTurn(t *testing.T) {
	seeds.Run(t, 30, func(t *testing.T, rnd *rand.Rand) {
		synctest.Test(t, func(t *testing.T) {
			g := &game{t: t, rnd: rnd, most: map[string]int{}}
			for i := range 4 {
				g.most[fmt.Sprint("t", i)] = rnd.IntN(3)
			}
			g.s = g.scheduler(Config{MaxOutstanding: 4, MaxShare: []float64{0.3, 0.75, 1}[rnd.IntN(3)]})
			weights := [6]int{}
			for i := range weights {
				weights[i] = 1 + rnd.IntN(6)
			}
			for range 80 {
				g.step(weights)
				g.settle()
			}
			g.drain()
		})
	})
}

func (g *game) step(weights [6]int) {
	total := 0
	for _, w := range weights {
		total += w
	}
	n := g.rnd.IntN(total)
	for i, w := range weights {
		if n -= w; n >= 0 {
			continue
		}
		switch i {
		case 0:
			g.ask()
		case 1:
			g.wait()
		case 2:
			g.end(false)
		case 3:
			g.end(g.rnd.IntN(2) == 0)
		case 4:
			if g.rnd.IntN(2) == 0 {
				g.giveUp()
			} else {
				g.goHome()
			}
		case 5:
			g.steps = append(g.steps, "time passes")
			time.Sleep(time.Duration(g.rnd.IntN(1500)) * time.Millisecond)
			synctest.Wait()
		}
		return
	}
}

// drain lets workers of all queriers come until nothing is left.
func (g *game) drain() {
	g.t.Helper()
	for n := 0; len(g.all) > 0; n++ {
		if n > 2000 {
			g.fail("%d pieces of work are never done", len(g.all))
		}
		g.wait()
		g.settle()
		g.end(false)
		g.settle()
		time.Sleep(100 * time.Millisecond)
	}
	for _, h := range g.hands {
		h.cancel()
	}
	synctest.Wait()
	g.settle()
	time.Sleep(2 * absence)
	synctest.Wait()
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	if q := &g.s.queue; q.length != 0 || len(q.tenants) != 0 || len(q.queriers) != 0 || g.s.workers != 0 || len(g.s.waiters) != 0 {
		g.fail("left: %d pieces of %d tenants, %d queriers, %d workers, %d waiters", q.length, len(q.tenants), len(q.queriers), g.s.workers, len(g.s.waiters))
	}
}

// TestAtAnyScheduleNobodyStarves has callers and workers go on by a short pattern, over and over, so
// that whose turn it is and who comes for it can fall into step. Whatever it is, a piece of work is
// taken before one querier that may do it has taken so many others: each class comes at least every
// eighth time, and in it each of three tenants, who have at most three pieces each.
func TestAtAnyScheduleNobodyStarves(t *testing.T) {
	const waiting, patience = 3, 8 * 3 * 3
	seeds.Run(t, 400, func(t *testing.T, rnd *rand.Rand) {
		type move struct {
			querier string
			tenant  int
			class   work.Class
		}
		var pattern []move
		for range 1 + rnd.IntN(4) {
			pattern = append(pattern, move{fmt.Sprint("q", rnd.IntN(3)), rnd.IntN(3), work.Class(rnd.IntN(int(work.Classes)))})
		}
		q := newQueue()
		for i := range 3 {
			q.join(fmt.Sprint("q", i))
		}
		most := []int{1, rnd.IntN(3), 1}
		passed := map[*Task]map[string]int{}
		add := func(n int, class work.Class) {
			owner := q.of(fmt.Sprint("t", n))
			owner.maxQueriers = most[n]
			if owner.waiting() < waiting {
				task := &Task{Work: &work.Work{Class: class}, owner: owner}
				passed[task] = map[string]int{}
				q.push(owner, task)
			}
		}
		for class := range work.Classes {
			add(rnd.IntN(3), class)
		}
		for range 600 / len(pattern) {
			for _, m := range pattern {
				add(m.tenant, m.class)
				got := q.pop(m.querier, 10)
				if got == nil {
					continue
				}
				got.owner.active--
				delete(passed, got)
				for task, by := range passed {
					if q.allowed(task.owner, m.querier) {
						by[m.querier]++
					}
					if by[m.querier] > patience {
						t.Fatalf("work of %s, class %s, was passed over %d times by %s; the pattern is %v", task.owner.org, task.Work.Class, by[m.querier], m.querier, pattern)
					}
				}
			}
		}
	})
}

// Package turns owns who computes next: goroutines that read data for queries take turns, at most as
// many at a time as there are processors, shared evenly among tenants regardless of how much each
// asks. The Go scheduler is fair only to goroutines, so without this whoever starts many would take
// the machine.
//
// Scheduling is cooperative: between two pieces of work a goroutine checks whether somebody else is
// due, and it gives up its turn while it waits for anything. One place is kept free for tenants that
// ask only now and then; if there is but one, a tenant that had less than the one that has it goes on at
// once, and that one steps aside. Among several tenants, who computes for long has the network
// looked at, and lets other threads have the processor. A process with a single tenant, or with less work than processors, pays one look at the clock.
package turns

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Class says how much work matters among that of one tenant; a higher one goes first, and counts less
// against the tenant's share.
type Class uint8

// Classes is how many classes there are.
const Classes = 3

// weights is how much of a tenant's share a moment of work takes, by class: a tenant whose rules wait
// for nothing but other tenants' rules has four times the share of one that tries things out.
var weights = [Classes]time.Duration{4, 2, 1} //nolint:gochecknoglobals // It is a table, never written.

const (
	// slice is how long a turn lasts at least if another tenant is due.
	slice = 100 * time.Microsecond
	// kinSlice is how long it lasts if it is the tenant's own work that waits.
	kinSlice = 10 * time.Millisecond
	// classSlice is how long it lasts if that matters more, and longest how long what matters less waits for
	// it: so even that ends.
	classSlice = 2500 * time.Microsecond
	longest    = 50 * time.Millisecond
	// patience is how long a turn that does not look up keeps its place while others wait: whoever
	// computes for long in code that knows nothing of turns, or waits without resting, shares the
	// processors with the others as threads do, and cannot hold them up.
	patience = 10 * time.Millisecond
	// credit is by how much the share of a tenant that had nothing to do lags behind the others at most,
	// so that its next small query is done before it waits again.
	credit = 16 * time.Millisecond
	// recent is for how long a place is kept for a tenant that asked: that of the next query of a dashboard
	// or of the next rule of a group.
	recent = 100 * time.Millisecond
	// company is for how long the network and other threads are thought of, after several tenants had work at a
	// time: until the next evaluation of a rule or refresh of a dashboard. Who does so began its turn lengthy earlier.
	company = time.Minute
	lengthy = 5 * time.Millisecond
)

// Gate hands out the turns of one process. A nil Gate lets everybody go on.
type Gate struct {
	describe func(context.Context) (tenant string, c Class)
	now      func() time.Duration // any monotonic clock
	metrics  *metrics
	waiting  atomic.Int32 // turns that wait, for those who only want to know whether any does
	company  atomic.Int64 // until when several tenants are expected to ask, a time.Duration
	network  network

	mu     sync.Mutex // guards what follows
	places int
	free   int      // turns that nobody has; below 0: so many more were given than there are
	quiet  [2]quiet // the tenants that last had nothing to do any more, the later first
	held   []*Turn
	watch  *time.Timer // runs while turns wait; nil: none ever did
	shares map[string]*share
	hungry []*share // those with turns that wait
	clock  time.Duration
	since  time.Duration // when the first that waits began to: nobody suffers from what was before
	idle   int           // tenants without turns, which are remembered for what they had
	swept  time.Duration // when these were last looked through
}

// share is what one tenant has had of the processors while others waited.
type share struct {
	tenant string
	used   time.Duration
	turns  int // that were begun and not ended
	held   int // that have a place
	queued int
	queue  [Classes][]*Turn
}

// quiet is a tenant that is expected to ask again until a time.
type quiet struct {
	tenant string
	until  time.Duration
}

// Turn is the right to compute, of one goroutine at a time. A nil Turn is always due.
type Turn struct {
	gate  *Gate
	share *share
	class Class
	done  <-chan struct{} // of who asked; then it goes on and is about to end
	ready chan struct{}   // has room for one

	state atomic.Int32 // holding, waiting or not; changed with the mutex of the gate
	look  atomic.Int64 // when it next looks who is due, a time.Duration
	aside atomic.Bool  // it was overtaken and is to step aside; changed with the mutex of the gate

	// Its goroutine's alone: when it was begun, how long it did not compute since then, and since when it
	// rests (below 0: it does not).
	begun, idle, rests time.Duration

	asked   time.Duration // when it began to wait
	since   time.Duration // when it got the turn
	charged time.Duration // until when its share was charged
}

// The states of a turn.
const (
	away    int32 = iota // it neither computes nor waits, or its work is not wanted any more
	waiting              // for its place
	holding
	lost // it computes although its place was given to another one
)

// New returns a gate of places turns at a time. describe says for which tenant, or several read
// together, a context acts, and how much its work matters.
func New(places int, describe func(context.Context) (string, Class), reg prometheus.Registerer) *Gate {
	begin := time.Now()
	g := &Gate{describe: describe, now: func() time.Duration { return time.Since(begin) }, places: max(1, places), free: max(1, places), shares: map[string]*share{}}
	g.metrics = newMetrics(reg, g)
	return g
}

type turnKey struct{}

// Of returns the turn that ctx carries: that of the goroutine which began it; nil: none.
func Of(ctx context.Context) *Turn {
	t, _ := ctx.Value(turnKey{}).(*Turn)
	return t
}

// Apart returns ctx for another goroutine: it has no turn.
func Apart(ctx context.Context) context.Context {
	if Of(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, turnKey{}, (*Turn)(nil))
}

// Begin waits for a turn for the work of ctx, and returns it with a context that carries it. If ctx
// ends meanwhile there is nothing to wait for: its work is about to end. The caller ends the turn. In a
// context that has a turn already, it is that one, and to end it does nothing.
func (g *Gate) Begin(ctx context.Context) (context.Context, *Turn, func()) {
	if g == nil {
		return ctx, nil, func() {}
	}
	if t := Of(ctx); t != nil {
		return ctx, t, func() {}
	}
	tenant, class := g.describe(ctx)
	t := &Turn{gate: g, class: min(class, Classes-1), done: ctx.Done(), ready: make(chan struct{}, 1)}
	g.mu.Lock()
	t.share = g.shares[tenant]
	if t.share == nil {
		t.share = &share{tenant: tenant}
		g.shares[tenant] = t.share
		g.idle++
	}
	if t.share.turns == 0 {
		g.idle--
	}
	t.share.turns++
	g.take(t)
	t.begun, t.idle, t.rests = g.now(), 0, -1
	return context.WithValue(ctx, turnKey{}, t), t, t.end
}

// Computed is how long t computed since it was begun: all the time but what it rested or waited for its
// place. It is for the goroutine of t. Of a nil Turn nobody knows, and it is 0.
func (t *Turn) Computed() time.Duration {
	if t == nil {
		return 0
	}
	now := t.gate.now()
	if t.rests >= 0 {
		now = t.rests
	}
	return now - t.begun - t.idle
}

// Resume waits for the turn again after Rest.
func (t *Turn) Resume() {
	if t == nil || t.state.Load() == holding {
		return
	}
	t.gate.mu.Lock()
	t.gate.take(t)
	if t.rests >= 0 {
		t.idle, t.rests = t.idle+t.gate.now()-t.rests, -1
	}
}

// Rest gives the turn up until Resume: before its goroutine waits for anything.
func (t *Turn) Rest() {
	if t == nil {
		return
	}
	if t.rests < 0 {
		t.rests = t.gate.now()
	}
	t.gate.mu.Lock()
	t.gate.leave(t)
	t.gate.mu.Unlock()
}

// end is Rest for good.
func (t *Turn) end() {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if t.share.turns--; t.share.turns == 0 {
		g.hush(t.share, now)
	}
	g.leave(t)
	if t.share.turns > 0 {
		return
	}
	g.idle++
	if g.waiting.Load() == 0 || now-g.swept > time.Second {
		g.swept = now
		g.sweep()
	}
}

// Yield lets somebody else go first who is due. It is to be called about every 100 microseconds of work
// or more often.
func (t *Turn) Yield() {
	if t == nil {
		return
	}
	now := t.gate.now()
	if now < time.Duration(t.look.Load()) {
		return
	}
	t.look.Store(int64(now + slice))
	// What needs no turn, such as a server that passes a request on, would wait here for the 10 ms after
	// which the scheduler of the language interrupts, once for each hop of a query.
	runtime.Gosched()
	if now-t.begun >= lengthy && now < time.Duration(t.gate.company.Load()) {
		letThreads()
		t.gate.network.look(now)
	}
	if t.gate.waiting.Load() == 0 && !t.aside.Load() {
		return
	}
	t.gate.mu.Lock()
	t.gate.turnOver(t, now)
}

// take gives t a turn or has it wait for one. It is called with g.mu, and releases it.
func (g *Gate) take(t *Turn) {
	now := g.now()
	if g.free > 0 && g.mayHave(t.share, now) || g.overtake(t.share) {
		g.free--
		g.give(t, now)
		g.mu.Unlock()
		return
	}
	g.enqueue(t, now)
	g.mu.Unlock()
	g.metrics.waits.Inc()
	t.wait()
	g.metrics.seconds.Add((g.now() - now).Seconds())
}

// wait returns when t has a turn, or its work is not wanted any more.
func (t *Turn) wait() {
	select {
	case <-t.ready:
		return
	case <-t.done:
	}
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.withdraw(t) { // it was given the turn at the same moment
		<-t.ready
	}
}

// give makes t hold a turn.
func (g *Gate) give(t *Turn, now time.Duration) {
	t.since, t.charged = now, now
	t.state.Store(holding)
	t.look.Store(int64(now + slice))
	t.share.used = max(t.share.used, g.clock-credit)
	g.held = append(g.held, t)
	t.share.held++
}

// leave takes the turn from t, if it has one, and passes it on.
func (g *Gate) leave(t *Turn) {
	state := t.state.Load()
	if state == away {
		return
	}
	now := g.now()
	g.charge(t, now)
	t.state.Store(away)
	if state == holding {
		g.drop(t)
		g.free++
		g.passOn(now)
	}
}

// turnOver passes the turn of t on if another one is due more than t. It is called with g.mu, and
// releases it.
func (g *Gate) turnOver(t *Turn, now time.Duration) {
	state := t.state.Load()
	if state == away { // its work is not wanted any more
		g.mu.Unlock()
		return
	}
	g.charge(t, now)
	switch {
	case state == holding && t.aside.Load() && g.free < 0:
		g.drop(t)
		g.free++
	case state == holding:
		t.aside.Store(false) // who overtook it is done
		next := g.next(t.share, now)
		if next == nil || !due(next, t, now-t.since) {
			g.mu.Unlock()
			return
		}
		g.drop(t)
		g.pass(next, now)
	}
	g.enqueue(t, now)
	g.mu.Unlock()
	g.metrics.yields.Inc()
	t.wait()
	t.idle += g.now() - now
}

// due says whether next goes before t, which has run for a while.
func due(next, t *Turn, ran time.Duration) bool {
	switch {
	case next.share != t.share:
		return next.share.used < t.share.used
	case next.class > t.class:
		return ran >= classSlice
	case next.class == t.class:
		return ran >= kinSlice
	}
	return true // it has waited too long
}

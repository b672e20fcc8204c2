package memory

import (
	"context"
	"time"
)

const (
	noLevel = -1

	// watchEvery is how often it is looked at the truth at least; each collection is a look, too.
	watchEvery = time.Second
	// shrinkEvery is how often caches are asked to shrink.
	shrinkEvery = time.Second
	// collectAfter is how old the last collection may be while somebody is refused: without one, what
	// was let go since then still counts as used, and an idle process collects every two minutes.
	collectAfter = 5 * time.Second
	// calmPart of the runtime's limit must be free below a line before the pressure is over, so that
	// a process at its line does not tell of it every second.
	calmPart = 0.03
	// calmAfter is how long nobody must have been refused before the pressure is over.
	calmAfter = 10 * time.Second
)

// watch is what the watching goroutine remembers.
type watch struct {
	cycles    uint64
	collected time.Time // when the collections last grew
	shrunk    time.Time
	refused   int64     // by all accounts, at the last look
	refusedAt time.Time // when that last grew
	pressed   class     // valid if under: the class last told of
	under     bool
	ending    bool   // a query was ended for want of memory, and what it had is not collected yet
	patience  uint64 // until so many collections no other is ended
}

// running watches until the process stops.
func (l *Ledger) running(ctx context.Context) error {
	onCollection(func() bool {
		l.wakeUp()
		return ctx.Err() == nil
	})
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		l.round(l.now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.wake:
		}
	}
}

// round looks at the truth and does what follows from it.
func (l *Ledger) round(now time.Time) {
	w := &l.watch
	if u := l.look(); u.cycles != w.cycles {
		w.cycles, w.collected = u.cycles, now
		l.observe(u)
		l.pacing.follow(u.live, l.limits.Go)
		l.relieve()
	}
	refused := int64(0)
	for u := range l.accounts {
		refused += l.accounts[u].refused.Load()
	}
	if refused != w.refused {
		w.refused, w.refusedAt = refused, now
	}
	refusing := now.Sub(w.refusedAt) < watchEvery
	gone := w.ending && !l.workings.leaving()
	if gone || (refusing || l.inUse() > l.limits.line(newSeries)) && now.Sub(w.collected) >= collectAfter {
		w.ending = w.ending && !gone
		l.collect()
		u := l.look()
		w.cycles, w.collected = u.cycles, now
		l.observe(u)
	}
	l.tell(now)
	if l.level.Load() >= int32(caches) && now.Sub(w.shrunk) >= shrinkEvery {
		w.shrunk = now
		l.shrink()
	}
}

// relieve ends the query that holds the most if a collection left more in use than writes may: what a query
// makes of its data may be more than it says, and no query's end costs as much as that of the process.
func (l *Ledger) relieve() {
	w := &l.watch
	switch {
	case l.inUse() <= l.limits.line(writes):
	case l.workings.leaving(), w.cycles >= w.patience && l.workings.endHeaviest():
		// A collection that begins before the query is gone still finds what it had.
		w.ending, w.patience = true, w.cycles+2
	}
}

// observe compares what is in use after a collection with what is reserved.
func (l *Ledger) observe(u usage) {
	// More may be reserved than is used, by whoever is about to: that is no room for others.
	l.beside.Store(max(0, u.live+u.overhead-l.reserved.Load()))
}

// tell says when the process begins to be short of memory, for whom, and when that is over.
func (l *Ledger) tell(now time.Time) {
	w, used := &l.watch, l.inUse()
	over := class(0)
	for over < owed && used > l.limits.line(over) {
		over++
	}
	l.level.Store(int32(over) - 1)
	switch {
	case over > newSeries && (!w.under || over-1 > w.pressed):
		w.under, w.pressed = true, over-1
		l.log.Warn("short of memory", "then", w.pressed.row().then, "used_bytes", used, "line_bytes", l.limits.line(w.pressed),
			"limit_bytes", l.limits.Process, "accounts", l.held())
	case w.under && used < l.limits.line(newSeries)-int64(float64(l.limits.Go)*calmPart) && now.Sub(w.refusedAt) >= calmAfter:
		w.under = false
		l.log.Info("no longer short of memory", "used_bytes", used, "limit_bytes", l.limits.Process)
	}
}

// held is how many bytes each account holds, for the log.
func (l *Ledger) held() map[string]int64 {
	out := map[string]int64{}
	for u := range numUses {
		if n := l.accounts[u].Held(); n > 0 {
			out[u.String()] = n
		}
	}
	return out
}

func (l *Ledger) shrink() {
	l.shrinkersMu.Lock()
	all := l.shrinkers
	l.shrinkersMu.Unlock()
	for _, shrink := range all {
		shrink()
	}
}

package turns

import (
	"slices"
	"time"
)

// The methods of this file need the mutex of the gate.

// enqueue has t wait.
func (g *Gate) enqueue(t *Turn, now time.Duration) {
	if g.waiting.Add(1) == 1 {
		g.since = now
		if g.watch == nil {
			g.watch = time.AfterFunc(patience, g.patrol)
		} else {
			g.watch.Reset(patience)
		}
	}
	t.asked = now
	t.state.Store(waiting)
	s := t.share
	s.used = max(s.used, g.clock-credit)
	if s.queued == 0 {
		g.hungry = append(g.hungry, s)
	}
	s.queued++
	s.queue[t.class] = append(s.queue[t.class], t)
	g.hurry(s)
}

// hurry has the turn of the tenant that had most look up at once, if s had less.
func (g *Gate) hurry(s *share) {
	var most *Turn
	for _, h := range g.held {
		if h.share.used > s.used && (most == nil || h.share.used > most.share.used) {
			most = h
		}
	}
	if most != nil {
		most.look.Store(0)
	}
}

// overtake says whether s goes on although the only place is not free: if its tenant had less than the one
// that computes, that one steps aside when it next looks up.
func (g *Gate) overtake(s *share) bool {
	if g.places > 1 || g.free != 0 {
		return false
	}
	s.used = max(s.used, g.clock-credit)
	for _, h := range g.held {
		if h.share.used > s.used {
			h.aside.Store(true)
			h.look.Store(0)
			return true
		}
	}
	return false
}

// mayHave says whether s may have one more place. It may not have all while another tenant asks now and
// then: who has little to do would wait for a place each time, and its requests for a processor.
func (g *Gate) mayHave(s *share, now time.Duration) bool {
	if g.places == 1 || s.held < g.places-1 {
		return true
	}
	for _, q := range g.quiet {
		if q.tenant != s.tenant && now < q.until {
			return false
		}
	}
	return true
}

// hush notes that s has nothing to do for now.
func (g *Gate) hush(s *share, now time.Duration) {
	if g.quiet[0].tenant != s.tenant {
		g.quiet[1] = g.quiet[0]
	}
	g.quiet[0] = quiet{s.tenant, now + recent}
	if len(g.shares)-g.idle > 1 { // s is not among the idle yet
		g.company.Store(int64(now + company))
	}
}

// next is the turn that is due of those that wait: of the tenant that had least, and of its own the
// one that matters most, or has waited too long. nil: there is none. from has the place that is given
// away; nil: nobody has.
func (g *Gate) next(from *share, now time.Duration) *Turn {
	var least *share
	for _, s := range g.hungry {
		if (least == nil || s.used < least.used) && (s == from || g.mayHave(s, now)) {
			least = s
		}
	}
	if least == nil {
		return nil
	}
	var first *Turn
	for _, q := range least.queue {
		if len(q) == 0 {
			continue
		}
		if now-q[0].asked >= longest {
			return q[0]
		}
		first = q[0]
	}
	return first
}

// pass gives t, which waits, a turn that somebody had.
func (g *Gate) pass(t *Turn, now time.Duration) {
	g.withdraw(t)
	g.clock = max(g.clock, t.share.used)
	g.give(t, now)
	t.ready <- struct{}{}
}

// withdraw takes t out of those that wait. It says whether it was there.
func (g *Gate) withdraw(t *Turn) bool {
	s := t.share
	i := slices.Index(s.queue[t.class], t)
	if i < 0 {
		return false
	}
	s.queue[t.class] = slices.Delete(s.queue[t.class], i, i+1)
	if s.queued--; s.queued == 0 {
		g.hungry = slices.DeleteFunc(g.hungry, func(o *share) bool { return o == s })
	}
	t.state.Store(away)
	if g.waiting.Add(-1) == 0 {
		g.watch.Stop()
	}
	return true
}

// drop takes the place from t, for somebody else.
func (g *Gate) drop(t *Turn) {
	i := slices.Index(g.held, t)
	g.held = slices.Delete(g.held, i, i+1)
	t.share.held--
	t.aside.Store(false)
}

// passOn gives the free places to who is due.
func (g *Gate) passOn(now time.Duration) {
	for g.free > 0 {
		next := g.next(nil, now)
		if next == nil {
			return
		}
		g.free--
		g.pass(next, now)
	}
}

// patrol takes the places of those that do not look up while others wait.
func (g *Gate) patrol() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	for _, t := range slices.Clone(g.held) {
		if g.waiting.Load() == 0 {
			return
		}
		// It looked up a slice before it wants to look again.
		if now-max(time.Duration(t.look.Load())-slice, g.since) < patience {
			continue
		}
		t.state.Store(lost)
		g.drop(t)
		g.free++
		g.passOn(now)
		g.metrics.lost.Inc()
	}
	g.passOn(now) // what was kept for a tenant that does not come
	if g.waiting.Load() > 0 {
		g.watch.Reset(patience)
	}
}

// charge adds what t had since it was charged last, as far as somebody waited for it.
func (g *Gate) charge(t *Turn, now time.Duration) {
	if g.waiting.Load() > 0 {
		t.share.used += weights[t.class] * (now - max(t.charged, min(now, g.since)))
	}
	t.charged = now
}

// sweep forgets tenants without work that others have caught up with.
func (g *Gate) sweep() {
	if g.idle == 0 {
		return
	}
	for name, s := range g.shares {
		if s.turns == 0 && (g.waiting.Load() == 0 || s.used <= g.clock-credit) {
			delete(g.shares, name)
			g.idle--
		}
	}
}

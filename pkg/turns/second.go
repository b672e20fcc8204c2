package turns

// Second returns one more turn for the work that t is for, with which another goroutine computes beside that of
// t, if a processor has nothing else to do: a place is free, and nobody waits for it or is expected to want it.
// The other goroutine calls end when it is done. A nil Turn has as many as are asked for, which are nil.
func (t *Turn) Second() (second *Turn, end func(), ok bool) {
	if t == nil {
		return nil, func() {}, true
	}
	g := t.gate
	if g.places == 1 || g.waiting.Load() > 0 {
		return nil, nil, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.free <= 0 || g.waiting.Load() > 0 || !g.mayHave(t.share, now) {
		return nil, nil, false
	}
	second = &Turn{gate: g, share: t.share, class: t.class, done: t.done, ready: make(chan struct{}, 1), begun: now, rests: -1}
	t.share.turns++
	g.free--
	g.give(second, now)
	return second, second.end, true
}

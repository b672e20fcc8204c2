package ha

import (
	"context"
	"time"
)

// share tells the store of the elected replicas that were heard here since the store last learned
// that they live, for those whose time has come. Distributors take turns: whoever is first, the
// others see it.
func (t *Tracker) share(ctx context.Context, now time.Time) {
	due := map[string]map[clusterKey]election{}
	for _, c := range t.list() {
		if e, ok := c.dueToShare(now); ok {
			at := storeKey(c.key.tenant)
			if due[at] == nil {
				due[at] = map[clusterKey]election{}
			}
			due[at][c.key] = e
		}
	}
	for at, elections := range due {
		err := t.put(ctx, at, elections)
		if ctx.Err() != nil {
			return
		}
		if failing := err != nil; failing != t.failing {
			t.failing = failing
			if failing {
				t.deps.Logger.Warn("store does not take that elected replicas are alive, will retry; other distributors may elect others", "err", err)
			} else {
				t.deps.Logger.Info("store takes again that elected replicas are alive")
			}
		}
	}
}

// dueToShare returns what to tell the store about c.
func (c *cluster) dueToShare(now time.Time) (election, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.policy == nil || !c.known.live() || !c.here.After(c.shared) || now.Sub(c.shared) < c.policy.Update+c.jitter {
		return election{}, false
	}
	e := c.known
	e.receivedAt = max(c.here.UnixMilli(), e.receivedAt+1)
	return e, true
}

// put joins elections into the state under a key of the store, and takes in what comes of it.
func (t *Tracker) put(ctx context.Context, at string, elections map[clusterKey]election) error {
	now := t.deps.Now()
	joined, err := t.join(ctx, at, elections)
	for k := range elections {
		t.metrics.changed(k)
	}
	if err != nil {
		return err
	}
	for k, e := range joined {
		t.observe(k, e, now, live)
	}
	return nil
}

// join joins elections into the state under a key of the store, and returns what came of them.
func (t *Tracker) join(ctx context.Context, at string, elections map[clusterKey]election) (joined map[clusterKey]election, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	now := t.deps.Now()
	joined = map[clusterKey]election{}
	err = t.deps.Store.CAS(ctx, at, func(in any) (any, bool, error) {
		s := stateOf(in)
		changed := false
		for k, e := range elections {
			had, known := s.elections[k]
			if known {
				e = had.join(e)
			}
			joined[k] = e
			if !known || e != had {
				s.elections[k] = e
				changed = true
			}
		}
		if !changed {
			return nil, false, nil
		}
		s.RemoveTombstones(now.Add(-idleAfter))
		return s, true, nil
	})
	return joined, err
}

// cleanup deletes clusters of which nothing was heard for long. They stay in the store, marked, so
// that distributors which hear of the deletion late do not bring them back.
func (t *Tracker) cleanup(ctx context.Context, now time.Time) {
	t.metrics.cleanups.Inc()
	idle := map[string]map[clusterKey]election{}
	for _, c := range t.list() {
		c.mu.Lock()
		e, silent := c.known, now.Sub(c.heard)
		c.mu.Unlock()
		if silent < idleAfter {
			continue
		}
		if e.term == 0 { // it was never elected anybody
			t.forget(c)
			continue
		}
		at := storeKey(c.key.tenant)
		if idle[at] == nil {
			idle[at] = map[clusterKey]election{}
		}
		ms := max(now.UnixMilli(), e.receivedAt+1)
		idle[at][c.key] = election{term: e.term + 1, electedAt: ms, receivedAt: ms}
	}
	for at, deletions := range idle {
		if err := t.put(ctx, at, deletions); err != nil {
			t.metrics.deletionsFailed.Add(float64(len(deletions)))
			continue
		}
		t.metrics.marked.Add(float64(len(deletions)))
		t.deps.Logger.Info("clusters without samples forgotten", "clusters", len(deletions))
	}
}

package ha

import (
	"context"
	"fmt"
	"time"
)

// sighting says how an election was learned of.
type sighting bool

const (
	live   sighting = true  // as it was stored
	stored sighting = false // some time after
)

// starting takes over what the store has.
func (t *Tracker) starting(ctx context.Context) error {
	if t.deps.File != "" {
		t.recall(ctx)
	}
	return t.read(ctx, stored)
}

// stopping writes down what was heard last.
func (t *Tracker) stopping(error) error {
	if t.deps.File != "" {
		t.remember()
	}
	return nil
}

// read takes in all that the store has.
func (t *Tracker) read(ctx context.Context, how sighting) error {
	keys, err := t.deps.Store.List(ctx, keyPrefix)
	if err != nil {
		return fmt.Errorf("list elected replicas: %w", err)
	}
	for _, key := range keys {
		v, err := t.deps.Store.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("read elected replicas: %w", err)
		}
		t.observeAll(v, how)
	}
	return nil
}

// running follows the store and keeps it up to date.
func (t *Tracker) running(ctx context.Context) error {
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		t.deps.Store.WatchPrefix(ctx, keyPrefix, func(_ string, v any) bool {
			t.observeAll(v, live)
			return true
		})
	}()
	defer func() { <-followed }()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var cleaned, remembered time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			now := t.deps.Now()
			if now.Sub(cleaned) >= cleanupPeriod {
				cleaned = now
				t.catchUp(ctx)
				t.cleanup(ctx, now)
			}
			t.share(ctx, now)
			if t.deps.File != "" && now.Sub(remembered) >= rememberPeriod {
				remembered = now
				t.remember()
			}
		}
	}
}

// catchUp takes in what no notice came of: what was stored before there was anybody to notify, and
// what a store leaves out when there is very much.
func (t *Tracker) catchUp(ctx context.Context) {
	if err := t.read(ctx, live); err != nil && ctx.Err() == nil {
		t.deps.Logger.Warn("elected replicas not read again, will retry", "err", err)
	}
}

func (t *Tracker) observeAll(v any, how sighting) {
	now := t.deps.Now()
	for k, e := range stateOf(v).elections {
		t.observe(k, e, now, how)
	}
}

// observe takes in what the store has about a cluster.
func (t *Tracker) observe(k clusterKey, e election, now time.Time, how sighting) {
	if !e.live() {
		t.observeDeletion(k, e)
		return
	}
	c, _ := t.add(k, int(^uint(0)>>1)) // others accepted it, under whatever limit
	c.mu.Lock()
	defer c.mu.Unlock()
	switch before := c.known; {
	case !before.same(e) && !before.beats(e):
		if before.term > 0 {
			t.metrics.changes.WithLabelValues(k.values()...).Inc()
		}
		c.known, c.here = e, time.Time{}
		c.heard = c.estimate(now, how)
		t.metrics.elected.WithLabelValues(k.values()...).Set(float64(e.electedAt) / 1000)
	case before.same(e) && e.receivedAt > before.receivedAt:
		c.known.receivedAt = e.receivedAt
		if at := c.estimate(now, how); at.After(c.heard) {
			c.heard = at
		}
	default:
		return
	}
	c.shared = now
	if c.policy != nil {
		c.jitter = t.jitter(c.policy.Jitter)
	}
	t.metrics.received.WithLabelValues(k.values()...).Set(float64(c.known.receivedAt) / 1000)
}

// estimate says when the elected replica was heard last, by the clock of this process, of which the
// store knows the time by the clock of another. That clock is believed so far that even if it is
// wrong no replica is taken for silent that others hear. c must be locked.
func (c *cluster) estimate(now time.Time, how sighting) time.Time {
	at := time.UnixMilli(c.known.receivedAt)
	if at.After(now) {
		return now
	}
	if how == live {
		trust := time.Duration(0)
		if p := c.policy; p != nil {
			trust = max(0, p.Failover-p.Update-p.Jitter-tick)
		}
		if least := now.Add(-trust); at.Before(least) {
			return least
		}
	}
	return at
}

// observeDeletion forgets a cluster, unless more is known.
func (t *Tracker) observeDeletion(k clusterKey, e election) {
	t.mu.RLock()
	c := t.clusters[k]
	t.mu.RUnlock()
	if c == nil {
		return
	}
	c.mu.Lock()
	gone := c.known.term > 0 && e.beats(c.known)
	if gone {
		c.known = e
	}
	c.mu.Unlock()
	if gone {
		t.metrics.deleted.Inc()
		t.forget(c)
	}
}

package alertmanager

import (
	"sync"
	"time"
)

// claims says which replica is about to notify a receiver about a group. Replicas ask the first of
// them that they reach, so that two that woke up together do not both send.
type claims struct {
	mu   sync.Mutex // guards held
	held map[string]claim
}

// claim is held until its time is over. name is that of the notification that its holder sends.
type claim struct {
	holder string
	until  time.Time
	name   string
}

// keepNames is how long the name is kept of a notification whose sender did not say what became of it.
const keepNames = time.Hour

// take gives key to holder until now+ttl, unless another one has it, and returns who has it then. name is
// that of the notification that holder is about to send, empty if it is not known yet. unfinished is the
// name that a holder before gave who did not give the claim back: it died, and its notification may have
// arrived.
func (c *claims) take(key, holder, name string, ttl time.Duration, now time.Time) (who, unfinished string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.held[key]
	if ok && old.holder != holder && now.Before(old.until) {
		return old.holder, ""
	}
	if ok && old.holder != holder {
		unfinished = old.name
	}
	if c.held == nil {
		c.held = map[string]claim{}
	}
	if name == "" {
		name = old.name
	}
	c.held[key] = claim{holder, now.Add(ttl), name}
	return holder, unfinished
}

// release gives key back if holder has it.
func (c *claims) release(key, holder string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[key].holder == holder {
		delete(c.held, key)
	}
}

// sweep forgets claims whose time is over: their holders died.
func (c *claims) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, x := range c.held {
		if x.name != "" {
			x.until = x.until.Add(keepNames)
		}
		if !now.Before(x.until) {
			delete(c.held, key)
		}
	}
}

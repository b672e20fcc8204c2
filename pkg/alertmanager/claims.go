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

type claim struct {
	holder string
	until  time.Time
}

// take gives key to holder until now+ttl, unless another one has it, and returns who has it then.
func (c *claims) take(key, holder string, ttl time.Duration, now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.held[key]; ok && old.holder != holder && now.Before(old.until) {
		return old.holder
	}
	if c.held == nil {
		c.held = map[string]claim{}
	}
	c.held[key] = claim{holder, now.Add(ttl)}
	return holder
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
		if !now.Before(x.until) {
			delete(c.held, key)
		}
	}
}

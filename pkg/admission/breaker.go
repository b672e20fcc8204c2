package admission

import (
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// BreakerConfig says when a breaker opens, and for how long.
type BreakerConfig struct {
	Enabled        bool
	Failures       int // percent
	Executions     int
	Period         time.Duration
	Cooldown       time.Duration
	InitialDelay   time.Duration
	RequestTimeout time.Duration // set by the owner of the defaults
}

// Declare names each setting once.
func (c *BreakerConfig) Declare(s *config.Set) {
	timeout := c.RequestTimeout
	s.Bool(&c.Enabled, "enabled", false, "Whether to refuse requests immediately for a while after many have failed.").Expert()
	s.Int(&c.Failures, "failure_threshold_percentage", 10, "Percentage of the requests in a period that must fail for the breaker to open.").Expert()
	s.Int(&c.Executions, "failure_execution_threshold", 100, "Fewest requests in a period for the breaker to open.").Expert()
	s.Duration(&c.Period, "thresholding_period", time.Minute, "The period over which requests and failures are counted.").Expert()
	s.Duration(&c.Cooldown, "cooldown_period", 10*time.Second, "How long the breaker stays open before it lets some requests through as a test.").Expert()
	s.Duration(&c.InitialDelay, "initial_delay", 0, "How long after the start the breaker begins to count.").Expert()
	s.Duration(&c.RequestTimeout, "request_timeout", timeout, "A request that takes longer counts as failed.").Expert()
}

// Validate refuses what makes no sense.
func (c *BreakerConfig) Validate() error {
	switch {
	case c.Failures < 1 || c.Failures > 100:
		return config.Wrong("failure_threshold_percentage", "is %d; it must be between 1 and 100", c.Failures)
	case c.Executions < 1:
		return config.Wrong("failure_execution_threshold", "is %d; it must be 1 or more", c.Executions)
	case c.Period < time.Second || c.Cooldown <= 0 || c.RequestTimeout <= 0:
		return config.Wrong("thresholding_period", "is %s, cooldown_period %s and request_timeout %s; the first must be a second or more, the others above 0",
			c.Period, c.Cooldown, c.RequestTimeout)
	}
	return nil
}

// BreakerState is what a breaker lets through.
type BreakerState int

// The states. Half open, a breaker lets a few requests through, of which it learns whether to close.
const (
	Closed BreakerState = iota
	Open
	HalfOpen
)

func (s BreakerState) String() string { return [...]string{"closed", "open", "half-open"}[s] }

const (
	breakerBuckets = 10
	// breakerTrials is how many requests a half-open breaker lets through at most before it decides.
	breakerTrials = 10
)

// Breaker counts requests that fail, and refuses all for a while when there are too many.
type Breaker struct {
	cfg BreakerConfig
	// changed is called with each new state, under the lock.
	changed func(BreakerState)

	mu      sync.Mutex // guards what follows
	active  time.Time  // from when on it counts
	state   BreakerState
	changes int       // of the state
	until   time.Time // when an open breaker becomes half open
	trials  int       // requests let through while half open
	done    int       // of them answered
	failed  int       // of those failed
	buckets [breakerBuckets]breakerBucket
}

// breakerBucket is a part of the period.
type breakerBucket struct {
	number     int64 // of the part since the epoch
	all, wrong int
}

// NewBreaker returns a closed breaker; changed may be nil.
func NewBreaker(cfg BreakerConfig, changed func(BreakerState)) *Breaker {
	if changed == nil {
		changed = func(BreakerState) {}
	}
	return &Breaker{cfg: cfg, changed: changed, active: time.Now().Add(cfg.InitialDelay)}
}

// Permit is for one request.
type Permit struct {
	began   time.Time
	changes int // of the breaker's state when it was given
}

// Allow says whether a request may go on; if so, Done must follow. If not, left is how long the
// breaker stays open at least.
func (b *Breaker) Allow() (p Permit, left time.Duration, ok bool) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == Open && !now.Before(b.until) {
		b.become(HalfOpen)
	}
	switch b.state {
	case Open:
		return Permit{}, b.until.Sub(now), false
	case HalfOpen:
		if b.trials >= b.mostTrials() {
			return Permit{}, 0, false
		}
		b.trials++
	}
	return Permit{now, b.changes}, 0, true
}

func (b *Breaker) mostTrials() int { return min(breakerTrials, b.cfg.Executions) }

// Done counts the end of a request that was let through, and says whether it took too long. One
// from before the last change of the state says nothing about now.
func (b *Breaker) Done(p Permit, failed bool) (late bool) {
	now := time.Now()
	late = now.Sub(p.began) > b.cfg.RequestTimeout
	failed = failed || late
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Before(b.active) || p.changes != b.changes {
		return late
	}
	switch b.state {
	case Closed:
		if all, wrong := b.count(now, failed); all >= b.cfg.Executions && wrong*100 >= all*b.cfg.Failures {
			b.open(now)
		}
	case HalfOpen:
		b.done++
		if failed {
			b.failed++
		}
		switch {
		case b.failed*100 >= b.mostTrials()*b.cfg.Failures: // whatever the others bring
			b.open(now)
		case b.done >= b.mostTrials():
			b.buckets = [breakerBuckets]breakerBucket{}
			b.become(Closed)
		}
	}
	return late
}

// count adds a request and returns those of the period. It needs mu.
func (b *Breaker) count(now time.Time, failed bool) (all, wrong int) {
	number := now.UnixNano() / int64(b.cfg.Period/breakerBuckets)
	at := &b.buckets[number%breakerBuckets]
	if at.number != number {
		*at = breakerBucket{number: number}
	}
	at.all++
	if failed {
		at.wrong++
	}
	for _, x := range b.buckets {
		if x.number > number-breakerBuckets {
			all, wrong = all+x.all, wrong+x.wrong
		}
	}
	return all, wrong
}

// open needs mu.
func (b *Breaker) open(now time.Time) {
	b.until = now.Add(b.cfg.Cooldown)
	b.become(Open)
}

// become needs mu.
func (b *Breaker) become(s BreakerState) {
	b.state, b.trials, b.done, b.failed = s, 0, 0, 0
	b.changes++
	b.changed(s)
}

// State is what the breaker lets through now.
func (b *Breaker) State() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

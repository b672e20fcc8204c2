// Package admission owns overload protection of servers: a reactive limiter that admits fewer
// concurrent requests while latency is above normal, and a circuit breaker that admits none for a
// while after too many failures.
package admission

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// LimiterConfig bounds the requests in flight by how quickly they are answered.
type LimiterConfig struct {
	Enabled                             bool
	MinInflight, MaxInflight, Initially int
}

// Declare names each setting once.
func (c *LimiterConfig) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", false, "Whether to accept fewer concurrent requests while latency is above normal; further ones are answered 503.").Expert()
	s.Int(&c.MinInflight, "min_inflight_limit", 2, "Lowest concurrency that the reactive limiter goes down to.").Expert()
	s.Int(&c.MaxInflight, "max_inflight_limit", 200, "Highest concurrency that the reactive limiter goes up to.").Expert()
	s.Int(&c.Initially, "initial_inflight_limit", 20, "Concurrency that the reactive limiter starts with.").Expert()
}

// Validate refuses what makes no sense.
func (c *LimiterConfig) Validate() error {
	if c.Enabled && (c.MinInflight < 1 || c.Initially < c.MinInflight || c.MaxInflight < c.Initially) {
		return config.Wrong("initial_inflight_limit", "the least, initial and most requests at once are %d, %d and %d; they must not fall, and begin at 1",
			c.MinInflight, c.Initially, c.MaxInflight)
	}
	return nil
}

const (
	// A window of latencies ends when it is this old and has this many, or is very old.
	shortWindow = time.Second
	longWindow  = 30 * time.Second
	fewLatest   = 50
	// mostLatest bounds the latencies of one window; more say nothing new.
	mostLatest = 4096

	// quantile of a window is its latency.
	quantile = 0.9

	// remembered is how many windows the baseline remembers.
	remembered = 60

	// tolerance is how much slower than the baseline a window may be before requests are refused:
	// quantiles of a few dozen latencies differ by themselves.
	tolerance = 1.5

	// fall is the least part of the limit that one window leaves.
	fall = 0.5

	// turnWait bounds how long a request waits for its turn.
	turnWait = time.Second
)

// Limiter admits requests. Its limit falls when a window of latencies is slower than those of the
// last minutes, and rises while it is used and that is not so. Up to as many requests as are admitted
// may wait for their turn, so that a burst is not refused for being one.
type Limiter struct {
	cfg     LimiterConfig
	refusal error
	above   []*Limiter

	slowUntil atomic.Int64 // Unix nanoseconds; the last window was slow, which is true for no longer
	queued    atomic.Int64 // len(waiting)

	mu       sync.Mutex // guards all below
	limit    float64
	inflight int
	peak     int             // most in flight in this window
	waiting  []chan struct{} // in order; each has room for one message
	baseline float64         // seconds; 0: none yet
	began    time.Time       // of the window
	took     []float64       // its latencies in seconds
}

// NewLimiter returns a limiter that refuses with the given error. While one of above has to hold
// back requests, this one takes no more than its least: those of above are more important.
func NewLimiter(cfg LimiterConfig, refusal error, above ...*Limiter) *Limiter {
	above = slices.DeleteFunc(above, func(l *Limiter) bool { return l == nil })
	return &Limiter{cfg: cfg, refusal: refusal, above: above, limit: float64(cfg.Initially), began: time.Now()}
}

// Enter returns when the request may begin; Leave must be called with when that was. Errors: the
// refusal; the cause of ctx.
func (r *Limiter) Enter(ctx context.Context) (time.Time, error) {
	r.mu.Lock()
	outranked := r.outranked()
	switch {
	case r.inflight < r.room(outranked):
		r.admit()
		r.mu.Unlock()
		return time.Now(), nil
	case outranked || len(r.waiting) >= int(r.limit):
		r.mu.Unlock()
		return time.Time{}, r.refusal
	}
	turn := make(chan struct{}, 1)
	r.wait(append(r.waiting, turn))
	r.mu.Unlock()
	timer := time.NewTimer(turnWait)
	defer timer.Stop()
	select {
	case <-turn:
		return time.Now(), nil
	case <-timer.C:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := slices.Index(r.waiting, turn); at >= 0 {
		r.wait(slices.Delete(r.waiting, at, at+1))
		if err := context.Cause(ctx); err != nil {
			return time.Time{}, fmt.Errorf("wait for other requests: %w", err)
		}
		return time.Time{}, r.refusal
	}
	return time.Now(), nil // its turn came at this very moment
}

// outranked says whether more important requests are held back.
func (r *Limiter) outranked() bool {
	return slices.ContainsFunc(r.above, func(l *Limiter) bool {
		return l.queued.Load() > 0 || l.slowUntil.Load() > time.Now().UnixNano()
	})
}

// room is how many requests may be in flight. It needs mu.
func (r *Limiter) room(outranked bool) int {
	if outranked {
		return r.cfg.MinInflight
	}
	return int(r.limit)
}

// wait needs mu.
func (r *Limiter) wait(list []chan struct{}) {
	r.waiting = list
	r.queued.Store(int64(len(list)))
}

// admit needs mu.
func (r *Limiter) admit() {
	r.inflight++
	r.peak = max(r.peak, r.inflight)
}

// Leave notes that a request which began at the given time is answered. Only one that went all the
// way is telling about how quick things are.
func (r *Limiter) Leave(began time.Time, telling bool) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inflight--
	if telling && len(r.took) < mostLatest {
		r.took = append(r.took, now.Sub(began).Seconds())
	}
	if age := now.Sub(r.began); age >= shortWindow && len(r.took) >= fewLatest || age >= longWindow {
		r.adjust(now)
		r.began, r.took, r.peak = now, r.took[:0], r.inflight
	}
	for len(r.waiting) > 0 && r.inflight < int(r.limit) {
		r.admit()
		r.waiting[0] <- struct{}{}
		r.wait(slices.Delete(r.waiting, 0, 1))
	}
}

// adjust draws the conclusion from a window. It needs mu.
func (r *Limiter) adjust(now time.Time) {
	if len(r.took) == 0 {
		return
	}
	slices.Sort(r.took)
	latency := r.took[int(quantile*float64(len(r.took)-1))]
	was := r.limit
	r.limit, r.baseline = nextLimit(r.cfg, r.limit, r.baseline, latency, r.peak)
	if r.limit < was || r.baseline > 0 && latency > r.baseline*tolerance {
		r.slowUntil.Store(now.Add(longWindow).UnixNano())
	} else {
		r.slowUntil.Store(0)
	}
}

// nextLimit returns the limit and the baseline after a window of the given latency, in which at
// most peak requests were in flight.
func nextLimit(c LimiterConfig, limit, baseline, latency float64, peak int) (newLimit, newBaseline float64) {
	if baseline == 0 {
		return limit, latency
	}
	pace := 1.0
	if latency > 0 {
		pace = baseline * tolerance / latency
	}
	switch {
	case pace < 1:
		limit *= max(pace, fall)
	case float64(peak) >= limit/2: // a limit that nobody comes near says nothing
		limit += math.Sqrt(limit)
	}
	const weight = 2.0 / (remembered + 1)
	baseline += weight * (latency - baseline)
	if baseline > 2*latency { // a baseline from bad times must not hide the next ones
		baseline *= 0.95
	}
	return min(max(limit, float64(c.MinInflight)), float64(c.MaxInflight)), baseline
}

// State returns the limit and how many requests are in flight and wait; zeros of a nil Limiter.
func (r *Limiter) State() (limit float64, inflight, waiting int) {
	if r == nil {
		return 0, 0, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return math.Floor(r.limit), r.inflight, len(r.waiting)
}

package distributor

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// ReactiveConfig bounds the pushes in flight by how quickly they are answered. It is part of Config.
type ReactiveConfig struct {
	Enabled                             bool
	MinInflight, MaxInflight, Initially int
}

func (c *ReactiveConfig) declare(s *config.Set) {
	s.Bool(&c.Enabled, "reactive_limiter.enabled", false, "Whether a distributor takes fewer pushes at once while they are answered more slowly than usual; more are answered 503.").Expert()
	s.Int(&c.MinInflight, "reactive_limiter.min_inflight_limit", 2, "Fewest pushes at once that the reactive limiter goes down to.").Expert()
	s.Int(&c.MaxInflight, "reactive_limiter.max_inflight_limit", 200, "Most pushes at once that the reactive limiter goes up to.").Expert()
	s.Int(&c.Initially, "reactive_limiter.initial_inflight_limit", 20, "Pushes at once that the reactive limiter begins with.").Expert()
}

func (c *ReactiveConfig) validate() error {
	if c.Enabled && (c.MinInflight < 1 || c.Initially < c.MinInflight || c.MaxInflight < c.Initially) {
		return errs.New(errs.Invalid, "distributor.reactive_limiter: the least, initial and most pushes at once are %d, %d and %d; they must not fall, and begin at 1",
			c.MinInflight, c.Initially, c.MaxInflight)
	}
	return nil
}

const (
	// A window of latencies ends when it is this old and has this many, or is very old.
	reactiveWindow     = time.Second
	reactiveLongWindow = 30 * time.Second
	reactiveSamples    = 50
	// reactiveKept bounds the latencies of one window; more say nothing new.
	reactiveKept = 4096

	// reactiveQuantile of a window is its latency.
	reactiveQuantile = 0.9

	// reactiveMemory is how many windows the baseline remembers.
	reactiveMemory = 60

	// reactiveTolerance is how much slower than the baseline a window may be before pushes are
	// refused: quantiles of a few dozen latencies differ by themselves.
	reactiveTolerance = 1.5

	// reactiveFall is the least part of the limit that one window leaves.
	reactiveFall = 0.5

	// reactiveWait bounds how long a push waits for its turn.
	reactiveWait = time.Second
)

// reactive admits pushes. Its limit falls when a window of latencies is slower than those of the
// last minutes, and rises while it is used and that is not so. Up to as many pushes as are admitted
// may wait for their turn, so that a burst is not refused for being one.
type reactive struct {
	cfg ReactiveConfig

	mu       sync.Mutex // guards all below
	limit    float64
	inflight int
	peak     int             // most in flight in this window
	waiting  []chan struct{} // in order; each has room for one message
	baseline float64         // seconds; 0: none yet
	began    time.Time       // of the window
	took     []float64       // its latencies in seconds
}

func newReactive(cfg ReactiveConfig) *reactive {
	return &reactive{cfg: cfg, limit: float64(cfg.Initially), began: time.Now()}
}

// enter returns when the push may begin; leave must be called with when that was. Errors:
// Unavailable; Canceled.
func (r *reactive) enter(ctx context.Context) (time.Time, error) {
	r.mu.Lock()
	if r.inflight < int(r.limit) {
		r.admit()
		r.mu.Unlock()
		return time.Now(), nil
	}
	if len(r.waiting) >= int(r.limit) {
		r.mu.Unlock()
		return time.Time{}, errReactive(r.cfg)
	}
	turn := make(chan struct{}, 1)
	r.waiting = append(r.waiting, turn)
	r.mu.Unlock()
	timer := time.NewTimer(reactiveWait)
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
		r.waiting = slices.Delete(r.waiting, at, at+1)
		if err := context.Cause(ctx); err != nil {
			return time.Time{}, fmt.Errorf("wait for other pushes: %w", err)
		}
		return time.Time{}, errReactive(r.cfg)
	}
	return time.Now(), nil // its turn came at this very moment
}

func errReactive(c ReactiveConfig) error {
	return errs.WithID(errs.Unavailable, "distributor-reactive-limiter",
		"Try again later, add distributors or ingesters, or raise -distributor.reactive-limiter.max-inflight-limit.",
		"this distributor answers more slowly than usual, or is at its limit of %d pushes at once, and takes fewer", c.MaxInflight)
}

// admit needs mu.
func (r *reactive) admit() {
	r.inflight++
	r.peak = max(r.peak, r.inflight)
}

// leave notes that a push which began at the given time is answered. Only what went all the way to
// the ingesters tells how quick they are.
func (r *reactive) leave(began time.Time, telling bool) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inflight--
	if telling && len(r.took) < reactiveKept {
		r.took = append(r.took, now.Sub(began).Seconds())
	}
	if age := now.Sub(r.began); age >= reactiveWindow && len(r.took) >= reactiveSamples || age >= reactiveLongWindow {
		r.adjust()
		r.began, r.took, r.peak = now, r.took[:0], r.inflight
	}
	for len(r.waiting) > 0 && r.inflight < int(r.limit) {
		r.admit()
		r.waiting[0] <- struct{}{}
		r.waiting = slices.Delete(r.waiting, 0, 1)
	}
}

// adjust draws the conclusion from a window. It needs mu.
func (r *reactive) adjust() {
	if len(r.took) == 0 {
		return
	}
	slices.Sort(r.took)
	latency := r.took[int(reactiveQuantile*float64(len(r.took)-1))]
	r.limit, r.baseline = nextLimit(r.cfg, r.limit, r.baseline, latency, r.peak)
}

// nextLimit returns the limit and the baseline after a window of the given latency, in which at
// most peak pushes were in flight.
func nextLimit(c ReactiveConfig, limit, baseline, latency float64, peak int) (newLimit, newBaseline float64) {
	if baseline == 0 {
		return limit, latency
	}
	pace := 1.0
	if latency > 0 {
		pace = baseline * reactiveTolerance / latency
	}
	switch {
	case pace < 1:
		limit *= max(pace, reactiveFall)
	case float64(peak) >= limit/2: // a limit that nobody comes near says nothing
		limit += math.Sqrt(limit)
	}
	const weight = 2.0 / (reactiveMemory + 1)
	baseline += weight * (latency - baseline)
	if baseline > 2*latency { // a baseline from bad times must not hide the next ones
		baseline *= 0.95
	}
	return min(max(limit, float64(c.MinInflight)), float64(c.MaxInflight)), baseline
}

// state returns the limit and how many pushes are in flight and wait.
func (r *reactive) state() (limit float64, inflight, waiting int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return math.Floor(r.limit), r.inflight, len(r.waiting)
}

// react lets a push through the reactive limiter, if there is one; done must be called with the
// push's end.
func (d *Distributor) react(ctx context.Context) (done func(remotewrite.Written, error), err error) {
	if d.reactive == nil {
		return func(remotewrite.Written, error) {}, nil
	}
	began, err := d.reactive.enter(ctx)
	if err != nil {
		if errs.KindOf(err) == errs.Unavailable {
			d.metrics.rejected.WithLabelValues("distributor_reactive_limiter").Inc()
		}
		return nil, err
	}
	return func(w remotewrite.Written, err error) {
		kind := errs.KindOf(err)
		d.reactive.leave(began, w.Samples+w.Histograms > 0 && kind != errs.Accepted || err != nil && (kind == errs.Unavailable || kind == errs.Timeout))
	}, nil
}

package tombstone

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// freshAge is how old what a process remembers of a tenant's requests may be. Together with the
	// time of a query it keeps the promise that a request shows within a minute.
	freshAge = 30 * time.Second
	// staleAge is how old it may be while the storage cannot be read.
	staleAge = 15 * time.Minute
	// patience is how long a query that has something to go by waits for what is new, and restAge how
	// long after a failure nobody asks again: a storage that hangs shall not hold up queries.
	patience = 2 * time.Second
	restAge  = 5 * time.Second
	// readTimeout ends a read.
	readTimeout = time.Minute
	// showsWithin is after which time every process knows of a request, or refuses queries.
	showsWithin = time.Minute
	// idleAge is when a tenant that nobody queries is forgotten.
	idleAge = time.Hour
)

// memory is what a process knows of the requests of the tenants that it answered lately.
type memory struct {
	mu      sync.Mutex // guards tenants
	tenants map[tenant.ID]*remembered
}

// remembered is of one tenant.
type remembered struct {
	used time.Time // guarded by memory.mu

	mu      sync.Mutex // guards what follows
	read    time.Time  // zero: never
	set     Set
	history []Request
	failed  time.Time // of the last read, if it failed
	err     error     // why
	asking  *asking   // nil: nobody reads
}

// asking is a read that is under way.
type asking struct {
	done  chan struct{} // closed once what is remembered has the outcome
	since time.Time
}

func (m *memory) of(id tenant.ID, now time.Time) *remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.tenants[id]
	if r == nil {
		maps.DeleteFunc(m.tenants, func(_ tenant.ID, r *remembered) bool { return now.Sub(r.used) > idleAge })
		r = &remembered{}
		m.tenants[id] = r
	}
	r.used = now
	return r
}

func (m *memory) forget(id tenant.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tenants, id)
}

// InForce returns what queries of the tenant must not show: its requests of at least half a minute
// ago, and what its retention by selector ends. Errors: Unavailable, Internal; never a part.
func (s *Requests) InForce(ctx context.Context, id tenant.ID) (Set, error) {
	var out Set
	err := s.current(ctx, id, func(r *remembered) { out = r.set })
	if err != nil {
		return Set{}, err
	}
	return Join(out, Retention(s.deps.Limits(id), s.deps.Now())), nil
}

// Turn says that from At on, at the latest, queries show samples with Start <= t <= End otherwise than
// before: a request to delete some was made or taken back. Times are in milliseconds.
type Turn struct{ Start, End, At int64 }

// Turns returns the turns of the tenant's requests, of at least half a minute ago, that are remembered.
// Errors: as of InForce.
func (s *Requests) Turns(ctx context.Context, id tenant.ID) ([]Turn, error) {
	var out []Turn
	err := s.current(ctx, id, func(r *remembered) {
		for i := range r.history {
			q := &r.history[i]
			out = append(out, Turn{q.Start, q.End, max(q.Created, q.Cancelled) + showsWithin.Milliseconds()})
		}
	})
	return out, err
}

// current calls use with what is known of the tenant, under its lock; it is at most freshAge old unless
// the storage cannot be read, or not soon.
func (s *Requests) current(ctx context.Context, id tenant.ID, use func(*remembered)) error {
	now := s.deps.Now()
	r := s.memory.of(id, now)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known(now, freshAge) {
		use(r)
		return nil
	}
	usable := r.known(now, staleAge)
	if usable && r.asking == nil && now.Sub(r.failed) < restAge {
		use(r)
		return nil
	}
	if r.asking == nil {
		r.asking = &asking{done: make(chan struct{}), since: now}
		go s.refresh(context.WithoutCancel(ctx), id, r)
	}
	a := r.asking
	r.mu.Unlock()
	err := a.wait(ctx, usable, now)
	r.mu.Lock()
	switch {
	case r.known(now, freshAge), usable && ctx.Err() == nil:
		use(r)
		return nil
	case err != nil:
		return err
	}
	return r.err
}

// known says whether what is remembered is younger than age. It needs r.mu.
func (r *remembered) known(now time.Time, age time.Duration) bool {
	return !r.read.IsZero() && now.Sub(r.read) < age
}

// wait returns when the read is over, when ctx ends, of which the error tells, and for those that can
// do without, when their patience is over.
func (a *asking) wait(ctx context.Context, without bool, now time.Time) error {
	var enough <-chan time.Time
	if without {
		timer := time.NewTimer(patience - now.Sub(a.since))
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-a.done:
	case <-enough:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// refresh reads what r is to remember.
func (s *Requests) refresh(ctx context.Context, id tenant.ID, r *remembered) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	began := s.deps.Now()
	d, err := s.read(ctx, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.asking.done)
	r.asking, r.err = nil, err
	if err == nil {
		r.set, r.history = s.set(id, d, func(r *Request) bool { return r.ended() == 0 }), d.Requests
		r.read, r.failed = began, time.Time{}
		return
	}
	r.failed = s.deps.Now()
	s.metrics.failures.Inc()
	if !r.read.IsZero() {
		s.deps.Logger.Warn("requests to delete series not read, the last ones are used for 15 minutes", "tenant", id, "err", err)
	}
}

type metrics struct {
	requested, cancelled, processed, failures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "amphora_series_deletion_" + name, Help: help})
	}
	return &metrics{
		requested: counter("requests_total", "Requests to delete series that this process took."),
		cancelled: counter("requests_cancelled_total", "Requests to delete series that were taken back."),
		processed: counter("requests_processed_total", "Requests to delete series of which nothing is left in any block."),
		failures:  counter("reads_failed_total", "Failures to read what queries must hide. The last known state is used for 15 minutes, then queries fail."),
	}
}

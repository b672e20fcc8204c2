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

// remembered is of one tenant. Its lock is a channel so that waiting ends with the waiter's context.
type remembered struct {
	lock chan struct{}
	used time.Time // guarded by memory.mu

	// Guarded by lock.
	read    time.Time
	set     Set
	history []Request
}

func (m *memory) of(id tenant.ID, now time.Time) *remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.tenants[id]
	if r == nil {
		maps.DeleteFunc(m.tenants, func(_ tenant.ID, r *remembered) bool { return now.Sub(r.used) > idleAge })
		r = &remembered{lock: make(chan struct{}, 1)}
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

// current calls use with what is known of the tenant, which is at most freshAge old unless the storage
// cannot be read.
func (s *Requests) current(ctx context.Context, id tenant.ID, use func(*remembered)) error {
	now := s.deps.Now()
	r := s.memory.of(id, now)
	select {
	case r.lock <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-r.lock }()
	known := !r.read.IsZero()
	if known && now.Sub(r.read) < freshAge {
		use(r)
		return nil
	}
	d, err := s.read(ctx, id)
	if err == nil {
		r.set, r.history, r.read = s.set(id, d, func(r *Request) bool { return r.ended() == 0 }), d.Requests, now
		use(r)
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.metrics.failures.Inc()
	if known && now.Sub(r.read) < staleAge {
		s.deps.Logger.Warn("requests to delete series not read, the last ones are used", "tenant", id, "err", err)
		use(r)
		return nil
	}
	return err
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

// Package scheduler owns the queue between frontends and queriers: whose work is next, which querier
// may do it, and what happens to work whose querier is lost.
package scheduler

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/grafana/dskit/user"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// RingName and RingKey are how schedulers find each other where that goes by a ring.
const (
	RingName = "query-scheduler"
	RingKey  = "query-scheduler"
)

const (
	// mostTries is how often work is given to another querier after one was lost: a query that ends
	// queriers must not end all of them.
	mostTries = 3
	// drainWait bounds how long a scheduler that stops waits for the work it has.
	drainWait = 30 * time.Second
)

// Config is the settings of a Scheduler, mounted as query_scheduler.
type Config struct {
	MaxOutstanding int
	MaxShare       float64
}

// Declare names each setting once.
func (c *Config) Declare(s *config.Set) {
	s.Int(&c.MaxOutstanding, "max-outstanding-requests-per-tenant", 100, "Queued requests of one tenant per scheduler; more are refused with 429.")
	s.Float(&c.MaxShare, "max-tenant-worker-share", 0.75, "Largest share of the workers that one tenant may occupy, so that some stay free for others. 1: all.").Expert()
}

// Validate refuses what cannot work.
func (c *Config) Validate() error {
	if c.MaxOutstanding < 1 {
		return config.Wrong("max-outstanding-requests-per-tenant", "is %d; it must be 1 or more", c.MaxOutstanding)
	}
	if c.MaxShare <= 0 || c.MaxShare > 1 {
		return config.Wrong("max-tenant-worker-share", "is %g; it must be above 0 and at most 1", c.MaxShare)
	}
	return nil
}

// Deps are what a Scheduler works with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Limits func(tenant.ID) limits.View
}

// Scheduler queues work. It is a service: when it stops it takes no more, and waits for what it has.
type Scheduler struct {
	services.Service
	cfg     Config
	deps    Deps
	metrics *metrics

	mu       sync.Mutex // guards what follows
	queue    queue
	waiters  []*waiter
	workers  int // that wait or run
	stopping bool
	idle     chan struct{} // closed when it stops and has no work
}

// waiter is a worker that waits for work.
type waiter struct {
	querier string
	task    chan *Task // of a worker of this process; has room for one
	remote  *puller    // nil: it is of this process
}

// Task is work that a worker was given. It must call Finish or Return, once.
type Task struct {
	// Context acts for the tenants of the work and ends when it is not wanted any more.
	Context context.Context //nolint:containedctx // A task is a call that waits elsewhere.
	Work    *work.Work

	s       *Scheduler
	owner   *tenantQueue
	querier string    // that has it
	remote  *puller   // its worker, if that is elsewhere
	begun   time.Time // of its wait
	tries   int
	done    chan error // has room for one
}

// New returns a scheduler.
func New(cfg Config, deps Deps) (*Scheduler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Scheduler{cfg: cfg, deps: deps, metrics: newMetrics(deps.Reg), idle: make(chan struct{})}
	s.queue = newQueue()
	s.Service = services.NewIdleService(nil, func(error) error { s.drain(drainWait); return nil })
	return s, nil
}

// Run implements work.Runner: it queues w and returns when a querier has answered it. Errors:
// RateLimited if too much of the tenants' work waits, Unavailable if the scheduler stops or the
// queriers that had it were lost, those of the querier, the cause of ctx.
func (s *Scheduler) Run(ctx context.Context, w *work.Work) error {
	org, err := user.ExtractOrgID(ctx)
	if err != nil {
		return errs.New(errs.Unauthenticated, "no org id")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &Task{Context: ctx, Work: w, s: s, begun: time.Now(), done: make(chan error, 1)}
	if err := s.enqueue(ctx, org, t); err != nil {
		return err
	}
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
	}
	waited, at := s.withdraw(t)
	if waited {
		return context.Cause(ctx)
	}
	if at != nil {
		at.abandon(t)
	}
	// A worker has it and may be writing the answer, which the caller must not take from under it.
	return <-t.done
}

// enqueue adds t for the tenants org.
func (s *Scheduler) enqueue(ctx context.Context, org string, t *Task) error {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return err
	}
	most := 0
	for _, id := range ids {
		if n := limits.MaxQueriersPerTenant.Of(s.deps.Limits(id)); n > 0 && (most == 0 || n < most) {
			most = n
		}
	}
	given, err := s.put(org, t, most)
	if given != nil {
		given.remote.give(given)
	}
	return err
}

// put queues t, and returns it if it is for the caller to give to who is to do it.
func (s *Scheduler) put(org string, t *Task, most int) (*Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, errs.New(errs.Unavailable, "the query-scheduler is stopping")
	}
	q := s.queue.of(org)
	if q.waiting() >= s.cfg.MaxOutstanding {
		s.queue.forget(q)
		s.metrics.discarded.Inc()
		return nil, errs.New(errs.RateLimited, "too many outstanding requests")
	}
	q.maxQueriers = most
	t.owner = q
	s.queue.push(q, t)
	s.metrics.queued.WithLabelValues(t.Work.Class.String()).Inc()
	return s.dispatchFor(t, nil), nil
}

// withdraw takes t out of the queue. It says whether t was there, and who in another process has it otherwise.
func (s *Scheduler) withdraw(t *Task) (waited bool, at *puller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.queue.remove(t) {
		return false, t.remote
	}
	s.metrics.queued.WithLabelValues(t.Work.Class.String()).Dec()
	s.settle(t.owner)
	return true, nil
}

// join has a worker elsewhere wait for work. It returns what there is already, for the caller to give.
func (s *Scheduler) join(p *puller) *Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers++
	s.queue.join(p.place.querier)
	s.waiters = append(s.waiters, &p.place)
	s.metrics.workers.Set(float64(s.workers))
	return s.dispatchFor(nil, p)
}

// unjoin ends the wait of a worker elsewhere, if it still waits.
func (s *Scheduler) unjoin(p *puller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(&p.place)
}

// remove takes w out of those that wait, and says whether it was there. It needs s.mu.
func (s *Scheduler) remove(w *waiter) bool {
	i := slices.Index(s.waiters, w)
	if i < 0 {
		return false
	}
	s.waiters = slices.Delete(s.waiters, i, i+1)
	s.leave(w.querier)
	return true
}

// Next waits for work for a worker of querier. Errors: the cause of ctx, Unavailable once the scheduler
// has stopped.
func (s *Scheduler) Next(ctx context.Context, querier string) (*Task, error) {
	w := &waiter{querier: querier, task: make(chan *Task, 1)}
	s.mu.Lock()
	s.workers++
	s.queue.join(querier)
	s.waiters = append(s.waiters, w)
	s.metrics.workers.Set(float64(s.workers))
	s.dispatch()
	s.mu.Unlock()
	var cause error
	select {
	case t := <-w.task:
		return t, nil
	case <-ctx.Done():
		cause = context.Cause(ctx)
	case <-s.idle:
		cause = errStopped()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.remove(w) {
		return nil, cause
	}
	// The task came at the same moment.
	t := <-w.task
	s.takeBack(t)
	return nil, cause
}

// leave notes that a worker neither waits nor runs. It needs s.mu.
func (s *Scheduler) leave(querier string) {
	s.workers--
	if s.queue.part(querier) {
		time.AfterFunc(absence, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.queue.sweep()
			s.dispatch()
		})
	}
	s.metrics.workers.Set(float64(s.workers))
}

// dispatch gives work to those that wait for it. It needs s.mu.
func (s *Scheduler) dispatch() { s.dispatchFor(nil, nil) }

// dispatchFor is dispatch for who brings the task mine, or work for who: what of that goes to another process it
// returns, to be given without s.mu, which may take its time.
func (s *Scheduler) dispatchFor(mine *Task, who *puller) (given *Task) {
	most := max(1, int(s.cfg.MaxShare*float64(s.workers)))
	kept := s.waiters[:0]
	for i, w := range s.waiters {
		if s.queue.length == 0 {
			kept = append(kept, s.waiters[i:]...)
			break
		}
		t := s.queue.pop(w.querier, most)
		if t == nil {
			kept = append(kept, w)
			continue
		}
		t.querier, t.remote = w.querier, w.remote
		s.metrics.queued.WithLabelValues(t.Work.Class.String()).Dec()
		s.metrics.waited.WithLabelValues(t.Work.Class.String()).Observe(time.Since(t.begun).Seconds())
		switch {
		case w.remote == nil:
			w.task <- t
		case given == nil && (t == mine || w.remote == who):
			given = t
		default:
			go w.remote.give(t)
		}
	}
	clear(s.waiters[len(kept):])
	s.waiters = kept
	return given
}

// settle forgets a tenant without work, and notices when a scheduler that stops has none left. It needs
// s.mu.
func (s *Scheduler) settle(q *tenantQueue) {
	s.queue.forget(q)
	if s.stopping && s.queue.idle() {
		select {
		case <-s.idle:
		default:
			close(s.idle)
		}
	}
}

// drain refuses new work and waits for what there is.
func (s *Scheduler) drain(most time.Duration) {
	s.mu.Lock()
	s.stopping = true
	if s.queue.idle() {
		close(s.idle)
	}
	s.mu.Unlock()
	after := time.NewTimer(most)
	defer after.Stop()
	select {
	case <-s.idle:
		return
	case <-after.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.queue.all() {
		s.queue.remove(t)
		t.done <- errs.New(errs.Unavailable, "the query-scheduler is stopping")
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

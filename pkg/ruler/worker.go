package ruler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/prometheus/rules"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// stopWait bounds how long a stop waits for evaluations that run; then they are cut.
const stopWait = 20 * time.Second

// groupKey names a group of a tenant.
type groupKey struct{ namespace, name string }

// label is the group in metrics.
func (k groupKey) label() string { return rules.GroupKey(k.namespace, k.name) }

// worker evaluates the groups of one tenant that are this ruler's.
type worker struct {
	r       *Ruler
	id      tenant.ID
	log     *slog.Logger
	ctx     context.Context // acts for the tenant
	metrics *rules.Metrics
	forget  func() // takes the tenant's metrics away
	notify  *notify
	slots   *slots
	running sync.WaitGroup // managers, and changes of them

	mu     sync.Mutex // guards what follows
	groups map[groupKey]*runner
	ending int // groups that end
}

func newWorker(r *Ruler, id tenant.ID) *worker {
	w := &worker{r: r, id: id, log: slog.New(quiet{r.log.With("tenant", id).Handler()}), ctx: tenant.Inject(r.ctx, id), groups: map[groupKey]*runner{}}
	w.slots = newSlots(func() int { return limits.RulerMaxIndependentConcurrency.Of(w.limits()) })
	reg, forget := r.metrics.registry(id)
	w.metrics, w.forget = rules.NewGroupMetrics(reg), forget
	w.notify = newNotify(w, reg)
	r.metrics.managers.Inc()
	return w
}

// quiet passes on what the managers of single groups say only if it is a warning or worse: they tell
// of every start and stop.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

func (w *worker) limits() limits.View { return w.r.deps.Limits(w.id) }

// apply makes want the groups that are evaluated. Those that are not wanted are ended, as deleted if
// they are not in exists.
func (w *worker) apply(want map[groupKey]Group, exists map[groupKey]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notify.refresh()
	for key, g := range want {
		run := w.groups[key]
		if run == nil {
			run = newRunner(w, key)
			w.groups[key] = run
		}
		run.want(g)
	}
	for key, run := range w.groups {
		if _, ok := want[key]; ok {
			continue
		}
		w.end(key, run, !exists[key])
	}
}

// end takes a group out. It needs mu.
func (w *worker) end(key groupKey, run *runner, deleted bool) {
	delete(w.groups, key)
	w.ending++
	w.running.Go(func() {
		run.end(deleted)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ending--
	})
}

// idle says that there is nothing left to do.
func (w *worker) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.groups) == 0 && w.ending == 0
}

// all returns the groups that are evaluated.
func (w *worker) all() []*runner {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]*runner, 0, len(w.groups))
	for _, run := range w.groups {
		out = append(out, run)
	}
	return out
}

// stop ends all groups and returns when the alerts they made are sent.
func (w *worker) stop() {
	w.mu.Lock()
	for key, run := range w.groups {
		w.end(key, run, false)
	}
	w.mu.Unlock()
	w.running.Wait()
	w.notify.stop()
	w.forget()
	w.r.metrics.managers.Dec()
}

// slots lets a bounded number of rules of a tenant be evaluated beside the first of their group.
// It implements rules.RuleConcurrencyController.
type slots struct {
	most func() int

	mu    sync.Mutex // guards taken
	taken int
}

func newSlots(most func() int) *slots { return &slots{most: most} }

// SplitGroupIntoBatches implements rules.RuleConcurrencyController: rules that need no other, then
// those in between one by one, then those that no other needs.
func (s *slots) SplitGroupIntoBatches(_ context.Context, g *rules.Group) []rules.ConcurrentRules {
	if s.most() <= 0 {
		return nil
	}
	var first, last rules.ConcurrentRules
	var between []rules.ConcurrentRules
	for i, r := range g.Rules() {
		switch {
		case r.NoDependencyRules():
			first = append(first, i)
		case r.NoDependentRules():
			last = append(last, i)
		default:
			between = append(between, rules.ConcurrentRules{i})
		}
	}
	var out []rules.ConcurrentRules
	if len(first) > 0 {
		out = append(out, first)
	}
	out = append(out, between...)
	if len(last) > 0 {
		out = append(out, last)
	}
	return out
}

// Allow implements rules.RuleConcurrencyController.
func (s *slots) Allow(context.Context, *rules.Group, rules.Rule) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.most() {
		return false
	}
	s.taken++
	return true
}

// Done implements rules.RuleConcurrencyController.
func (s *slots) Done(context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
}

package scheduler

import (
	"context"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Finish ends the task. err is what became of it; nil: its answer is whole.
func (t *Task) Finish(err error) {
	t.s.mu.Lock()
	t.owner.active--
	t.s.leave(t.querier)
	t.s.settle(t.owner)
	t.s.dispatch()
	t.s.mu.Unlock()
	t.done <- err
}

// Return gives the task back because its querier was lost: another one gets it, unless some of the
// answer is out or it was tried too often.
func (t *Task) Return() {
	if t.Context.Err() != nil {
		t.Finish(context.Cause(t.Context))
		return
	}
	t.tries++
	if t.tries >= mostTries || !t.Work.Again() {
		t.s.metrics.lost.Inc()
		t.Finish(errs.New(errs.Unavailable, "the querier that ran the query was lost"))
		return
	}
	t.s.metrics.requeued.Inc()
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.takeBack(t)
}

// takeBack puts t where it is next. If its caller gave up, it ends: the caller may have found it with a
// worker and waits for it. It needs s.mu.
func (s *Scheduler) takeBack(t *Task) {
	t.owner.active--
	s.leave(t.querier)
	if t.Context.Err() != nil {
		t.done <- context.Cause(t.Context)
		s.settle(t.owner)
		s.dispatch()
		return
	}
	s.queue.back(t)
	s.metrics.queued.WithLabelValues(t.Work.Class.String()).Inc()
	s.dispatch()
}

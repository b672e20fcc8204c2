package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// queue decides whose work is next: the classes by their weight, and within a class the tenants in
// turns. It is for one goroutine at a time.
type queue struct {
	tenants  map[string]*tenantQueue
	turns    [work.Classes][]*tenantQueue // those with work of the class, in the order of their turns
	length   int
	queriers map[string]int       // workers of each
	picks    map[string]int       // pieces of work that each took
	away     map[string]time.Time // since when those have none that keep their place
	epoch    int                  // changes with the set of queriers
}

// tenantQueue is the work of one tenant, or of several that are read together.
type tenantQueue struct {
	org         string
	by          [work.Classes][]*Task
	active      int // given to workers
	maxQueriers int // 0: all

	shard      map[string]bool // queriers of the tenant, as of epoch
	shardEpoch int
	shardSize  int
}

func newQueue() queue {
	return queue{tenants: map[string]*tenantQueue{}, queriers: map[string]int{}, picks: map[string]int{}, away: map[string]time.Time{}}
}

// of returns the queue of org.
func (q *queue) of(org string) *tenantQueue {
	t := q.tenants[org]
	if t == nil {
		t = &tenantQueue{org: org}
		q.tenants[org] = t
	}
	return t
}

func (t *tenantQueue) waiting() int {
	n := 0
	for _, list := range t.by {
		n += len(list)
	}
	return n
}

// forget drops t if it has no work.
func (q *queue) forget(t *tenantQueue) {
	if t.active == 0 && t.waiting() == 0 {
		delete(q.tenants, t.org)
	}
}

// idle says whether no work waits or runs.
func (q *queue) idle() bool {
	for _, t := range q.tenants {
		if t.active > 0 || t.waiting() > 0 {
			return false
		}
	}
	return true
}

func (q *queue) push(t *tenantQueue, task *Task) {
	c := task.Work.Class
	if len(t.by[c]) == 0 {
		q.turns[c] = append(q.turns[c], t)
	}
	t.by[c] = append(t.by[c], task)
	q.length++
}

// back puts task at the head of its queue, and its tenant's turn first.
func (q *queue) back(task *Task) {
	t, c := task.owner, task.Work.Class
	if len(t.by[c]) == 0 {
		q.turns[c] = slices.Insert(q.turns[c], 0, t)
	}
	t.by[c] = slices.Insert(t.by[c], 0, task)
	q.length++
}

// remove takes task out. It says whether it was there.
func (q *queue) remove(task *Task) bool {
	t, c := task.owner, task.Work.Class
	i := slices.Index(t.by[c], task)
	if i < 0 {
		return false
	}
	t.by[c] = slices.Delete(t.by[c], i, i+1)
	if len(t.by[c]) == 0 {
		q.turns[c] = slices.DeleteFunc(q.turns[c], func(o *tenantQueue) bool { return o == t })
	}
	q.length--
	return true
}

// all lists the work that waits.
func (q *queue) all() []*Task {
	var out []*Task
	for _, t := range q.tenants {
		for _, list := range t.by {
			out = append(out, list...)
		}
	}
	return out
}

// classesAt is which class a querier looks at first when it takes its nth piece of work. A higher class goes
// before a lower one but in every fourth and eighth turn, so that none waits for ever. Each querier has
// turns of its own: if all shared them, one that may not do some work could take each of the turns in
// which that goes first.
func classesAt(n int) [work.Classes]work.Class {
	switch {
	case n%8 == 0:
		return [...]work.Class{work.AdHoc, work.Rule, work.Dashboard}
	case n%4 == 0:
		return [...]work.Class{work.Dashboard, work.Rule, work.AdHoc}
	}
	return [...]work.Class{work.Rule, work.Dashboard, work.AdHoc}
}

// pop takes the next work for a worker of querier; nil: there is none. No tenant is given more than
// most at once.
func (q *queue) pop(querier string, most int) *Task {
	turn := q.picks[querier] + 1
	for _, c := range classesAt(turn) {
		for i, t := range q.turns[c] {
			if t.active >= most || !q.allowed(t, querier) {
				continue
			}
			task := t.by[c][0]
			t.by[c][0] = nil
			t.by[c] = t.by[c][1:]
			q.turns[c] = slices.Delete(q.turns[c], i, i+1)
			if len(t.by[c]) > 0 {
				q.turns[c] = append(q.turns[c], t)
			}
			q.length--
			q.picks[querier] = turn
			t.active++
			return task
		}
	}
	return nil
}

// allowed says whether querier is in the tenant's shard: the tenant's queriers are those that rank
// first by a hash of both, so that one that comes or goes changes the shards of few tenants by one.
func (q *queue) allowed(t *tenantQueue, querier string) bool {
	if t.maxQueriers <= 0 || t.maxQueriers >= len(q.queriers) {
		return true
	}
	if t.shard == nil || t.shardEpoch != q.epoch || t.shardSize != t.maxQueriers {
		names := make([]string, 0, len(q.queriers))
		for name := range q.queriers {
			names = append(names, name)
		}
		rank := func(name string) uint64 { return xxhash.Sum64String(t.org + "\xff" + name) }
		slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
		t.shard, t.shardEpoch, t.shardSize = map[string]bool{}, q.epoch, t.maxQueriers
		for _, name := range names[:t.maxQueriers] {
			t.shard[name] = true
		}
	}
	return t.shard[querier]
}

// join notes a worker of querier.
func (q *queue) join(querier string) {
	delete(q.away, querier)
	if _, known := q.queriers[querier]; !known {
		q.epoch++
	}
	q.queriers[querier]++
}

// absence is how long a querier without workers keeps its place: each of them is away between an answer
// and its next question.
const absence = time.Second

// part notes that a worker of querier is gone, and says whether it was the last.
func (q *queue) part(querier string) bool {
	q.queriers[querier]--
	if q.queriers[querier] > 0 {
		return false
	}
	q.away[querier] = time.Now()
	return true
}

// sweep forgets the queriers that did not come back.
func (q *queue) sweep() {
	for querier, since := range q.away {
		if time.Since(since) >= absence {
			delete(q.away, querier)
			delete(q.queriers, querier)
			delete(q.picks, querier)
			q.epoch++
		}
	}
}

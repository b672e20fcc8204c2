package frontend

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Running is a query under way.
type Running struct {
	ID         string        `json:"id"`
	Tenants    []tenant.ID   `json:"tenants"`
	Class      string        `json:"class"`
	Query      string        `json:"query"`
	Start, End time.Time     `json:"-"`
	Step       time.Duration `json:"-"`
	Since      time.Time     `json:"since"`
}

// running is all queries under way.
type running struct {
	mu sync.Mutex // guards m
	m  map[string]runningQuery
}

type runningQuery struct {
	Running
	cancel context.CancelCauseFunc
}

func newRunning() *running { return &running{m: map[string]runningQuery{}} }

// errKilled is why a query ends that somebody stopped.
func errKilled() error { return errs.New(errs.Unprocessable, "the query was stopped on request") }

func (r *running) add(q Running, cancel context.CancelCauseFunc) (id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.ID = strconv.FormatUint(rand.Uint64(), 36)
	r.m[q.ID] = runningQuery{q, cancel}
	return q.ID
}

func (r *running) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, id)
}

// Running lists the queries under way in this process that read of all of ids, the oldest first.
func (f *Frontend) Running(ids []tenant.ID) []Running {
	f.running.mu.Lock()
	defer f.running.mu.Unlock()
	out := []Running{}
	for _, q := range f.running.m {
		if covers(ids, q.Tenants) {
			out = append(out, q.Running)
		}
	}
	slices.SortFunc(out, func(a, b Running) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return out
}

// covers says whether all tenants of a query are among ids.
func covers(ids, of []tenant.ID) bool {
	return !slices.ContainsFunc(of, func(id tenant.ID) bool { return !slices.Contains(ids, id) })
}

// Stop ends the query with an id, if it reads of no other tenants than ids. Errors: NotFound.
func (f *Frontend) Stop(ids []tenant.ID, id string) error {
	f.running.mu.Lock()
	defer f.running.mu.Unlock()
	q, ok := f.running.m[id]
	if !ok || !covers(ids, q.Tenants) {
		return errs.New(errs.NotFound, "no query %q is under way in this process", id)
	}
	q.cancel(errKilled())
	return nil
}

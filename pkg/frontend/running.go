package frontend

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// mostListed bounds the queries that one process lists: the oldest, which are those that last.
	mostListed = 1000
	// mostListedText bounds what a list says of one query.
	mostListedText = 16 << 10
)

// Running is a query under way, or another read.
type Running struct {
	ID       string      `json:"id"` // that no other query of the cluster has
	Frontend string      `json:"frontend,omitempty"`
	Tenants  []tenant.ID `json:"tenants"`
	Class    string      `json:"class"`
	Query    string      `json:"query"` // of another read its method, path and parameters
	Since    time.Time   `json:"since"`
	// What its parts took that are done.
	Parts   int   `json:"parts_done"`
	Samples int64 `json:"samples"`
	Fetched int64 `json:"fetched_bytes"`
}

// Whose says of which tenants' queries a list is, and which may be stopped: those that read of no other
// tenants.
type Whose struct {
	Tenants []tenant.ID
	All     bool // of every tenant
}

// WhoseOf is all, or the tenants of ctx.
func WhoseOf(ctx context.Context, all bool) (Whose, error) {
	if all {
		return Whose{All: true}, nil
	}
	ids, err := tenant.Many(ctx)
	return Whose{Tenants: ids}, err
}

// covers says whether all tenants of a query are among those of w.
func (w Whose) covers(of []tenant.ID) bool {
	return w.All || !slices.ContainsFunc(of, func(id tenant.ID) bool { return !slices.Contains(w.Tenants, id) })
}

// running is all queries under way in this process.
type running struct {
	mu sync.Mutex // guards m
	m  map[string]runningQuery
}

type runningQuery struct {
	Running
	q      *query // nil: it is another read
	cancel context.CancelCauseFunc
}

func newRunning() *running { return &running{m: map[string]runningQuery{}} }

// errKilled is why a query ends that somebody stopped.
func errKilled() error { return errs.New(errs.Unprocessable, "the query was stopped on request") }

func (r *running) add(about Running, q *query, cancel context.CancelCauseFunc) (id string) {
	// 128 bits, so that processes need not agree on who gives which.
	about.ID = strconv.FormatUint(rand.Uint64(), 36) + strconv.FormatUint(rand.Uint64(), 36)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m[about.ID] = runningQuery{about, q, cancel}
	return about.ID
}

func (r *running) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, id)
}

// list returns the queries under way in this process, the oldest first.
func (r *running) list(of Whose) []Running {
	r.mu.Lock()
	found := []runningQuery{}
	for _, q := range r.m {
		if of.covers(q.Tenants) {
			found = append(found, q)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(found, func(a, b runningQuery) int { return older(&a.Running, &b.Running) })
	out := make([]Running, min(len(found), mostListed))
	for i := range out {
		out[i] = found[i].Running
		if len(out[i].Query) > mostListedText {
			out[i].Query = strings.ToValidUTF8(out[i].Query[:mostListedText], "") + "..."
		}
		if q := found[i].q; q != nil {
			if run := q.laid.Load(); run != nil {
				out[i].Parts, out[i].Samples, out[i].Fetched = run.soFar()
			}
		}
	}
	return out
}

// older sorts queries by when they began.
func older(a, b *Running) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) }

// stop ends a query of this process. It says whether it is one.
func (r *running) stop(of Whose, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	q, ok := r.m[id]
	if !ok || !of.covers(q.Tenants) {
		return false
	}
	q.cancel(errKilled())
	return true
}

// soFar is what the parts took that are done.
func (r *run) soFar() (parts int, samples, fetched int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.works, r.samples.TotalSamples, r.fetched.Total()
}

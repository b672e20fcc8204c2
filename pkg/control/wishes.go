package control

import (
	"sync"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// wishes is what workspaces want to be logged. Few have any.
type wishes struct {
	mu sync.RWMutex // guards by
	by map[string]wish
}

type wish struct {
	events  string // where failures of rules and alerts are for; empty: nowhere
	queries string // where queries are for; empty: nowhere
	samples int64  // from how many samples on a query is logged
}

// set remembers the wishes of a workspace; nil: it is gone.
func (l *wishes) set(id string, w *workspace) {
	var x wish
	if w != nil && w.State == active {
		if w.Logging != nil {
			x.events = w.Logging.LogGroup
		}
		if w.Queries != nil && len(w.Queries.Destinations) > 0 {
			d := w.Queries.Destinations[0]
			if x.queries = d.CloudWatch.LogGroup; d.Filters.Threshold != nil {
				x.samples = *d.Filters.Threshold
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if x == (wish{}) {
		delete(l.by, id)
	} else {
		l.by[id] = x
	}
}

func (l *wishes) of(id string) wish {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.by[id]
}

// LogGroup is where failures of the rules and alerts of a tenant are for; empty: it named no place.
func (l *wishes) LogGroup(id string) string { return l.of(id).events }

// QueryLog says from how many processed samples on a tenant wants its queries to be logged, and for which place.
func (l *wishes) QueryLog(id tenant.ID) (group string, samples int64, ok bool) {
	x := l.of(string(id))
	return x.queries, x.samples, x.queries != ""
}

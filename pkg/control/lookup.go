package control

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// lookupAge is how long a workspace that was found is believed to be as it was: how long the deletion
// of one, or a change of its tags, may go unnoticed by another replica.
const lookupAge = 5 * time.Second

// maxLookups bounds what is remembered.
const maxLookups = 100_000

// lookups remembers workspaces for the data plane, and for the janitor those that need nothing.
type lookups struct {
	mu    sync.Mutex
	found map[string]lookup
	quiet map[string]docstore.Version
}

type lookup struct {
	workspace *workspace // nil: there is none
	at        time.Time
}

func newLookups() *lookups {
	return &lookups{found: map[string]lookup{}, quiet: map[string]docstore.Version{}}
}

func (l *lookups) get(id string, now time.Time) (*workspace, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x, ok := l.found[id]
	if !ok || now.Sub(x.at) >= lookupAge {
		return nil, false
	}
	return x.workspace, true
}

func (l *lookups) put(id string, w *workspace, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.found) >= maxLookups {
		clear(l.found)
	}
	l.found[id] = lookup{w, now}
}

func (l *lookups) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.found, id)
}

func (l *lookups) settled(e docstore.Entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.quiet[e.Key] == e.Version
}

func (l *lookups) settle(e docstore.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.quiet) >= maxLookups {
		clear(l.quiet)
	}
	l.quiet[e.Key] = e.Version
}

// Lookup returns the account, the tags and the state of a workspace. A deleted one is not found; its
// state is then still told. Errors: NotFound, Unavailable.
func (c *Control) Lookup(ctx context.Context, id string) (owner string, tags map[string]string, state string, err error) {
	if !strings.HasPrefix(id, "ws-") && !c.cfg.MustExist {
		return "", nil, "", errs.New(errs.NotFound, "workspace %s is not registered", id)
	}
	w, ok := c.seen.get(id, c.now())
	if !ok {
		w = &workspace{}
		v, err := c.read(ctx, workspaceKey(id), w)
		if err != nil {
			return "", nil, "", err
		}
		if v == "" {
			w = nil
		}
		if w != nil { // that one is made must be seen at once
			c.seen.put(id, w, c.now())
		}
	}
	if w == nil {
		return "", nil, "", errs.New(errs.NotFound, "workspace %s is not registered", id)
	}
	return w.Account, maps.Clone(w.Tags), w.State, nil
}

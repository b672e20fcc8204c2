package control

import (
	"context"
	"maps"
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
	workspace *workspace
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

// Directory tells who owns a workspace, and forgets what it read within seconds.
type Directory struct {
	documents *docstore.Store
	seen      *lookups
	now       func() time.Time
}

// NewDirectory returns the directory of the workspaces in documents.
func NewDirectory(documents *docstore.Store) *Directory {
	return &Directory{documents, newLookups(), time.Now}
}

// Lookup returns the account, the tags and the state of a workspace. A deleted one is not active.
// Errors: NotFound, Unavailable.
func (d *Directory) Lookup(ctx context.Context, id string) (owner string, tags map[string]string, state string, err error) {
	w, err := d.find(ctx, id)
	if err != nil {
		return "", nil, "", err
	}
	return w.Account, maps.Clone(w.Tags), w.State, nil
}

// Policy returns the resource policy of a workspace; empty: it has none. Errors: NotFound, Unavailable.
func (d *Directory) Policy(ctx context.Context, id string) (document string, err error) {
	w, err := d.find(ctx, id)
	if err != nil || w.Policy == nil {
		return "", err
	}
	return w.Policy.Document, nil
}

// find returns a workspace, which is not to be changed.
func (d *Directory) find(ctx context.Context, id string) (*workspace, error) {
	if w, ok := d.seen.get(id, d.now()); ok {
		return w, nil
	}
	w := &workspace{}
	v, err := read(ctx, d.documents, workspaceKey(id), w)
	if err != nil && errs.KindOf(err) != errs.Invalid { // an id that cannot be a key names nothing
		return nil, err
	}
	if v == "" { // that one is made must be seen at once
		return nil, errs.New(errs.NotFound, "workspace %s is not registered", id)
	}
	d.seen.put(id, w, d.now())
	return w, nil
}

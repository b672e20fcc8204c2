package ruler

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// readers is how many documents are read at the same time.
const readers = 16

// books is what has been read of documents. Of groups that others evaluate only the names are kept.
type books struct {
	mu   sync.Mutex // guards read
	read map[string]*book
}

// book is one document as it was read last. It is not changed.
type book struct {
	version docstore.Version
	names   []string         // of all groups
	own     map[string]Group // those that were this ruler's
	broken  bool             // the text cannot be read; own is of an older version
}

func (b *books) get(key string) *book {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read[key]
}

func (b *books) set(key string, x *book) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read[key] = x
}

// keep forgets the documents below prefix that are not in known.
func (b *books) keep(prefix string, known map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.read {
		if len(key) >= len(prefix) && key[:len(prefix)] == prefix && !known[key] {
			delete(b.read, key)
		}
	}
}

// all brings every tenant up to date. Errors say what could not be read; the rest is up to date.
func (r *Ruler) all(ctx context.Context, v view) error {
	entries, err := r.deps.Documents.List(ctx, rulesPrefix)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	byTenant := map[tenant.ID][]listed{}
	known := map[string]bool{}
	for _, l := range listing(entries) {
		byTenant[l.tenant] = append(byTenant[l.tenant], l)
		known[l.Key] = true
	}
	r.books.keep(rulesPrefix, known)
	for _, id := range r.evaluated() {
		if byTenant[id] == nil {
			byTenant[id] = []listed{}
		}
	}
	r.metrics.known.Set(float64(len(byTenant)))
	var group errgroup.Group
	group.SetLimit(readers)
	var mu sync.Mutex // guards problems
	var problems []error
	for id, docs := range byTenant {
		group.Go(func() error {
			if err := r.one(ctx, v, id, docs); err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, err)
			}
			return nil
		})
	}
	_ = group.Wait() // errors are in problems, so that one tenant does not stop the others
	r.sweep()
	return errors.Join(problems...)
}

// some brings the tenants ids up to date.
func (r *Ruler) some(ctx context.Context, v view, ids map[tenant.ID]bool) error {
	ctx, cancel := context.WithTimeout(ctx, roundMost)
	defer cancel()
	var problems []error
	for id := range ids {
		docs, err := r.namespaces(ctx, id)
		if err != nil {
			problems = append(problems, fmt.Errorf("list rules of %s: %w", id, err))
			continue
		}
		known := map[string]bool{}
		for _, l := range docs {
			known[l.Key] = true
		}
		r.books.keep(tenantPrefix(id), known)
		problems = append(problems, r.one(ctx, v, id, docs))
	}
	return errors.Join(problems...)
}

// evaluated lists the tenants that this ruler evaluates groups of.
func (r *Ruler) evaluated() []tenant.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []tenant.ID
	for id := range r.tenants {
		out = append(out, id)
	}
	return out
}

// one gives the worker of a tenant the groups of its documents that are this ruler's. A panic is its error: other tenants'
// rules go on, and this one's as they were.
func (r *Ruler) one(ctx context.Context, v view, id tenant.ID, docs []listed) (err error) {
	defer func() {
		if errs.Panicked(err) {
			r.metrics.reloaded(id, len(docs) > 0, false)
			err = fmt.Errorf("rules of %s: %w", id, err)
		}
	}()
	defer errs.Caught(&err)
	members := shard(v.members, id, limits.RulerTenantShardSize.Of(r.deps.Limits(id)))
	var problems []error
	want := map[groupKey]Group{}
	exists := map[groupKey]bool{}
	broken := false
	for _, l := range docs {
		b, err := r.openBook(ctx, v, members, l)
		if err != nil {
			problems = append(problems, err)
		}
		if b == nil {
			continue
		}
		broken = broken || b.broken
		for _, name := range b.names {
			exists[groupKey{l.namespace, name}] = true
			if g, ok := b.own[name]; ok && v.owns(members, l.place, name) {
				want[groupKey{l.namespace, name}] = g
			}
		}
	}
	if len(want) > 0 || len(problems) == 0 {
		r.give(id, want, exists)
	}
	r.metrics.reloaded(id, len(docs) > 0, !broken && len(problems) == 0)
	return errors.Join(problems...)
}

// give makes want the groups of a tenant that are evaluated here. Series of groups that do not exist
// any more are marked stale; those of groups that others evaluate now go on.
func (r *Ruler) give(id tenant.ID, want map[groupKey]Group, exists map[groupKey]bool) {
	r.mu.Lock()
	w := r.tenants[id]
	if w == nil && len(want) > 0 {
		w = newWorker(r, id)
		r.tenants[id] = w
	}
	r.mu.Unlock()
	if w != nil {
		w.apply(want, exists)
	}
}

// sweep lets go of tenants of which nothing is evaluated any more.
func (r *Ruler) sweep() {
	r.mu.Lock()
	var idle []*worker
	for id, w := range r.tenants {
		if w.idle() {
			idle = append(idle, w)
			delete(r.tenants, id)
		}
	}
	r.mu.Unlock()
	for _, w := range idle {
		w.stop()
	}
}

// openBook returns what is in a document, read again if it changed or if groups of it have become
// this ruler's. If it cannot be read, that is what was in it before, with the error.
func (r *Ruler) openBook(ctx context.Context, v view, members []Member, l listed) (*book, error) {
	old := r.books.get(l.Key)
	if old != nil && old.version == l.Version && old.complete(v, members, l.place) {
		return old, nil
	}
	doc, err := r.deps.Documents.Get(ctx, l.Key)
	if errs.KindOf(err) == errs.NotFound {
		return nil, nil // deleted since it was listed
	}
	if err != nil {
		return old, fmt.Errorf("read rules %s: %w", l.Key, err)
	}
	b := &book{version: doc.Version, own: map[string]Group{}}
	d, err := parseDocument(doc.Data)
	if err != nil {
		r.log.Error("rules cannot be read, those before are evaluated", "tenant", l.tenant, "namespace", l.namespace, "err", err)
		if old != nil {
			b.names, b.own = old.names, old.own
		}
		b.broken = true
		r.books.set(l.Key, b)
		return b, nil
	}
	for _, g := range d.groups {
		b.names = append(b.names, g.Name)
		if v.owns(members, l.place, g.Name) {
			b.own[g.Name] = g
		}
	}
	r.books.set(l.Key, b)
	return b, nil
}

// complete says whether b has every group that this ruler owns.
func (b *book) complete(v view, members []Member, p place) bool {
	if b.broken {
		return true
	}
	for _, name := range b.names {
		if _, have := b.own[name]; !have && v.owns(members, p, name) {
			return false
		}
	}
	return true
}

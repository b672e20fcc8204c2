package ruler

import (
	"context"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Replacement is the rules of a namespace, to be put in the place of those it has.
type Replacement struct {
	// Data is a rule file. It is kept byte for byte.
	Data []byte
	// Expect is the version that is replaced; "*" is any that exists, and empty whatever there is.
	Expect string
	// Trial checks everything and changes nothing.
	Trial bool
}

// Changes are the names of groups by what a replacement does to them.
type Changes struct{ Added, Changed, Removed, Unchanged []string }

// Replace puts a whole namespace at once. It returns what that changes, and the version in force.
// Errors: Invalid with lines and reasons, Conflict if the version is another than expected.
func (r *Ruler) Replace(ctx context.Context, id tenant.ID, namespace string, with Replacement) (Changes, string, error) {
	d, err := r.check.file(ctx, id, namespace, with.Data)
	if err != nil {
		return Changes{}, "", err
	}
	if err := r.room(ctx, id, namespace, len(d.groups)); err != nil {
		return Changes{}, "", err
	}
	key, err := DocumentKey(id, namespace)
	if err != nil {
		return Changes{}, "", err
	}
	var changes Changes
	var version docstore.Version
	put := func() error {
		doc, err := r.deps.Documents.Get(ctx, key)
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
		version = doc.Version
		if err := with.matches(version); err != nil {
			return err
		}
		old, err := parseDocument(doc.Data)
		if err != nil {
			old = &document{} // what cannot be read can be replaced
		}
		changes = compare(old, d)
		if with.Trial {
			return nil
		}
		version, err = r.deps.Documents.Put(ctx, key, with.Data, doc.Version)
		return err
	}
	if with.Expect == "" {
		err = retry(put)
	} else {
		err = put()
	}
	if err == nil && !with.Trial {
		r.Announce(ctx, id)
	}
	return changes, string(version), err
}

// matches refuses a version that is not expected.
func (with *Replacement) matches(have docstore.Version) error {
	switch with.Expect {
	case "", string(have):
		return nil
	case "*":
		if have != "" {
			return nil
		}
	}
	return errs.New(errs.Conflict, "the namespace has another version than the one that is to be replaced; read it and try again")
}

// compare says what becomes of groups when now takes the place of old.
func compare(old, now *document) Changes {
	var c Changes
	for _, g := range now.groups {
		i := old.find(g.Name)
		switch {
		case i < 0:
			c.Added = append(c.Added, g.Name)
		case digest(old.groups[i]) == digest(g):
			c.Unchanged = append(c.Unchanged, g.Name)
		default:
			c.Changed = append(c.Changed, g.Name)
		}
	}
	for _, g := range old.groups {
		if now.find(g.Name) < 0 {
			c.Removed = append(c.Removed, g.Name)
		}
	}
	return c
}

// digest tells groups apart by what they mean.
func digest(g Group) string {
	out, err := yaml.Marshal(g)
	if err != nil {
		panic("BUG: a group that was read cannot be written: " + err.Error())
	}
	return string(out)
}

// Version names the state of a namespace, or of all if none is named; it is empty if there is none.
func (r *Ruler) Version(ctx context.Context, id tenant.ID, namespace string) (string, error) {
	if namespace == "" {
		docs, err := r.namespaces(ctx, id)
		return versionOf(docs), err
	}
	key, err := DocumentKey(id, namespace)
	if err != nil {
		return "", err
	}
	doc, err := r.deps.Documents.Get(ctx, key)
	if errs.KindOf(err) == errs.NotFound {
		return "", nil
	}
	return string(doc.Version), err
}

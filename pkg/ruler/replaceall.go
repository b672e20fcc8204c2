package ruler

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// step is what replacing all rules does to one namespace.
type step struct {
	namespace string
	key       string
	old       docstore.Doc
	data      []byte // empty: the namespace goes
}

// ReplaceAll puts all rules of a tenant at once: a map from namespaces to groups, as Rules returns it.
// Everything is checked before anything changes. Namespaces are written one after the other; if somebody
// else changes one meanwhile, those already written get what they had back. allow says whether a namespace
// may be changed. It returns what changes, groups named namespace/group, and the version in force. Errors:
// Invalid, Denied, Conflict if the version is another than expected.
func (r *Ruler) ReplaceAll(ctx context.Context, id tenant.ID, with Replacement, allow func(namespace string) error) (Changes, string, error) {
	texts, groups, err := r.whole(ctx, id, with.Data)
	if err != nil {
		return Changes{}, "", err
	}
	if err := r.roomForAll(id, groups); err != nil {
		return Changes{}, "", err
	}
	var changes Changes
	put := func() error {
		steps, version, err := r.stepsTo(ctx, id, texts)
		if err != nil {
			return err
		}
		if err := with.matches(docstore.Version(version)); err != nil {
			return err
		}
		changes = Changes{}
		for i := range steps {
			changed, err := changes.add(&steps[i])
			if err != nil {
				return err
			}
			if changed {
				if err := allow(steps[i].namespace); err != nil {
					return err
				}
			}
		}
		if with.Trial {
			return nil
		}
		return r.take(ctx, steps)
	}
	if with.Expect == "" {
		err = retry(put)
	} else {
		err = put()
	}
	if err != nil {
		return changes, "", err
	}
	if !with.Trial {
		r.Announce(ctx, id)
	}
	version, err := r.Version(ctx, id, "")
	return changes, version, err
}

// whole reads a map of namespaces, and checks each.
func (r *Ruler) whole(ctx context.Context, id tenant.ID, data []byte) (texts map[string][]byte, groups map[string]int, err error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil, errs.New(errs.Invalid, "there are no namespaces; {} stands for none, and deletes all rules")
	}
	byName := map[string]yaml.Node{}
	if err := decode(data, &byName); err != nil {
		return nil, nil, err
	}
	texts, groups = map[string][]byte{}, map[string]int{}
	var problems []error
	for namespace, n := range byName {
		if _, err := DocumentKey(id, namespace); err != nil {
			problems = append(problems, err)
			continue
		}
		text, err := marshal(mapping("groups", &n))
		if err != nil {
			return nil, nil, errs.Wrap(errs.Invalid, err)
		}
		d, err := r.check.file(ctx, id, namespace, text)
		if err != nil {
			problems = append(problems, errs.New(errs.Invalid, "namespace %q: %w", namespace, err))
			continue
		}
		if len(text) > maxDocumentBytes {
			return nil, nil, errs.New(errs.BodyTooLarge, "namespace %q has %d bytes of rules, at most %d are allowed", namespace, len(text), maxDocumentBytes)
		}
		texts[namespace], groups[namespace] = text, len(d.groups)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, nil, errs.Wrap(errs.Invalid, err)
	}
	return texts, groups, nil
}

// roomForAll refuses more groups than the tenant may have.
func (r *Ruler) roomForAll(id tenant.ID, groups map[string]int) error {
	v := r.deps.Limits(id)
	most, total := limits.RulerMaxRuleGroupsPerTenant.Of(v), 0
	for namespace, n := range groups {
		if own, ok := limits.RulerMaxRuleGroupsPerTenantByNamespace.Of(v).Of(namespace); ok && own > 0 && n > own {
			return errs.New(errs.Invalid, "namespace %q: per-user rule groups limit (limit: %d actual: %d) exceeded", namespace, own, n)
		} else if !ok {
			total += n
		}
	}
	if most > 0 && total > most {
		return errs.New(errs.Invalid, "per-user rule groups limit (limit: %d actual: %d) exceeded", most, total)
	}
	return nil
}

// stepsTo returns what makes texts the rules of a tenant, sorted by namespace, and the version that there is.
func (r *Ruler) stepsTo(ctx context.Context, id tenant.ID, texts map[string][]byte) ([]step, string, error) {
	docs, err := r.namespaces(ctx, id)
	if err != nil {
		return nil, "", err
	}
	var steps []step
	had := map[string]bool{}
	for _, l := range docs {
		doc, err := r.deps.Documents.Get(ctx, l.Key)
		if err != nil {
			if errs.KindOf(err) == errs.NotFound {
				err = errs.New(errs.Conflict, "namespace %q was deleted meanwhile", l.namespace)
			}
			return nil, "", err
		}
		had[l.namespace] = true
		steps = append(steps, step{l.namespace, l.Key, doc, texts[l.namespace]})
	}
	for namespace, text := range texts {
		if !had[namespace] {
			key, err := DocumentKey(id, namespace)
			if err != nil {
				return nil, "", err
			}
			steps = append(steps, step{namespace: namespace, key: key, data: text})
		}
	}
	slices.SortFunc(steps, func(a, b step) int { return compareText(a.namespace, b.namespace) })
	return steps, versionOf(docs), nil
}

func compareText(a, b string) int { return slices.Compare([]byte(a), []byte(b)) }

// versionOf names the state of all namespaces; it is empty if there is none.
func versionOf(docs []listed) string {
	if len(docs) == 0 {
		return ""
	}
	h := sha256.New()
	for _, l := range docs {
		_, _ = h.Write([]byte(l.Key + "\x00" + string(l.Version) + "\x00")) // it never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// add notes what a step does to groups. A step that changes nothing is emptied, so that the text stays as it
// was written.
func (c *Changes) add(s *step) (changed bool, err error) {
	old, err := parseDocument(s.old.Data)
	if err != nil {
		old = &document{} // what cannot be read can be replaced
	}
	now, err := parseDocument(s.data)
	if err != nil {
		return false, err
	}
	one := compare(old, now)
	for _, names := range []*[]string{&one.Added, &one.Changed, &one.Removed, &one.Unchanged} {
		for i, name := range *names {
			(*names)[i] = s.namespace + "/" + name
		}
	}
	c.Added, c.Changed = append(c.Added, one.Added...), append(c.Changed, one.Changed...)
	c.Removed, c.Unchanged = append(c.Removed, one.Removed...), append(c.Unchanged, one.Unchanged...)
	sameOrder := slices.EqualFunc(old.groups, now.groups, func(a, b Group) bool { return a.Name == b.Name })
	if len(one.Added)+len(one.Changed)+len(one.Removed) == 0 && sameOrder && s.old.Version != "" {
		s.key = ""
		return false, nil
	}
	return true, nil
}

// take makes the steps. If one of them fails, those before it are undone.
func (r *Ruler) take(ctx context.Context, steps []step) error {
	var undo []func(context.Context) error
	for _, s := range steps {
		if s.key == "" {
			continue
		}
		back, err := r.takeOne(ctx, s)
		if err != nil {
			ctx := context.WithoutCancel(ctx)
			for _, f := range slices.Backward(undo) {
				if failed := f(ctx); failed != nil {
					r.log.Error("rules are replaced in part, as those before could not be put back", "key", s.key, "err", failed)
				}
			}
			return err
		}
		undo = append(undo, back)
	}
	return nil
}

// takeOne makes a step and returns what undoes it.
func (r *Ruler) takeOne(ctx context.Context, s step) (undo func(context.Context) error, err error) {
	if len(s.data) == 0 {
		err := r.deps.Documents.Delete(ctx, s.key, s.old.Version)
		return func(ctx context.Context) error {
			_, err := r.deps.Documents.Put(ctx, s.key, s.old.Data, "")
			return err
		}, err
	}
	version, err := r.deps.Documents.Put(ctx, s.key, s.data, s.old.Version)
	return func(ctx context.Context) error {
		if s.old.Version == "" {
			return r.deps.Documents.Delete(ctx, s.key, version)
		}
		_, err := r.deps.Documents.Put(ctx, s.key, s.old.Data, version)
		return err
	}, err
}

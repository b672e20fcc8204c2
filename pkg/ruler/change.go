package ruler

import (
	"context"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// changeTries is how often a change is tried again when others change the same namespace.
const changeTries = 20

// Rules returns the rules of a tenant as YAML: a map from namespaces to lists of groups, of one
// namespace if it is named, or the one group. Errors: NotFound if the group does not exist.
func (r *Ruler) Rules(ctx context.Context, id tenant.ID, namespace, group string) ([]byte, error) {
	if group != "" {
		_, d, err := r.open(ctx, id, namespace)
		if err != nil {
			return nil, err
		}
		i := d.find(group)
		if i < 0 {
			return nil, errNoGroup()
		}
		return marshal(d.nodes[i])
	}
	docs, err := r.namespaces(ctx, id)
	if err != nil {
		return nil, err
	}
	all := &yaml.Node{Kind: yaml.MappingNode}
	for _, l := range docs {
		if namespace != "" && l.namespace != namespace {
			continue
		}
		_, d, err := r.open(ctx, id, l.namespace)
		if errs.KindOf(err) == errs.NotFound {
			continue // deleted since it was listed
		}
		if err != nil {
			return nil, err
		}
		all.Content = append(all.Content, text(l.namespace), d.list())
	}
	return marshal(all)
}

func errNoGroup() error { return errs.New(errs.NotFound, "group does not exist") }

func errNoNamespace() error { return errs.New(errs.NotFound, "group namespace does not exist") }

// open reads a namespace. Errors: NotFound.
func (r *Ruler) open(ctx context.Context, id tenant.ID, namespace string) (docstore.Version, *document, error) {
	key, err := DocumentKey(id, namespace)
	if err != nil {
		return "", nil, err
	}
	doc, err := r.deps.Documents.Get(ctx, key)
	if errs.KindOf(err) == errs.NotFound {
		return "", &document{}, errNoGroup()
	}
	if err != nil {
		return "", nil, err
	}
	d, err := parseDocument(doc.Data)
	if err != nil {
		return "", nil, errs.New(errs.Internal, "namespace %s cannot be read: %w", namespace, err)
	}
	return doc.Version, d, nil
}

// SetGroup puts one group, as YAML, into a namespace: in the place of the one of its name, or at the
// end. Errors: Invalid with lines and reasons, Denied for a protected namespace; then nothing changes.
func (r *Ruler) SetGroup(ctx context.Context, id tenant.ID, namespace string, data []byte) error {
	g, n, err := parseGroup(data)
	if err != nil {
		return err
	}
	scheme, p := r.check.rulesOf(ctx, id)
	if err := joined(checkGroup(g, n, scheme, p)); err != nil {
		return err
	}
	if err := r.check.allowed(id, namespace, []Group{g}); err != nil {
		return err
	}
	return r.change(ctx, id, namespace, func(old docstore.Version, d *document) error {
		if d.find(g.Name) < 0 {
			if err := r.room(ctx, id, namespace, len(d.groups)+1); err != nil {
				return err
			}
		}
		d.set(g, n)
		return nil
	})
}

// DeleteGroup takes a group out of a namespace, and with the last one the namespace goes. Errors:
// NotFound.
func (r *Ruler) DeleteGroup(ctx context.Context, id tenant.ID, namespace, group string) error {
	return r.change(ctx, id, namespace, func(_ docstore.Version, d *document) error {
		i := d.find(group)
		if i < 0 {
			return errNoGroup()
		}
		d.remove(i)
		return nil
	})
}

// DeleteNamespace deletes a namespace. Errors: NotFound.
func (r *Ruler) DeleteNamespace(ctx context.Context, id tenant.ID, namespace string) error {
	if err := r.drop(ctx, id, namespace); err != nil {
		return err
	}
	r.Announce(ctx, id)
	return nil
}

// drop deletes a document, whatever its version is. Errors: NotFound.
func (r *Ruler) drop(ctx context.Context, id tenant.ID, namespace string) error {
	key, err := DocumentKey(id, namespace)
	if err != nil {
		return err
	}
	return retry(func() error {
		doc, err := r.deps.Documents.Get(ctx, key)
		if err == nil {
			err = r.deps.Documents.Delete(ctx, key, doc.Version)
		}
		if errs.KindOf(err) == errs.NotFound {
			return errNoNamespace()
		}
		return err
	})
}

// DeleteAll deletes all rules of a tenant, if there are any.
func (r *Ruler) DeleteAll(ctx context.Context, id tenant.ID) error {
	docs, err := r.namespaces(ctx, id)
	if err != nil {
		return err
	}
	for _, l := range docs {
		if err := r.drop(ctx, id, l.namespace); err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
	}
	r.Announce(ctx, id)
	return nil
}

// change reads a namespace, lets edit change it, and writes it back, again from the start when
// somebody else was faster.
func (r *Ruler) change(ctx context.Context, id tenant.ID, namespace string, edit func(docstore.Version, *document) error) error {
	key, err := DocumentKey(id, namespace)
	if err != nil {
		return err
	}
	err = retry(func() error {
		version, d, err := r.open(ctx, id, namespace)
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
		if err := edit(version, d); err != nil {
			return err
		}
		if len(d.groups) == 0 {
			return r.deps.Documents.Delete(ctx, key, version)
		}
		data, err := d.bytes()
		if err != nil {
			return err
		}
		if len(data) > maxDocumentBytes {
			return errs.New(errs.BodyTooLarge, "the namespace has %d bytes of rules, at most %d are allowed", len(data), maxDocumentBytes)
		}
		_, err = r.deps.Documents.Put(ctx, key, data, version)
		return err
	})
	if err == nil {
		r.Announce(ctx, id)
	}
	return err
}

// retry calls try again while it ends in Conflict.
func retry(try func() error) error {
	var err error
	for range changeTries {
		if err = try(); errs.KindOf(err) != errs.Conflict {
			return err
		}
	}
	return err
}

// room refuses a namespace that would have n groups if the tenant may not have so many.
func (r *Ruler) room(ctx context.Context, id tenant.ID, namespace string, n int) error {
	v := r.deps.Limits(id)
	most := limits.RulerMaxRuleGroupsPerTenant.Of(v)
	own, ok := limits.RulerMaxRuleGroupsPerTenantByNamespace.Of(v).Of(namespace)
	if ok {
		most = own
	}
	if most <= 0 {
		return nil
	}
	if !ok {
		docs, err := r.namespaces(ctx, id)
		if err != nil {
			return err
		}
		for _, l := range docs {
			if l.namespace == namespace {
				continue
			}
			_, d, err := r.open(ctx, id, l.namespace)
			if err != nil && errs.KindOf(err) != errs.NotFound {
				return err
			}
			n += len(d.groups)
		}
	}
	if n > most {
		return errs.New(errs.Invalid, "per-user rule groups limit (limit: %d actual: %d) exceeded", most, n)
	}
	return nil
}

// Protected says whether a tenant's namespace may be changed only by who says that he means it.
func (r *Ruler) Protected(id tenant.ID, namespace string) bool {
	return slices.ContainsFunc(limits.RulerProtectedNamespaces.Of(r.deps.Limits(id)), func(s string) bool { return strings.TrimSpace(s) == namespace })
}

// Evaluated says which kinds of rules of a tenant are evaluated.
func (r *Ruler) Evaluated(id tenant.ID) (recording, alerting bool) {
	v := r.deps.Limits(id)
	return limits.RulerRecordingRulesEvaluationEnabled.Of(v), limits.RulerAlertingRulesEvaluationEnabled.Of(v)
}

// Tenants lists who has rules, sorted.
func (r *Ruler) Tenants(ctx context.Context) ([]tenant.ID, error) {
	entries, err := r.deps.Documents.List(ctx, rulesPrefix)
	if err != nil {
		return nil, err
	}
	var out []tenant.ID
	for _, l := range listing(entries) {
		out = append(out, l.tenant)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

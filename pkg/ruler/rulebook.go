package ruler

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Documents is where rules are kept: one document for each namespace, under rules/<tenant>/<namespace>,
// with the text as it was put. Its errors are those of package docstore.
type Documents interface {
	Get(ctx context.Context, key string) (docstore.Doc, error)
	Put(ctx context.Context, key string, data []byte, expect docstore.Version) (docstore.Version, error)
	Delete(ctx context.Context, key string, expect docstore.Version) error
	List(ctx context.Context, prefix string) ([]docstore.Entry, error)
}

const (
	// rulesPrefix is where the documents of all tenants are.
	rulesPrefix = "rules/"
	// maxNameBytes bounds the name of a namespace as it stands in a key; file systems end at 255.
	maxNameBytes = 240
	// maxDocumentBytes bounds a namespace, and so a group.
	maxDocumentBytes = 2 << 20
)

// tenantPrefix is where the documents of one tenant are.
func tenantPrefix(id tenant.ID) string { return rulesPrefix + string(id) + "/" }

// DocumentKey returns the key of a namespace. A name of letters, digits, -, _ and . stands in it as it
// is. Errors: Invalid.
func DocumentKey(id tenant.ID, namespace string) (string, error) {
	name := url.PathEscape(namespace)
	if strings.HasPrefix(name, ".") { // neither . nor .. nor a hidden file
		name = "%2E" + name[1:]
	}
	switch {
	case namespace == "":
		return "", errs.New(errs.Invalid, "the name of the namespace is empty")
	case len(name) > maxNameBytes:
		return "", errs.New(errs.Invalid, "the name of the namespace is longer than %d bytes", maxNameBytes)
	}
	return tenantPrefix(id) + name, nil
}

// place is the tenant and the namespace of a document.
type place struct {
	tenant    tenant.ID
	namespace string
}

// placeOf undoes DocumentKey; false if key is no document of rules.
func placeOf(key string) (place, bool) {
	rest, ok := strings.CutPrefix(key, rulesPrefix)
	if !ok {
		return place{}, false
	}
	owner, name, ok := strings.Cut(rest, "/")
	if !ok {
		return place{}, false
	}
	id, err := tenant.Parse(owner)
	if err != nil {
		return place{}, false
	}
	namespace, err := url.PathUnescape(name)
	if err != nil || namespace == "" {
		return place{}, false
	}
	return place{id, namespace}, true
}

// NamespaceOf is the namespace whose document has key; false if it is none.
func NamespaceOf(key string) (string, bool) {
	p, ok := placeOf(key)
	return p.namespace, ok
}

// namespaces lists the documents of a tenant, sorted by the name of the namespace.
func (r *Ruler) namespaces(ctx context.Context, id tenant.ID) ([]listed, error) {
	entries, err := r.deps.Documents.List(ctx, tenantPrefix(id))
	if err != nil {
		return nil, err
	}
	return listing(entries), nil
}

// listed is a document in a listing.
type listed struct {
	place
	docstore.Entry
}

func listing(entries []docstore.Entry) []listed {
	var out []listed
	for _, e := range entries {
		if p, ok := placeOf(e.Key); ok {
			out = append(out, listed{p, e})
		}
	}
	slices.SortFunc(out, func(a, b listed) int { return strings.Compare(a.namespace, b.namespace) })
	return out
}

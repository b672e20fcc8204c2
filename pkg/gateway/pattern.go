package gateway

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// patternMark begins a tenant header that is a regular expression. No tenant ID can begin with it, and
	// whoever does not know patterns refuses it, so that none is ever taken for a name or the other way round.
	// Nobody behind the gateway knows them: services are told names.
	patternMark = "~"
	// maxPatternBytes bounds a regular expression.
	maxPatternBytes = 4 << 10
	// mostMatched bounds the tenants whose rights are looked up for one request.
	mostMatched = 10_000
	// mostNamed bounds the tenants of one request, as services read them in a header.
	mostNamed = 1000
	// rosterAge is how long a list of tenants is used: a new one is found after that.
	rosterAge = 15 * time.Second
	// rosterTimeout bounds making it.
	rosterTimeout = 10 * time.Second
)

// Patterns is how tenants are found that a regular expression matches.
type Patterns struct {
	// Tenants lists all tenants that there are, whoever they belong to. Errors: Unavailable.
	Tenants func(context.Context) ([]tenant.ID, error)
	// Most is how many tenants one request may be for. 0: as many as fit into a header.
	Most int
}

// roster is the list of all tenants as it was a moment ago.
type roster struct {
	list func(context.Context) ([]tenant.ID, error)
	now  func() time.Time

	mu  sync.Mutex // guards what follows, and is held while the list is made
	ids []tenant.ID
	at  time.Time
}

// all returns the tenants; a list that cannot be made anew is an error, since what it lacks would go unnoticed.
func (r *roster) all(ctx context.Context) ([]tenant.ID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids != nil && r.now().Sub(r.at) < rosterAge {
		return r.ids, nil
	}
	// Who waits for the list is not only who asked first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rosterTimeout)
	defer cancel()
	ids, err := r.list(ctx)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "which tenants there are cannot be found out now: %w", err)
	}
	slices.Sort(ids)
	r.ids, r.at = slices.Compact(append([]tenant.ID{}, ids...)), r.now()
	return r.ids, nil
}

// matched returns the tenants that text, a tenant header, matches as a whole. ok: it is a pattern, and
// patterns are switched on. Errors: Invalid, Unprocessable, Unavailable.
func (g *Gateway) matched(ctx context.Context, rt *Route, text string) (ids []tenant.ID, ok bool, err error) {
	expr, isPattern := strings.CutPrefix(text, patternMark)
	if !isPattern || g.roster == nil || g.deps.NoTenancy != "" {
		return nil, false, nil
	}
	if rt.Tenants < 2 {
		return nil, true, errs.New(errs.Unprocessable, "%s names tenants by a regular expression, but this request takes one tenant by its name", tenantHeader)
	}
	if len(expr) > maxPatternBytes {
		return nil, true, errs.New(errs.Invalid, "the regular expression in %s is longer than %d bytes", tenantHeader, maxPatternBytes)
	}
	re, err := regexp.Compile(expr) // alone first, so that it cannot end the group that follows
	if err == nil {
		re, err = regexp.Compile("^(?s:" + expr + ")$")
	}
	if err != nil {
		return nil, true, errs.New(errs.Invalid, "the regular expression in %s: %w", tenantHeader, err)
	}
	all, err := g.roster.all(ctx)
	if err != nil {
		return nil, true, err
	}
	for _, id := range all {
		if re.MatchString(string(id)) {
			ids = append(ids, id)
		}
	}
	return ids, true, nil
}

// authorizePattern decides about tenants that a pattern matches: those that the caller may make this call for
// are named to the services, and nothing tells of others, not even how many there are.
func (g *Gateway) authorizePattern(r *http.Request, c *call, ids []tenant.ID) error {
	if w := c.principal.Workspace; w != "" {
		ids = slices.DeleteFunc(slices.Clone(ids), func(id tenant.ID) bool { return string(id) != w })
	}
	for i, id := range ids {
		if i >= mostMatched {
			return errs.New(errs.Unprocessable, "the regular expression in %s matches too much, write a narrower one", tenantHeader)
		}
		d, err := g.authorizeWorkspace(r, c, string(id), false)
		if no, isNo := errors.AsType[*refusal](err); isNo && (no.status == http.StatusForbidden || no.status == http.StatusNotFound) {
			continue
		}
		if err != nil {
			return err // whether the caller may is not known: an answer without this tenant might lack it
		}
		c.setSelectors(string(id), d.Selectors)
		if c.tenants = append(c.tenants, string(id)); len(c.tenants) > g.mostNamed() {
			return g.tooMany()
		}
	}
	if len(c.tenants) == 0 {
		return g.denied(r, c, g.workspaceARN(c.principal.Account, "*"), iam.Decision{})
	}
	return nil
}

// nameMatched replaces a pattern by names where nobody asks who calls.
func (g *Gateway) nameMatched(r *http.Request, c *call) error {
	rt := c.target.route
	if rt == nil || rt.Tenants == 0 {
		return nil
	}
	ids, ok, err := g.matched(r.Context(), rt, r.Header.Get(tenantHeader))
	switch {
	case err != nil || !ok:
		return err
	case len(ids) == 0:
		return errs.New(errs.NotFound, "no tenant matches the regular expression in %s", tenantHeader)
	case len(ids) > g.mostNamed():
		return g.tooMany()
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	r.Header.Set(tenantHeader, strings.Join(names, "|"))
	return nil
}

func (g *Gateway) mostNamed() int {
	if most := g.deps.Patterns.Most; most > 0 {
		return min(most, mostNamed)
	}
	return mostNamed
}

func (g *Gateway) tooMany() error {
	return errs.New(errs.Unprocessable, "too many tenants match the regular expression in %s, at most %d are allowed", tenantHeader, g.mostNamed())
}

package gateway

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// authorize settles for which tenants the request acts and whether the caller may.
func (g *Gateway) authorize(r *http.Request, c *call) error {
	p, rt := c.principal, c.target.route
	if c.target.workspace == "" && rt.Tenants > 0 {
		return g.authorizeTenants(r, c)
	}
	if c.target.workspace == "" {
		return g.authorizeProcess(r, c)
	}
	if p.Workspace != "" && p.Workspace != c.target.workspace {
		return g.denied(r, c, g.workspaceARN(p.Account, c.target.workspace), iam.Decision{})
	}
	if rt.Tenants > 0 {
		if _, err := tenant.Parse(c.target.workspace); err != nil {
			return refuse(http.StatusNotFound, "ResourceNotFoundException", "Workspace not found")
		}
	}
	_, err := g.authorizeWorkspace(r, c, c.target.workspace, true)
	c.tenants = []string{c.target.workspace}
	return err
}

// authorizeTenants decides about tenants named in the header. Selectors must be the same for all.
func (g *Gateway) authorizeTenants(r *http.Request, c *call) error {
	header := r.Header.Get("X-Scope-OrgID")
	if g.deps.NoTenancy != "" {
		header = g.deps.NoTenancy
	}
	if header == "" {
		header = c.principal.Workspace
	}
	if header == "" {
		return nil // who serves the route says that there is no tenant
	}
	ids, err := tenant.ParseMany(header)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if w := c.principal.Workspace; w != "" && w != string(id) {
			return g.denied(r, c, g.workspaceARN(c.principal.Account, string(id)), iam.Decision{})
		}
		d, err := g.authorizeWorkspace(r, c, string(id), false)
		if err != nil {
			return err
		}
		c.setSelectors(string(id), d.Selectors)
		c.tenants = append(c.tenants, string(id))
	}
	return nil
}

// authorizeProcess decides about what belongs to no tenant: rows of the control plane, whose
// handlers know the resource better, and pages of the process, which are the operator's.
func (g *Gateway) authorizeProcess(r *http.Request, c *call) error {
	p := c.principal
	if p.Workspace != "" {
		return g.denied(r, c, g.prefix(p.Account)+"/*", iam.Decision{})
	}
	resource, account := g.prefix(g.cfg.OperatorAccount)+"process", g.cfg.OperatorAccount
	if c.target.flavour == operation {
		resource, account = g.prefix(p.Account)+"/*/workspaces", p.Account
		if arn := c.target.values.of("resourceArn"); arn != "" {
			resource = arn
		} else if id := c.target.values.of("scraperId"); id != "" {
			resource = g.prefix(p.Account) + "scraper/" + id
		}
	}
	req := g.request(r, c, resource, account)
	if parts := strings.SplitN(resource, ":", 6); c.target.flavour == operation && len(parts) == 6 {
		req.Account = parts[4] // the owner, if the ARN says the truth; who serves the call checks that
	}
	if d := iam.Evaluate(req); !d.Allowed || len(d.Selectors) > 0 {
		return g.denied(r, c, resource, d)
	}
	return nil
}

// authorizeWorkspace decides about one workspace. What does not exist is told only to who may use it.
func (g *Gateway) authorizeWorkspace(r *http.Request, c *call, id string, mustExist bool) (iam.Decision, error) {
	account, tags, missing, err := g.lookup(r.Context(), id, c.principal, mustExist)
	if err != nil {
		return iam.Decision{}, err
	}
	resource := g.workspaceARN(account, id)
	if name := c.target.values.of("name"); name != "" && c.target.flavour == operation {
		resource = g.prefix(account) + "rulegroupsnamespace/" + id + "/" + name
	} else if ad := c.target.values.of("anomalyDetectorId"); ad != "" && c.target.flavour == operation {
		resource = g.prefix(account) + "anomalydetector/" + id + "/" + ad
	}
	req := g.request(r, c, resource, account)
	req.Keys.(*keys).resourceTags = tags
	d := iam.Evaluate(req)
	switch {
	case !d.Allowed:
		return d, g.denied(r, c, resource, d)
	case missing:
		return d, refuse(http.StatusNotFound, "ResourceNotFoundException", "Workspace not found")
	case len(d.Selectors) > 0 && c.target.flavour != operation && !c.target.route.Selectable:
		return d, refuse(http.StatusForbidden, codeDenied, "%s cannot be held to the series that the caller may read", c.target.route.Action)
	case len(d.Selectors) > 0 && c.target.flavour == operation:
		return d, g.denied(r, c, resource, iam.Decision{})
	}
	c.setSelectors(id, d.Selectors)
	return d, nil
}

// workspaceActive is the state of a workspace that may be used.
const workspaceActive = "ACTIVE"

// lookup asks who owns a workspace. One that nobody registered is the operator's; under /workspaces/
// it must be registered, if there is a registry, and is taken for one of the caller's until the
// caller has been found to be allowed to use it.
func (g *Gateway) lookup(ctx context.Context, id string, p *iam.Principal, mustExist bool) (account string, tags map[string]string, missing bool, err error) {
	if g.deps.Workspaces == nil {
		return g.cfg.OperatorAccount, nil, false, nil
	}
	account, tags, state, err := g.deps.Workspaces.Lookup(ctx, id)
	switch {
	case errs.KindOf(err) == errs.NotFound && err != nil:
		if mustExist {
			return p.Account, nil, true, nil
		}
		return g.cfg.OperatorAccount, nil, false, nil
	case err != nil:
		return "", nil, false, errs.Wrap(errs.Unavailable, err)
	}
	gone := mustExist && state != workspaceActive
	return account, tags, gone, nil
}

func (g *Gateway) prefix(account string) string {
	return "arn:aws:aps:" + g.cfg.Regions[0] + ":" + account + ":"
}

func (g *Gateway) workspaceARN(account, id string) string {
	return g.prefix(account) + "workspace/" + id
}

func (g *Gateway) request(r *http.Request, c *call, resource, account string) *iam.Request {
	return &iam.Request{
		Principal: c.principal, Action: c.target.route.Action, Resource: resource, Account: account,
		Keys: &keys{g: g, r: r, c: c},
	}
}

func (g *Gateway) denied(r *http.Request, c *call, resource string, d iam.Decision) error {
	req := g.request(r, c, resource, "")
	if c.target.route.Action == "" {
		return refuse(http.StatusForbidden, codeDenied, "access denied")
	}
	return refuse(http.StatusForbidden, codeDenied, "%s", iam.Denial(req, d))
}

// setSelectors keeps the selectors of a tenant.
func (c *call) setSelectors(id string, selectors [][]string) {
	if len(selectors) == 0 {
		return
	}
	if c.selectors == nil {
		c.selectors = map[string][][]string{}
	}
	c.selectors[id] = selectors
}

// keys answers what conditions ask about a request.
type keys struct {
	g            *Gateway
	r            *http.Request
	c            *call
	resourceTags map[string]string
	// requestTags are those a call would set.
	requestTags map[string]string
}

// Values implements iam.Keys.
func (k *keys) Values(key string) ([]string, bool) {
	if name, ok := strings.CutPrefix(key, "aws:principaltag/"); ok {
		return tag(k.c.principal.Tags, name)
	}
	if name, ok := strings.CutPrefix(key, "aws:resourcetag/"); ok {
		return tag(k.resourceTags, name)
	}
	if name, ok := strings.CutPrefix(key, "aws:requesttag/"); ok {
		return tag(k.requestTags, name)
	}
	p, now := k.c.principal, k.g.now().UTC()
	switch key {
	case "aws:tagkeys":
		var names []string
		for n := range k.requestTags {
			names = append(names, n)
		}
		slices.Sort(names)
		return names, len(names) > 0
	case "aws:sourceip":
		return one(k.c.client.address)
	case "aws:securetransport":
		return one(strconv.FormatBool(k.c.client.secure))
	case "aws:currenttime":
		return one(now.Format("2006-01-02T15:04:05Z"))
	case "aws:epochtime":
		return one(strconv.FormatInt(now.Unix(), 10))
	case "aws:useragent":
		return one(k.r.UserAgent())
	case "aws:requestedregion":
		return one(k.g.cfg.Regions[0])
	case "aws:multifactorauthpresent":
		return nil, false
	}
	return ofPrincipal(p, key)
}

// ofPrincipal answers what is known of who calls.
func ofPrincipal(p *iam.Principal, key string) ([]string, bool) {
	switch key {
	case "aws:username":
		if p.Type == iam.TypeUser {
			return one(p.Name)
		}
	case "aws:userid":
		return one(p.ID)
	case "aws:principalarn":
		if p.RoleARN != "" {
			return one(p.RoleARN)
		}
		return one(p.ARN)
	case "aws:principalaccount":
		return one(p.Account)
	case "aws:principaltype":
		return one(map[string]string{iam.TypeRoot: "Account", iam.TypeUser: "User"}[p.Type])
	case "aws:tokenissuetime":
		if !p.Since.IsZero() {
			return one(p.Since.UTC().Format("2006-01-02T15:04:05Z"))
		}
	}
	return nil, false
}

func one(v string) ([]string, bool) { return []string{v}, v != "" }

// tag finds a tag; its name is compared without regard to case, as names of keys are.
func tag(tags map[string]string, name string) ([]string, bool) {
	for k, v := range tags {
		if strings.EqualFold(k, name) {
			return []string{v}, true
		}
	}
	return nil, false
}

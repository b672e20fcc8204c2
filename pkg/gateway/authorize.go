package gateway

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// authorize settles for which tenants the request acts and whether the caller may.
func (g *Gateway) authorize(w http.ResponseWriter, r *http.Request, c *call) error {
	p, rt := c.principal, c.target.route
	if err := g.readTags(w, r, c); err != nil {
		return err
	}
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
	header := r.Header.Get(tenantHeader)
	if g.deps.NoTenancy != "" {
		header = g.deps.NoTenancy
	}
	if header == "" {
		header = c.principal.Workspace
	}
	if header == "" { // nobody behind may take it for a tenant of its own choice
		return refuse(http.StatusUnauthorized, codeUnknown, "no org id")
	}
	if ids, ok, err := g.matched(r.Context(), c.target.route, header); err != nil {
		return err
	} else if ok {
		return g.authorizePattern(r, c, ids)
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

// authorizeProcess decides about what belongs to no tenant: rows of the control plane without a
// workspace in their path, and pages of the process, which are the operator's.
func (g *Gateway) authorizeProcess(r *http.Request, c *call) error {
	p := c.principal
	if ws, path := taggedWorkspace(c.target.values.of("resourceArn")); ws != "" && c.target.flavour == operation {
		if p.Workspace != "" && p.Workspace != ws {
			return g.denied(r, c, g.workspaceARN(p.Account, ws), iam.Decision{})
		}
		c.resource = path
		_, err := g.authorizeWorkspace(r, c, ws, true)
		return err
	}
	listing := c.target.route.Action == "aps:ListWorkspaces" // in the control plane, and for callers by any scheme
	if p.Workspace != "" && listing && c.target.flavour == native {
		return g.authorizeOwn(r, c)
	}
	if p.Workspace != "" {
		return g.denied(r, c, g.prefix(p.Account)+"/*", iam.Decision{})
	}
	resource, account := g.prefix(g.cfg.OperatorAccount)+"process", g.cfg.OperatorAccount
	if c.target.flavour == operation || listing {
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

// authorizeOwn decides whether a token of one workspace is told of it: it is if it may query it.
func (g *Gateway) authorizeOwn(r *http.Request, c *call) error {
	asked := c.target.route
	query := *asked
	query.Action = "aps:QueryMetrics"
	c.target.route = &query
	_, err := g.authorizeWorkspace(r, c, c.principal.Workspace, true)
	c.target.route = asked
	return err
}

// taggedWorkspace reads the ARN of a workspace, or of something in one: its id, and the part of the ARN
// that names the resource. What else the ARN says is for who serves the call to check: the policies are
// asked about the resource as it is called here, so that another way to write it gets around none.
func taggedWorkspace(arn string) (workspace, path string) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "aps" {
		return "", ""
	}
	kind, rest, _ := strings.Cut(parts[5], "/")
	id, _, nested := strings.Cut(rest, "/")
	switch kind {
	case "workspace":
		if nested {
			return "", ""
		}
	case "rulegroupsnamespace", "anomalydetector":
	default:
		return "", ""
	}
	return id, parts[5]
}

// resources are the parts of ARNs after the account that a call is about. All must be allowed.
func (c *call) resources(id string) []string {
	if c.resource != "" {
		return []string{c.resource}
	}
	if c.target.flavour == operation {
		if name := c.target.values.of("name"); name != "" {
			return []string{"rulegroupsnamespace/" + id + "/" + name}
		}
		if ad := c.target.values.of("anomalyDetectorId"); ad != "" {
			return []string{"anomalydetector/" + id + "/" + ad, "workspace/" + id}
		}
	}
	return []string{"workspace/" + id}
}

// authorizeWorkspace decides about one workspace. Whether it exists is told only to who may use it.
func (g *Gateway) authorizeWorkspace(r *http.Request, c *call, id string, mustExist bool) (iam.Decision, error) {
	found, err := g.lookup(r.Context(), id, c, mustExist)
	if err != nil {
		return iam.Decision{}, err
	}
	d, err := g.evaluate(r, c, id, found)
	if err != nil && found.account != c.principal.Account {
		// What is another account's looks as if it did not exist.
		d, err = g.evaluate(r, c, id, whose{account: c.principal.Account, missing: true})
		if err == nil && (g.deps.Workspaces == nil || !mustExist) {
			return d, g.denied(r, c, g.workspaceARN(c.principal.Account, id), iam.Decision{})
		}
		found.missing = true
	}
	switch {
	case err != nil:
		return d, err
	case found.missing && c.target.flavour != operation: // who serves operations says it itself
		return d, refuse(http.StatusNotFound, "ResourceNotFoundException", "Workspace not found")
	case len(d.Selectors) > 0 && c.target.flavour == operation:
		return d, g.denied(r, c, g.workspaceARN(c.principal.Account, id), iam.Decision{})
	case len(d.Selectors) > 0 && !c.target.route.Selectable:
		return d, refuse(http.StatusForbidden, codeDenied, "%s cannot be held to the series that the caller may read", c.target.route.Action)
	}
	c.setSelectors(id, d.Selectors)
	return d, nil
}

// evaluate asks the policies about all resources of a call.
func (g *Gateway) evaluate(r *http.Request, c *call, id string, w whose) (d iam.Decision, err error) {
	for _, path := range c.resources(id) {
		resource := g.prefix(w.account) + path
		req := g.request(r, c, resource, w.account)
		req.Keys.(*keys).resourceTags = w.tags
		req.Policy = w.policy
		if d = iam.Evaluate(req); !d.Allowed {
			return d, g.denied(r, c, resource, d)
		}
	}
	return d, nil
}

// workspaceActive is the state of a workspace that may be used.
const workspaceActive = "ACTIVE"

// whose is what is known of a workspace.
type whose struct {
	account string
	tags    map[string]string
	policy  *iam.Policy // nil: none that counts for the call
	missing bool
}

// lookup asks who owns a workspace. One that nobody registered is the operator's; under /workspaces/
// it must be registered, if there is a registry, and is taken for one of the caller's until the
// caller has been found to be allowed to use it.
func (g *Gateway) lookup(ctx context.Context, id string, c *call, mustExist bool) (whose, error) {
	if g.deps.Workspaces == nil {
		return whose{account: g.cfg.OperatorAccount}, nil
	}
	account, tags, state, err := g.deps.Workspaces.Lookup(ctx, id)
	switch {
	case errs.KindOf(err) == errs.NotFound && err != nil:
		if mustExist {
			return whose{account: c.principal.Account, missing: true}, nil
		}
		return whose{account: g.cfg.OperatorAccount}, nil
	case err != nil:
		return whose{}, errs.Wrap(errs.Unavailable, err)
	}
	w := whose{account: account, tags: tags, missing: mustExist && state != workspaceActive}
	if resourcePolicyActions[c.target.route.Action] {
		w.policy, err = g.policies.of(ctx, g.deps.Workspaces, id)
	}
	return w, err
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
		Keys: &keys{g: g, r: r, c: c, requestTags: c.requestTags, tagKeys: c.tagKeys},
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
	requestTags  map[string]string // that a call would set
	tagKeys      []string          // that it would set or take away, in order
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
		return k.tagKeys, len(k.tagKeys) > 0
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
	case "aws:multifactorauthpresent", "aws:multifactorauthage":
		return k.c.secondFactor(key, now)
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

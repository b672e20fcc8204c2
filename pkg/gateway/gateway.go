// Package gateway owns the entry point for clients: who calls, by any of the authentication schemes
// that clients of Prometheus and of Amazon's and Alibaba's services use; what policies allow; the
// tenant; and where the request goes. The services behind it trust the headers that it sets. It gets
// the route table and the lookup of workspaces passed in.
package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/identity"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Workspaces knows who owns a workspace.
type Workspaces interface {
	// Lookup returns the account, the tags and the state of a workspace. Errors: NotFound, Unavailable.
	Lookup(ctx context.Context, workspace string) (account string, tags map[string]string, state string, err error)
	// Policy returns the resource policy of a workspace; empty: it has none. Errors: Unavailable.
	Policy(ctx context.Context, workspace string) (document string, err error)
}

// Deps is what a gateway stands on.
type Deps struct {
	Log    *slog.Logger
	Reg    prometheus.Registerer
	Routes []Route
	// Prefix is the path of the Prometheus API in Routes.
	Prefix string
	// Identities is needed if authentication is on.
	Identities *identity.Identities
	// Workspaces is nil if every tenant belongs to the operator's account.
	Workspaces Workspaces
	// NoTenancy says that requests need not name a tenant, because there is one only: this one.
	NoTenancy string
	// Patterns finds tenants by regular expressions; nil: they are not taken.
	Patterns *Patterns
	// Bodies is charged with the bodies that are held to check their signature. MaxBodyBytes bounds each.
	Bodies       *memory.Account
	MaxBodyBytes int64
	Now          func() time.Time // nil: time.Now
	// Upstreams are services that other processes run; nil: this one runs all that there are.
	Upstreams *Upstreams
	// Audit keeps records of calls; nil: there are none. AuditData: of those about samples, too.
	Audit     Audit
	AuditData bool
}

// Gateway is the handler of all requests of clients.
type Gateway struct {
	cfg         settings
	deps        Deps
	log         *slog.Logger
	now         func() time.Time
	table       *table
	verifier    *sigv4.Verifier
	stsVerifier *sigv4.Verifier
	metrics     *metrics
	proxies     networks
	quotas      *quotas
	guesses     *guesses
	policies    *policies
	roster      *roster // nil: tenants are not found by patterns
}

// settings is Config with what belongs to it.
type settings struct {
	Config
	prefix string
}

// New returns a gateway. Errors: Invalid.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if cfg.Enabled && deps.Identities == nil {
		return nil, errs.New(errs.Invalid, "authentication needs identities")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	proxies, err := parseNetworks(cfg.TrustedProxies)
	if err != nil {
		return nil, err
	}
	signatures := sigv4.Config{
		Regions: cfg.Regions, Services: cfg.Services, Skew: cfg.ClockSkew, Hosts: cfg.Hosts,
		UnsignedPayload: cfg.UnsignedPayload, Explain: cfg.Explain,
	}
	sts := signatures
	sts.Regions, sts.Services = nil, []string{"sts"} // clients sign for regions of their own choice there
	var all *roster
	if deps.Patterns != nil {
		all = &roster{list: deps.Patterns.Tenants, now: deps.Now}
	}
	return &Gateway{
		roster: all,
		cfg:    settings{cfg, deps.Prefix}, deps: deps, log: deps.Log, now: deps.Now, table: newTable(deps.Routes),
		verifier: sigv4.New(signatures), stsVerifier: sigv4.New(sts), metrics: newMetrics(deps.Reg), proxies: proxies,
		quotas: newQuotas(&cfg), guesses: newGuesses(cfg.FailedLogins), policies: newPolicies(),
	}, nil
}

// call is one request on its way.
type call struct {
	id     string // of the request, for the client and the audit
	target target
	client origin
	signed *sigv4.Request // as received
	scheme string         // how the caller said who it is

	principal *iam.Principal
	tenants   []string
	// resource is the part of an ARN that the call is about, if its path names none.
	resource    string
	requestTags map[string]string // that it would set
	tagKeys     []string          // that it would set or take away, in order
	// selectors hold reads of tenants to series; see iam.Decision.
	selectors map[string][][]string
	held      *heldBody  // nil: the body streams
	kept      []byte     // the beginning of the body, for the record
	form      url.Values // of a call of the security token service
	mfa       time.Time  // when such a call showed the code of a device; zero: it did not
}

// Before returns the door before next, which serves what passes.
func (g *Gateway) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, next) })
}

// serve is the walk of a request.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	r.Header.Del(iam.CallerHeader)
	if g.cfg.Enabled { // otherwise another gateway may stand before this process
		r.Header.Del(tenant.PolicyHeader)
	}
	c := &call{id: newRequestID(), signed: sigv4.FromHTTP(r), client: g.proxies.origin(r, g.cfg.ForwardedHeader)}
	path, _, _ := strings.Cut(c.signed.URI, "?")
	c.target = g.classify(r.Method, path)
	if c.target.route != nil {
		if elsewhere := g.deps.Upstreams.Of(c.target.route.Service, onlyReads(r.Method, c.target.route.Action)); elsewhere != nil {
			next = elsewhere
		}
	}
	defer func() { c.held.free() }()
	if rt := c.target.route; rt != nil && rt.Action == Open && c.target.flavour == native {
		g.metrics.requests.WithLabelValues(c.target.flavour.String(), "open").Inc()
		g.pass(w, r, c, next)
		return
	}
	if !g.cfg.Enabled && c.target.flavour == native { // there is nothing else to find out
		if err := g.nameMatched(r, c); err != nil {
			g.fail(w, r, c, err)
			return
		}
		next.ServeHTTP(w, r)
		return
	}
	if isSTS(r, path) {
		g.serveSTS(w, r, c)
		return
	}
	if err := g.admit(w, r, c); err != nil {
		if no := asRefusal(err); g.audited(c) && no.code != codeThrottled {
			g.refused(r, c, no)
		}
		g.fail(w, r, c, err)
		return
	}
	g.metrics.requests.WithLabelValues(c.target.flavour.String(), "passed").Inc()
	if g.audited(c) {
		g.watched(w, r, c, next)
		return
	}
	g.pass(w, r, c, next)
}

// admit is every check there is, in their order.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request, c *call) error {
	if err := g.authenticate(w, r, c); err != nil {
		return err
	}
	if c.target.route == nil {
		if strings.Contains(r.URL.Path, "/anomalydetectors") { // as the control plane says without a gateway
			return refuse(http.StatusNotFound, "UnknownOperationException", "anomaly detectors do not exist here; alerting rules over avg_over_time and stddev_over_time do what most of them do")
		}
		return refuse(http.StatusNotFound, "UnknownOperationException", "there is nothing at %s", r.URL.Path)
	}
	if g.cfg.Enabled { // before rights, because a call that is denied costs a record, too
		if err := g.quotas.take(c.principal.Account, c.target.route.Action, g.now()); err != nil {
			return err
		}
	}
	return g.authorize(w, r, c)
}

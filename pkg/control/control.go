// Package control owns workspaces: the API of Amazon Managed Service for Prometheus that creates,
// describes and deletes them, their rule groups namespaces, alert manager definitions, tags and
// configuration. All state is in documents in object storage, so that any replica serves any call;
// rule files and definitions are the documents that rulers and alertmanagers read.
package control

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Deps is what the control plane stands on.
type Deps struct {
	Documents *docstore.Store
	// Region stands in ARNs.
	Region string
	// Account says on behalf of which account, 12 digits, a request is made.
	Account func(r *http.Request) (string, error)
	// Only is the only workspace that the caller may know of, empty for any; nil: any.
	Only func(r *http.Request) string
	// Allow uses one call of an account's allowance for the action, as aps:CreateWorkspace; nil: a gateway before this
	// process does. Errors: RateLimited.
	Allow func(account, action string) error
	// RulesKey is the key of the document of a namespace. Errors: Invalid.
	RulesKey func(id tenant.ID, namespace string) (string, error)
	// RulesName is the namespace whose document has key; false if it is none.
	RulesName func(key string) (string, bool)
	// CheckRules says what is wrong with a rule file. Errors: Invalid, Quota.
	CheckRules func(ctx context.Context, id tenant.ID, namespace string, data []byte) error
	// Epoch changes with the limits of a tenant, under which its documents are checked; nil: they never change.
	Epoch func(id tenant.ID) uint64
	// RulesChanged tells rulers that rule files of a tenant have changed; nil: they find out by themselves.
	RulesChanged func(context.Context, tenant.ID)
	// DefinitionKey is the key of the alert manager definition of a tenant.
	DefinitionKey func(id tenant.ID) string
	// CheckDefinition says what is wrong with an alert manager definition. Errors: Invalid.
	CheckDefinition func(id tenant.ID, data []byte) error
	// CheckPolicy says what is wrong with the resource policy of a workspace; nil: nobody does.
	CheckPolicy func(document []byte) error
	// CheckLimits says what is wrong with a runtime file that comes from the place name.
	CheckLimits func(name string, data []byte) error
	// CheckScrape says what is wrong with the configuration of a scraper. Errors: Invalid.
	CheckScrape func(data []byte) error
	// ScrapersChanged tells the scrapers of this process that there is something to do; nil: it has none.
	ScrapersChanged func()
	// Purge begins the deletion of all blocks of a tenant.
	Purge func(ctx context.Context, id tenant.ID) error
	Log   *slog.Logger
	Reg   prometheus.Registerer
	Now   func() time.Time // nil: time.Now
}

// Control serves the calls and, as a service, finishes deletions that were begun.
type Control struct {
	services.Service
	*Directory
	cfg  Config
	deps Deps
	log  *slog.Logger
	m    *metrics

	texts    *docstore.Texts // rule files and definitions
	verdicts verdicts
}

// New returns the control plane.
func New(cfg Config, deps Deps) *Control {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	c := &Control{cfg: cfg, deps: deps, log: deps.Log, m: newMetrics(deps.Reg), texts: docstore.NewTexts(deps.Documents, deps.Now), Directory: &Directory{deps.Documents, newLookups(), deps.Now}, verdicts: verdicts{known: map[string]verdict{}}}
	c.Service = services.NewTimerService(cfg.JanitorPeriod, nil, c.clean, nil)
	return c
}

func (c *Control) now() time.Time { return c.deps.Now().UTC() }

// The keys of the control plane's own documents.
const (
	accountsPrefix   = "control/accounts/"
	workspacesPrefix = "control/workspaces/"
	withdrawnPrefix  = "control/withdrawn/"
	scrapersPrefix   = "control/scrapers/"
)

func accountKey(account string) string { return accountsPrefix + account + ".json" }

func workspaceKey(id string) string { return workspacesPrefix + id + ".json" }

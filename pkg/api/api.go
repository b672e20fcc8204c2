// Package api owns the HTTP surface of a process: one table of routes, from which come the mux, the
// checks of tenant and action, the metrics, the reference page and the index page. Handlers live in
// its sub-packages; what they need is passed in as Deps.
package api

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/api/ingest"
	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Deps is what the routes stand on. A part that is nil is not in this process, and its routes
// are not mounted.
type Deps struct {
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Metrics    http.Handler // of /metrics
	CostDeps

	// Allow says whether the caller may do action; its error is sent as it is. The context of the
	// request carries the tenant where the route needs one. Nil allows everything: then something
	// in front of the process must have decided.
	Allow func(r *http.Request, action Action) error
	// Source says from which addresses the request of a context comes, for the log; nil: nobody knows.
	Source func(context.Context) string
	// Limits gives the limits of a tenant.
	Limits func(tenant.ID) limits.View
	// Federation is how many tenants one read may be for. 0: one.
	Federation int

	// Activity is told what is under way for whom. nil: nobody is.
	Activity *activity.Tracker

	// Memory is the budget of the process; nil: none.
	Memory *memory.Ledger

	Pusher ingest.Pusher
	// Peers are all processes that take pushes, this one among them. nil: there is no other.
	Peers ingest.Peers
	// MaxPushBytes bounds a push, packed and unpacked. 0: 100 MiB.
	MaxPushBytes int

	Read     *prom.Backends // its Limits is set from Limits if it is nil
	Usage    admin.UsageSource
	Elected  func() admin.Elected // the elected replicas of all tenants
	Ingester *IngesterDeps
	Ruler    *RulerDeps

	Build    admin.BuildInfo
	Ready    func(context.Context) error
	Services func() []admin.Service
	// Config and RuntimeConfig render YAML without secrets; mode is "", diff or defaults.
	Config, RuntimeConfig func(mode string) ([]byte, error)

	Blocks BlockDeps

	Alertmanager *AlertmanagerDeps

	Control Operations

	Memberlist http.Handler // a page made elsewhere

	Callers CallerDeps
	Console Handler // of everything below /console

	Rings
}

// CostDeps is usage by values of labels.
type CostDeps struct {
	// Costs serves its metrics, at the path CostsPath.
	Costs     http.Handler
	CostsPath string
}

// Rings are the rings that have pages.
type Rings struct {
	IngesterRing, DistributorRing, StoreGatewayRing, CompactorRing, SchedulerRing, FrontendRing admin.RingView
}

// BlockDeps is what is done with the blocks in object storage.
type BlockDeps struct {
	Uploads   admin.BlockUploads
	Deletions admin.TenantDeletions
	// SeriesDeletions are the requests to delete series.
	SeriesDeletions prom.SeriesDeletions
	Planner         admin.Planner
	Stored          admin.Stored
	Marks           admin.BlockMarks
	StoreShutdown   admin.Switch // of a store-gateway's place in the ring
	History         prom.History
}

// IngesterDeps is the switches of an ingester.
type IngesterDeps struct {
	Flusher              admin.Flusher
	PrepareShutdown      admin.Switch
	PrepareDownscale     admin.ReadOnly
	UnregisterOnShutdown admin.ResettableSwitch
	Tenants              admin.TenantList
	HeadMetrics          http.Handler // of /ingester/tsdb_metrics
}

// defaultMaxPushBytes is what senders of remote write expect to be accepted.
const defaultMaxPushBytes = 100 << 20

// API serves the table.
type API struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	prom    *prom.API
	ingest  *ingest.API
	mounted []Route // with their final paths
	mux     *http.ServeMux
	origin  *http.CrossOriginProtection
	drain   drain
}

// New mounts the routes that deps has something to serve with.
func New(cfg Config, deps Deps) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{
		cfg:     cfg,
		deps:    deps,
		log:     deps.Log,
		metrics: newMetrics(deps.Registerer),
		mux:     http.NewServeMux(),
		origin:  http.NewCrossOriginProtection(),
	}
	if deps.Pusher != nil {
		cfg.Ingest.MaxRecvBytes = cmp.Or(deps.MaxPushBytes, defaultMaxPushBytes)
		cfg.Ingest.Memory = deps.Memory.Account(memory.Bodies)
		a.ingest = ingest.New(cfg.Ingest, ingest.Deps{Pusher: deps.Pusher, Registerer: deps.Registerer, Limits: deps.Limits, Peers: deps.Peers, Random: rand.Float64})
	}
	if deps.Read != nil {
		b := *deps.Read
		if b.Limits == nil {
			b.Limits = deps.Limits
		}
		a.prom = prom.New(cfg.Prom, b, deps.Registerer)
	}
	a.mount()
	return a, nil
}

// has says whether service runs in this process.
func (a *API) has(service Service) bool {
	switch service {
	case Distributor:
		return a.ingest != nil
	case Querier:
		return a.prom != nil
	case Ingester:
		return a.deps.Ingester != nil
	}
	return true
}

// Mounted returns the routes of this process with their final paths.
func (a *API) Mounted() []Route { return a.mounted }

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Deltas serves the other distributors, in processes that have Peers.
func (a *API) Deltas() *ingest.DeltaServer { return a.ingest.Deltas() }

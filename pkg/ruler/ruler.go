// Package ruler owns the evaluation of tenants' recording and alerting rules. Rules are stored in
// documents, one per namespace. Every ruler knows which rulers are alive, and from that which groups
// are its own; it evaluates these with the rule managers of Prometheus, writes results through a
// distributor, and sends alerts to Alertmanagers.
package ruler

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/notifier"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// The name and the key of the ring in which rulers find each other.
const (
	RingName = "ruler"
	RingKey  = "ruler"
)

// Engine evaluates expressions for the tenants of a context.
type Engine interface {
	NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time) (promql.Query, error)
	NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, step time.Duration) (promql.Query, error)
	ParseExpr(ctx context.Context, qs string) (parser.Expr, error)
	ParseSelectors(ctx context.Context, texts []string) ([][]*labels.Matcher, error)
}

// Cluster is who else evaluates rules.
type Cluster struct {
	// Self is the ID of this ruler.
	Self string
	// Alive returns the rulers that are alive, sorted by ID.
	Alive func() ([]Member, error)
	// Client returns the client of another ruler.
	Client func(addr string) (rulerpb.RulerClient, error)
}

// Deps are what a ruler works with.
type Deps struct {
	Logger    *slog.Logger
	Reg       prometheus.Registerer
	Limits    func(tenant.ID) limits.View
	Documents Documents
	Cluster   Cluster
	Engine    Engine
	// Storage reads the series of the tenants of a context.
	Storage storage.Queryable
	// Evaluate runs instant queries elsewhere; nil: in this process.
	Evaluate func(ctx context.Context, text string, at time.Time) (promql.Vector, error)
	// Push stores what rules record.
	Push func(ctx context.Context, id tenant.ID, req *remotewrite.Request) error
	// Alertmanager takes alerts in this process; nil: there is none.
	Alertmanager func(ctx context.Context, id tenant.ID, alerts ...*notifier.Alert) error
}

// Ruler evaluates the groups that are its own, and answers for those of all rulers.
type Ruler struct {
	services.Service
	rulerpb.UnimplementedRulerServer

	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	check   *Checker
	changed chan tenant.ID // told, and not looked at yet
	books   books
	testing chan struct{}      // has an item for each file of unit tests that runs
	closing chan struct{}      // closed when the ruler stops
	ctx     context.Context    // of evaluations
	cut     context.CancelFunc // ends ctx

	mu      sync.Mutex // guards tenants
	tenants map[tenant.ID]*worker
}

// New returns a ruler. Errors: Invalid for settings that cannot work.
func New(cfg Config, deps Deps) (*Ruler, error) {
	if deps.Logger == nil || deps.Limits == nil || deps.Documents == nil || deps.Engine == nil || deps.Storage == nil || deps.Push == nil || deps.Cluster.Alive == nil {
		return nil, errors.New("ruler: a dependency is missing")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Ruler{cfg: cfg, deps: deps, log: deps.Logger.With("component", "ruler"),
		changed: make(chan tenant.ID, 1024), testing: make(chan struct{}, testsAtOnce), closing: make(chan struct{}), tenants: map[tenant.ID]*worker{}}
	r.check = &Checker{Limits: deps.Limits, Engine: deps.Engine, Federation: cfg.Federation.Enabled}
	r.ctx, r.cut = context.WithCancel(context.Background())
	r.metrics = newMetrics(deps.Reg)
	r.books.read = map[string]*book{}
	r.Service = services.NewBasicService(nil, r.run, r.stop).WithName("ruler")
	return r, nil
}

// run keeps this ruler's groups those that it owns until ctx ends.
func (r *Ruler) run(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var seen view
	due := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case id := <-r.changed:
			due = r.after(due, r.some(ctx, seen, r.told(id)))
		case <-look.C:
			now, err := r.look()
			if err != nil {
				r.metrics.ringErrors.Inc()
				r.log.Warn("rulers are not known, groups stay where they are", "err", err)
				continue
			}
			if time.Now().Before(due) && now.same(seen) {
				continue
			}
			seen = now
			due = r.after(time.Now().Add(r.cfg.PollInterval), r.round(ctx, seen))
		}
	}
}

const (
	// lookEvery is how soon a ruler sees that another one came or went.
	lookEvery = 500 * time.Millisecond
	// againAfter is when rules that could not be read are tried again.
	againAfter = 5 * time.Second
	// roundMost bounds one round through the rules: where they are kept may hang.
	roundMost = 2 * time.Minute
)

// round is all, within a bounded time.
func (r *Ruler) round(ctx context.Context, v view) error {
	ctx, cancel := context.WithTimeout(ctx, roundMost)
	defer cancel()
	return r.all(ctx, v)
}

// after returns when to look at everything: at due, or soon if err is not nil.
func (r *Ruler) after(due time.Time, err error) time.Time {
	if err == nil {
		return due
	}
	r.metrics.readErrors.Inc()
	r.log.Warn("rules could not be read, those known are evaluated, will retry", "err", err)
	if soon := time.Now().Add(againAfter); soon.Before(due) {
		return soon
	}
	return due
}

// told returns id and what else was told meanwhile.
func (r *Ruler) told(id tenant.ID) map[tenant.ID]bool {
	ids := map[tenant.ID]bool{id: true}
	for {
		select {
		case id := <-r.changed:
			ids[id] = true
		default:
			return ids
		}
	}
}

// look returns who is alive.
func (r *Ruler) look() (view, error) {
	members, err := r.deps.Cluster.Alive()
	return view{members, r.deps.Cluster.Self}, err
}

// stop ends all evaluation. What runs is finished, or cut when that takes too long.
func (r *Ruler) stop(error) error {
	close(r.closing)
	late := time.AfterFunc(stopWait, r.cut)
	defer late.Stop()
	defer r.cut()
	r.mu.Lock()
	all := r.tenants
	r.tenants = map[tenant.ID]*worker{}
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, w := range all {
		wg.Go(w.stop)
	}
	wg.Wait()
	return nil
}

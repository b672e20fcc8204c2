// Package distributor owns the write path from a decompressed push request to the ingesters' answers:
// limits, validation, the table of known series, and replication with a quorum.
//
// A known series costs a hash and a probe; its labels are not decoded. The steps of a push are listed
// in order in steps.go.
package distributor

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/admission"
	"github.com/amphora-metrics/amphora/pkg/distributor/ha"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// Deps are what a distributor works with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	// Limits returns a tenant's limits; it is asked once per push.
	Limits func(tenant.ID) limits.View
	// Ring is the ring of ingesters.
	Ring ring.ReadRing
	// Replica returns the stream to the ingester at addr, as the ring names it. It is asked once
	// per push and ingester and must not block.
	Replica func(addr string) (frame.Replica, error)
	// HealthyDistributors is how many processes share the tenants' rate limits. nil: this one.
	HealthyDistributors func() int
	// InstanceLimits returns the configured instance limits as changed while running. nil: as
	// configured.
	InstanceLimits func(InstanceLimits) InstanceLimits
	// Known says whether a tenant is known; it is asked where the settings want that. Errors: Unavailable.
	Known func(ctx context.Context, id tenant.ID) (bool, error)
	// Memory is the budget of the process; nil: as much as the settings say.
	Memory *memory.Ledger
	// Replicas knows which replicas are elected. nil: the limits about them have no effect.
	Replicas *ha.Tracker
	// ShardGrowDelay is how long a tenant's shard that was made larger is not used yet, so that
	// queriers hear of it first.
	ShardGrowDelay time.Duration
	// Costs is where samples are counted by values of labels.
	Costs Costs
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Distributor takes pushes. As a service it forgets idle series and tenants; a push works before
// it is started, too.
type Distributor struct {
	services.Service

	cfg     Config
	deps    Deps
	metrics *metrics
	keys    *remotewrite.Keys
	steps   []step
	budget  *budget
	memory  *memory.Account // of the work on pushes
	tenants *tenants
	watch   *ringWatch
	pushes  sync.Pool // *push
	epoch   time.Time // of ticks

	inflight, inflightBytes atomic.Int64
	ingestion               movingRate         // of all tenants
	reactive                *admission.Limiter // nil: off
	shortened               shortenedValues
	ignored                 sync.Once // see warnIgnored

	stopMu   sync.RWMutex // guards stopped against pushes that begin
	stopped  bool
	underWay sync.WaitGroup // pushes, until their last replica is done
}

// New returns a distributor. Errors: Invalid for settings that cannot work.
func New(cfg Config, deps Deps) (*Distributor, error) {
	if deps.Logger == nil || deps.Limits == nil || deps.Ring == nil || deps.Replica == nil {
		return nil, errors.New("distributor: a dependency is missing")
	}
	if cfg.KnownTenantsOnly && deps.Known == nil {
		return nil, errors.New("distributor: nobody knows which tenants are known")
	}
	if cfg.RemoteTimeout <= 0 || cfg.RemoteTimeout > pressureIdleTicks*time.Second/2 {
		return nil, errs.New(errs.Invalid, "distributor.remote_timeout is %s, it must be over 0s and at most %s",
			cfg.RemoteTimeout, pressureIdleTicks*time.Second/2)
	}
	if err := cfg.Reactive.Validate(); err != nil {
		return nil, err
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.HealthyDistributors == nil {
		deps.HealthyDistributors = func() int { return 1 }
	}
	cfg = cfg.derive()
	d := &Distributor{
		cfg: cfg, deps: deps, keys: remotewrite.NewKeys(), steps: steps(), watch: newRingWatch(deps.Ring),
		budget: &budget{limit: int64(max(cfg.SeriesCacheBytes/entryBytes, 1)), memory: deps.Memory.Account(memory.Table)},
		memory: deps.Memory.Account(memory.Bodies),
		// Ticks begin well above zero, so that "long ago" is a tick, too.
		epoch: deps.Now().Add(-24 * time.Hour),
	}
	if cfg.Reactive.Enabled {
		d.reactive = admission.NewLimiter(cfg.Reactive, errReactive)
	}
	d.metrics = newMetrics(deps.Reg, d)
	d.tenants = &tenants{budget: d.budget, metrics: d.metrics, byID: map[tenant.ID]*tenantState{}}
	if deps.Reg != nil {
		deps.Reg.MustRegister(newTenantCollector(d.tenants))
	}
	if deps.Costs.Reg != nil {
		deps.Costs.Reg.MustRegister(costCollector{d.tenants})
	}
	d.deps.Costs.EvictAfter = cmp.Or(deps.Costs.EvictAfter, 20*time.Minute)
	d.deps.Costs.CleanupInterval = cmp.Or(deps.Costs.CleanupInterval, 3*time.Minute)
	d.pushes.New = func() any { return newPush(d) }
	d.Service = services.NewBasicService(nil, d.running, d.stopping).WithName("distributor")
	return d, nil
}

// MaxRecvMsgBytes is the largest body of a push, compressed or not.
func (d *Distributor) MaxRecvMsgBytes() int { return d.cfg.MaxRecvMsgBytes }

// tick is now in seconds of the process.
func (d *Distributor) tick(now time.Time) uint32 { return uint32(now.Sub(d.epoch) / time.Second) }

// Push stores req, whose body may change again when it returns. All that is valid becomes visible
// to queries at once, and is stored even if something else in the request is refused. Errors:
// Invalid (some or all was refused, Written was stored), RateLimited, BodyTooLarge, Unavailable (no
// quorum of ingesters; safe to send again).
func (d *Distributor) Push(ctx context.Context, id tenant.ID, req *remotewrite.Request) (remotewrite.Written, error) {
	return d.PushFrom(ctx, id, frame.API, req)
}

// PushFrom is Push for another source than clients.
func (d *Distributor) PushFrom(ctx context.Context, id tenant.ID, source frame.Source, req *remotewrite.Request) (w remotewrite.Written, err error) {
	if req.Version != remotewrite.V1 && req.Version != remotewrite.V2 {
		return remotewrite.Written{}, errs.New(errs.Unsupported, "unknown remote write version %d", req.Version)
	}
	if err := d.checkKnown(ctx, id, source); err != nil {
		return remotewrite.Written{}, err
	}
	leave, err := d.admit(len(req.Body))
	if err != nil {
		return remotewrite.Written{}, err
	}
	defer leave()
	done, err := d.react(ctx)
	if err != nil {
		d.underWay.Done()
		return remotewrite.Written{}, err
	}
	defer func() { done(w, err) }()
	p := d.pushes.Get().(*push)
	p.start(d.tenants.enter(id, d.tick(d.deps.Now())), source, req)
	defer p.finish()
	w, err = p.run(ctx)
	if err == nil && p.lim.delay > 0 {
		w.Delay = time.Duration(float64(p.lim.delay) * (0.9 + 0.2*rand.Float64()))
	}
	return w, err
}

// admit enforces the instance limits. leave must be called when the push has been answered.
func (d *Distributor) admit(bytes int) (leave func(), err error) {
	d.stopMu.RLock()
	defer d.stopMu.RUnlock()
	if d.stopped {
		return nil, errs.New(errs.Unavailable, "the distributor is shutting down")
	}
	n, b := d.inflight.Add(1), d.inflightBytes.Add(int64(bytes))
	taken := int64(0) // what a push makes of a body is about as large
	leave = func() {
		d.inflight.Add(-1)
		d.inflightBytes.Add(-int64(bytes))
		d.memory.Release(taken)
	}
	l := d.instanceLimits()
	switch {
	case l.MaxInflightPushRequests > 0 && n > int64(l.MaxInflightPushRequests):
		leave()
		return nil, d.overloaded("distributor-max-inflight-push-requests", "distributor_max_inflight_push_requests",
			"distributor.instance-limits.max-inflight-push-requests", l.MaxInflightPushRequests)
	case b > int64(l.MaxInflightPushRequestsBytes) && n > 1:
		leave()
		return nil, d.overloaded("distributor-max-inflight-push-requests-bytes", "distributor_max_inflight_push_requests_bytes",
			"distributor.instance-limits.max-inflight-push-requests-bytes", l.MaxInflightPushRequestsBytes)
	case l.MaxIngestionRate > 0 && d.ingestion.perSecond(d.deps.Now()) >= l.MaxIngestionRate:
		leave()
		return nil, d.tooFast(l.MaxIngestionRate)
	}
	if err := d.memory.Reserve(int64(bytes)); err != nil {
		leave()
		d.metrics.rejected.WithLabelValues("distributor_memory").Inc()
		return nil, err
	}
	taken = int64(bytes)
	d.underWay.Add(1)
	return leave, nil
}

func (d *Distributor) running(ctx context.Context) error {
	tick := time.NewTicker(ringPeriod)
	defer tick.Stop()
	clean := time.NewTicker(d.deps.Costs.CleanupInterval)
	defer clean.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-clean.C:
			d.cleanCosts(d.deps.Now())
		case <-tick.C:
			now := d.deps.Now()
			d.watch.current(now)
			d.tenants.sweep(d.tick(now))
			d.shortened.log(d.deps.Logger, now)
		}
	}
}

// stopping refuses new pushes and waits for those under way, which their timeout bounds.
func (d *Distributor) stopping(error) error {
	d.stopMu.Lock()
	d.stopped = true
	d.stopMu.Unlock()
	d.underWay.Wait()
	return nil
}

// instanceLimits are those in force.
func (d *Distributor) instanceLimits() InstanceLimits {
	if change := d.deps.InstanceLimits; change != nil {
		return change(d.cfg.InstanceLimits)
	}
	return d.cfg.InstanceLimits
}

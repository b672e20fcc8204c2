package app

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/frontend"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/querier"
	"github.com/amphora-metrics/amphora/pkg/scheduler"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/turns"
	usageinsights "github.com/amphora-metrics/amphora/pkg/usage"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// ReadsConfig is the settings of what stands between the API and the queriers.
type ReadsConfig struct {
	Scheduler    scheduler.Config
	Schedulers   SchedulersConfig
	Frontend     frontend.Config
	FrontendRing FrontendRingConfig
	Federation   FederationConfig
	Results      ResultsCacheConfig
	Insights     usageinsights.Config
}

func (c *ReadsConfig) declare(s *config.Set) {
	s.Mount("frontend_worker", schedulerAddresses{&c.Schedulers.QuerierTo, "querier.scheduler-address"})
	s.Mount("query_scheduler", &c.Scheduler)
	s.Mount("query_scheduler", &c.Schedulers)
	s.Mount("frontend", &c.Frontend)
	s.Mount("frontend.ring", &c.FrontendRing)
	s.Mount("frontend", schedulerAddresses{&c.Schedulers.FrontendTo, "query-frontend.scheduler-address"})
	s.Mount("tenant_federation", &c.Federation)
	s.Mount("frontend.results_cache", &c.Results)
	s.Mount("usage_insights", &c.Insights)
}

// readParts are the parts of that.
type readParts struct {
	engine        part[*engine.Engine]
	scheduler     part[*scheduler.Scheduler]
	schedulerRing part[*ring.Ring]
	frontend      part[*frontend.Frontend]
	frontendRing  part[*ring.Ring]
	turns         part[*turns.Gate]
	insights      part[*usageinsights.Tracker]
	work          work.Runner // of the frontend, once built
}

// SchedulersConfig is how frontends and queriers find query-schedulers, mounted beside the settings of
// these.
type SchedulersConfig struct {
	Mode       string
	Heartbeats members.Heartbeats
	FrontendTo string // of frontends; empty: by the ring
	QuerierTo  string // of queriers
}

// Declare names the settings.
func (c *SchedulersConfig) Declare(s *config.Set) {
	s.String(&c.Mode, "service-discovery-mode", "ring", "How query-schedulers are found: ring, or dns by query-frontend.scheduler-address and querier.scheduler-address.").Expert()
	s.Mount("ring", &c.Heartbeats)
}

// schedulerAddresses are the settings of the address of query-schedulers.
type schedulerAddresses struct {
	p    *string
	flag string
}

// Declare names the setting.
func (c schedulerAddresses) Declare(s *config.Set) {
	s.String(c.p, "scheduler-address", "", "DNS name, with the gRPC port, that resolves to all query-schedulers, for service_discovery_mode dns.").Named(c.flag).Expert()
}

// Validate refuses what cannot work.
func (c *SchedulersConfig) Validate() error {
	if c.Mode != "ring" && c.Mode != "dns" {
		return config.Wrong("service-discovery-mode", "is %q; it must be ring or dns", c.Mode)
	}
	return nil
}

// tokensPerScheduler is as good as any number: no work is placed by tokens.
const tokensPerScheduler = 1

// scheduler is the one of this process.
func (a *App) scheduler() (*scheduler.Scheduler, error) {
	return a.reads.scheduler.get(func() (*scheduler.Scheduler, error) {
		s, err := scheduler.New(a.cfg.Reads.Scheduler, scheduler.Deps{Logger: a.log, Reg: a.reg, Limits: a.limits.For})
		if err != nil {
			return nil, err
		}
		return s, a.serve("query-scheduler", s)
	})
}

// buildScheduler builds the query-scheduler with its gRPC service and its place in the ring.
func (a *App) buildScheduler() error {
	q, err := a.scheduler()
	if err != nil {
		return err
	}
	s, err := a.server()
	if err != nil {
		return err
	}
	querypb.RegisterSchedulerServer(s.GRPC(), scheduler.NewServer(q))
	if a.cfg.alone() || a.cfg.Reads.Schedulers.Mode != "ring" {
		return nil
	}
	return a.workersEntry(scheduler.RingName, scheduler.RingKey, worker{beats: a.cfg.Reads.Schedulers.Heartbeats, tokens: tokensPerScheduler, leave: true})
}

// schedulerRing is where query-schedulers are found unless that goes by DNS.
func (a *App) schedulerRing() (*ring.Ring, error) {
	return a.reads.schedulerRing.get(func() (*ring.Ring, error) {
		return a.workersRing(scheduler.RingName, scheduler.RingKey, ring.Config{HeartbeatTimeout: a.cfg.Reads.Schedulers.Heartbeats.Timeout, ReplicationFactor: 1})
	})
}

// schedulersAt returns the addresses of the query-schedulers of other processes; name is where DNS
// finds them.
func (a *App) schedulersAt(name string) (func() []string, error) {
	if a.cfg.Reads.Schedulers.Mode == "dns" {
		return a.resolved(name)
	}
	r, err := a.schedulerRing()
	if err != nil {
		return nil, err
	}
	self := ""
	if a.cfg.runs("query-scheduler") {
		if self, err = a.instanceAddr(); err != nil {
			return nil, err
		}
	}
	op := ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil)
	return func() []string {
		set, err := r.GetAllHealthy(op)
		if err != nil {
			return nil // there is none
		}
		return slices.DeleteFunc(set.GetAddresses(), func(addr string) bool { return addr == self })
	}, nil
}

// resolveEvery is how often a DNS name is resolved anew.
const resolveEvery = 10 * time.Second

// resolved returns what name resolves to, as it was found last.
func (a *App) resolved(name string) (func() []string, error) {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, config.Wrong("query_scheduler.service_discovery_mode", "is dns, but the address %q of the query-schedulers is no host with a port", name)
	}
	d := &lookup{host: host, port: port}
	return d.addresses, a.serve("query-scheduler-dns "+strings.ToLower(name), services.NewTimerService(resolveEvery, d.resolve, func(ctx context.Context) error {
		if err := d.resolve(ctx); err != nil {
			a.log.Warn("the name of the query-schedulers does not resolve, the addresses found before stay in use", "name", name, "err", err)
		}
		return nil
	}, nil))
}

// queryRunner is how a frontend has work done: by the query-scheduler of this process, or by others.
func (a *App) queryRunner() (work.Runner, error) {
	if a.cfg.runs("query-scheduler") {
		return a.scheduler()
	}
	at, err := a.schedulersAt(a.cfg.Reads.Schedulers.FrontendTo)
	if err != nil {
		return nil, err
	}
	s, err := transport.NewSchedulers(a.cfg.Clients, at, transport.ClientDeps{Registerer: a.reg, Log: a.log})
	if err != nil {
		return nil, err
	}
	return s, a.serve("query-scheduler-clients", s)
}

// promql is the engine of this process.
func (a *App) promql() (promql, error) {
	e, err := a.reads.engine.get(func() (*engine.Engine, error) {
		e, err := engine.New(a.cfg.engine(), a.log, a.reg)
		if err != nil {
			return nil, err
		}
		e.Bound(a.memory, a.limits.For)
		e.TakeTurns(a.turns())
		e.Watch(a.activity)
		a.closers = append(a.closers, e.Close)
		return e, nil
	})
	return promql{e, a.limits}, err
}

// backends is the read API over the querier of this process.
func (a *App) backends() (*prom.Backends, error) {
	q, err := a.querier()
	if err != nil {
		return nil, err
	}
	e, err := a.promql()
	if err != nil {
		return nil, err
	}
	t, err := a.insights()
	if err != nil {
		return nil, err
	}
	all := querier.NewFederation(q, a.cfg.Reads.Federation.MaxConcurrent, a.cfg.Reads.Federation.Partial)
	return &prom.Backends{Engine: e, Storage: all, Exemplars: all, Metadata: all, Usage: usageSource{t}, Series: q, Limits: a.limits.For, Timeout: a.cfg.Engine.Timeout,
		Memory: a.memory.Account(memory.Queries), Turns: a.turns()}, nil
}

// buildQuerier builds the querier with its workers.
func (a *App) buildQuerier() error {
	b, err := a.backends()
	if err != nil {
		return err
	}
	q, err := a.querier()
	if err != nil {
		return err
	}
	run := &querier.Executor{Engine: b.Engine, Storage: b.Storage, API: api.Reader(a.cfg.API.Prom, noted(*b), nil, a.log), Changes: q.Changes, Durations: querier.NewDurations(a.reg), Activity: a.activity}
	id, err := a.cfg.Ring.ID()
	if err != nil {
		return err
	}
	if a.cfg.runs("query-scheduler") {
		s, err := a.scheduler()
		if err != nil {
			return err
		}
		if err := a.serve("querier-workers", s.Workers(id, a.cfg.Engine.MaxConcurrent, run)); err != nil {
			return err
		}
	}
	if a.cfg.alone() || a.cfg.Reads.Schedulers.Mode == "dns" && a.cfg.Reads.Schedulers.QuerierTo == "" {
		return nil
	}
	at, err := a.schedulersAt(a.cfg.Reads.Schedulers.QuerierTo)
	if err != nil {
		return err
	}
	w, err := transport.NewWorkers(a.cfg.Clients, transport.WorkersDeps{ClientDeps: transport.ClientDeps{Registerer: a.reg, Log: a.log},
		Querier: id, Most: a.cfg.Engine.MaxConcurrent, Addresses: at, Run: run})
	if err != nil {
		return err
	}
	return a.serve("querier-remote-workers", w)
}

// frontend is the one of this process.
func (a *App) frontend() (*frontend.Frontend, error) {
	return a.reads.frontend.get(func() (*frontend.Frontend, error) {
		e, err := a.promql()
		if err != nil {
			return nil, err
		}
		run, err := a.queryRunner()
		if err != nil {
			return nil, err
		}
		a.reads.work = run
		kept, err := a.resultsCache()
		if err != nil {
			return nil, err
		}
		peers, err := a.frontendPeers()
		if err != nil {
			return nil, err
		}
		return frontend.New(a.cfg.Reads.Frontend, frontend.Deps{Logger: a.log, Reg: a.reg, Limits: a.limits.For, Engine: e, Run: run,
			Results: kept, Changes: changesBy(run), Skew: a.clockSkew(), Lookback: a.cfg.Engine.LookbackDelta, QueryLog: a.logs.QueryLog, Turns: a.turns(), Peers: peers})
	})
}

// mountReads gives the API what it reads from: the frontend, or where there is none the querier.
func (a *App) mountReads(d *api.Deps) error {
	d.Federation = a.cfg.Reads.Federation.most()
	if !a.cfg.runs("query-frontend") {
		if !a.cfg.runs("querier") {
			return nil
		}
		b, err := a.backends()
		if err != nil {
			return err
		}
		d.Read = new(noted(*b))
		return nil
	}
	f, err := a.frontend()
	if err != nil {
		return err
	}
	e, err := a.promql()
	if err != nil {
		return err
	}
	t, err := a.insights()
	if err != nil {
		return err
	}
	d.Read = &prom.Backends{Engine: notedEngine{fronted{e, f}, t}, Limits: a.limits.For, Timeout: a.cfg.Engine.Timeout, Prepare: classify, Overseer: overseer{f}, Turns: a.turns()}
	d.Read.Forward = func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(classify(r), a.cfg.Engine.Timeout)
		defer cancel()
		return f.Respond(ctx, w, r)
	}
	return nil
}

// classify returns the context of a request with its class: what Grafana asks for a dashboard goes
// before what somebody tries out, and what rulers ask before both.
func classify(r *http.Request) context.Context {
	how := work.ReadingFor(r)
	ctx := work.WithReading(r.Context(), how)
	if noStore(r.Header) || how.Partial { // a part is not what another may be answered
		ctx = frontend.WithoutCache(ctx)
	}
	if r.Header.Get(tenant.ClassHeader) == work.Rule.String() {
		return work.WithClass(ctx, work.Rule)
	}
	if r.Header.Get("X-Dashboard-Uid") != "" || r.Header.Get("X-Panel-Id") != "" {
		return work.WithClass(ctx, work.Dashboard)
	}
	return ctx
}

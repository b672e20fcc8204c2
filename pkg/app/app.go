// Package app builds a process from the rooms: memoised builders wire what -target names and start
// and stop it in order. It is the only importer of services and transport.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/alertmanager"
	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/compactor"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/control"
	"github.com/amphora-metrics/amphora/pkg/distributor"
	"github.com/amphora-metrics/amphora/pkg/distributor/ha"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/ingester"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/querier"
	"github.com/amphora-metrics/amphora/pkg/storegateway"
	"github.com/amphora-metrics/amphora/pkg/storegateway/clustercache"
	"github.com/amphora-metrics/amphora/pkg/telemetry"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
	"github.com/amphora-metrics/amphora/pkg/transport"
)

// stopWait bounds how long one part may take to stop; a flush of everything may take long.
const stopWait = 10 * time.Minute

// App is one process.
type App struct {
	cfg      Config
	set      *config.Set
	log      *slog.Logger
	reg      *telemetry.Registry
	costs    *telemetry.Registry // of usage by values of labels; nil: it is not served
	limits   *limits.Overrides
	logs     *control.Limits // what workspaces want to be logged
	memory   *memory.Ledger
	activity *activity.Tracker

	p          parts
	api        *api.API
	services   []named        // in start order
	closers    []func() error // of what is no service, in the order of building
	draining   atomic.Bool
	done       chan struct{}                 // closed once by a part whose work ends the process well
	known      atomic.Bool                   // an ingester was seen in the ring
	storeLeave *storeLeave                   // once built
	indexes    atomic.Pointer[block.Indexes] // once built

	reads readParts
}

// parts are built when they are first asked for.
type parts struct {
	server          part[*transport.Server]
	memberlist      part[*memberlist.KVInitService]
	storeSwitch     part[*storeSwitch]
	callers         callerParts
	ingesterRing    part[*ring.Ring]
	distributorRing part[*peers]
	elections       part[*ha.Tracker]
	replicas        part[*transport.Replicas]
	rules           ruleParts
	scrapers        scraperParts
	clients         part[*transport.Clients]
	bucket          part[objstore.InstrumentedBucket]
	storeRing       part[*ring.Ring]
	queryBudget     part[*block.Budget]
	documents       part[*docstore.Store]
	control         part[*control.Control]
	storeGateway    part[*storegateway.Gateway]
	clusterCache    part[*clustercache.Cache]
	compactorRing   part[*ring.Ring]
	compactor       part[*compactor.Compactor]
	ingester        part[*ingester.Ingester]
	distributor     part[*distributor.Distributor]
	querier         part[*querier.Querier]
	deletions       part[*tombstone.Requests]
	alertRing       part[*ring.Ring]
	alertmanager    part[*alertmanager.Alertmanager]
}

type named struct {
	name string
	services.Service
}

// Main is the whole of the amphora command: it returns when the process shall end. out takes what
// is printed on request, logs the log.
func Main(args []string, out, logs io.Writer) error {
	var cfg Config
	set := config.NewSet()
	set.Mount("", &cfg)
	req, err := config.Load(set, args, os.Getenv)
	if err != nil {
		return err
	}
	switch {
	case req.Version:
		_, err := fmt.Fprintln(out, telemetry.BuildInfo())
		return err
	case req.Help || req.HelpAll:
		if err := set.Help(out, "amphora", req.HelpAll); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "\nTargets:\n%s", Targets())
		return err
	}
	cfg.derive(set)
	most := cfg.Memory.Limits()
	most.Tell()
	most.Derive(set)
	if req.Print != "" {
		return set.Print(out, req.Print)
	}
	log, _, err := telemetry.NewLogger(cfg.Telemetry, logs)
	if err != nil {
		return err
	}
	if req.Check {
		return set.Print(out, config.ModeEffective)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	tracing, err := telemetry.StartTracing("amphora", log)
	if err != nil {
		return fmt.Errorf("start tracing: %w", err)
	}
	defer tracing.Close()
	a, err := New(cfg, set, log)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// New builds the parts that cfg.Target names. The listeners are open when it returns, and nothing
// runs yet.
func New(cfg Config, set *config.Set, log *slog.Logger) (*App, error) {
	a := &App{cfg: cfg, set: set, log: log, reg: telemetry.NewRegistry(cfg.Telemetry), done: make(chan struct{})}
	if cfg.Costs.Path != "" {
		a.costs = a.reg.Beside()
	}
	promauto.With(a.reg).NewGaugeVec(prometheus.GaugeOpts{
		Name: "amphora_config_hash",
		Help: "Always 1; the label is a hash of the configuration in force. Processes of one kind should agree.",
	}, []string{"sha256"}).WithLabelValues(set.Hash()).Set(1)
	a.memory = memory.New(cfg.Memory.Limits(), memory.Deps{Logger: log, Reg: a.reg})
	if err := a.serve("memory", a.memory); err != nil {
		return nil, err
	}
	a.activity = activity.Open(cfg.Telemetry.Activity, activity.Deps{Log: log, Reg: a.reg, Target: strings.Join(cfg.Target, ",")})
	a.closers = append(a.closers, a.activity.Close)
	a.limits = limits.NewOverrides(&a.cfg.Limits, a.cfg.Runtime, limits.Deps{Log: log, Reg: a.reg, Env: os.Getenv})
	if err := a.serve("runtime-config", a.limits); err != nil {
		return nil, err
	}
	if !cfg.stranger() { // which needs no bucket
		if err := a.workspaceLimits(); err != nil {
			return nil, err
		}
	}
	if _, err := a.server(); err != nil {
		return nil, err
	}
	ts, err := resolve(a.cfg.Target)
	if err != nil {
		return nil, err
	}
	for _, t := range ts {
		if err := builders()[t.name](a); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return a, a.mount()
}

// serve adds a service to those that Run starts, after the ones it needs.
func (a *App) serve(name string, s services.Service) error {
	if slices.ContainsFunc(a.services, func(n named) bool { return n.name == name }) {
		return fmt.Errorf("service %s is built twice", name)
	}
	a.services = append(a.services, named{name, s})
	return nil
}

// Run starts every part in order, serves until ctx ends or a part fails, and stops all in reverse.
func (a *App) Run(ctx context.Context) error {
	a.log.Info("amphora starts", "version", telemetry.Version(), "target", a.cfg.Target, "replication_factor", a.cfg.replicationFactor())
	failed := make(chan error, len(a.services))
	started := 0
	var problem error
	for _, s := range a.services {
		s.AddListener(services.NewListener(nil, nil, nil, nil, func(_ services.State, err error) {
			failed <- fmt.Errorf("%s failed: %w", s.name, err)
		}))
		begin := time.Now()
		// A service must not end with ctx: those that others need are stopped last.
		if problem = s.StartAsync(context.WithoutCancel(ctx)); problem == nil {
			started++
			problem = s.AwaitRunning(ctx)
		}
		if problem != nil {
			problem = fmt.Errorf("start %s: %w", s.name, problem)
			break
		}
		a.log.Debug("service runs", "service", s.name, "took", time.Since(begin))
	}
	if problem == nil {
		a.log.Info("amphora runs", "http", a.httpAddr())
		select {
		case <-ctx.Done():
			a.log.Info("amphora stops")
		case <-a.done:
			a.log.Info("amphora stops as its work is done")
		case problem = <-failed:
			a.log.Error("a part failed, the process ends", "err", problem)
		}
	} else if ctx.Err() != nil {
		problem = nil // told to stop while starting
	}
	a.draining.Store(true)
	if problem == nil && a.cfg.ShutdownDelay > 0 {
		time.Sleep(a.cfg.ShutdownDelay)
	}
	if problem == nil {
		a.drain()
	}
	problem = errors.Join(problem, a.stop(started))
	a.log.Info("amphora has stopped")
	return problem
}

// drain lets the requests of tenants end before the parts that answer them stop.
func (a *App) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.Server.ShutdownTimeout)
	defer cancel()
	if err := a.api.Drain(ctx); err != nil {
		a.log.Warn("requests did not end within the shutdown timeout and are cut", "timeout", a.cfg.Server.ShutdownTimeout)
	}
}

// stop stops the first n services, the last one first.
func (a *App) stop(n int) error {
	var problems []error
	for _, s := range slices.Backward(a.services[:n]) {
		ctx, cancel := context.WithTimeout(context.Background(), stopWait)
		if err := services.StopAndAwaitTerminated(ctx, s.Service); err != nil {
			problems = append(problems, fmt.Errorf("stop %s: %w", s.name, err))
		}
		cancel()
	}
	for _, c := range slices.Backward(a.closers) {
		problems = append(problems, c())
	}
	return errors.Join(problems...)
}

// server has the listeners. It starts before everything else, so that a process can be looked at
// while it reads its log back, and stops after everything else.
func (a *App) server() (*transport.Server, error) {
	return a.p.server.get(func() (*transport.Server, error) {
		m, err := a.certificates()
		if err != nil {
			return nil, err
		}
		d := transport.ServerDeps{Registerer: a.reg, Gatherer: a.reg, Log: a.log, Activity: a.activity, Proxies: a.cfg.Callers.Gateway.TrustedProxies}
		if m != nil {
			d.Issuer = m
		}
		s, err := transport.NewServer(a.cfg.Server, d)
		if err != nil {
			return nil, err
		}
		if err := a.serve("server", s); err != nil || m == nil {
			return s, err
		}
		return s, a.serve("certificates", m) // after the server: the CA calls it
	})
}

func (a *App) httpAddr() string {
	s, err := a.server()
	if err != nil {
		return ""
	}
	return s.HTTPAddr().String()
}

// grpcAddr is where the gRPC server listens.
func (a *App) grpcAddr() (host string, port int, err error) {
	s, err := a.server()
	if err != nil {
		return "", 0, err
	}
	t, ok := s.GRPCAddr().(*net.TCPAddr)
	if !ok {
		return "", 0, fmt.Errorf("gRPC listens on %s, which is no TCP address", s.GRPCAddr())
	}
	return t.IP.String(), t.Port, nil
}

func (a *App) kitLog(component string) log.Logger {
	return telemetry.GoKit(a.log.With("component", component))
}

// prefixed registers metrics of libraries that do not name their namespace.
func (a *App) prefixed() prometheus.Registerer { return a.reg.Prefixed() }

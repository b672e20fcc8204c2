package app

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"
	prometheus "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/ingester"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/telemetry"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/deltapb"
)

// mount puts the API of what was built on the server.
func (a *App) mount() error {
	s, err := a.server()
	if err != nil {
		return err
	}
	d := api.Deps{
		Log: a.log, Registerer: a.reg, Metrics: a.reg.Handler(a.log), Limits: a.limits.For, Memory: a.memory, Activity: a.activity, Build: build(a.cfg.runs("alertmanager") && a.cfg.Alertmanager.EnableAPI),
		Ready: a.ready, Services: a.states, Source: transport.SourceOf,
		Config: func(mode string) ([]byte, error) {
			return printed(func(b *bytes.Buffer) error { return a.set.Print(b, mode) })
		},
		RuntimeConfig: a.runtimePage(),
	}
	if err := a.mountIdentities(&d); err != nil {
		return err
	}
	if err := a.mountConsole(&d); err != nil {
		return err
	}
	if err := a.mountPages(&d); err != nil {
		return err
	}
	if err := a.mountBackends(&d); err != nil {
		return err
	}
	if err := a.mountAlertmanager(&d); err != nil {
		return err
	}
	if a.costs != nil {
		d.Costs, d.CostsPath = a.costs.Handler(a.log), a.cfg.Costs.Path
	}
	if a.api, err = api.New(a.cfg.API, d); err != nil {
		return err
	}
	if d.Peers != nil {
		deltapb.RegisterDeltasServer(s.GRPC(), a.api.Deltas())
	}
	door, err := a.door()
	if err != nil {
		return err
	}
	s.Handle(door(a.api))
	return a.listenOTLP(s, door)
}

// listenOTLP opens the listener for OTLP over gRPC, in processes that are told to and take pushes, or pass them on.
func (a *App) listenOTLP(s *transport.Server, door func(http.Handler) http.Handler) error {
	passed := a.cfg.hasGateway() && a.cfg.Callers.Upstreams.Has(string(api.Distributor))
	if a.cfg.Server.OTLPAddress == "" || !a.api.HasCalls() && !passed {
		return nil
	}
	at, err := s.Also(a.cfg.Server.OTLPAddress, a.cfg.Server.OTLPPort, a.api.OnlyCalls(door(a.api)))
	if err != nil {
		return err
	}
	a.log.Info("OTLP over gRPC has a listener", "address", at.String())
	return nil
}

func (a *App) mountBackends(d *api.Deps) error {
	if err := a.mountRuler(d); err != nil {
		return err
	}
	if a.cfg.runs("distributor") {
		dist, err := a.distributor()
		if err != nil {
			return err
		}
		d.Pusher, d.MaxPushBytes = dist, dist.MaxRecvMsgBytes()
		if d.Elected, err = a.electedPage(); err != nil {
			return err
		}
	}
	if a.cfg.runs("distributor") || a.cfg.runs("querier") {
		r, err := a.ingesterRing()
		if err != nil {
			return err
		}
		c, err := a.clients()
		if err != nil {
			return err
		}
		d.Usage = newUsage(r, c, func(id tenant.ID) int { return limits.IngestionTenantShardSize.Of(a.limits.For(id)) })
	}
	if err := a.mountReads(d); err != nil {
		return err
	}
	if a.cfg.runs("querier") {
		q, err := a.querier()
		if err != nil {
			return err
		}
		d.Blocks.History = history{q}
	}
	if err := a.mountBlocks(&d.Blocks); err != nil {
		return err
	}
	if a.cfg.runs("control") {
		c, err := a.control()
		if err != nil {
			return err
		}
		d.Control = c
	}
	if a.cfg.runs("ingester") {
		ing, err := a.ingester()
		if err != nil {
			return err
		}
		d.Ingester = &api.IngesterDeps{
			Flusher: flusher{ing}, PrepareShutdown: prepareShutdown{ing}, PrepareDownscale: readOnly{ing},
			UnregisterOnShutdown: unregister{ing, a.cfg.Ring.UnregisterOnShutdown}, Tenants: tenantList{ing},
			HeadMetrics: a.headMetrics(ing),
		}
	}
	return nil
}

// headMetrics serves the figures of every tenant's head, which would be too many for the metrics of
// the process.
func (a *App) headMetrics(ing *ingester.Ingester) http.Handler {
	reg := a.reg.Beside()
	reg.MustRegister(ing.HeadMetrics())
	return reg.Handler(a.log)
}

// printed collects what write writes.
func printed(write func(*bytes.Buffer) error) ([]byte, error) {
	var b bytes.Buffer
	err := write(&b)
	return b.Bytes(), err
}

// runtimePage shows the overrides; without files there is no page.
func (a *App) runtimePage() func(mode string) ([]byte, error) {
	if len(a.cfg.Runtime.Files) == 0 {
		return nil
	}
	return func(mode string) ([]byte, error) {
		return printed(func(b *bytes.Buffer) error { return a.limits.WriteRuntime(b, mode) })
	}
}

// ready is nil once every part runs and the ingester has been in the ring for long enough.
func (a *App) ready(ctx context.Context) error {
	if a.draining.Load() {
		return errs.New(errs.Unavailable, "the process is stopping")
	}
	for _, s := range a.services {
		if st := s.State(); st != services.Running {
			return errs.New(errs.Unavailable, "%s is %s", s.name, st)
		}
	}
	if a.cfg.runs("ingester") {
		ing, err := a.ingester()
		if err != nil {
			return err
		}
		if err := ing.CheckReady(ctx); err != nil {
			return errs.Wrap(errs.Unavailable, err)
		}
		return a.inOwnView()
	}
	if a.cfg.runs("distributor") || a.cfg.runs("querier") || a.cfg.runs("ruler") || a.cfg.runs("scraper") {
		return a.knowsIngesters()
	}
	return nil
}

// knowsIngesters is nil once this process has seen an ingester in the ring: before that it could
// only refuse what it is sent, and gossip may not have reached it yet.
func (a *App) knowsIngesters() error {
	if a.known.Load() {
		return nil
	}
	r, err := a.ingesterRing()
	if err != nil {
		return err
	}
	if r.InstancesWithTokensCount() == 0 {
		return errs.New(errs.Unavailable, "the ring does not show any ingester yet")
	}
	a.known.Store(true)
	return nil
}

// inOwnView is nil once this process's view of the ring has its own ingester: before that a push
// or a query in the same process would find nobody.
func (a *App) inOwnView() error {
	r, err := a.ingesterRing()
	if err != nil {
		return err
	}
	id, err := a.cfg.Ring.ID()
	if err != nil {
		return err
	}
	if st, err := r.GetInstanceState(id); err != nil || st == ring.PENDING || st == ring.JOINING {
		return errs.New(errs.Unavailable, "the ring does not show the ingester of this process as active yet")
	}
	return nil
}

// states lists the services, for their page.
func (a *App) states() []admin.Service {
	var out []admin.Service
	for _, s := range a.services {
		row := admin.Service{Name: s.name, State: s.State().String()}
		if err := s.FailureCase(); err != nil {
			row.Failure = err.Error()
		}
		out = append(out, row)
	}
	return out
}

// build tells the version; alerts says that tenants can configure an alertmanager.
func build(alerts bool) admin.BuildInfo {
	b := telemetry.BuildInfo()
	return admin.BuildInfo{
		Application: "Amphora", Version: b.Version, Revision: b.Revision, Branch: b.Branch, BuildDate: b.Date, GoVersion: b.GoVersion,
		// Rules are not served yet, so that Grafana does not offer to edit them.
		Features: map[string]string{"ruler_config_api": "false", "alertmanager_config_api": strconv.FormatBool(alerts), "query_sharding": "false", "federated_rules": "false"},
	}
}

// promql is the engine with what each tenant may use of the language.
type promql struct {
	*engine.Engine
	limits *limits.Overrides
}

// NewInstantQuery is part of prom.Engine.
func (p promql) NewInstantQuery(ctx context.Context, q storage.Queryable, opts prometheus.QueryOpts, qs string, ts time.Time) (prometheus.Query, error) {
	return p.Engine.NewInstantQuery(p.allow(ctx), q, opts, qs, ts)
}

// NewRangeQuery is part of prom.Engine.
func (p promql) NewRangeQuery(ctx context.Context, q storage.Queryable, opts prometheus.QueryOpts, qs string, start, end time.Time, step time.Duration) (prometheus.Query, error) {
	return p.Engine.NewRangeQuery(p.allow(ctx), q, opts, qs, start, end, step)
}

// ParseExpr is part of prom.Engine.
func (p promql) ParseExpr(ctx context.Context, qs string) (parser.Expr, error) {
	return p.Engine.ParseExpr(p.allow(ctx), qs)
}

// Format is part of prom.Engine.
func (p promql) Format(ctx context.Context, qs string) (string, error) {
	return p.Engine.Format(p.allow(ctx), qs)
}

// Tree is part of prom.Engine.
func (p promql) Tree(ctx context.Context, qs string) (any, error) {
	return p.Engine.Tree(p.allow(ctx), qs)
}

// allow returns ctx with what all of its tenants may use; without a tenant that is nothing.
func (p promql) allow(ctx context.Context) context.Context {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return ctx
	}
	lists := make([]string, len(ids))
	for i, id := range ids {
		lists[i] = limits.EnabledExperimentalFunctions.Of(p.limits.For(id))
	}
	return engine.Allow(ctx, lists...)
}

// The types below give the ingester the shape that the API asks for.

type flusher struct{ *ingester.Ingester }

// Flush is part of admin.Flusher.
func (f flusher) Flush(ctx context.Context, tenants []tenant.ID, wait bool) (admin.FlushJob, error) {
	job, err := f.Ingester.Flush(ctx, tenants, wait)
	return flushJob(job), err
}

// FlushJob is part of admin.Flusher.
func (f flusher) FlushJob(_ context.Context, id string) (admin.FlushJob, error) {
	job, err := f.Ingester.FlushJob(id)
	return flushJob(job), err
}

func flushJob(j ingester.FlushJob) admin.FlushJob {
	out := admin.FlushJob{ID: j.ID, State: admin.FlushRunning, Tenants: j.Tenants, Started: j.Started.UTC(), Blocks: j.Blocks}
	if !j.Ended.IsZero() {
		out.State, out.Ended = "done", new(j.Ended.UTC())
	}
	if j.Err != nil {
		out.State, out.Error = "failed", j.Err.Error()
	}
	return out
}

type prepareShutdown struct{ i *ingester.Ingester }

func (p prepareShutdown) On() bool                             { return p.i.PreparedShutdown() }
func (p prepareShutdown) Set(_ context.Context, on bool) error { return p.i.PrepareShutdown(on) }

type readOnly struct{ i *ingester.Ingester }

func (r readOnly) Since() time.Time                       { return r.i.ReadOnlySince() }
func (r readOnly) Set(ctx context.Context, on bool) error { return r.i.SetReadOnly(ctx, on) }

type unregister struct {
	i          *ingester.Ingester
	configured bool
}

func (u unregister) On() bool                             { return u.i.UnregistersOnShutdown() }
func (u unregister) Set(_ context.Context, on bool) error { return u.i.SetUnregisterOnShutdown(on) }
func (u unregister) Reset(context.Context) error          { return u.i.SetUnregisterOnShutdown(u.configured) }

type tenantList struct{ i *ingester.Ingester }

func (l tenantList) Tenants(context.Context) ([]admin.TenantInfo, error) {
	var out []admin.TenantInfo
	for _, t := range l.i.Tenants() {
		out = append(out, tenantInfo(t))
	}
	return out, nil
}

func (l tenantList) Tenant(_ context.Context, id tenant.ID) (admin.TenantInfo, error) {
	t, err := l.i.Tenant(id)
	if err != nil {
		return admin.TenantInfo{}, err
	}
	out := tenantInfo(t)
	out.Details = append(out.Details, admin.Detail{Name: "samples per second", Value: strconv.FormatFloat(t.IngestionRate, 'f', 1, 64)})
	for _, b := range t.Blocks {
		shipped := "not shipped"
		if !b.Shipped.IsZero() {
			shipped = "shipped " + b.Shipped.UTC().Format(time.RFC3339)
		}
		out.Details = append(out.Details, admin.Detail{Name: "block " + b.ID, Value: fmt.Sprintf("%s to %s, %d series, %d samples, %s",
			b.MinTime.UTC().Format(time.RFC3339), b.MaxTime.UTC().Format(time.RFC3339), b.Series, b.Samples, shipped)})
	}
	return out, nil
}

func tenantInfo(t ingester.TenantInfo) admin.TenantInfo {
	return admin.TenantInfo{Tenant: t.Tenant, Series: t.Series, Active: t.Active, Owned: t.Owned, MinTime: t.MinTime, MaxTime: t.MaxTime}
}

package app

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/notifier"
	prometheuspromql "github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/api/rules"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/engine"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/ruler"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/transport"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// RulesConfig is the settings of rules.
type RulesConfig struct {
	Ruler   ruler.Config
	Ring    RulerRingConfig
	Storage ruler.StorageConfig
}

// Declare names the settings.
func (c *RulesConfig) Declare(s *config.Set) {
	s.Mount("ruler", &c.Ruler)
	s.Mount("ruler.ring", &c.Ring)
	s.Mount("ruler_storage", &c.Storage)
}

// ruleParts are the parts of a ruler.
type ruleParts struct {
	ring  part[*ring.Ring]
	ruler part[*ruler.Ruler]
}

// RulerRingConfig of the rulers' ring, mounted as ruler.ring.
type RulerRingConfig struct{ Heartbeats members.Heartbeats }

// Declare names the settings. A ruler that is silent costs alerts, so that the others take over its
// groups sooner than ingesters take over series.
func (c *RulerRingConfig) Declare(s *config.Set) {
	s.Duration(&c.Heartbeats.Period, "heartbeat_period", 5*time.Second, "How often a ruler sends a heartbeat.").Expert()
	s.Duration(&c.Heartbeats.Timeout, "heartbeat_timeout", 20*time.Second, "Silence after which a ruler counts as dead and others take over its groups.").Expert()
	s.Int(&c.Heartbeats.ForgetPeriods, "auto_forget_unhealthy_periods", 10, "Heartbeat timeouts after which a silent ruler is removed from the ring. 0: never.").Expert()
}

// Validate refuses what cannot work.
func (c *RulerRingConfig) Validate() error { return c.Heartbeats.Validate() }

// rulerRing is the view of the rulers of each other.
func (a *App) rulerRing() (*ring.Ring, error) {
	return a.p.rules.ring.get(func() (*ring.Ring, error) {
		return a.workersRing(ruler.RingName, ruler.RingKey, ring.Config{HeartbeatTimeout: a.cfg.Rules.Ring.Heartbeats.Timeout, ReplicationFactor: 1})
	})
}

// ruler is the one of this process.
func (a *App) ruler() (*ruler.Ruler, error) {
	return a.p.rules.ruler.get(func() (*ruler.Ruler, error) {
		docs, err := a.ruleDocuments()
		if err != nil {
			return nil, err
		}
		q, err := a.querier()
		if err != nil {
			return nil, err
		}
		d, err := a.distributor()
		if err != nil {
			return nil, err
		}
		cluster, err := a.rulers()
		if err != nil {
			return nil, err
		}
		e, err := a.ruleEngine()
		if err != nil {
			return nil, err
		}
		var remote func(context.Context, string, time.Time) (prometheuspromql.Vector, error)
		if c := a.cfg.Rules.Ruler.Remote; c.Address != "" {
			by, err := a.inner("query-frontend")
			if err != nil {
				return nil, err
			}
			queries, err := transport.NewQueries(c.Address, c.Timeout, a.cfg.Clients.Cluster.Wrapper("query-frontend", a.reg)(by))
			if err != nil {
				return nil, config.Wrong("ruler.query_frontend.address", "%w", err)
			}
			remote = queries.Instant
		}
		own, err := a.ownAlertmanager()
		if err != nil {
			return nil, err
		}
		noted, err := a.insights()
		if err != nil {
			return nil, err
		}
		return ruler.New(a.cfg.Rules.Ruler, ruler.Deps{
			Evaluate: remote, Alertmanager: own,
			Logger: a.events(), Reg: a.reg, Limits: a.limits.For, Documents: docs, Cluster: cluster, Engine: notedRules{promql{e, a.limits}, noted}, Storage: q,
			Push: func(ctx context.Context, id tenant.ID, req *remotewrite.Request) error {
				_, err := d.PushFrom(ctx, id, frame.Rule, req)
				return err
			},
		})
	})
}

// ownAlertmanager hands alerts to the alertmanager of this process, nil if it has none.
func (a *App) ownAlertmanager() (func(context.Context, tenant.ID, ...*notifier.Alert) error, error) {
	if !a.cfg.runs("alertmanager") {
		return nil, nil
	}
	m, err := a.alertmanager()
	if err != nil {
		return nil, err
	}
	return m.Notify, nil
}

// ruleDocuments is where rules are kept.
func (a *App) ruleDocuments() (ruler.Documents, error) {
	if a.cfg.Rules.Storage.Backend != ruler.BackendLocal {
		docs, err := a.documents()
		if err != nil {
			return nil, err
		}
		return docstore.NewTexts(docs, nil), nil
	}
	d, err := ruler.OpenDirectory(a.cfg.Rules.Storage.Directory)
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, d.Close)
	return d, nil
}

// ruleEngine evaluates rules beside the engine of queries, so that neither waits for the other.
func (a *App) ruleEngine() (*engine.Engine, error) {
	var reg prometheus.Registerer = a.reg
	if a.cfg.runs("querier") {
		reg = nil // the metrics are those of the engine of queries
	}
	e, err := engine.New(a.cfg.engine(), a.log, reg)
	if err != nil {
		return nil, err
	}
	e.Bound(a.memory, a.limits.For)
	e.TakeTurns(a.turns())
	e.Watch(a.activity)
	a.closers = append(a.closers, e.Close)
	return e, nil
}

// rulers is who else evaluates rules.
func (a *App) rulers() (ruler.Cluster, error) {
	id, err := a.cfg.Ring.ID()
	if err != nil {
		return ruler.Cluster{}, err
	}
	if a.cfg.alone() {
		return ruler.Cluster{Self: id, Alive: func() ([]ruler.Member, error) { return []ruler.Member{{ID: id}}, nil }}, nil
	}
	r, err := a.rulerRing()
	if err != nil {
		return ruler.Cluster{}, err
	}
	clients, err := transport.NewRulers(a.cfg.Clients, transport.ClientDeps{InRing: inRing(r), Registerer: a.reg, Log: a.log})
	if err != nil {
		return ruler.Cluster{}, err
	}
	if err := a.serve("ruler-clients", clients); err != nil {
		return ruler.Cluster{}, err
	}
	return ruler.Cluster{Self: id, Client: clients.For, Alive: func() ([]ruler.Member, error) { return alive(r) }}, nil
}

// alive lists the healthy members of the ring of rulers.
func alive(r *ring.Ring) ([]ruler.Member, error) {
	if r.InstancesCount() == 0 {
		return nil, errs.New(errs.Unavailable, "the ring does not show any ruler yet")
	}
	set, err := r.GetAllHealthy(ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil))
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	var out []ruler.Member
	for _, i := range set.Instances {
		out = append(out, ruler.Member{ID: i.Id, Addr: i.Addr})
	}
	slices.SortFunc(out, func(a, b ruler.Member) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// buildRuler builds the ruler with its gRPC service and its place among the rulers. It leaves that
// place before it stops, so that the others go on at once.
func (a *App) buildRuler() error {
	r, err := a.ruler()
	if err != nil {
		return err
	}
	s, err := a.server()
	if err != nil {
		return err
	}
	rulerpb.RegisterRulerServer(s.GRPC(), r)
	if err := a.serve("ruler", r); err != nil {
		return err
	}
	if a.cfg.alone() {
		return nil
	}
	return a.workersEntry(ruler.RingName, ruler.RingKey, worker{beats: a.cfg.Rules.Ring.Heartbeats, tokens: 1, leave: true})
}

// mountRuler gives the API of rules, in processes that have a ruler.
func (a *App) mountRuler(d *api.Deps) error {
	if !a.cfg.runs("ruler") {
		return nil
	}
	r, err := a.ruler()
	if err != nil {
		return err
	}
	d.Ruler = &api.RulerDeps{Rules: rules.Backends{Editable: a.cfg.Rules.Ruler.EnableAPI, Store: r, Namespaces: ruleNamespaces{r}, Evaluator: r, Preview: previewOf(r), Test: testOf(r)}}
	// Grafana reads this to offer to edit rules.
	d.Build.Features["ruler_config_api"] = strconv.FormatBool(a.cfg.Rules.Ruler.EnableAPI)
	d.Build.Features["federated_rules"] = strconv.FormatBool(a.cfg.Rules.Ruler.Federation.Enabled)
	if a.cfg.alone() {
		return nil
	}
	rulers, err := a.rulerRing()
	if err != nil {
		return err
	}
	d.Ruler.Ring = roster{&members.Roster{KV: rulers.KVClient, Key: ruler.RingKey, Timeout: a.cfg.Rules.Ring.Heartbeats.Timeout}}
	return nil
}

// ruleNamespaces gives a ruler the shape that the API asks for.
type ruleNamespaces struct{ *ruler.Ruler }

// Replace is part of rules.Namespaces.
func (n ruleNamespaces) Replace(ctx context.Context, id tenant.ID, namespace string, data []byte, expect string, trial bool) (rules.Changes, string, error) {
	c, version, err := n.Ruler.Replace(ctx, id, namespace, ruler.Replacement{Data: data, Expect: expect, Trial: trial})
	return rules.Changes(c), version, err
}

// ReplaceAll is part of rules.Namespaces.
func (n ruleNamespaces) ReplaceAll(ctx context.Context, id tenant.ID, with rules.All, allow func(string) error) (rules.Changes, string, error) {
	c, version, err := n.Ruler.ReplaceAll(ctx, id, ruler.Replacement{Data: with.Data, Expect: with.Expect, Trial: with.Trial}, allow)
	return rules.Changes(c), version, err
}

// testOf gives a ruler's unit tests the shape that the API asks for.
func testOf(r *ruler.Ruler) func(context.Context, tenant.ID, []byte) (any, error) {
	return func(ctx context.Context, id tenant.ID, data []byte) (any, error) { return r.UnitTest(ctx, id, data) }
}

// previewOf gives a ruler's preview the shape that the API asks for.
func previewOf(r *ruler.Ruler) func(context.Context, tenant.ID, []byte, time.Time, time.Time) (any, error) {
	return func(ctx context.Context, id tenant.ID, data []byte, start, end time.Time) (any, error) {
		return r.Preview(ctx, id, data, start, end)
	}
}

package alertmanager

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/concurrency"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/matcher/compat"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// The ring of alertmanagers.
const (
	RingName = "alertmanager"
	RingKey  = "alertmanager"
)

const (
	// lookEvery is how often the ring is asked whose the tenants are.
	lookEvery = 2 * time.Second
	// idleAfter is how long the alertmanager of a tenant without configuration runs without use.
	idleAfter = 5 * time.Minute
	// startsAtOnce bounds the tenants that are started or stopped at the same time.
	startsAtOnce = 16
	// stopMost bounds how long one tenant may take to stop.
	stopMost = 20 * time.Second
)

// Replicas are the replicas of one tenant.
type Replicas struct {
	Addrs  []string // of those alive, in the order in which they send
	Quorum int      // of all, dead ones included
}

// Definitions keeps the configurations of tenants, as they were put.
type Definitions interface {
	// Read returns a configuration and its version. Errors: NotFound.
	Read(ctx context.Context, id tenant.ID) (data []byte, version string, err error)
	Write(ctx context.Context, id tenant.ID, data []byte) error
	// Remove deletes a configuration; one that does not exist is no error.
	Remove(ctx context.Context, id tenant.ID) error
	// Versions returns the versions of all configurations.
	Versions(ctx context.Context) (map[tenant.ID]string, error)
}

// Deps is what an Alertmanager stands on.
type Deps struct {
	Logger      *slog.Logger
	Reg         prometheus.Registerer
	Limits      func(tenant.ID) limits.View
	Definitions Definitions
	Bucket      objstore.Bucket // of the state
	Self        string          // address of this replica
	Replicas    func(tenant.ID) (Replicas, error)
	// Client returns the replica at an address, this one included.
	Client func(addr string) (pb.AlertmanagerClient, error)
	// Dial connects to webhooks and the like; nil: over the network, behind the firewall.
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	Grafana GrafanaDocuments // nil: not for Grafana
	// Promoted keeps what a Grafana promoted, as definitions; nil: none.
	Promoted Definitions
}

// Alertmanager runs the alertmanagers of the tenants that this process is a replica of.
type Alertmanager struct {
	services.Service
	pb.UnimplementedAlertmanagerServer

	cfg      Config
	deps     Deps
	log      *slog.Logger
	metrics  *metrics
	tenants  *tenantMetrics
	external *url.URL
	rules    rules
	fallback []byte
	claims   claims
	defs     inForce       // the configurations that tenants run with
	tests    chan struct{} // has an item for each test of receivers that runs
	journal  *journal      // set when it starts; nil: none

	mu        sync.Mutex // guards what follows
	instances map[tenant.ID]*instance
	turns     map[tenant.ID]chan struct{} // closed when the start or stop of a tenant has ended
	known     map[tenant.ID]string        // versions of all configurations
	wrong     map[tenant.ID]refusal       // configurations that cannot be put in force
	begun     bool                        // the journal was read
	stopped   bool
}

// refusal is a configuration that cannot be put in force, and why.
type refusal struct {
	version string
	why     error
}

// noReceiver is the configuration of tenants without one, if no file has another.
const noReceiver = "alertmanager_config: |\n  route:\n    receiver: nobody\n  receivers:\n    - name: nobody\n"

// chosenNames is what chooseNames last chose; nil: nothing.
//
//nolint:gochecknoglobals // Upstream keeps the choice in variables of its package.
var chosenNames atomic.Pointer[bool]

// chooseNames says which names of labels upstream takes. It writes only what is new: others may read.
func chooseNames(strict bool, log *slog.Logger) error {
	if chosen := chosenNames.Load(); chosen != nil && *chosen == strict {
		return nil
	}
	flags := ""
	if strict {
		flags = featurecontrol.FeatureUTF8StrictMode
	}
	features, err := featurecontrol.NewFlags(log, flags)
	if err != nil {
		return err
	}
	compat.InitFromFlags(log, features)
	chosenNames.Store(&strict)
	return nil
}

// New returns an Alertmanager that runs when it is started.
func New(cfg Config, deps Deps) (*Alertmanager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	external, err := url.Parse(cfg.ExternalURL)
	if err != nil {
		return nil, err
	}
	if err := chooseNames(cfg.UTF8Strict, deps.Logger.With("component", "alertmanager")); err != nil {
		return nil, err
	}
	m := &Alertmanager{cfg: cfg, deps: deps, log: deps.Logger.With("component", "alertmanager"), metrics: newMetrics(deps.Reg), external: external,
		fallback: []byte(noReceiver), instances: map[tenant.ID]*instance{}, turns: map[tenant.ID]chan struct{}{}, known: map[tenant.ID]string{}, wrong: map[tenant.ID]refusal{}}
	m.defs, m.tests = inForce{own: deps.Definitions}, make(chan struct{}, testsAtOnce)
	if cfg.Grafana { // what was promoted before it was turned off is kept, out of force
		m.defs.promoted = deps.Promoted
	}
	if m.rules, err = cfg.rules(); err != nil {
		return nil, err
	}
	if cfg.FallbackFile != "" {
		if m.fallback, err = readFallback(cfg.FallbackFile); err != nil {
			return nil, err
		}
	}
	if err := validate(m.rules, external, "fallback", m.fallback, limits.View{}); err != nil {
		return nil, fmt.Errorf("fallback configuration: %w", err)
	}
	m.tenants = newTenantMetrics(deps.Logger)
	deps.Reg.MustRegister(m.tenants)
	m.Service = services.NewBasicService(m.begin, m.run, m.end)
	return m, nil
}

// readFallback reads an alertmanager's configuration file as the definition that loads it.
func readFallback(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("fallback configuration: %w", err)
	}
	return encodeDefinition(Definition{Config: string(text)})
}

func (m *Alertmanager) begin(ctx context.Context) error {
	if m.cfg.DataDir != "" {
		j, err := openJournal(ctx, m.cfg.DataDir, m.log, m.metrics)
		if err != nil {
			return fmt.Errorf("journal of the alertmanager: %w", err)
		}
		m.journal = j
	}
	m.mu.Lock()
	m.begun = true
	m.mu.Unlock()
	if err := m.sync(ctx, atStart); err != nil {
		m.log.Warn("configurations cannot be read, they will be looked for again", "err", err)
	}
	return nil
}

func (m *Alertmanager) run(ctx context.Context) error {
	poll, look := time.NewTicker(m.cfg.PollInterval), time.NewTicker(lookEvery)
	defer poll.Stop()
	defer look.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			err = m.sync(ctx, atTurn)
			m.claims.sweep(time.Now())
			m.tidy(ctx)
		case <-look.C:
			err = m.place(ctx, atChange)
		}
		if err != nil && ctx.Err() == nil {
			m.log.Warn("configurations cannot be brought up to date, they will be looked at again", "err", err)
		}
	}
}

// sync learns which configurations there are and runs those of this replica.
func (m *Alertmanager) sync(ctx context.Context, reason string) error {
	m.metrics.syncs.WithLabelValues(reason).Inc()
	known, err := m.defs.Versions(ctx)
	if err != nil {
		m.metrics.syncFailures.WithLabelValues(reason).Inc()
		return fmt.Errorf("list configurations: %w", err)
	}
	m.mu.Lock()
	m.known = known
	maps.DeleteFunc(m.wrong, func(id tenant.ID, _ refusal) bool { _, has := known[id]; return !has })
	m.mu.Unlock()
	m.metrics.discovered.Set(float64(len(known)))
	return m.place(ctx, reason)
}

// tidy rewrites the journal if it is time. If that fails it goes on as it is.
func (m *Alertmanager) tidy(ctx context.Context) {
	if m.journal == nil || !m.journal.due() {
		return
	}
	mine := func(id tenant.ID) bool { ok, err := m.mine(id); return ok || err != nil }
	err := m.journal.rewrite(ctx, mine, func() []*instance {
		m.mu.Lock()
		defer m.mu.Unlock()
		return slices.Collect(maps.Values(m.instances))
	})
	if err != nil && ctx.Err() == nil {
		m.metrics.journalFailures.Inc()
		m.log.Warn("journal not rewritten, it grows until it is", "err", err)
	}
}

// place starts, changes and stops tenants so that those run here that shall.
func (m *Alertmanager) place(ctx context.Context, reason string) error {
	m.mu.Lock()
	known, wrong := m.known, maps.Clone(m.wrong)
	here := make(map[tenant.ID]*instance, len(m.instances))
	for id, in := range m.instances {
		here[id] = in
	}
	m.mu.Unlock()
	var start []tenant.ID
	owned := 0
	for id, version := range known {
		mine, err := m.mine(id)
		if err != nil {
			m.metrics.ringCheckErrors.Inc()
			m.metrics.syncFailures.WithLabelValues(reason).Inc()
			return err
		}
		if !mine {
			continue
		}
		owned++
		if in := here[id]; (in == nil || in.has() != version) && wrong[id].version != version {
			start = append(start, id)
		}
	}
	m.metrics.owned.Set(float64(owned))
	if reason == atChange && len(start) > 0 {
		m.metrics.syncs.WithLabelValues(reason).Inc()
	}
	var stop []*instance
	now := time.Now()
	for id, in := range here {
		mine, err := m.mine(id)
		_, has := known[id]
		switch {
		case err != nil:
		case !mine, !has && in.fallback.Load() && !in.busy(now), !has && !in.fallback.Load() && m.gone(ctx, id):
			stop = append(stop, in)
		}
	}
	m.stopAll(ctx, stop)
	return concurrency.ForEachJob(ctx, len(start), startsAtOnce, func(ctx context.Context, i int) error {
		if _, err := m.refresh(ctx, start[i]); err != nil && errs.KindOf(err) != errs.NotFound {
			m.log.Error("configuration of a tenant is not in force, an older one stays if there was one", "tenant", string(start[i]), "err", err)
		}
		return nil
	})
}

// gone says whether a configuration that a list does not have is really deleted: it may be newer than
// the list.
func (m *Alertmanager) gone(ctx context.Context, id tenant.ID) bool {
	_, _, err := m.defs.Read(ctx, id)
	return errs.KindOf(err) == errs.NotFound
}

// mine says whether this process is a replica of the tenant.
func (m *Alertmanager) mine(id tenant.ID) (bool, error) {
	r, err := m.deps.Replicas(id)
	return slices.Contains(r.Addrs, m.deps.Self), err
}

// instance returns the tenant's alertmanager, started if it was not. A tenant without configuration
// gets the fallback.
func (m *Alertmanager) instance(ctx context.Context, id tenant.ID) (*instance, error) {
	m.mu.Lock()
	in := m.instances[id]
	m.mu.Unlock()
	if in == nil {
		var err error
		if in, err = m.refresh(ctx, id); err != nil {
			return nil, err
		}
	}
	in.used.Store(time.Now().Unix())
	return in, nil
}

// refresh reads the configuration of a tenant and puts it in force. Errors: Invalid, Unavailable.
func (m *Alertmanager) refresh(ctx context.Context, id tenant.ID) (*instance, error) {
	end, err := m.turn(ctx, id)
	if err != nil {
		return nil, err
	}
	defer end()
	m.mu.Lock()
	begun, stopped := m.begun, m.stopped
	m.mu.Unlock()
	switch {
	case !begun:
		return nil, errs.New(errs.Unavailable, "the alertmanager is starting")
	case stopped:
		return nil, errs.New(errs.Unavailable, "the alertmanager is stopping")
	}
	return m.load(ctx, id)
}

// turn returns once nobody else starts or stops the alertmanager of a tenant; the result lets the
// next one go on. Tenants do not wait for each other.
func (m *Alertmanager) turn(ctx context.Context, id tenant.ID) (end func(), err error) {
	done := make(chan struct{})
	for {
		m.mu.Lock()
		before := m.turns[id]
		if before == nil {
			m.turns[id] = done
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.turns, id)
				m.mu.Unlock()
				close(done)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (m *Alertmanager) load(ctx context.Context, id tenant.ID) (*instance, error) {
	data, version, err := m.defs.Read(ctx, id)
	none := errs.KindOf(err) == errs.NotFound
	if none {
		data, version, err = m.fallback, "", nil
	}
	if err != nil {
		return nil, errs.New(errs.Unavailable, "read the configuration of tenant %s: %w", id, err)
	}
	m.mu.Lock()
	in, wrong := m.instances[id], m.wrong[id]
	m.mu.Unlock()
	switch {
	case in != nil && in.has() == version:
		return in, nil
	case wrong.why != nil && wrong.version == version:
		return nil, wrong.why // it is not read again for every request
	}
	d, err := parse(data, m.rules, limits.View{}) // what was accepted once stays in force under lower limits
	if err != nil {
		return nil, m.refuse(id, version, err)
	}
	fresh := in == nil
	if fresh {
		if in, err = newInstance(m, id); err != nil {
			return nil, err
		}
	}
	if err := in.apply(d, version); err != nil {
		if fresh {
			in.alerts.Close()
		}
		return nil, m.refuse(id, version, err)
	}
	in.fallback.Store(none)
	m.metrics.applied.WithLabelValues(string(id)).Set(1)
	if fresh {
		in.start()
		m.tenants.add(id, in.reg)
		m.mu.Lock()
		m.instances[id] = in
		m.mu.Unlock()
		m.journal.taken(id)
	}
	return in, nil
}

// refuse notes that a configuration cannot be put in force, so that it is not tried again and again.
func (m *Alertmanager) refuse(id tenant.ID, version string, err error) error {
	m.metrics.applied.WithLabelValues(string(id)).Set(0)
	err = fmt.Errorf("configuration of tenant %s: %w", id, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrong[id] = refusal{version, err}
	return err
}

// has is the version of the configuration in force.
func (in *instance) has() string {
	if v := in.version.Load(); v != nil {
		return *v
	}
	return ""
}

// stopAll stops instances. The state of those whose configuration is gone is deleted.
func (m *Alertmanager) stopAll(ctx context.Context, all []*instance) {
	_ = concurrency.ForEachJob(ctx, len(all), startsAtOnce, func(ctx context.Context, i int) error {
		m.stopOne(ctx, all[i])
		return nil
	})
}

func (m *Alertmanager) stopOne(ctx context.Context, in *instance) {
	end, err := m.turn(ctx, in.id)
	if err != nil {
		return // it is stopped the next time that somebody looks
	}
	defer end()
	m.mu.Lock()
	_, has := m.known[in.id]
	current := m.instances[in.id] == in
	if current {
		delete(m.instances, in.id)
	}
	m.mu.Unlock()
	if !current {
		return
	}
	at := in.position()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopMost)
	defer cancel()
	in.stop(stop, has)
	m.tenants.remove(in.id)
	m.metrics.applied.DeleteLabelValues(string(in.id))
	if !has {
		m.journal.forget(in.id)
	}
	if !has && at == 0 {
		if err := m.deps.Bucket.Delete(stop, stateObject(in.id)); err != nil && !m.deps.Bucket.IsObjNotFoundErr(err) {
			m.log.Warn("state of a tenant without configuration not deleted, it is of no use", "tenant", string(in.id), "err", err)
		}
	}
}

// end stops everything; the state of all tenants goes to object storage.
func (m *Alertmanager) end(error) error {
	m.mu.Lock()
	m.stopped = true
	for len(m.turns) > 0 { // who starts a tenant now is waited for, and nobody begins to
		for _, done := range m.turns {
			m.mu.Unlock()
			<-done
			m.mu.Lock()
			break
		}
	}
	var all []*instance
	known := maps.Clone(m.known)
	for _, in := range m.instances {
		all = append(all, in)
		if in.fallback.Load() {
			known[in.id] = "" // kept
		}
	}
	m.known = known
	m.mu.Unlock()
	m.stopAll(context.Background(), all)
	return m.journal.close()
}

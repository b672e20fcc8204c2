package alertmanager

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/inhibit"
	"github.com/prometheus/alertmanager/marker"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/provider/mem"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// maintenance is how often expired silences, notifications and alerts are forgotten.
	maintenance = 15 * time.Minute
	alertGC     = 30 * time.Minute
	// groupMaintenance is how often empty groups are forgotten.
	groupMaintenance = 30 * time.Second
)

// instance is the alertmanager of one tenant on this replica.
type instance struct {
	id       tenant.ID
	m        *Alertmanager
	log      *slog.Logger
	reg      *prometheus.Registry
	external *url.URL
	view     func() limits.View

	*state
	disk      durability
	recalled  bool // the journal had something
	silencer  *silence.Silencer
	groups    marker.GroupMarker
	limit     *alertLimit
	served    served
	repl      *replicator
	sends     inflight
	decisions decisions
	sending   *sending

	dispatchMetrics *dispatch.DispatcherMetrics
	notifyMetrics   *notify.Metrics

	settled  chan struct{} // closed once the state is complete
	dirty    chan struct{} // has one item when the state shall be persisted soon
	cancel   context.CancelFunc
	running  sync.WaitGroup
	fallback atomic.Bool  // runs with the fallback configuration
	used     atomic.Int64 // Unix seconds of the last request

	version atomic.Pointer[string] // of the configuration in force
	built   atomic.Pointer[built]

	mu sync.Mutex // guards apply

	dispatcher atomic.Pointer[dispatching]
	inhibitor  atomic.Pointer[inhibit.Inhibitor]
}

// newInstance makes the parts that outlive configurations. Nothing runs until start.
func newInstance(m *Alertmanager, id tenant.ID) (*instance, error) {
	in := &instance{id: id, m: m, log: m.log.With("tenant", string(id)), reg: prometheus.NewRegistry(), external: m.external,
		view: func() limits.View { return m.deps.Limits(id) }, groups: marker.NewGroupMarker(),
		settled: make(chan struct{}), dirty: make(chan struct{}, 1)}
	in.used.Store(time.Now().Unix())
	var err error
	in.state, err = newState(id, silence.Options{Retention: m.cfg.Retention, Logger: in.log, Metrics: in.reg, EventRecorder: eventrecorder.NopRecorder(),
		Limits: silence.Limits{
			MaxSilences:         func() int { return limits.AlertmanagerMaxSilences.Of(in.view()) },
			MaxSilenceSizeBytes: func() int { return limits.AlertmanagerMaxSilenceSize.Of(in.view()) },
		}})
	if err != nil {
		return nil, err
	}
	in.silencer = silence.NewSilencer(in.silences, in.log, eventrecorder.NopRecorder())
	f := promauto.With(in.reg)
	in.decisions = decisions{replica: m.deps.Self, by: map[model.Fingerprint][]Decision{}}
	in.limit = &alertLimit{view: in.view, deleted: in.decisions.forget, silencer: in.silencer, sizes: map[model.Fingerprint]int{},
		refused: f.NewCounter(prometheus.CounterOpts{Name: "alerts_refused_total", Help: "Alerts over a limit."})}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "alerts_kept", Help: "Alerts."}, func() float64 { n, _ := in.limit.totals(); return float64(n) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "alerts_kept_bytes", Help: "Bytes of alerts."}, func() float64 { _, n := in.limit.totals(); return float64(n) })
	kept, err := mem.NewAlerts(context.Background(), alertGC, 0, in.limit, in.log, eventrecorder.NopRecorder(), in.reg, featurecontrol.NoopFlags{})
	if err != nil {
		return nil, fmt.Errorf("alerts of tenant %s: %w", id, err)
	}
	in.alerts = &alertStore{Alerts: kept, putting: make(chan struct{}, 1), taken: &in.limit.taken}
	in.sending = &sending{log: in.log, view: in.view, dial: m.deps.Dial,
		limited: f.NewCounterVec(prometheus.CounterOpts{Name: "notifications_limited_total", Help: "Notifications over a limit."}, []string{"integration"})}
	in.dispatchMetrics = dispatch.NewDispatcherMetrics(true, in.reg, featurecontrol.NoopFlags{})
	in.notifyMetrics = notify.NewMetrics(in.reg, featurecontrol.NoopFlags{})
	in.disk = durability{id: id, to: m.journal}
	in.repl = newReplicator(in.log, m.metrics, &in.disk, in.state, in.others, in.soon)
	in.silences.SetBroadcast(in.repl.silence)
	in.notified.SetBroadcast(in.repl.notification)
	in.recalled = m.journal.recall(context.Background(), in.state)
	return in, nil
}

// built is what follows from a configuration and does not run yet.
type built struct {
	def          *definition
	tmpl         *template.Template
	receivers    map[string][]notify.Integration
	senders      map[string][]*sender // what the integrations send through
	intervals    map[string][]timeinterval.TimeInterval
	integrations int
}

// build makes receivers and templates of d, all that can be wrong about them. Errors: Invalid.
func build(d *definition, id tenant.ID, external *url.URL, with *sending) (*built, error) {
	b := &built{def: d, receivers: map[string][]notify.Integration{}, senders: map[string][]*sender{}, intervals: map[string][]timeinterval.TimeInterval{}}
	var err error
	if b.tmpl, err = newTemplate(d, id, external); err != nil {
		return nil, err
	}
	for _, r := range d.conf.Receivers {
		if b.receivers[r.Name], b.senders[r.Name], err = with.integrations(r, b.tmpl); err != nil {
			return nil, err
		}
		b.integrations += len(b.receivers[r.Name])
	}
	for _, t := range d.conf.MuteTimeIntervals {
		b.intervals[t.Name] = t.TimeIntervals
	}
	for _, t := range d.conf.TimeIntervals {
		b.intervals[t.Name] = t.TimeIntervals
	}
	return b, nil
}

// apply puts a configuration in force. If it is wrong the one before goes on. Errors: Invalid.
func (in *instance) apply(d *definition, version string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	b, err := build(d, in.id, in.external, in.sending)
	if err != nil {
		return err
	}
	in.inhibitor.Load().Stop()
	in.dispatcher.Load().stop()
	seen := &witness{alertStore: in.alerts}
	inhibitor := inhibit.NewInhibitor(seen, d.conf.InhibitRules, in.log, eventrecorder.NopRecorder())
	p := pipeline{id: in.id, view: in.view, own: in.m.metrics, metrics: in.notifyMetrics, log: in.notified, seen: seen, inhibitor: inhibitor, silencer: in.silencer,
		intervener: timeinterval.NewIntervener(b.intervals), marker: in.groups, others: in, sends: &in.sends, decisions: &in.decisions}
	timeout := func(d time.Duration) time.Duration { return max(d, notify.MinTimeout) + in.wait() }
	root := dispatch.NewRoute(d.conf.Route, nil)
	if most := limits.AlertmanagerMaxRepeatInterval.Of(in.view()); most > 0 {
		root.Walk(func(r *dispatch.Route) { r.RouteOpts.RepeatInterval = min(r.RouteOpts.RepeatInterval, most) })
	}
	dispatcher := &dispatching{Dispatcher: dispatch.NewDispatcher(in.alerts, root, p.stages(b.receivers), in.groups, timeout, groupMaintenance,
		groupLimit{in.view}, in.log, eventrecorder.NopRecorder(), in.dispatchMetrics, b.tmpl)}
	// Inhibition comes first, so that nobody is notified of what it would have held back.
	in.running.Go(inhibitor.Run)
	inhibitor.WaitForLoading()
	in.inhibitor.Store(inhibitor)
	in.running.Go(func() {
		// Before, alerts come in one by one from other replicas, and groups would be told of in parts.
		<-in.settled
		dispatcher.run()
	})
	if in.isSettled() {
		dispatcher.WaitForLoading()
	}
	in.dispatcher.Store(dispatcher)
	in.built.Store(b)
	in.showAPI(d.conf)
	in.version.Store(&version)
	return nil
}

// groupLimit bounds the groups of alerts of a tenant.
type groupLimit struct{ view func() limits.View }

// MaxNumberOfAggregationGroups implements dispatch.Limits.
func (l groupLimit) MaxNumberOfAggregationGroups() int {
	return limits.AlertmanagerMaxGroups.Of(l.view())
}

// start runs what an instance does beside requests and its dispatcher.
func (in *instance) start() {
	ctx, cancel := context.WithCancel(context.Background())
	in.cancel = cancel
	stop := ctx.Done()
	in.running.Go(func() { in.silences.Maintenance(maintenance, "", stop, nil) })
	in.running.Go(func() { in.notified.Maintenance(maintenance, "", stop, nil) })
	in.running.Go(func() { in.repl.run(ctx) })
	in.running.Go(func() { in.settle(ctx) })
	in.running.Go(func() { in.persistLoop(ctx) })
}

// stop ends everything; what is being sent is sent. With keep, the state goes to object storage.
func (in *instance) stop(ctx context.Context, keep bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.dispatcher.Load().stop()
	in.inhibitor.Load().Stop()
	in.sends.close(ctx)
	in.cancel()
	in.running.Wait()
	if keep && in.isSettled() {
		in.persist(ctx)
	}
	in.alerts.Close()
}

// busy says whether an instance that has no configuration of its own is worth keeping.
func (in *instance) busy(now time.Time) bool {
	n, _ := in.limit.totals()
	active, err := in.silences.CountState(context.Background(), silence.SilenceStateActive, silence.SilenceStatePending)
	return n > 0 || err != nil || active > 0 || now.Unix()-in.used.Load() < int64(idleAfter/time.Second)
}

package ruler

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// runner evaluates one group. It has a manager of its own, so that a group that moves to another
// ruler just ends here: a manager marks the series of a group stale that it is told to forget.
type runner struct {
	w       *worker
	key     groupKey
	manager *rules.Manager
	wanted  atomic.Pointer[plan]
	past    catchUp

	mu     sync.Mutex // serialises changes of the manager; guards loaded and ended
	loaded *plan
	ended  bool
}

// plan is a group in the form in which it is evaluated.
type plan struct {
	group   rulefmt.RuleGroup
	sources []tenant.ID // whose series are read; empty: the tenant's own
	align   bool
	text    string // tells plans apart
}

func newRunner(w *worker, key groupKey) *runner {
	r := &runner{w: w, key: key}
	cfg := &w.r.cfg
	external, _ := url.Parse(cfg.ExternalURL.Text) // checked with the settings
	r.manager = rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: model.UTF8Validation, // names were checked when the rules were put
		ExternalURL:          external,
		QueryFunc:            r.query,
		NotifyFunc:           w.notify.send,
		Context:              w.ctx,
		Appendable:           appendable{w},
		Queryable:            w.r.deps.Storage,
		Logger:               w.log.With("namespace", key.namespace),
		OutageTolerance:      cfg.OutageTolerance,
		ForGracePeriod:       cfg.GracePeriod,
		ResendDelay:          cfg.Notifier.ResendDelay,
		GroupLoader:          r,
		DefaultRuleQueryOffset: func() time.Duration {
			return limits.RulerEvaluationDelay.Of(w.limits())
		},
		RuleConcurrencyController: w.slots,
		Metrics:                   w.metrics,
	})
	w.r.metrics.beginGroup(w.id, key.label())
	w.running.Go(r.manager.Run)
	return r
}

// plan returns g as the limits of its tenant let it be evaluated.
func (r *Ruler) plan(id tenant.ID, g Group) *plan {
	v := r.deps.Limits(id)
	p := &plan{group: g.RuleGroup, align: g.AlignEvaluationTime}
	if p.group.QueryOffset == nil {
		p.group.QueryOffset = g.EvaluationDelay
	}
	if r.cfg.Federation.Enabled {
		for _, s := range g.SourceTenants {
			if id, err := tenant.Parse(s); err == nil {
				p.sources = append(p.sources, id)
			}
		}
	}
	if least := limits.RulerMinRuleEvaluationInterval.Of(v); time.Duration(p.group.Interval) < least {
		p.group.Interval = model.Duration(max(least, r.cfg.EvaluationInterval))
		if g.Interval > 0 {
			p.group.Interval = model.Duration(least)
		}
	}
	if most := limits.RulerMaxRuleEvaluationResults.Of(v); most > 0 && (p.group.Limit == 0 || p.group.Limit > most) {
		p.group.Limit = most
	}
	recording, alerting := limits.RulerRecordingRulesEvaluationEnabled.Of(v), limits.RulerAlertingRulesEvaluationEnabled.Of(v)
	p.group.Rules = nil
	for _, rule := range g.Rules {
		if rule.Alert != "" && alerting || rule.Alert == "" && recording {
			p.group.Rules = append(p.group.Rules, rule)
		}
	}
	p.text = digest(Group{RuleGroup: p.group, SourceTenants: g.SourceTenants, AlignEvaluationTime: p.align}) + limits.RulerExternalLabels.Of(v).Labels().String()
	return p
}

// want makes g what is evaluated, soon: an evaluation that runs ends first.
func (r *runner) want(g Group) {
	p := r.w.r.plan(r.w.id, g)
	if old := r.wanted.Swap(p); old != nil && old.text == p.text {
		return
	}
	r.w.running.Go(r.load)
}

func (r *runner) load() {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.wanted.Load()
	if r.ended || r.loaded != nil && r.loaded.text == p.text {
		return
	}
	if err := r.update([]string{r.key.namespace}); err != nil {
		r.w.r.metrics.loadFailures.WithLabelValues(string(r.w.id)).Inc()
		r.w.log.Error("group cannot be evaluated as it was changed, goes on as before", "namespace", r.key.namespace, "group", r.key.name, "err", err)
		return
	}
	r.loaded = p
}

func (r *runner) update(files []string) error {
	return r.manager.Update(r.w.r.cfg.EvaluationInterval, files, r.w.externalLabels(), r.w.r.cfg.ExternalURL.Text, r.iterate)
}

// end ends the evaluation. The series of a deleted group are marked stale, two intervals later, as
// their rules may have moved to another group.
func (r *runner) end(deleted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if deleted && r.loaded != nil {
		every := r.w.r.cfg.EvaluationInterval
		if own := time.Duration(r.loaded.group.Interval); own > 0 {
			every = own
		}
		_ = r.update(nil) // without groups nothing can fail
		wait := time.NewTimer(2*every + 5*time.Second)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.w.r.closing:
		}
	}
	r.manager.Stop()
	r.w.r.metrics.forgetGroup(r.w.id, r.w.metrics, r.key.label())
}

// Load implements rules.GroupLoader.
func (r *runner) Load(string, bool, model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	return &rulefmt.RuleGroups{Groups: []rulefmt.RuleGroup{r.wanted.Load().group}}, nil
}

// Parse implements rules.GroupLoader.
func (r *runner) Parse(text string) (parser.Expr, error) {
	return r.w.r.deps.Engine.ParseExpr(r.w.ctx, text)
}

// iterate is one evaluation of the group.
func (r *runner) iterate(ctx context.Context, g *rules.Group, at time.Time) {
	p := r.wanted.Load()
	if p.align {
		at = at.Truncate(g.Interval())
	}
	r.past.before(ctx, r, g, at)
	began := time.Now()
	rules.DefaultEvalIterationFunc(ctx, g, at)
	r.count(g, began)
	r.past.after(g, at)
}

// count counts the rules whose evaluation since began failed, by who can do something about it. The library
// counts them too, without saying why.
func (r *runner) count(g *rules.Group, began time.Time) {
	for _, rule := range g.Rules() {
		if rule.Health() != rules.HealthBad || rule.GetEvaluationTimestamp().Before(began) {
			continue
		}
		reason := byUser
		if _, ok := errors.AsType[*operatorError](rule.LastError()); ok {
			reason = byOperator
		}
		r.w.r.metrics.evaluationsFailed.WithLabelValues(string(r.w.id), r.key.label(), reason).Inc()
	}
}

// context returns ctx acting for whose series p reads.
func (p *plan) context(ctx context.Context) context.Context {
	if len(p.sources) == 0 {
		return ctx
	}
	return tenant.InjectMany(ctx, p.sources)
}

// externalLabels are added to alerts and known to templates.
func (w *worker) externalLabels() labels.Labels {
	return limits.RulerExternalLabels.Of(w.limits()).Labels()
}

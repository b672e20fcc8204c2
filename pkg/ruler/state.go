package ruler

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// peerTimeout bounds a call to another ruler.
const peerTimeout = 10 * time.Second

// Groups implements rulerpb.RulerServer.
func (r *Ruler) Groups(ctx context.Context, req *rulerpb.GroupsRequest) (*rulerpb.GroupsResponse, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	sel, err := r.selection(ctx, req)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	w := r.tenants[id]
	r.mu.Unlock()
	out := &rulerpb.GroupsResponse{}
	if w == nil {
		return out, nil
	}
	for _, run := range w.all() {
		for _, g := range run.manager.RuleGroups() {
			if !sel.group(g.File(), g.Name()) {
				continue
			}
			if pb := sel.groupState(g, run.wanted.Load()); len(pb.Rules) > 0 {
				out.Groups = append(out.Groups, pb)
			}
		}
	}
	return out, nil
}

// Changed implements rulerpb.RulerServer.
func (r *Ruler) Changed(ctx context.Context, _ *rulerpb.ChangedRequest) (*rulerpb.ChangedResponse, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case r.changed <- id:
	default: // so much changes that the next round through all rules is as good
	}
	return &rulerpb.ChangedResponse{}, nil
}

// selection is a request, ready to be held against groups and rules.
type selection struct {
	*rulerpb.GroupsRequest
	match [][]*labels.Matcher
}

func (r *Ruler) selection(ctx context.Context, req *rulerpb.GroupsRequest) (selection, error) {
	sel := selection{GroupsRequest: req}
	if len(req.Match) == 0 {
		return sel, nil
	}
	var err error
	if sel.match, err = r.deps.Engine.ParseSelectors(ctx, req.Match); err != nil {
		return sel, err
	}
	for _, set := range sel.match {
		if !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return !m.Matches("") }) {
			return sel, errs.New(errs.Invalid, "match[] must contain at least one non-empty matcher")
		}
	}
	return sel, nil
}

func among(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }

func (s selection) group(namespace, name string) bool {
	return among(s.GroupsRequest.Namespaces, namespace) && among(s.GroupsRequest.Groups, name)
}

func (s selection) rule(alerting bool, name string) bool {
	switch s.Kind {
	case rulerpb.GroupsRequest_ALERTING:
		if !alerting {
			return false
		}
	case rulerpb.GroupsRequest_RECORDING:
		if alerting {
			return false
		}
	}
	return among(s.GroupsRequest.Rules, name)
}

// groupState returns g with those of its rules that are asked for.
func (s selection) groupState(g *rules.Group, p *plan) *rulerpb.Group {
	out := &rulerpb.Group{
		Namespace: g.File(), Name: g.Name(), IntervalNs: int64(g.Interval()), Limit: int64(g.Limit()),
		EvaluationNs: int64(g.GetEvaluationTime()), EvaluatedNs: unixNano(g.GetLastEvaluation()),
	}
	for _, id := range p.sources {
		out.SourceTenants = append(out.SourceTenants, string(id))
	}
	for _, r := range g.Rules(s.match...) {
		ar, alerting := r.(*rules.AlertingRule)
		if !s.rule(alerting, r.Name()) {
			continue
		}
		pb := &rulerpb.Rule{
			Alerting: alerting, Name: r.Name(), Query: r.Query().String(), Labels: pairs(r.Labels()), Health: string(r.Health()),
			EvaluationNs: int64(r.GetEvaluationDuration()), EvaluatedNs: unixNano(r.GetEvaluationTimestamp()),
		}
		if err := r.LastError(); err != nil {
			pb.LastError = err.Error()
		}
		if alerting {
			pb.State, pb.ForNs, pb.KeepFiringForNs, pb.Annotations = ar.State().String(), int64(ar.HoldDuration()), int64(ar.KeepFiringFor()), pairs(ar.Annotations())
			if !s.ExcludeAlerts {
				pb.Alerts = alerts(ar)
			}
		}
		out.Rules = append(out.Rules, pb)
	}
	return out
}

func alerts(r *rules.AlertingRule) []*rulerpb.Alert {
	var out []*rulerpb.Alert
	for _, a := range r.ActiveAlerts() {
		out = append(out, &rulerpb.Alert{State: a.State.String(), Labels: pairs(a.Labels), Annotations: pairs(a.Annotations), Value: a.Value,
			ActiveNs: unixNano(a.ActiveAt), KeepFiringSinceNs: unixNano(a.KeepFiringSince)})
	}
	return out
}

func pairs(ls labels.Labels) []*rulerpb.Label {
	var out []*rulerpb.Label
	ls.Range(func(l labels.Label) { out = append(out, &rulerpb.Label{Name: l.Name, Value: l.Value}) })
	return out
}

// unixNano is t since the epoch, 0 if it is no time.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// List returns the groups of a tenant that req selects, wherever they are evaluated, sorted by
// namespace and name. Those that nobody evaluates yet are among them, with the health unknown.
// Errors: Invalid for a selector that cannot be parsed, Unavailable if a ruler does not answer.
func (r *Ruler) List(ctx context.Context, id tenant.ID, req *rulerpb.GroupsRequest) ([]*rulerpb.Group, error) {
	ctx, cancel := context.WithTimeout(tenant.Inject(ctx, id), peerTimeout)
	defer cancel()
	sel, err := r.selection(ctx, req)
	if err != nil {
		return nil, err
	}
	found := map[groupKey]*rulerpb.Group{}
	var mu sync.Mutex // guards found
	err = r.eachPeer(ctx, id, func(ctx context.Context, c rulerpb.RulerClient) error {
		var res *rulerpb.GroupsResponse
		var err error
		if c == nil {
			res, err = r.Groups(ctx, req)
		} else {
			res, err = c.Groups(ctx, req)
		}
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, g := range res.Groups {
			key := groupKey{g.Namespace, g.Name}
			// While a group moves two rulers may have it: the one that evaluated it last knows more.
			if old := found[key]; old == nil || old.EvaluatedNs < g.EvaluatedNs {
				found[key] = g
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := r.addUnknown(ctx, id, sel, found); err != nil {
		return nil, err
	}
	out := make([]*rulerpb.Group, 0, len(found))
	for _, g := range found {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *rulerpb.Group) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// addUnknown adds the groups that are stored and that no ruler has, and leaves out those that are
// stored no more.
func (r *Ruler) addUnknown(ctx context.Context, id tenant.ID, sel selection, found map[groupKey]*rulerpb.Group) error {
	docs, err := r.namespaces(ctx, id)
	if err != nil {
		return err
	}
	stored, broken := map[groupKey]bool{}, map[string]bool{}
	for _, l := range docs {
		_, d, err := r.open(ctx, id, l.namespace)
		if err != nil {
			broken[l.namespace] = errs.KindOf(err) != errs.NotFound // what was in it before is evaluated
			continue
		}
		for _, g := range d.groups {
			key := groupKey{l.namespace, g.Name}
			stored[key] = true
			if found[key] != nil || !sel.group(l.namespace, g.Name) {
				continue
			}
			if pb := sel.unknown(l.namespace, r.plan(id, g)); len(pb.Rules) > 0 {
				found[key] = pb
			}
		}
	}
	maps.DeleteFunc(found, func(key groupKey, _ *rulerpb.Group) bool { return !stored[key] && !broken[key.namespace] })
	return nil
}

// unknown returns a group that nobody has evaluated.
func (s selection) unknown(namespace string, p *plan) *rulerpb.Group {
	out := &rulerpb.Group{Namespace: namespace, Name: p.group.Name, IntervalNs: int64(p.group.Interval), Limit: int64(p.group.Limit)}
	for _, r := range p.group.Rules {
		ls := rules.FromMaps(p.group.Labels, r.Labels)
		if !s.rule(r.Alert != "", r.Alert+r.Record) || !matchesAny(s.match, ls) {
			continue
		}
		pb := &rulerpb.Rule{Alerting: r.Alert != "", Name: r.Alert + r.Record, Query: r.Expr, Labels: pairs(ls), Health: string(rules.HealthUnknown)}
		if pb.Alerting {
			pb.State, pb.ForNs, pb.KeepFiringForNs = rules.StateUnknown.String(), int64(r.For), int64(r.KeepFiringFor)
			pb.Annotations = pairs(labels.FromMap(r.Annotations))
		}
		out.Rules = append(out.Rules, pb)
	}
	return out
}

func matchesAny(sets [][]*labels.Matcher, ls labels.Labels) bool {
	return len(sets) == 0 || slices.ContainsFunc(sets, func(set []*labels.Matcher) bool {
		return !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
	})
}

// eachPeer calls f for every ruler that may evaluate groups of the tenant, with nil for this one, and
// returns the first error.
func (r *Ruler) eachPeer(ctx context.Context, id tenant.ID, f func(context.Context, rulerpb.RulerClient) error) error {
	v, err := r.look()
	if err != nil {
		return errs.Wrap(errs.Unavailable, err)
	}
	members := shard(v.members, id, limits.RulerTenantShardSize.Of(r.deps.Limits(id)))
	problems := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		if m.ID == v.self {
			wg.Go(func() { problems[i] = f(ctx, nil) })
			continue
		}
		c, err := r.deps.Cluster.Client(m.Addr)
		if err != nil {
			problems[i] = err
			continue
		}
		wg.Go(func() {
			if err := f(ctx, c); err != nil {
				problems[i] = fmt.Errorf("ruler %s: %w", m.ID, err)
			}
		})
	}
	wg.Wait()
	for _, err := range problems {
		if err != nil {
			return err
		}
	}
	return nil
}

// announceWait bounds how long a change waits for others to be told.
const announceWait = 2 * time.Second

// Announce tells every ruler that may evaluate groups of the tenant that its rules have changed. One
// that cannot be told finds out by itself, later.
func (r *Ruler) Announce(ctx context.Context, id tenant.ID) {
	if !limits.RulerSyncRulesOnChangesEnabled.Of(r.deps.Limits(id)) {
		return
	}
	ctx, cancel := context.WithTimeout(tenant.Inject(context.WithoutCancel(ctx), id), announceWait)
	defer cancel()
	err := r.eachPeer(ctx, id, func(ctx context.Context, c rulerpb.RulerClient) error {
		var err error
		if c == nil {
			_, err = r.Changed(ctx, nil)
		} else {
			_, err = c.Changed(ctx, &rulerpb.ChangedRequest{})
		}
		return err
	})
	if err != nil {
		r.metrics.untold.WithLabelValues(string(id)).Inc()
		r.log.Warn("not all rulers were told of changed rules, they will find out by themselves", "tenant", id, "err", err)
	}
}

package ruler

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// mostPreviewed bounds the evaluations of one rule in a preview, as the points of a range query are.
	mostPreviewed = 11_000
	// mostShown bounds the series and the alerts that are listed of one rule.
	mostShown = 100
	// previewMost bounds the time of a preview.
	previewMost = 2 * time.Minute
)

// Preview is what rules would have done.
type Preview struct {
	Groups []PreviewedGroup `json:"groups"`
}

// PreviewedGroup is what the rules of one group would have done.
type PreviewedGroup struct {
	Name     string          `json:"name"`
	Interval float64         `json:"interval"` // seconds
	Rules    []PreviewedRule `json:"rules"`
}

// PreviewedRule is what one rule would have done. Only some of its series and alerts are listed if there
// are many.
type PreviewedRule struct {
	Name    string              `json:"name"`
	Type    string              `json:"type"` // recording or alerting
	Error   string              `json:"error,omitempty"`
	Series  int                 `json:"series"`
	Samples int                 `json:"samples"`
	Listed  []map[string]string `json:"seriesLabels,omitempty"`
	Fired   int                 `json:"fired"` // alerts that would have fired
	Alerts  []PreviewedAlert    `json:"alerts,omitempty"`
}

// PreviewedAlert is one time that an alert would have been active. Labels are those of the series and of the
// rule; templates in them are left as they are.
type PreviewedAlert struct {
	Labels   map[string]string `json:"labels"`
	Active   time.Time         `json:"activeAt"`
	Fired    *time.Time        `json:"firedAt,omitempty"`    // nil: it would have stayed pending
	Resolved *time.Time        `json:"resolvedAt,omitempty"` // nil: it would be active still
}

// Preview evaluates a rule file over the past and stores nothing. Rules read what is stored: not what others
// of the file would have recorded. Errors: Invalid.
func (r *Ruler) Preview(ctx context.Context, id tenant.ID, data []byte, start, end time.Time) (*Preview, error) {
	d, err := r.check.file(ctx, id, "", data)
	if err != nil {
		return nil, err
	}
	if !start.Before(end) {
		return nil, errs.New(errs.Invalid, "the end of the time is not after its start")
	}
	ctx, cancel := context.WithTimeout(tenant.Inject(ctx, id), previewMost)
	defer cancel()
	out := &Preview{Groups: []PreviewedGroup{}}
	for _, g := range d.groups {
		if len(g.SourceTenants) > 0 {
			return nil, errs.New(errs.Invalid, "group %q: rules that read other tenants have no preview", g.Name)
		}
		p := r.plan(id, g)
		every := cmp.Or(time.Duration(p.group.Interval), r.cfg.EvaluationInterval)
		if n := end.Sub(start) / every; n > mostPreviewed {
			return nil, errs.New(errs.Invalid, "group %q would be evaluated %d times, at most %d are allowed; choose a shorter time", g.Name, n, mostPreviewed)
		}
		x := PreviewedGroup{Name: g.Name, Interval: every.Seconds(), Rules: []PreviewedRule{}}
		for _, rule := range g.Rules {
			one := PreviewedRule{Name: rule.Record + rule.Alert, Type: "recording"}
			m, err := r.rangeOf(ctx, rule.Expr, start, end, every)
			switch {
			case ctx.Err() != nil:
				return nil, errs.New(errs.Timeout, "the preview takes longer than %s; choose a shorter time or fewer rules", previewMost)
			case err != nil:
				one.Error = err.Error()
			case rule.Alert != "":
				one.Type = "alerting"
				ls := rules.FromMaps(g.Labels, rule.Labels)
				one.alerts(m, ls, steps{start, end, every, time.Duration(rule.For), time.Duration(rule.KeepFiringFor)})
			default:
				one.recorded(m, rules.FromMaps(g.Labels, rule.Labels))
			}
			x.Rules = append(x.Rules, one)
		}
		out.Groups = append(out.Groups, x)
	}
	return out, nil
}

// rangeOf evaluates an expression at every step of a time.
func (r *Ruler) rangeOf(ctx context.Context, expr string, start, end time.Time, every time.Duration) (promql.Matrix, error) {
	q, err := r.deps.Engine.NewRangeQuery(ctx, r.deps.Storage, nil, expr, start, end, every)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, res.Err
	}
	m, err := res.Matrix()
	if err != nil {
		return nil, err
	}
	out := make(promql.Matrix, len(m)) // the query's own memory ends with it
	for i, s := range m {
		out[i] = promql.Series{Metric: s.Metric.Copy(), Floats: slices.Clone(s.Floats), Histograms: slices.Clone(s.Histograms)}
	}
	return out, nil
}

// recorded notes the series that a recording rule would have made.
func (p *PreviewedRule) recorded(m promql.Matrix, ls labels.Labels) {
	p.Series = len(m)
	for i, s := range m {
		p.Samples += len(s.Floats) + len(s.Histograms)
		if i < mostShown {
			b := labels.NewBuilder(s.Metric)
			b.Set(model.MetricNameLabel, p.Name)
			ls.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
			p.Listed = append(p.Listed, b.Labels().Map())
		}
	}
}

// steps are the evaluations of an alerting rule.
type steps struct {
	start, end        time.Time
	every, hold, keep time.Duration
}

// alerts notes when the alerts of a rule would have been active.
func (p *PreviewedRule) alerts(m promql.Matrix, ls labels.Labels, by steps) {
	p.Series = len(m)
	for _, s := range m {
		p.Samples += len(s.Floats) + len(s.Histograms)
		active := map[int64]bool{}
		for _, x := range s.Floats {
			active[x.T] = true
		}
		for _, x := range s.Histograms {
			active[x.T] = true
		}
		b := labels.NewBuilder(s.Metric)
		b.Del(model.MetricNameLabel)
		ls.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		b.Set(labels.AlertName, p.Name)
		for _, a := range by.walk(active) {
			if a.Fired != nil {
				p.Fired++
			}
			if len(p.Alerts) < mostShown {
				a.Labels = b.Labels().Map()
				p.Alerts = append(p.Alerts, a)
			}
		}
	}
	slices.SortStableFunc(p.Alerts, func(a, b PreviewedAlert) int { return a.Active.Compare(b.Active) })
}

// walk returns when an alert is active whose expression has a value at some steps, as a manager of rules
// would have it: pending until hold is over, and then firing until the value is gone for keep.
func (by steps) walk(active map[int64]bool) []PreviewedAlert {
	var out []PreviewedAlert
	var now *PreviewedAlert
	var gone time.Time // when the value of one that fires went away
	for at := by.start; !at.After(by.end); at = at.Add(by.every) {
		if active[timestamp.FromTime(at)] {
			gone = time.Time{}
			if now == nil {
				now = &PreviewedAlert{Active: at}
			}
			if now.Fired == nil && at.Sub(now.Active) >= by.hold {
				fired := at
				now.Fired = &fired
			}
			continue
		}
		if now == nil {
			continue
		}
		if gone.IsZero() {
			gone = at
		}
		if now.Fired != nil && by.keep > 0 && at.Sub(gone) < by.keep {
			continue
		}
		resolved := at
		now.Resolved = &resolved
		out, now, gone = append(out, *now), nil, time.Time{}
	}
	if now != nil {
		out = append(out, *now)
	}
	return out
}

package usage

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Stored is what a tenant has.
type Stored struct {
	Metrics map[string]int // series of each
	Labels  map[string]Label
}

// Label is how often there is a label.
type Label struct{ Series, Values int } // Values is 0 if they were not counted

// Ask is what a report is about.
type Ask struct {
	Days   int // up to today
	Limit  int // entries of each list
	Unused bool
}

// Report says what a tenant has and when it was asked for. Never or longest ago comes first, then what is largest.
type Report struct {
	From string `json:"from"` // days of UTC
	To   string `json:"to"`
	Days int    `json:"days"`
	// ObservedSince is the first day of those on which it was noted what is asked for, and ObservedDays how many they are.
	ObservedSince string `json:"observed_since"`
	ObservedDays  int    `json:"observed_days"`
	// Incomplete is the last day on which the tenant asked for more names than are remembered, or for something while this
	// was not noted; nothing is then called unused.
	Incomplete string `json:"incomplete,omitempty"`

	Totals struct {
		Metrics       int `json:"metrics"`
		UnusedMetrics int `json:"unused_metrics"`
		Series        int `json:"series"`
		UnusedSeries  int `json:"unused_series"`
		Labels        int `json:"labels"`
		UnusedLabels  int `json:"unused_labels"`
	} `json:"totals"`
	Metrics  []Metric   `json:"metrics"`
	Labels   []LabelUse `json:"labels"`
	Patterns []Pattern  `json:"patterns"`
	Unnamed  *Use       `json:"selectors_without_name,omitempty"`
	Notes    []string   `json:"notes"`
}

// Use is when something was asked for, as days of UTC; empty: never as far as it is remembered.
type Use struct {
	Last      string `json:"last_asked,omitempty"`
	Rule      string `json:"last_rule,omitempty"`
	Dashboard string `json:"last_dashboard,omitempty"`
	AdHoc     string `json:"last_ad_hoc,omitempty"`
}

// Metric is a metric of a report.
type Metric struct {
	Name   string `json:"name"`
	Series int    `json:"series"`
	Unused bool   `json:"unused"`
	Use
	last day
}

// LabelUse is a label of a report.
type LabelUse struct {
	Name   string `json:"name"`
	Series int    `json:"series"`
	Values int    `json:"values,omitempty"`
	Unused bool   `json:"unused"`
	Use
	last day
}

// Pattern is a regular expression of names that was asked for. A wide one matches whatever there is: what it matches does
// not count as used.
type Pattern struct {
	Pattern string `json:"pattern"`
	Wide    bool   `json:"wide"`
	Metrics int    `json:"metrics"` // that it matches
	Use
	last day
}

func useOf(a asked) Use {
	return Use{Last: a.last().String(), Rule: a[work.Rule].String(), Dashboard: a[work.Dashboard].String(), AdHoc: a[work.AdHoc].String()}
}

// remarks are what a reader of a report must know.
func remarks() []string {
	return []string{
		"Rules, dashboards, their variables, remote read and exports count as use, from the day on which this was first observed.",
		"Selectors without a name, and regular expressions that match every name, read all metrics; they make none of them used.",
		"A label counts as used where a query names it. Labels that are only shown, as in legends, are not seen: look before you drop one.",
		"Up to a few minutes of what was asked for may be missing.",
	}
}

// MostDays is how many days a report may be about.
func (t *Tracker) MostDays() int { return int(t.days()) }

// Report says what of what a tenant has it asked for. Errors: Invalid, Unavailable.
func (t *Tracker) Report(ctx context.Context, id tenant.ID, have Stored, ask Ask) (*Report, error) {
	if ask.Days < 1 || ask.Days > t.MostDays() {
		return nil, errs.New(errs.Invalid, "days is %d; it must be from 1 to %d, which is how long it is remembered", ask.Days, t.MostDays())
	}
	today := dayOf(t.deps.Now())
	from := today - day(ask.Days) + 1
	all, err := t.known(ctx, id, today)
	if err != nil {
		return nil, err
	}
	o, err := t.observed(ctx)
	if err != nil {
		return nil, err
	}
	r := &Report{From: from.String(), To: today.String(), Days: ask.Days, Notes: remarks()}
	for _, d := range o.Days {
		if d >= from && d <= today {
			r.ObservedSince = cmp.Or(r.ObservedSince, d.String())
			r.ObservedDays++
		}
	}
	if all.Lost >= from {
		r.Incomplete = all.Lost.String()
	}
	// What was not observed is not called unused either.
	claims := r.Incomplete == "" && r.ObservedDays > 0
	if all.Unnamed.last() > 0 {
		r.Unnamed = new(useOf(all.Unnamed))
	}
	if err := r.metrics(ctx, all, have, func(last day) bool { return claims && last < from }); err != nil {
		return nil, err
	}
	r.labels(all, have, func(last day) bool { return claims && last < from })
	r.cut(ask)
	return r, nil
}

// known is what is remembered of a tenant, with what this process has not written yet.
func (t *Tracker) known(ctx context.Context, id tenant.ID, today day) (*notes, error) {
	d, err := t.deps.Documents.Get(ctx, documentKey(id))
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return nil, err
	}
	all, err := t.read(d, today)
	if err != nil {
		return nil, err
	}
	if n := t.of(id); n != nil {
		n.mu.RLock()
		all.merge(&n.today)
		all.merge(&n.pending)
		n.mu.RUnlock()
	}
	return all, nil
}

func (t *Tracker) observed(ctx context.Context) (observed, error) {
	d, err := t.deps.Documents.Get(ctx, observedKey)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return observed{}, err
	}
	return observedOf(d), nil
}

// neverDropped are read by parts of Amphora without a query.
func neverDropped(metric string) bool { return metric == "ALERTS_FOR_STATE" }

func (r *Report) metrics(ctx context.Context, all *notes, have Stored, unused func(day) bool) error {
	use := make(map[string]asked, len(have.Metrics))
	for m := range have.Metrics {
		use[m] = all.Names[metricKind][m]
	}
	for _, text := range slices.Sorted(maps.Keys(all.Names[patternKind])) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m, err := labels.NewFastRegexMatcher(text)
		if err != nil {
			continue // a later version knows more
		}
		a := all.Names[patternKind][text]
		p := Pattern{Pattern: text, Wide: wide(m), Use: useOf(a), last: a.last()}
		for of, was := range use {
			if !m.MatchString(of) {
				continue
			}
			p.Metrics++
			if !p.Wide {
				was.merge(a)
				use[of] = was
			}
		}
		r.Patterns = append(r.Patterns, p)
	}
	for m, series := range have.Metrics {
		a := use[m]
		x := Metric{Name: m, Series: series, Unused: unused(a.last()) && !neverDropped(m), Use: useOf(a), last: a.last()}
		r.Totals.Metrics++
		r.Totals.Series += series
		if x.Unused {
			r.Totals.UnusedMetrics++
			r.Totals.UnusedSeries += series
		}
		r.Metrics = append(r.Metrics, x)
	}
	return nil
}

// wide says whether a regular expression matches names whatever they are: two that nobody has.
func wide(m *labels.FastRegexMatcher) bool {
	return m.MatchString("zqx") && m.MatchString("q:9_ZQX_seconds")
}

func (r *Report) labels(all *notes, have Stored, unused func(day) bool) {
	for l, of := range have.Labels {
		a := all.Names[labelKind][l]
		// What reads a histogram of buckets reads le, whether it says so or not.
		x := LabelUse{Name: l, Series: of.Series, Values: of.Values, Unused: unused(a.last()) && l != labels.BucketLabel, Use: useOf(a), last: a.last()}
		r.Totals.Labels++
		if x.Unused {
			r.Totals.UnusedLabels++
		}
		r.Labels = append(r.Labels, x)
	}
}

// cut sorts the lists and shortens them.
func (r *Report) cut(ask Ask) {
	if ask.Unused {
		r.Metrics = slices.DeleteFunc(r.Metrics, func(m Metric) bool { return !m.Unused })
		r.Labels = slices.DeleteFunc(r.Labels, func(l LabelUse) bool { return !l.Unused })
	}
	slices.SortFunc(r.Metrics, func(a, b Metric) int {
		return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(b.Series, a.Series), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(r.Labels, func(a, b LabelUse) int {
		return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(b.Values, a.Values), cmp.Compare(b.Series, a.Series), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(r.Patterns, func(a, b Pattern) int {
		return cmp.Or(cmp.Compare(b.last, a.last), cmp.Compare(a.Pattern, b.Pattern))
	})
	r.Metrics = append([]Metric{}, r.Metrics[:min(len(r.Metrics), ask.Limit)]...)
	r.Labels = append([]LabelUse{}, r.Labels[:min(len(r.Labels), ask.Limit)]...)
	r.Patterns = append([]Pattern{}, r.Patterns[:min(len(r.Patterns), ask.Limit)]...)
}

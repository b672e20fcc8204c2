package ingester

import (
	"context"
	"maps"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// grouping keeps the cohorts of one tenant at its limits. It is used by one goroutine at a time but
// for what says otherwise.
type grouping struct {
	epoch    uint64        // of the limits last looked at
	rules    *cohortRules  // those in force
	overflow time.Time     // since when usage is attributed to one for all; zero: it is not
	sorting  chan struct{} // closed when the series of other rules have found their cohorts; nil: they have
}

// regroup applies the rules of v to series that come from now on. It says whether those rules are
// other ones than before.
func (t *tenantHead) regroup(v limits.View) bool {
	g := &t.grouping
	if g.epoch == v.Epoch() && (g.rules != nil || g.epoch != 0) {
		return false
	}
	g.epoch = v.Epoch()
	r := newCohortRules(v)
	if r == nil && g.rules == nil || r != nil && g.rules != nil && r.text == g.rules.text {
		return false
	}
	g.rules = r
	t.activity.regroup(r)
	return true
}

// refreshGroups notices changed rules, and tries to tell tuples apart again after an overflow has
// lasted for the cooldown.
func (t *tenantHead) refreshGroups(now time.Time) {
	g := &t.grouping
	if g.sorting != nil {
		select {
		case <-g.sorting:
			g.sorting = nil
		default:
			return // what is under way must end first
		}
	}
	changed := t.regroup(t.ing.limits(t.id))
	switch {
	case changed || !t.activity.overflowing():
		g.overflow = time.Time{}
	case g.overflow.IsZero():
		g.overflow = now
	case now.Sub(g.overflow) >= max(g.rules.cooldown, t.ing.untangle):
		t.activity.regroup(g.rules)
		g.overflow, changed = time.Time{}, true
	}
	if !changed || g.rules == nil {
		return
	}
	done := make(chan struct{})
	g.sorting = done
	t.activity.sorting.Store(true)
	t.ing.background.start(func() {
		defer close(done)
		defer t.activity.sorting.Store(false)
		if !t.enter() {
			return
		}
		defer t.leave()
		err := t.head.ForEachSeries(func(ref head.Ref, ls labels.Labels) error {
			t.activity.sortAgain(ref, ls)
			if !t.ing.readable.Load() {
				return context.Canceled
			}
			return nil
		})
		if err != nil {
			t.ing.log.Warn("series not sorted by changed limits, trackers and label sets count too few", "tenant", t.id, "err", err)
		}
	})
}

// overLabelSet returns why a new series ls may not be, nil if no label set forbids it.
func (t *tenantHead) overLabelSet(ls labels.Labels) error {
	set, ok := t.activity.fullSet(ls, func(max int) int64 { return int64(t.localLimit(max)) })
	if !ok {
		return nil
	}
	row := limits.LimitsPerLabelSet.Row()
	return &refusal{reasonSeriesPerLabelSet, errs.Limit(errs.Invalid, "max-series-per-label-set", row.Flag, row.Name,
		"the limit of %d series with the labels %s is reached, series %s is beyond it", set.MaxSeries, set.Labels, ls)}
}

// fullSet returns the first label set of ls that has no room for one more series; share is this
// ingester's part of a limit.
func (a *activity) fullSet(ls labels.Labels, share func(int) int64) (limits.LabelSetLimit, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rules == nil {
		return limits.LabelSetLimit{}, false
	}
	var scratch [16]uint32
	for _, n := range a.rules.setsOf(scratch[:0], ls) {
		if s := a.rules.sets[n]; s.MaxSeries > 0 && a.sets[n].owned >= share(s.MaxSeries) {
			return s, true
		}
	}
	return limits.LabelSetLimit{}, false
}

// overflowing says whether there are too many tuples to tell them apart.
func (a *activity) overflowing() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.overflow != nil
}

// refused attributes the refusal of a sample of the series that ref or, if that is 0, ls names.
func (a *activity) refused(ref head.Ref, ls labels.Labels, why reason) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rules == nil || len(a.rules.attribution) == 0 {
		return
	}
	var to *tuple
	if p, k := a.page(uint64(ref)/pageSeries), uint64(ref)%pageSeries; ref != 0 && p != nil {
		if n := a.cohortOf(p, k); n != 0 {
			to = a.list[n].tuple
		}
	}
	if to == nil {
		if ls.IsEmpty() {
			return // its cohort is not known yet
		}
		var scratch [256]byte
		key, at := a.rules.key(scratch[:0], ls)
		to = a.tupleOf(key[at:])
	}
	if to.refused == nil {
		to.refused = map[reason]int64{}
	}
	to.refused[why]++
}

// tracked is the counts of one tracker, label set or tuple.
type tracked struct {
	tally
	name    string               // of a tracker
	limit   limits.LabelSetLimit // of a label set
	tuple   []string             // values, of what usage is attributed to
	refused map[reason]int64     // samples, of a tuple
}

// byTracker returns the counts of each tracker.
func (a *activity) byTracker() []tracked {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []tracked
	for n, t := range a.trackers {
		out = append(out, tracked{tally: t, name: a.rules.trackers[n].Name})
	}
	return out
}

// bySet returns the counts of each label set.
func (a *activity) bySet() []tracked {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []tracked
	for n, t := range a.sets {
		out = append(out, tracked{tally: t, limit: a.rules.sets[n]})
	}
	return out
}

// byTuple returns the labels that usage is attributed by and the counts of each tuple, of one for
// all if there are too many.
func (a *activity) byTuple() ([]limits.AttributionLabel, []tracked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rules == nil || len(a.rules.attribution) == 0 {
		return nil, nil
	}
	by := a.rules.attribution
	if a.overflow != nil {
		all := tracked{tally: a.total, refused: maps.Clone(a.overflow.refused)}
		for range by {
			all.tuple = append(all.tuple, overflowValue)
		}
		return by, []tracked{all}
	}
	out := make([]tracked, 0, len(a.tuples))
	for _, t := range a.tuples {
		out = append(out, tracked{tally: t.tally, tuple: t.values, refused: maps.Clone(t.refused)})
	}
	return by, out
}

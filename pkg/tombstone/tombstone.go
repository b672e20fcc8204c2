// Package tombstone owns the samples of a tenant that are hidden before their bytes are gone:
// requests to delete series, and retention by selector. Queries hide what a Set covers, and the
// compactor omits it from the blocks it writes.
package tombstone

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

// Intervals are stretches of time in milliseconds, both ends included, in order and apart.
type Intervals = tombstones.Intervals

// Tombstone says that samples with MinTime <= t <= MaxTime (milliseconds) of some series are gone.
type Tombstone struct {
	// ID stays the same for as long as the tombstone hides the same series.
	ID               string
	MinTime, MaxTime int64

	// A series is hidden that one of the selectors selects and none of except. Without matchers, a selector
	// selects every series.
	selectors, except [][]*labels.Matcher
}

// New returns a tombstone of the series that one of the selectors selects and none of except.
func New(mint, maxt int64, selectors, except [][]*labels.Matcher) Tombstone {
	return Tombstone{MinTime: mint, MaxTime: maxt, selectors: selectors, except: except}
}

// Series says whose samples t hides, as New is told; they must not be changed.
func (t *Tombstone) Series() (selectors, except [][]*labels.Matcher) { return t.selectors, t.except }

func (t *Tombstone) hides(ls labels.Labels) bool {
	return matchesAny(t.selectors, ls) && !matchesAny(t.except, ls)
}

// Overlaps says whether t may hide samples with mint <= t <= maxt.
func (t *Tombstone) Overlaps(mint, maxt int64) bool { return t.MinTime <= maxt && mint <= t.MaxTime }

// Set is the tombstones of one tenant at one moment, immutable. The zero Set hides nothing.
type Set struct{ list []Tombstone }

// SetOf returns the set of some tombstones.
func SetOf(list []Tombstone) Set { return Set{list: list} }

// Join returns the tombstones of both sets.
func Join(a, b Set) Set {
	if len(a.list) == 0 {
		return b
	}
	if len(b.list) == 0 {
		return a
	}
	return Set{list: slices.Concat(a.list, b.list)}
}

// List returns the tombstones, which must not be changed.
func (s Set) List() []Tombstone { return s.list }

// Empty says whether nothing is hidden.
func (s Set) Empty() bool { return len(s.list) == 0 }

// Selectors returns what tombstones of requests select. known is false if others hide series, too.
func (s Set) Selectors() (selectors [][]*labels.Matcher, known bool) {
	known = true
	for i := range s.list {
		if s.list[i].Lapses() {
			known = false
			continue
		}
		selectors = append(selectors, s.list[i].selectors...)
	}
	return selectors, known
}

// Lapsed is the latest time up to which a retention hides samples; known is false if there is none.
func (s Set) Lapsed() (at int64, known bool) {
	for i := range s.list {
		if t := &s.list[i]; t.Lapses() && (!known || t.MaxTime > at) {
			at, known = t.MaxTime, true
		}
	}
	return at, known
}

// In returns the tombstones that may hide samples with mint <= t <= maxt.
func (s Set) In(mint, maxt int64) Set {
	if !slices.ContainsFunc(s.list, func(t Tombstone) bool { return t.Overlaps(mint, maxt) }) {
		return Set{}
	}
	return s.Pick(func(t *Tombstone) bool { return t.Overlaps(mint, maxt) })
}

// Of returns what is hidden of the series ls.
func (s Set) Of(ls labels.Labels) Intervals {
	var out Intervals
	for i := range s.list {
		if t := &s.list[i]; t.hides(ls) {
			out = out.Add(tombstones.Interval{Mint: t.MinTime, Maxt: t.MaxTime})
		}
	}
	return out
}

// Covers says whether nothing of mint <= t <= maxt is left.
func Covers(hidden Intervals, mint, maxt int64) bool {
	return tombstones.Interval{Mint: mint, Maxt: maxt}.IsSubrange(hidden)
}

// matchesAny says whether a series matches all matchers of any selector.
func matchesAny(selectors [][]*labels.Matcher, ls labels.Labels) bool {
	return slices.ContainsFunc(selectors, func(ms []*labels.Matcher) bool { return matches(ms, ls) })
}

func matches(ms []*labels.Matcher, ls labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// Retention returns what a tenant's retention by selector hides now. The first rule that matches a
// series decides how long its samples stay; those of a series that no rule matches stay as long as
// the tenant's blocks otherwise would.
func Retention(v limits.View, now time.Time) Set {
	rules := limits.RetentionBySelector.Of(v).List()
	if len(rules) == 0 {
		return Set{}
	}
	hash := xxhash.New()
	var out Set
	var before [][]*labels.Matcher // of the rules that decide first
	for i, r := range rules {
		_, _ = fmt.Fprintf(hash, "%s\xff%s\xff", r.Selector, r.Period) // it never fails
		if r.Period > 0 {
			out.list = append(out.list, older(fmt.Sprintf("retention-%d-%016x", i, hash.Sum64()), now, r.Period, r.Matchers, before))
		}
		before = append(slices.Clip(before), r.Matchers)
	}
	if keep := limits.CompactorBlocksRetentionPeriod.Of(v); keep > 0 {
		_, _ = fmt.Fprintf(hash, "%s", keep)
		out.list = append(out.list, older(fmt.Sprintf("retention-%016x", hash.Sum64()), now, keep, nil, before))
	}
	return out
}

func older(id string, now time.Time, keep time.Duration, selector []*labels.Matcher, except [][]*labels.Matcher) Tombstone {
	t := New(math.MinInt64, now.Add(-keep).UnixMilli()-1, [][]*labels.Matcher{selector}, except)
	t.ID = id
	return t
}

// KeepAll is how long the tenant's blocks must stay for the longest of its retentions; 0: for ever.
func KeepAll(v limits.View) time.Duration {
	keep := limits.CompactorBlocksRetentionPeriod.Of(v)
	for _, r := range limits.RetentionBySelector.Of(v).List() {
		if keep == 0 || r.Period == 0 {
			return 0
		}
		keep = max(keep, r.Period)
	}
	return keep
}

// Lapses says whether t ends the life of samples by their age, so that it hides more every moment.
func (t *Tombstone) Lapses() bool { return strings.HasPrefix(t.ID, "retention-") }

// Pick returns the tombstones for which keep says so.
func (s Set) Pick(keep func(*Tombstone) bool) Set {
	var out Set
	for i := range s.list {
		if keep(&s.list[i]) {
			out.list = append(out.list, s.list[i])
		}
	}
	return out
}

package ingester

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

// cohortRules says what the series of a tenant count for besides the totals: trackers, label sets
// with limits, and values that usage is attributed to. It is not changed once it is made.
type cohortRules struct {
	trackers    []limits.Tracker
	sets        []limits.LabelSetLimit
	attribution []limits.AttributionLabel
	maxTuples   int
	cooldown    time.Duration

	text   string // two rules with the same text mean the same
	byOne  map[labels.Label][]int
	others int // position in sets of the one for series in no other, -1 if there is none
}

// newCohortRules returns the rules of a tenant with the limits v, nil if there are none.
func newCohortRules(v limits.View) *cohortRules {
	more := limits.ActiveSeriesAdditionalCustomTrackers.Of(v)
	if most := limits.MaxActiveSeriesAdditionalCustomTrackers.Of(v); most > 0 {
		more = more.First(most)
	}
	r := &cohortRules{
		trackers:    limits.ActiveSeriesCustomTrackers.Of(v).With(more).List(),
		sets:        limits.LimitsPerLabelSet.Of(v).List(),
		attribution: limits.Attribution(v),
		maxTuples:   limits.MaxCostAttributionCardinality.Of(v),
		cooldown:    limits.CostAttributionCooldown.Of(v),
		byOne:       map[labels.Label][]int{},
		others:      -1,
	}
	if len(r.trackers)+len(r.sets)+len(r.attribution) == 0 {
		return nil
	}
	var b strings.Builder
	for _, t := range r.trackers {
		fmt.Fprintf(&b, "%q=%q ", t.Name, t.Selector)
	}
	for n, s := range r.sets {
		fmt.Fprintf(&b, "%s=%d ", s.Labels, s.MaxSeries)
		one := true
		s.Labels.Range(func(l labels.Label) {
			if one {
				r.byOne[l] = append(r.byOne[l], n)
			}
			one = false
		})
		if s.Labels.IsEmpty() {
			r.others = n
		}
	}
	fmt.Fprintf(&b, "%q %d %s", r.attribution, r.maxTuples, r.cooldown)
	r.text = b.String()
	return r
}

// setsOf appends the positions of the sets that ls counts in to out.
func (r *cohortRules) setsOf(out []uint32, ls labels.Labels) []uint32 {
	if len(r.sets) == 0 {
		return out
	}
	from := len(out)
	ls.Range(func(l labels.Label) {
		for _, n := range r.byOne[l] {
			if hasAll(ls, r.sets[n].Labels) {
				out = append(out, uint32(n))
			}
		}
	})
	if len(out) == from && r.others >= 0 {
		out = append(out, uint32(r.others))
	}
	return out
}

func hasAll(ls, want labels.Labels) bool {
	all := true
	want.Range(func(l labels.Label) { all = all && ls.Get(l.Name) == l.Value })
	return all
}

// The values that stand for a label that a series does not have, and for all once there are too
// many.
const (
	missingValue  = "__missing__"
	overflowValue = "__overflow__"
)

// tupleSeparator ends a value in a key; it does not occur in UTF-8.
const tupleSeparator = 0xff

// key appends to b what names the cohort of ls: the trackers and sets it counts for, and from
// position tuple on the values it is attributed to.
func (r *cohortRules) key(b []byte, ls labels.Labels) (key []byte, tuple int) {
	for n := range r.trackers {
		if matches(r.trackers[n].Matchers, ls) {
			b = binary.AppendUvarint(b, uint64(n)+1)
		}
	}
	b = append(b, 0)
	var scratch [16]uint32
	for _, n := range r.setsOf(scratch[:0], ls) {
		b = binary.AppendUvarint(b, uint64(n)+1)
	}
	b = append(b, 0)
	tuple = len(b)
	for _, a := range r.attribution {
		v := ls.Get(a.Input)
		if v == "" {
			v = missingValue
		}
		b = append(append(b, v...), tupleSeparator)
	}
	return b, tuple
}

func matches(ms []*labels.Matcher, ls labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// cohort is the series that count for the same.
type cohort struct {
	key            string
	series         int64
	trackers, sets []uint32
	tuple          *tuple // nil: usage is not attributed
}

// tuple is values that usage is attributed to.
type tuple struct {
	tally
	refused map[reason]int64 // samples
	values  []string
	cohorts int
}

// cohorts are the cohorts of one tenant under one set of rules. They are guarded by activity.mu.
type cohorts struct {
	rules *cohortRules // nil: there are none
	// generation tells the numbers of these cohorts from those under former rules.
	generation uint32

	list           []cohort // by number; 0 is none
	free           []uint32
	byKey          map[string]uint32
	trackers, sets []tally // by position in rules
	tuples         map[string]*tuple
	// overflow is what is attributed to once there are too many tuples, nil if there are not.
	overflow *tuple
}

func newCohorts(r *cohortRules, generation uint32) cohorts {
	c := cohorts{rules: r, generation: generation, list: make([]cohort, 1)}
	if r != nil {
		c.byKey, c.tuples = map[string]uint32{}, map[string]*tuple{}
		c.trackers, c.sets = make([]tally, len(r.trackers)), make([]tally, len(r.sets))
	}
	return c
}

// number returns the number of the cohort named by key, which it makes if need be.
func (c *cohorts) number(key []byte, at int) uint32 {
	if n, ok := c.byKey[string(key)]; ok {
		return n
	}
	var to *tuple
	if len(c.rules.attribution) > 0 {
		if to = c.tupleOf(key[at:]); to == c.overflow {
			key = append(key[:at:at], overflowValue...) // a key of its own: it lacks the separator
			if n, ok := c.byKey[string(key)]; ok {
				return n
			}
		}
		to.cohorts++
	}
	x := cohort{key: string(key), tuple: to}
	rest := []byte(x.key)
	rest, x.trackers = positions(rest)
	_, x.sets = positions(rest)
	n := uint32(len(c.list))
	if k := len(c.free); k > 0 {
		n, c.free = c.free[k-1], c.free[:k-1]
		c.list[n] = x
	} else {
		c.list = append(c.list, x)
	}
	c.byKey[x.key] = n
	return n
}

// tupleOf returns the tuple with a key, which it makes if need be, or the overflow.
func (c *cohorts) tupleOf(key []byte) *tuple {
	if t := c.tuples[string(key)]; t != nil {
		return t
	}
	if len(c.tuples) >= c.rules.maxTuples {
		if c.overflow == nil {
			c.overflow = &tuple{}
		}
		return c.overflow
	}
	values := strings.Split(string(key), string([]byte{tupleSeparator}))
	t := &tuple{values: values[:len(values)-1]}
	c.tuples[string(key)] = t
	return t
}

// positions reads one list of a key.
func positions(b []byte) (rest []byte, out []uint32) {
	for {
		n, size := binary.Uvarint(b)
		b = b[size:]
		if n == 0 {
			return b, out
		}
		out = append(out, uint32(n-1))
	}
}

// shift adds d to what cohort n counts for, and forgets the cohort with its last series.
func (c *cohorts) shift(n uint32, d tally) {
	x := &c.list[n]
	for _, t := range x.trackers {
		c.trackers[t].add(d)
	}
	for _, s := range x.sets {
		c.sets[s].add(d)
	}
	if x.tuple != nil {
		x.tuple.add(d)
	}
	if x.series += d.series; x.series > 0 {
		return
	}
	if t := x.tuple; t != nil {
		if t.cohorts--; t.cohorts == 0 && t != c.overflow {
			delete(c.tuples, x.key[len(x.key)-t.keyLen():])
		}
	}
	delete(c.byKey, x.key)
	*x = cohort{}
	c.free = append(c.free, n)
}

// keyLen is the length of the tuple's part of a key.
func (t *tuple) keyLen() (n int) {
	for _, v := range t.values {
		n += len(v) + 1
	}
	return n
}

package results

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
)

// Skew is how far apart the clocks of processes may be, and the moments at which the replicas of a
// sample take it, where nobody knows better.
const Skew = 30 * time.Second

// Extent is an answer for the times Start, Start+Step and so on to End, in milliseconds.
type Extent struct {
	Start, End int64
	At         int64 // what it was made of was read then or later
	Series     promql.Matrix
	Notes      []*querypb.Note
}

// Grid is the times that all extents of an answer have in common.
type Grid struct {
	Step  int64 // 0: there is one time
	Phase int64 // one of the times
}

// up returns the first time of the grid from t on, and down the last one up to t.
func (g Grid) up(t int64) int64 {
	if g.Step == 0 {
		return g.Phase
	}
	return t + mod(g.Phase-t, g.Step)
}

func (g Grid) down(t int64) int64 {
	if g.Step == 0 {
		return g.Phase
	}
	return t - mod(t-g.Phase, g.Step)
}

func mod(a, b int64) int64 { return (a%b + b) % b }

// Reach is where the samples lie that an answer is made of: for one at time t, from t-Back to
// t+Ahead, and if Fixed from MinTime to MaxTime whatever t is. All are milliseconds.
type Reach struct {
	Back, Ahead      int64
	Fixed            bool
	MinTime, MaxTime int64
}

// Span is the times Start <= t <= End.
type Span struct{ Start, End int64 }

// farAway is later than any sample, and so early that no sum with it overflows.
const farAway = 1 << 60

// touched returns the times of which the answers are made of samples between mint and maxt; all is
// true if those of every time are.
func (r Reach) touched(mint, maxt int64) (s Span, all bool) {
	mint, maxt = max(mint, -farAway), min(maxt, farAway)
	return Span{mint - r.Ahead, maxt + r.Back}, r.Fixed && mint <= r.MaxTime && r.MinTime <= maxt
}

// Rules say what of kept answers may be given.
type Rules struct {
	Reach Reach
	Log   changes.Log
	Now   int64
	// Floor: samples before it are not shown any more. 0: all are.
	Floor int64
	// Skew is how far apart, in milliseconds, the clocks are of who made what is kept and who tells of
	// changes.
	Skew int64
	// Lapses are ages in milliseconds at which some samples cease to be shown.
	Lapses []int64
}

// Holds returns the times of e of which the answers are what they would be now, in order.
func (r *Rules) Holds(e *Extent, g Grid) []Span {
	if e.At-r.Skew < r.Log.Since {
		return nil
	}
	left := []Span{{e.Start, e.End}}
	remove := func(mint, maxt int64) {
		if s, all := r.Reach.touched(mint, maxt); all {
			left = nil
		} else {
			left = without(left, s, g)
		}
	}
	for _, c := range r.Log.Changes {
		if c.At >= e.At-r.Skew {
			remove(c.MinTime, c.MaxTime)
		}
	}
	for _, age := range r.Lapses {
		// What was older than that then was hidden already.
		remove(e.At-r.Skew-age, r.Now+r.Skew-age)
	}
	if r.Floor != 0 {
		s, all := r.Reach.touched(r.Floor, r.Floor)
		if all || r.Reach.Fixed && r.Reach.MinTime < r.Floor {
			return nil
		}
		left = without(left, Span{min(e.Start, s.Start), s.End}, g)
	}
	return left
}

// without takes the times of s out of spans.
func without(spans []Span, s Span, g Grid) []Span {
	var out []Span
	for _, a := range spans {
		if s.Start > a.End || s.End < a.Start {
			out = append(out, a)
			continue
		}
		if g.Step == 0 {
			continue
		}
		if before := (Span{a.Start, g.down(s.Start - 1)}); before.Start <= before.End {
			out = append(out, before)
		}
		if after := (Span{g.up(s.End + 1), a.End}); after.Start <= after.End {
			out = append(out, after)
		}
	}
	return out
}

// Cut returns e between two times of its grid. The values are shared.
func (e *Extent) Cut(s Span) Extent {
	out := Extent{Start: max(e.Start, s.Start), End: min(e.End, s.End), At: e.At, Notes: e.Notes}
	if out.Start == e.Start && out.End == e.End {
		out.Series = e.Series
		return out
	}
	for _, one := range e.Series {
		c := promql.Series{Metric: one.Metric}
		from, _ := slices.BinarySearchFunc(one.Floats, out.Start, func(p promql.FPoint, t int64) int { return cmp.Compare(p.T, t) })
		to, _ := slices.BinarySearchFunc(one.Floats, out.End+1, func(p promql.FPoint, t int64) int { return cmp.Compare(p.T, t) })
		c.Floats = one.Floats[from:to:to]
		from, _ = slices.BinarySearchFunc(one.Histograms, out.Start, func(p promql.HPoint, t int64) int { return cmp.Compare(p.T, t) })
		to, _ = slices.BinarySearchFunc(one.Histograms, out.End+1, func(p promql.HPoint, t int64) int { return cmp.Compare(p.T, t) })
		c.Histograms = one.Histograms[from:to:to]
		if len(c.Floats)+len(c.Histograms) > 0 {
			out.Series = append(out.Series, c)
		}
	}
	return out
}

// mostExtents bounds the extents of one item. More come of windows that jump about.
const mostExtents = 16

// join puts extents that follow each other together and forgets the shortest of too many. They must
// not overlap.
func join(list []Extent, g Grid, turn *turns.Turn) []Extent {
	slices.SortFunc(list, func(a, b Extent) int { return cmp.Compare(a.Start, b.Start) })
	var out []Extent
	for at := 0; at < len(list); {
		next := at + 1
		for next < len(list) && list[next].Start == list[next-1].End+g.Step && sameNotes(list[next].Notes, list[at].Notes) {
			next++
		}
		out = append(out, joined(list[at:next], turn))
		at = next
	}
	for len(out) > mostExtents {
		short := 0
		for i := range out {
			if out[i].End-out[i].Start < out[short].End-out[short].Start {
				short = i
			}
		}
		out = slices.Delete(out, short, short+1)
	}
	return out
}

func joined(list []Extent, turn *turns.Turn) Extent {
	if len(list) == 1 {
		return list[0]
	}
	out := Extent{Start: list[0].Start, End: list[len(list)-1].End, At: list[0].At, Notes: list[0].Notes}
	parts := make([]promql.Matrix, len(list))
	for i, e := range list {
		out.At, parts[i] = min(out.At, e.At), e.Series
	}
	out.Series = Append(parts, turn)
	return out
}

func sameNotes(a, b []*querypb.Note) bool {
	return slices.EqualFunc(a, b, func(a, b *querypb.Note) bool { return a.Text == b.Text && a.Positioned == b.Positioned })
}

// Append puts the matrices of times that follow each other together, sorted by labels. It shares the points of series
// that only one of them has.
func Append(parts []promql.Matrix, turn *turns.Turn) promql.Matrix {
	if len(parts) == 1 {
		return parts[0]
	}
	rest, most := make([]promql.Matrix, len(parts)), 0
	for i, m := range parts {
		rest[i], most = ordered(m, turn), max(most, len(m))
	}
	out := make(promql.Matrix, 0, most)
	same := make([]int, 0, len(parts)) // whose next series is the first by labels
	for {
		same = same[:0]
		for i, m := range rest {
			if len(m) == 0 {
				continue
			}
			c := -1
			if len(same) > 0 {
				c = labels.Compare(m[0].Metric, rest[same[0]][0].Metric)
			}
			if c < 0 {
				same = same[:0]
			}
			if c <= 0 {
				same = append(same, i)
			}
		}
		if len(same) == 0 {
			return out
		}
		out = append(out, concatenated(rest, same))
		for _, i := range same {
			rest[i] = rest[i][1:]
		}
		turn.Yield()
	}
}

// ordered returns m sorted by labels, as all but the answers at one time are.
func ordered(m promql.Matrix, turn *turns.Turn) promql.Matrix {
	for i := 1; i < len(m); i++ {
		if labels.Compare(m[i-1].Metric, m[i].Metric) > 0 {
			m = slices.Clone(m)
			slices.SortFunc(m, func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) })
			return m
		}
		if i%256 == 0 {
			turn.Yield()
		}
	}
	return m
}

// concatenated is the next series of all parts that have it.
func concatenated(parts []promql.Matrix, same []int) promql.Series {
	out := parts[same[0]][0]
	if len(same) == 1 {
		return out
	}
	floats, histograms := 0, 0
	for _, i := range same {
		floats, histograms = floats+len(parts[i][0].Floats), histograms+len(parts[i][0].Histograms)
	}
	out = promql.Series{Metric: out.Metric}
	if floats > 0 {
		out.Floats = make([]promql.FPoint, 0, floats)
	}
	if histograms > 0 {
		out.Histograms = make([]promql.HPoint, 0, histograms)
	}
	for _, i := range same {
		out.Floats, out.Histograms = append(out.Floats, parts[i][0].Floats...), append(out.Histograms, parts[i][0].Histograms...)
	}
	return out
}

package querier

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// lanes merges chunks that overlap, one sample for each timestamp. It spreads them over as few
// lanes as have no overlap in themselves, mostly one for each replica, and takes the earliest
// sample of them. The lanes are so few that looking at all of them beats a heap.
type lanes struct {
	all     []lane // those that stand on a sample, once begun
	begun   bool
	cur     *lane
	last    millis
	follows bool // the current sample stands behind the last one in its lane
	err     error
}

type lane struct {
	it  *samples
	t   millis
	typ chunkenc.ValueType
}

func newLanes(ms []chunks.Meta) *lanes {
	var ls [][]chunks.Meta
next:
	for _, m := range ms {
		for i, l := range ls {
			if l[len(l)-1].MaxTime < m.MinTime {
				ls[i] = append(l, m)
				continue next
			}
		}
		ls = append(ls, []chunks.Meta{m})
	}
	out := &lanes{all: make([]lane, len(ls)), last: math.MinInt64}
	for i, l := range ls {
		it := &samples{}
		it.reset(&series{metas: l, mint: math.MinInt64, maxt: math.MaxInt64, mixed: true})
		out.all[i].it = it
	}
	return out
}

// pick makes the earliest sample the current one. If several replicas have it, it stays with the
// lane of the last one.
func (l *lanes) pick(prev *samples) chunkenc.ValueType {
	l.cur, l.follows = nil, false
	for i := range l.all {
		c := &l.all[i]
		if l.cur == nil || c.t < l.cur.t || c.t == l.cur.t && c.it == prev {
			l.cur = c
		}
	}
	if l.cur == nil {
		return chunkenc.ValNone
	}
	l.last, l.follows = l.cur.t, l.cur.it == prev
	return l.cur.typ
}

// advance moves the lanes that stand before t, or on nothing yet, to t or behind it, by single steps
// if step is set, and keeps those that find a sample. It reports whether none broke.
func (l *lanes) advance(t millis, step bool) bool {
	kept := l.all[:0]
	for _, c := range l.all {
		if !l.begun || c.t < t {
			if step {
				c.typ = c.it.Next()
			} else {
				c.typ = c.it.Seek(t)
			}
			if c.typ == chunkenc.ValNone {
				if l.err = c.it.Err(); l.err != nil {
					l.all, l.cur = nil, nil
					return false
				}
				continue
			}
			c.t = c.it.AtT()
		}
		kept = append(kept, c)
	}
	l.all, l.begun = kept, true
	return true
}

func (l *lanes) Next() chunkenc.ValueType {
	var prev *samples
	if l.cur != nil {
		prev = l.cur.it
	}
	// No lane stands before the last sample, so one step takes those that stand on it behind it.
	if !l.advance(l.last+1, true) {
		return chunkenc.ValNone
	}
	return l.pick(prev)
}

func (l *lanes) Seek(t millis) chunkenc.ValueType {
	if l.cur != nil && l.last >= t {
		return l.cur.typ
	}
	if !l.advance(t, false) {
		return chunkenc.ValNone
	}
	return l.pick(nil)
}

func (l *lanes) At() (int64, float64) { return l.cur.it.At() }
func (l *lanes) AtT() int64           { return l.last }
func (l *lanes) AtST() int64          { return l.cur.it.AtST() }
func (l *lanes) Err() error           { return l.err }

// AtHistogram forgets whether the counter was reset if that was told against another sample than
// the last one: the reader then compares the two.
func (l *lanes) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := l.cur.it.AtHistogram(h)
	if !l.follows {
		forget(&h.CounterResetHint)
	}
	return t, h
}

func (l *lanes) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := l.cur.it.AtFloatHistogram(h)
	if !l.follows {
		forget(&h.CounterResetHint)
	}
	return t, h
}

func forget(hint *histogram.CounterResetHint) {
	if *hint != histogram.GaugeType {
		*hint = histogram.UnknownCounterReset
	}
}

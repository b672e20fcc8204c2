package frontend

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

// maxCancellation is how much smaller than one of its parts a sum may be. Beyond it the shards, each
// rounded once, have lost digits that a sum over all series keeps, and the query is asked as a whole.
const maxCancellation = 1 << 20

// grid is the times of a query.
type grid struct{ start, end, step int64 }

func (g grid) len() int {
	if g.step == 0 {
		return 1
	}
	return int((g.end-g.start)/g.step) + 1
}

// index is the place of a time; -1: it is not on the grid.
func (g grid) index(t int64) int {
	if g.step == 0 {
		if t == g.start {
			return 0
		}
		return -1
	}
	if i := (t - g.start) / g.step; t >= g.start && t <= g.end && g.start+i*g.step == t {
		return int(i)
	}
	return -1
}

func (g grid) at(i int) int64 { return g.start + int64(i)*g.step }

// cell is the merged value of one group at one time.
type cell struct {
	state   uint8 // of the constants below
	sum, c  float64
	largest float64
	count   float64
	h       *histogram.FloatHistogram
}

const (
	hasFloat uint8 = 1 << iota
	hasHistogram
)

// group is one series of the result.
type group struct {
	metric labels.Labels
	cells  []cell
}

// merger makes one answer of the answers of shards.
type merger struct {
	op     parser.ItemType
	grid   grid
	groups map[uint64][]*group
	order  []*group
	failed bool // the shards do not tell what the whole is
}

func newMerger(op parser.ItemType, g grid) *merger {
	return &merger{op: op, grid: g, groups: map[uint64][]*group{}}
}

func (m *merger) group(ls labels.Labels) *group {
	h := ls.Hash()
	for _, g := range m.groups[h] {
		if labels.Equal(g.metric, ls) {
			return g
		}
	}
	g := &group{metric: ls, cells: make([]cell, m.grid.len())}
	m.groups[h] = append(m.groups[h], g)
	m.order = append(m.order, g)
	return g
}

// add takes the answer of one shard; counted says that it is the count of an average.
func (m *merger) add(v parser.Value, counted bool, turn *turns.Turn) {
	switch v := v.(type) {
	case promql.Vector:
		for i := range v {
			if i%64 == 0 {
				turn.Yield()
			}
			m.point(m.group(v[i].Metric), v[i].T, v[i].F, v[i].H, counted)
		}
	case promql.Matrix:
		for i := range v {
			turn.Yield()
			g := m.group(v[i].Metric)
			for _, p := range v[i].Floats {
				m.point(g, p.T, p.F, nil, counted)
			}
			for _, p := range v[i].Histograms {
				m.point(g, p.T, 0, p.H, counted)
			}
		}
	default:
		m.failed = true
	}
}

func (m *merger) point(g *group, t int64, f float64, h *histogram.FloatHistogram, counted bool) {
	i := m.grid.index(t)
	if i < 0 {
		m.failed = true
		return
	}
	c := &g.cells[i]
	switch {
	case counted:
		c.count += f
	case h != nil:
		m.histogram(c, h)
	default:
		m.float(c, f)
	}
}

func (m *merger) histogram(c *cell, h *histogram.FloatHistogram) {
	if m.op != parser.SUM && m.op != parser.AVG {
		m.failed = true
		return
	}
	if c.state&hasHistogram == 0 {
		c.state |= hasHistogram
		c.h = h.Copy()
		return
	}
	if hint := h.CounterResetHint; hint != c.h.CounterResetHint || hint == histogram.UnknownCounterReset {
		m.failed = true // whether resets contradict each other is a warning, and shards have lost the trace
		return
	}
	// What Add reports is told of in warnings, which name what only the whole knows.
	res, collision, reconciled, err := c.h.Add(h)
	if err != nil || collision || reconciled {
		m.failed = true
		return
	}
	c.h = res
}

func (m *merger) float(c *cell, f float64) {
	first := c.state&hasFloat == 0
	c.state |= hasFloat
	switch m.op {
	case parser.MIN:
		if first || f < c.sum || math.IsNaN(c.sum) {
			c.sum = f
		}
	case parser.MAX:
		if first || f > c.sum || math.IsNaN(c.sum) {
			c.sum = f
		}
	case parser.GROUP:
		c.sum = 1
	default:
		if m.op == parser.AVG && (math.IsInf(f, 0) || math.IsNaN(f)) {
			m.failed = true // an average does not overflow where its sum does
		}
		c.largest = max(c.largest, math.Abs(f))
		c.add(f)
	}
}

// add is compensated summation.
func (c *cell) add(f float64) {
	t := c.sum + f
	switch {
	case math.IsInf(t, 0) || math.IsNaN(t):
		c.c = 0
	case math.Abs(c.sum) >= math.Abs(f):
		c.c += (c.sum - t) + f
	default:
		c.c += (f - t) + c.sum
	}
	c.sum = t
}

// value is the float of a cell.
func (m *merger) value(c *cell) float64 {
	switch m.op {
	case parser.MIN, parser.MAX, parser.GROUP:
		return c.sum
	}
	f := c.sum + c.c
	if math.IsInf(f, 0) && !math.IsInf(c.largest, 0) || m.op != parser.COUNT && math.Abs(f)*maxCancellation < c.largest {
		m.failed = true
	}
	if m.op == parser.AVG {
		if c.count == 0 {
			m.failed = true
		}
		f /= c.count
	}
	return f
}

// matrix returns the whole, sorted by labels. ok is false if the shards do not tell what it is.
func (m *merger) matrix(turn *turns.Turn) (out promql.Matrix, ok bool) {
	out = make(promql.Matrix, 0, len(m.order))
	for _, g := range m.order {
		turn.Yield()
		s := promql.Series{Metric: g.metric}
		for i := range g.cells {
			c := &g.cells[i]
			switch c.state {
			case 0:
			case hasFloat:
				s.Floats = append(s.Floats, promql.FPoint{T: m.grid.at(i), F: m.value(c)})
			case hasHistogram:
				h := c.h
				if m.op == parser.AVG {
					if c.count == 0 {
						return nil, false
					}
					h = h.Div(c.count)
				}
				s.Histograms = append(s.Histograms, promql.HPoint{T: m.grid.at(i), H: h.Compact(0)})
			default:
				return nil, false // floats and histograms do not add up, which is a warning
			}
		}
		if len(s.Floats)+len(s.Histograms) > 0 {
			out = append(out, s)
		}
	}
	if m.failed {
		return nil, false
	}
	sortMatrix(out)
	return out, true
}

func sortMatrix(m promql.Matrix) {
	slices.SortFunc(m, func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) })
}

// vectorOf is a matrix of single points as a vector.
func vectorOf(m promql.Matrix) promql.Vector {
	out := make(promql.Vector, 0, len(m))
	for _, s := range m {
		if len(s.Histograms) > 0 {
			out = append(out, promql.Sample{Metric: s.Metric, T: s.Histograms[0].T, H: s.Histograms[0].H})
		} else {
			out = append(out, promql.Sample{Metric: s.Metric, T: s.Floats[0].T, F: s.Floats[0].F})
		}
	}
	return out
}

// matrixOf is a vector as a matrix of single points.
func matrixOf(v promql.Vector) promql.Matrix {
	out := make(promql.Matrix, 0, len(v))
	for _, s := range v {
		one := promql.Series{Metric: s.Metric}
		if s.H != nil {
			one.Histograms = []promql.HPoint{{T: s.T, H: s.H}}
		} else {
			one.Floats = []promql.FPoint{{T: s.T, F: s.F}}
		}
		out = append(out, one)
	}
	return out
}

package querier

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

// source yields the series of one replica or block, sorted by labels. The chunks of at belong to
// the caller until the query ends.
type source interface {
	next() bool
	at() (labels.Labels, []chunks.Meta)
	err() error
}

// merger yields the union of sources: each series once, with the chunks of all that have it.
type merger struct {
	heap    []source // a min-heap by labels; every source stands on a series
	fresh   []source // sources to advance before the next series
	metrics *metrics

	// With anyOrder neither the sources nor the series are sorted: these are in the order in which
	// they come.
	anyOrder bool
	pile     *pile       // of the series of several sources
	turn     *turns.Turn // of who reads the series

	lset    labels.Labels
	metas   []chunks.Meta
	mixed   bool // metas are of several sources
	failure error
}

func newMerger(sources []source, m *metrics) *merger {
	return &merger{heap: make([]source, 0, len(sources)), fresh: sources, metrics: m}
}

func (m *merger) next() bool {
	if m.anyOrder {
		return m.nextAny()
	}
	for _, s := range m.fresh {
		if s.next() {
			m.push(s)
		} else if err := s.err(); err != nil {
			m.failure = err
		}
	}
	m.fresh = m.fresh[:0]
	if m.failure != nil || len(m.heap) == 0 {
		return false
	}
	m.lset, m.metas = m.take()
	m.mixed = false
	for len(m.heap) > 0 {
		if l, _ := m.heap[0].at(); !labels.Equal(l, m.lset) {
			break
		}
		_, more := m.take()
		if !m.mixed {
			m.metas, m.mixed = append(make([]chunks.Meta, 0, len(m.metas)+(len(m.heap)+1)*len(more)), m.metas...), true
		}
		m.metas = append(m.metas, more...)
	}
	var dropped int
	m.metas, dropped = distinct(m.metas)
	m.metrics.duplicates.Add(float64(dropped))
	return true
}

// nextAny is next where any order will do: what a single source has passes as it is, and what
// several have is put together by the hash of the labels.
func (m *merger) nextAny() bool {
	switch {
	case len(m.fresh) == 1:
		s := m.fresh[0]
		if !s.next() {
			m.failure = s.err()
			return false
		}
		m.lset, m.metas = s.at()
	case m.pile == nil:
		if m.pile, m.failure = newPile(m.fresh, m.turn); m.failure != nil {
			return false
		}
		fallthrough
	default:
		if m.pile.i == len(m.pile.series) {
			return false
		}
		s := &m.pile.series[m.pile.i]
		m.pile.i++
		m.lset, m.metas, m.mixed = s.lset, s.metas, s.mixed
		*s = piled{} // as fetched.next
	}
	var dropped int
	m.metas, dropped = distinct(m.metas)
	m.metrics.duplicates.Add(float64(dropped))
	return true
}

// pile is the series of several sources, each once.
type pile struct {
	series []piled
	i      int // of the series after the current one
}

type piled struct {
	fetchedSeries
	mixed bool
	next  int // the one before with the same hash, -1: none
}

func newPile(sources []source, turn *turns.Turn) (*pile, error) {
	p, index := &pile{}, map[uint64]int{}
	for _, s := range sources {
		for s.next() {
			turn.Yield()
			lset, metas := s.at()
			h := lset.Hash()
			first, ok := index[h]
			if !ok {
				first = -1
			}
			at := first
			for at >= 0 && !labels.Equal(p.series[at].lset, lset) {
				at = p.series[at].next
			}
			if at < 0 {
				index[h] = len(p.series)
				p.series = append(p.series, piled{fetchedSeries{lset, metas}, false, first})
				continue
			}
			p.series[at].metas, p.series[at].mixed = append(p.series[at].metas, metas...), true
		}
		if err := s.err(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// take removes the least series' source from the heap and marks it to be advanced.
func (m *merger) take() (labels.Labels, []chunks.Meta) {
	s := m.heap[0]
	last := len(m.heap) - 1
	m.heap[0] = m.heap[last]
	m.heap = m.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && m.less(child+1, child) {
			child++
		}
		if !m.less(child, i) {
			break
		}
		m.heap[i], m.heap[child] = m.heap[child], m.heap[i]
		i = child
	}
	m.fresh = append(m.fresh, s)
	return s.at()
}

func (m *merger) push(s source) {
	m.heap = append(m.heap, s)
	for i := len(m.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !m.less(i, parent) {
			break
		}
		m.heap[i], m.heap[parent] = m.heap[parent], m.heap[i]
		i = parent
	}
}

func (m *merger) less(i, j int) bool {
	a, _ := m.heap[i].at()
	b, _ := m.heap[j].at()
	return labels.Compare(a, b) < 0
}

// distinct sorts chunks by time and drops those that are byte for byte another one: replicas that
// got the same samples cut the same chunks. It returns how many it dropped.
func distinct(ms []chunks.Meta) ([]chunks.Meta, int) {
	byTime := func(a, b chunks.Meta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
	}
	if !slices.IsSortedFunc(ms, byTime) {
		slices.SortStableFunc(ms, byTime)
	}
	out := ms[:0]
	for i, c := range ms {
		twin := false
		for j := len(out) - 1; j >= 0 && byTime(out[j], c) == 0 && !twin; j-- {
			twin = out[j].Chunk.Encoding() == c.Chunk.Encoding() && bytes.Equal(out[j].Chunk.Bytes(), c.Chunk.Bytes())
		}
		if !twin {
			out = append(out, ms[i])
		}
	}
	return out, len(ms) - len(out)
}

// fetched is the answer of one ingester, a source over memory.
type fetched struct {
	series []fetchedSeries
	i      int   // of the series after the current one
	since  int64 // see dated

	anyOrder bool // the series are not sorted
}

func (f *fetched) completeSince() int64 { return f.since }

type fetchedSeries struct {
	lset  labels.Labels
	metas []chunks.Meta
}

// next lets go of the series before: its chunks need not stay in memory when the reader is done with them.
func (f *fetched) next() bool {
	if f.i > 0 && f.i <= len(f.series) {
		f.series[f.i-1] = fetchedSeries{}
	}
	f.i++
	return f.i <= len(f.series)
}

func (f *fetched) err() error { return nil }
func (f *fetched) at() (labels.Labels, []chunks.Meta) {
	s := &f.series[f.i-1]
	return s.lset, s.metas
}

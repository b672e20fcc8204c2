package storegateway

import (
	"bytes"
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/turns"
)

// merged yields the series of several blocks sorted by labels, each once. Blocks of times that follow each
// other have mostly the same series: sets that stand on the same one stay together, so that nearly always
// one comparison for each set finds the next series.
type merged struct {
	heap  [][]*block.SeriesSet // a min-heap by labels; the sets of one element stand on the same series
	here  []*block.SeriesSet   // those that stand on the current series
	spare [][]*block.SeriesSet // memory for elements
	due   []*block.SeriesSet   // of refill
	turn  *turns.Turn          // of who reads
	err   error

	chunks []block.Chunk
}

// merge returns what sets have, none of which was read yet.
func merge(sets []*block.SeriesSet) *merged {
	return &merged{here: slices.Clone(sets)}
}

// next moves on to the next series; false at the end or after an error, which is in err.
func (m *merged) next() bool {
	if m.advance(); m.err != nil || len(m.heap) == 0 {
		return false
	}
	m.here = m.pop()
	for len(m.heap) > 0 && labels.Equal(m.heap[0][0].Labels(), m.labels()) {
		more := m.pop()
		m.here = append(m.here, more...)
		m.spare = append(m.spare, more[:0])
	}
	return true
}

// labels are those of the current series, until the next one is asked for.
func (m *merged) labels() labels.Labels { return m.here[0].Labels() }

// all returns the chunks of the current series, sorted by time and each once, until the next series is
// asked for.
func (m *merged) all() []block.Chunk {
	m.chunks = m.chunks[:0]
	for _, s := range m.here {
		m.chunks = append(m.chunks, s.At().Chunks...)
	}
	return distinct(m.chunks)
}

// advance moves the sets that stand on the current series.
func (m *merged) advance() {
	m.refill()
	var same []*block.SeriesSet // that stand on the same series now
	for _, s := range m.here {
		if !s.Next() {
			if m.err = s.Err(); m.err != nil {
				return
			}
			continue
		}
		if len(same) > 0 && !labels.Equal(same[0].Labels(), s.Labels()) {
			m.push(same)
			same = nil
		}
		if n := len(m.spare); same == nil && n > 0 {
			same, m.spare = m.spare[n-1], m.spare[:n-1]
		}
		same = append(same, s)
	}
	if len(same) > 0 {
		m.push(same)
	}
	m.spare = append(m.spare, m.here[:0])
	m.here = nil
}

// refill has the sets that stand on the current series read what follows, if that is due in several of them,
// as it mostly is in all at a time. They read side by side as long as processors have nothing else to do.
func (m *merged) refill() {
	m.due = m.due[:0]
	for _, s := range m.here {
		if s.Due() {
			m.due = append(m.due, s)
		}
	}
	if len(m.due) < 2 {
		return
	}
	var (
		next    atomic.Int32
		helpers sync.WaitGroup
		mu      sync.Mutex // guards broken
		broken  string     // what a helper panicked with
	)
	read := func(turn *turns.Turn) {
		for i := int(next.Add(1)) - 1; i < len(m.due); i = int(next.Add(1)) - 1 {
			s := m.due[i]
			s.Waits = resting(turn)
			_ = s.Ahead() // Next tells it
			s.Waits = resting(m.turn)
		}
	}
	for range min(len(m.due), runtime.GOMAXPROCS(0)) - 1 {
		turn, end, ok := m.turn.Second()
		if !ok {
			break
		}
		helpers.Go(func() {
			defer end()
			defer func() {
				if p := recover(); p != nil {
					mu.Lock()
					broken = fmt.Sprintf("%v\n%s", p, debug.Stack())
					mu.Unlock()
				}
			}()
			read(turn)
		})
	}
	defer func() { // of a panic, too: the sets are closed next
		m.turn.Rest() // who waits does not compute
		helpers.Wait()
		m.turn.Resume()
		if broken != "" {
			panic("BUG: " + broken)
		}
	}()
	read(m.turn)
}

func (m *merged) less(i, j int) bool {
	return labels.Compare(m.heap[i][0].Labels(), m.heap[j][0].Labels()) < 0
}

func (m *merged) push(sets []*block.SeriesSet) {
	m.heap = append(m.heap, sets)
	for i := len(m.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !m.less(i, parent) {
			return
		}
		m.heap[i], m.heap[parent] = m.heap[parent], m.heap[i]
		i = parent
	}
}

func (m *merged) pop() []*block.SeriesSet {
	top, last := m.heap[0], len(m.heap)-1
	m.heap[0], m.heap[last] = m.heap[last], nil
	m.heap = m.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if child+1 < last && m.less(child+1, child) {
			child++
		}
		if !m.less(child, i) {
			return top
		}
		m.heap[i], m.heap[child] = m.heap[child], m.heap[i]
		i = child
	}
}

// distinct sorts chunks by time and drops those that are the same: blocks of several replicas, or a
// block and those it was made of, hold the same chunks.
func distinct(cs []block.Chunk) []block.Chunk {
	byTime := func(a, b block.Chunk) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
	}
	if !slices.IsSortedFunc(cs, byTime) {
		slices.SortStableFunc(cs, byTime)
	}
	return slices.CompactFunc(cs, func(a, b block.Chunk) bool {
		return byTime(a, b) == 0 && a.Encoding == b.Encoding && bytes.Equal(a.Data, b.Data)
	})
}

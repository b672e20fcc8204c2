package head

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// ErrOvertaken ends a query that was not read on for so long that late samples could not wait for
// it. Another replica may answer, or this one later.
var ErrOvertaken = errs.New(errs.Unavailable, "late samples arrived while the answer was not being read")

// order commits the batches of a head one after the other. The TSDB shows the samples of a batch
// all at once, but only those that it appends to the end of their series: late ones go elsewhere,
// one by one. Which ones are late must be known before a commit, and that is certain only if no
// other batch commits in between.
type order struct {
	mu   sync.Mutex
	last lastTimes // guarded by mu
}

// pageTimes is the number of series in a page of lastTimes. It is small for the sake of tenants
// with few.
const pageTimes = 128

// lastTimes holds the newest time committed of each series since it was emptied, 0 if there is
// none. References count up, so neighbours of a scrape are neighbours here.
type lastTimes struct{ pages []*[pageTimes]int64 }

// put notes the samples of a batch and says whether one of them is older than one noted before.
func (l *lastTimes) put(refs []Ref, times []int64) (late bool) {
	for k, ref := range refs {
		at := uint64(ref) / pageTimes
		if at >= uint64(len(l.pages)) || l.pages[at] == nil {
			l.grow(at)
		}
		last := &l.pages[at][uint64(ref)%pageTimes]
		if t := times[k]; t < *last {
			late = true
		} else {
			*last = t
		}
	}
	return late
}

func (l *lastTimes) grow(at uint64) {
	if n := uint64(len(l.pages)); at >= n {
		l.pages = append(l.pages, make([]*[pageTimes]int64, max(at+1-n, n/4))...)
	}
	l.pages[at] = new([pageTimes]int64)
}

// commit makes a batch visible, all of it at once.
func (h *Head) commit(a *Appender) error {
	h.unreleased.Add(int64(len(a.refs)))
	h.order.mu.Lock()
	if h.order.last.put(a.refs, a.times) {
		a.late = true
	}
	if !a.late {
		defer h.order.mu.Unlock()
		return a.flush()
	}
	h.order.mu.Unlock()
	h.sawLate.Store(true)
	h.views.close()
	defer h.views.open()
	h.order.mu.Lock()
	defer h.order.mu.Unlock()
	return a.flush()
}

// forgetOrder frees the memory of the order. It needs h.flush for writing: without open batches
// there is nothing to put in order.
func (h *Head) forgetOrder() {
	h.order.mu.Lock()
	defer h.order.mu.Unlock()
	h.order.last = lastTimes{}
}

// viewWait is how long late samples wait for a query that is not read on.
const viewWait = 2 * time.Second

// views keeps queries and commits with late samples apart. A query holds a view from its begin
// until it knows the chunks of all its series: what is late is fixed then. When late samples wait,
// queries look up the rest of their series ahead and let go.
type views struct {
	gate   sync.RWMutex  // held for reading by views, for writing by commits with late samples
	wanted atomic.Int32  // commits that wait for the gate or hold it
	wait   time.Duration // viewWait, unless a test says otherwise

	mu      sync.Mutex // guards the fields below
	waiting int        // commits that wait
	held    map[*view]struct{}
}

// close waits until no query holds a view, and lets none begin until open.
func (v *views) close() {
	v.wanted.Add(1)
	if v.gate.TryLock() {
		return
	}
	v.mu.Lock()
	v.waiting++
	v.mu.Unlock()
	limit := time.AfterFunc(cmp.Or(v.wait, viewWait), v.overtake)
	v.gate.Lock()
	limit.Stop()
	v.mu.Lock()
	v.waiting--
	v.mu.Unlock()
}

func (v *views) open() {
	v.wanted.Add(-1)
	v.gate.Unlock()
}

// overtake ends the queries that hold a view for too long.
func (v *views) overtake() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waiting == 0 {
		return
	}
	for w := range v.held {
		w.overtaken.Store(true)
		v.release(w)
	}
}

// release needs v.mu.
func (v *views) release(w *view) {
	if _, held := v.held[w]; held {
		delete(v.held, w)
		v.gate.RUnlock()
	}
}

// begin returns a view that is held. It waits for commits with late samples.
func (v *views) begin() *view {
	v.gate.RLock()
	w := &view{of: v}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held == nil {
		v.held = map[*view]struct{}{}
	}
	v.held[w] = struct{}{}
	return w
}

// view is what one query may see.
type view struct {
	of        *views
	overtaken atomic.Bool
}

// end lets late samples in, if that was not done before.
func (w *view) end() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.of.release(w)
}

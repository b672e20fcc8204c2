package ingester

import (
	"sync"

	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// pending is the pushes of one tenant under way, in the order in which they came.
type pending struct {
	mu             sync.Mutex // guards the fields below
	first, last    *push
	samples, bytes int64
}

// waiting is a push's place among those under way. The tenant's pending.mu guards it.
type waiting struct {
	since          int64 // Unix milliseconds
	samples, bytes int64
	before, after  *push
}

// begin notes that p brings f of size bytes.
func (w *pending) begin(p *push, f *frame.Frame, size, now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.waiting = waiting{since: now, samples: int64(f.Samples()), bytes: size, before: w.last}
	if w.last != nil {
		w.last.waiting.after = p
	} else {
		w.first = p
	}
	w.last = p
	w.samples += p.waiting.samples
	w.bytes += size
}

// end notes that p is done.
func (w *pending) end(p *push) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.waiting.before != nil {
		p.waiting.before.waiting.after = p.waiting.after
	} else {
		w.first = p.waiting.after
	}
	if p.waiting.after != nil {
		p.waiting.after.waiting.before = p.waiting.before
	} else {
		w.last = p.waiting.before
	}
	w.samples -= p.waiting.samples
	w.bytes -= p.waiting.bytes
	p.waiting = waiting{}
}

// lag returns what is under way, and when the oldest of it came, in Unix milliseconds; 0: nothing is.
func (w *pending) lag() (samples, bytes, since int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first != nil {
		since = w.first.waiting.since
	}
	return w.samples, w.bytes, since
}

package memory

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// evictionWait is how long a query waits for the room of one that was ended for it.
	evictionWait = time.Second
	// evictionPoll is how often it looks.
	evictionPoll = 5 * time.Millisecond
	// heavier is how many times the memory of the asking query one must have to be ended for it.
	heavier = 2
)

// Workings are the working sets of the queries of a process. When the process is short of memory for
// another of them, the heaviest query ends and not the one that happened to ask.
type Workings struct {
	account   *Account
	evictions atomic.Int64

	mu      sync.Mutex // guards running
	running map[*Working]struct{}
}

// Workings returns the working sets of queries; there is one for each ledger.
func (l *Ledger) Workings() *Workings {
	if l == nil {
		return nil
	}
	return &l.workings
}

// Working is the working set of one query. Its methods are safe for concurrent use; a nil Working
// counts nothing.
type Working struct {
	all    *Workings
	most   int64 // bytes; 0: no limit
	over   error // of a query that needs more
	lasts  bool  // it is not in running, and is refused where others are ended
	cancel context.CancelCauseFunc

	held           atomic.Int64 // taken of the account
	evicted, ended atomic.Bool

	mu         sync.Mutex // guards what follows
	used, peak int64
}

type workingKey struct{}

// Begin returns ctx for a query that may use most bytes (0: no limit), beyond which it is given the error
// over. The caller calls End when it has let go of all that the query used. ctx ends with the cause
// of Evicted if the query must make room for others.
func (w *Workings) Begin(ctx context.Context, most int64, over error) (context.Context, *Working) {
	if w == nil {
		return ctx, nil
	}
	ctx, q := w.working(ctx, most, over)
	w.mu.Lock()
	w.running[q] = struct{}{}
	w.mu.Unlock()
	return ctx, q
}

func (w *Workings) working(ctx context.Context, most int64, over error) (context.Context, *Working) {
	ctx, cancel := context.WithCancelCause(ctx)
	q := &Working{all: w, most: most, over: over, cancel: cancel}
	return context.WithValue(ctx, workingKey{}, q), q
}

// Lasting is Workings.Begin for a read whose answer is on its way while it is read: who takes it may be slow, so it is
// not ended for others, nor are others for it.
func (a *Account) Lasting(ctx context.Context, most int64, over error) (context.Context, *Working) {
	if a == nil {
		return ctx, nil
	}
	ctx, q := a.ledger.workings.working(ctx, most, over)
	q.lasts = true
	return ctx, q
}

// WorkingOf returns the working set of the query of ctx, nil if it has none.
func WorkingOf(ctx context.Context) *Working {
	q, _ := ctx.Value(workingKey{}).(*Working)
	return q
}

type countingKey struct{}

// Counting returns ctx for selections of a query that counts the values it makes of them by itself.
func Counting(ctx context.Context) context.Context {
	if WorkingOf(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, countingKey{}, true)
}

// Counts says whether ctx is one of Counting.
func Counts(ctx context.Context) bool {
	yes, _ := ctx.Value(countingKey{}).(bool)
	return yes
}

// errEvicted is why a query ended for others.
func errEvicted() error {
	return errs.WithID(errs.TooLarge, "query-evicted", "Ask for fewer series or less time, or give the process more memory.",
		"the query was ended because the process is short of memory and no other query used more of it")
}

// Use adds n bytes to what the query uses. Errors: that of Begin over the query's limit, TooLarge if the
// query was ended for others, Unavailable if there is no room.
func (q *Working) Use(n int64) error {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.evicted.Load():
		return errEvicted()
	case q.most > 0 && q.used+n > q.most:
		return q.over
	}
	if need := q.used + n - q.held.Load(); need > 0 {
		if err := q.reserve(max(need, loanStep)); err != nil {
			return err
		}
	}
	q.used += n
	q.peak = max(q.peak, q.used)
	return nil
}

// reserve takes step bytes, those of a heavier query if there are no others. It needs q.mu, and gives it
// up while it waits.
func (q *Working) reserve(step int64) error {
	a := q.all.account
	err := a.Reserve(step)
	if err != nil && !q.lasts && q.all.evict(q, q.used+step) {
		q.mu.Unlock()
		for begin := time.Now(); err != nil && time.Since(begin) < evictionWait; err = a.Reserve(step) {
			time.Sleep(evictionPoll)
		}
		q.mu.Lock()
	}
	if err != nil {
		return err
	}
	if q.ended.Load() { // meanwhile: nobody gives back what it takes now
		a.Release(step)
		return errEvicted()
	}
	q.held.Add(step)
	return nil
}

// evict ends the heaviest query if it is much heavier than q, which would have used bytes. It says whether
// there will be room.
func (w *Workings) evict(q *Working, used int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if gone := w.out(); gone != nil {
		return gone != q
	}
	return w.end(q, heavier*used)
}

// leaving says whether a query was ended for others and is not gone yet.
func (w *Workings) leaving() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out() != nil
}

// endHeaviest ends the query that holds the most, if there is any.
func (w *Workings) endHeaviest() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end(nil, -1)
}

// out returns a query that was ended for others and is not gone yet. It needs w.mu.
func (w *Workings) out() *Working {
	for q := range w.running {
		if q.evicted.Load() {
			return q
		}
	}
	return nil
}

// end ends the query but q that holds the most, if that is more than some bytes. It needs w.mu.
func (w *Workings) end(q *Working, bytes int64) bool {
	var worst *Working
	for o := range w.running {
		if held := o.held.Load(); o != q && held > bytes {
			worst, bytes = o, held
		}
	}
	if worst == nil {
		return false
	}
	worst.evicted.Store(true)
	worst.cancel(errEvicted())
	w.evictions.Add(1)
	return true
}

// Evicted returns why the query was ended for others, nil if it was not.
func (q *Working) Evicted() error {
	if q == nil || !q.evicted.Load() {
		return nil
	}
	return errEvicted()
}

// Peak is the most bytes that the query has used at a time.
func (q *Working) Peak() int64 {
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.peak
}

// Return takes n bytes off what the query uses.
func (q *Working) Return(n int64) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used = max(0, q.used-n)
}

// End gives back all that the query used. It may be called more than once.
func (q *Working) End() {
	if q == nil {
		return
	}
	q.all.mu.Lock()
	delete(q.all.running, q)
	q.all.mu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended.Store(true)
	q.all.account.Release(q.held.Swap(0))
	q.used = 0
	q.cancel(context.Canceled)
}

package stream

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

const (
	// alone is how many series of a selection one goroutine evaluates before others help: a query of few is
	// over before it could tell them.
	alone = 64
	// batchValues is about how many values a helper makes at a time, batchLeast and batchMost how many series
	// it makes them of.
	batchValues = 32 << 10
	batchLeast  = 8
	batchMost   = 128
	// mostHelpers bounds the goroutines of one selection: what the series become together is one's work.
	mostHelpers = 3
)

// found is one series with its values at all steps, and how many samples were in its windows and read for it.
type found struct {
	lset        labels.Labels
	vals        []float64
	total, read int64
	err         error
}

// worker evaluates single series of a leaf. Each goroutine has its own.
type worker struct {
	samples
	leaf *leaf
	turn *turns.Turn // of the goroutine
	// values sets vals, one for each step, and returns how many samples are in the windows and were read. Its error is
	// that of ctx.
	values func(ctx context.Context, w *worker, lset labels.Labels, vals []float64) (total, read int64, err error)
}

// evaluate makes values of s; none have no samples. Errors: ErrUnsupported, those of the storage and of ctx.
func (w *worker) evaluate(ctx context.Context, s storage.Series, vals []float64) found {
	l := w.leaf
	if err := w.load(s, l.hints.Start, l.hints.End, l.stale); err != nil || len(w.ts) == 0 {
		return found{err: err}
	}
	out := found{lset: s.Labels(), vals: vals}
	out.total, out.read, out.err = w.values(ctx, w, out.lset, vals)
	return out
}

// crew evaluates the series of a leaf in their order, on several processors as long as these have nothing else
// to do: it gives batches of series to helpers, evaluates one itself meanwhile, and then passes on theirs.
type crew struct {
	leaf *leaf
	n    int // steps
	hire func() *worker
	// single is set if only one goroutine may evaluate.
	single bool

	own  *worker
	vals []float64 // of a series that own evaluated
	// helping is the context of helpers, which end with it; nil: there were none.
	helping   context.Context //nolint:containedctx // It is that of the query, and ends earlier.
	dismissed context.CancelFunc
	seen      int
	over      bool  // there are no more series
	err       error // why
	round     []*batch
	at        int // of round
	spare     []*batch
}

// batch is series that follow each other.
type batch struct {
	series []storage.Series
	i      int // of the next one to pass on

	// Of a helper's batch.
	done   chan struct{} // closed when it is evaluated; nil: nobody helped
	worker *worker
	found  []found
	vals   []float64
	broken string // what it panicked with
}

// crewOf returns what evaluates the series of l.
func (p *planner) crewOf(l *leaf, n int, hire func() *worker) *crew {
	c := &crew{leaf: l, n: n, hire: hire}
	p.run.crews = append(p.run.crews, c)
	p.run.reserve(&c.vals, n)
	return c
}

// next returns the next series that has samples. Its values belong to the caller until the next call. Errors:
// ErrUnsupported, those of the storage.
func (c *crew) next(ctx context.Context) (out found, ok bool, err error) {
	for {
		if err := c.leaf.run.interrupted(ctx); err != nil {
			return found{}, false, err
		}
		if c.at == len(c.round) {
			if !c.muster(ctx) {
				return found{}, false, c.err
			}
		}
		b := c.round[c.at]
		if b.i == len(b.series) {
			c.at++
			continue
		}
		if b.done == nil {
			out = c.own.evaluate(ctx, b.series[b.i], c.vals)
			b.series[b.i] = nil // its chunks need not stay in memory
		} else {
			b.wait(c.leaf.run.turn)
			out = b.found[min(b.i, len(b.found)-1)] // the last one may be why it ended
		}
		b.i++
		if out.err != nil || out.vals != nil {
			return out, out.err == nil, out.err
		}
	}
}

// muster begins the next round. It says whether there are more series.
func (c *crew) muster(ctx context.Context) bool {
	for _, b := range c.round {
		b.reset()
	}
	c.spare, c.round, c.at = append(c.spare, c.round...), c.round[:0], 0
	if c.own == nil {
		c.own = c.hire()
		c.own.turn = c.leaf.run.turn
		c.single = c.single || c.leaf.run.samples.TotalSamplesPerStep != nil
	}
	size := min(max(batchValues/c.n, batchLeast), batchMost)
	helpers := min(runtime.GOMAXPROCS(0)-1, mostHelpers)
	if c.single || c.seen < alone || helpers == 0 {
		size, helpers = 1, 0
	}
	c.fill(size)
	for range helpers {
		if c.single || c.over {
			break
		}
		turn, end, ok := c.leaf.run.turn.Second()
		if !ok {
			break
		}
		b := c.fill(size)
		if c.single || len(b.series) == 0 || !b.room(c) {
			end()
			break
		}
		if c.helping == nil {
			c.helping, c.dismissed = context.WithCancel(ctx)
		}
		go b.evaluate(c.helping, c.n, turn, end)
	}
	return len(c.round[0].series) > 0
}

// fill appends a batch of up to size series to the round.
func (c *crew) fill(size int) *batch {
	b := &batch{}
	if n := len(c.spare); n > 0 {
		b, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	c.round = append(c.round, b)
	set := c.leaf.set
	for len(b.series) < size && !c.over {
		if c.over = !set.Next(); c.over {
			if err := set.Err(); err != nil {
				c.err = fmt.Errorf("expanding series: %w", err)
			}
			break
		}
		s := set.At()
		if _, ok := s.(Chunked); !ok {
			c.single = true // nobody promises that several may read others at a time
		}
		b.series = append(b.series, s)
		c.seen++
	}
	return b
}

// room gives b what a helper needs for its series, and says whether that may be had.
func (b *batch) room(c *crew) bool {
	if n := len(b.series) * c.n; n > len(b.vals) {
		if c.leaf.run.loan.Use(8*int64(n-len(b.vals))) != nil {
			return false
		}
		b.vals = make([]float64, n)
	}
	if b.worker == nil {
		b.worker = c.hire()
	}
	b.done = make(chan struct{})
	return true
}

// evaluate is what a helper does.
func (b *batch) evaluate(ctx context.Context, n int, turn *turns.Turn, end func()) {
	defer close(b.done)
	defer end()
	defer func() {
		if p := recover(); p != nil {
			b.broken = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
	}()
	w := b.worker
	w.turn = turn
	for i, s := range b.series {
		turn.Yield()
		if err := Interrupted(ctx); err != nil {
			b.found = append(b.found, found{err: err})
			return
		}
		b.found = append(b.found, w.evaluate(ctx, s, b.vals[i*n:(i+1)*n:(i+1)*n]))
		b.series[i] = nil
	}
}

// reset makes b an empty batch.
func (b *batch) reset() {
	clear(b.series)
	clear(b.found)
	b.series, b.found, b.i, b.done = b.series[:0], b.found[:0], 0, nil
}

// finish returns when the helper is done. Who waits for it does not compute.
func (b *batch) finish(turn *turns.Turn) {
	select {
	case <-b.done:
	default:
		turn.Rest()
		<-b.done
		turn.Resume()
	}
}

// wait is finish for who wants what was found.
func (b *batch) wait(turn *turns.Turn) {
	b.finish(turn)
	if b.broken != "" {
		panic("BUG: " + b.broken)
	}
}

// dismiss ends the helpers that are left of a query which ended early, and returns when they are done.
func (c *crew) dismiss() {
	if c.helping == nil {
		return
	}
	c.dismissed()
	for _, b := range c.round {
		if b.done != nil {
			b.finish(c.leaf.run.turn)
		}
	}
}

package querier

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/turns"
)

// sessionFetches is how many selections of one query run at the same time.
const sessionFetches = 8

// session is one query's use of the querier: a time range and what is left of the limits.
type session struct {
	q          *Querier
	mint, maxt int64
	slots      chan struct{}
	fetches    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	budget  *budget
	cancels []context.CancelCauseFunc
}

var (
	errSessionClosed = errs.New(errs.Canceled, "query has ended")
	errNotNeeded     = errs.New(errs.Canceled, "others have answered")
)

func newSession(q *Querier, mint, maxt int64) *session {
	return &session{q: q, mint: mint, maxt: maxt, slots: make(chan struct{}, sessionFetches)}
}

// Close ends running selections.
func (s *session) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, cancel := range s.cancels {
		cancel(errSessionClosed)
	}
	s.mu.Unlock()
	s.fetches.Wait()
	if s.budget != nil {
		s.budget.release()
	}
	return nil
}

// selection is a Select in the making.
type selection struct {
	ready     chan struct{}
	merger    *merger
	mint      int64
	maxt      int64
	untrimmed bool
	sorted    bool
	limit     int // series; 0: none
	n         int
	err       error

	turn   *turns.Turn // of the goroutine that reads the series
	budget *budget
	points points // charged for each series
	hiding hiding
}

// points is what the engine makes of each series of a selection: a value for each step at which the
// series has one. It holds those of all series at once.
type points struct {
	step, reach millis // reach is how long after a sample the series still has a value, and how far before the first step is read
}

// pointBytes is what the engine holds for one value at one step.
const pointBytes = 16

// pointsOf returns what follows from the hints of the engine; nothing without steps.
func pointsOf(h storage.SelectHints) points {
	if h.Range > 0 {
		return points{step: h.Step, reach: h.Range}
	}
	return points{step: h.Step, reach: lookback.Milliseconds()}
}

// lookback is the engine's default; with another, the charge is somewhat too low.
const lookback = 5 * time.Minute

// bytes is what a series with samples in mint <= t <= maxt makes of steps in start <= t <= end.
func (p points) bytes(mint, maxt, start, end millis) int64 {
	from, to := max(mint, start), min(maxt, end)
	if p.step <= 0 || to < from {
		return pointBytes
	}
	// In floating point the ends of a range cannot be too far apart.
	all := max(float64(end)-float64(start)-float64(p.reach), 0) // from the first step to the last
	steps := min(float64(to)-float64(from)+float64(p.reach), all)/float64(p.step) + 1
	return pointBytes * int64(min(steps, 1<<40))
}

// sel starts to fetch. Selections of one query so run beside each other although the engine asks
// for one after the other.
func (s *session) sel(ctx context.Context, hints *storage.SelectHints, matchers []*labels.Matcher) *selection {
	return s.selOrdered(ctx, true, hints, matchers)
}

// selOrdered is sel for who may not need the series sorted.
func (s *session) selOrdered(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers []*labels.Matcher) *selection {
	out := &selection{ready: make(chan struct{}), turn: turns.Of(ctx)}
	var h storage.SelectHints
	if hints != nil {
		h = *hints
	} else {
		h.Start, h.End = s.mint, s.maxt
	}
	h.Start, h.End = max(h.Start, s.mint), min(h.End, s.maxt)
	out.sorted = sorted || h.Func == seriesOnly
	out.limit, out.untrimmed, out.points = h.Limit, h.DisableTrimming, pointsOf(h)

	if memory.Counts(ctx) {
		out.points = points{}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		out.err = errSessionClosed
		close(out.ready)
		return out
	}
	ctx, cancel := context.WithCancelCause(turns.Apart(ctx))
	s.cancels = append(s.cancels, cancel)
	s.fetches.Go(func() {
		defer close(out.ready)
		defer errs.Caught(&out.err) // who reads the series is told
		out.err = s.fetch(ctx, h, matchers, out)
	})
	return out
}

func (s *session) fetch(ctx context.Context, h storage.SelectHints, matchers []*labels.Matcher, out *selection) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	release, err := s.q.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	sc, err := s.q.scope(ctx, h.Start, h.End)
	if err != nil {
		return err
	}
	if h.Func != seriesOnly {
		if err := s.q.checkLength(sc); err != nil {
			return err
		}
	}
	h.Start, h.End = sc.mint, sc.maxt
	out.mint, out.maxt = sc.mint, sc.maxt
	sc.anyOrder = !out.sorted

	out.budget = s.budgetOf(ctx, sc)
	if out.hiding, err = s.q.hiding(ctx, sc, h, matchers, out.budget); err != nil {
		return err
	}
	if out.merger, err = s.q.merged(ctx, sc, h, matchers, out.budget); err == nil {
		out.merger.turn = out.turn
	}
	return err
}

// merged selects from ingesters and blocks.
func (q *Querier) merged(ctx context.Context, sc scope, h storage.SelectHints, matchers []*labels.Matcher, b *budget) (*merger, error) {
	var recent, old []source
	g, gctx := errs.Together(ctx)
	if sc.blocks {
		g.Go(func() (err error) { old, err = q.selectBlocks(gctx, sc, h, matchers, b); return err })
	}
	if sc.ingesters {
		var err error
		if recent, err = q.selectIngesters(gctx, sc, h, matchers, b); err != nil {
			g.Go(func() error { return err }) // ends the other
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	m := newMerger(append(recent, old...), q.metrics)
	m.anyOrder = sc.anyOrder
	return m, nil
}

func (s *session) budgetOf(ctx context.Context, sc scope) *budget {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.budget == nil {
		s.budget = newBudget(ctx, s.q, sc.limits)
	}
	return s.budget
}

// await returns when the selection is made, and panics if that did. Who waits for it does not compute.
func (s *selection) await() {
	select {
	case <-s.ready:
	default:
		s.turn.Rest()
		<-s.ready
		s.turn.Resume()
	}
	errs.Raise(s.err)
}

// next moves to the next series.
func (s *selection) next() bool {
	s.await()
	if s.err != nil || s.limit > 0 && s.n >= s.limit {
		return false
	}
	for shown := false; !shown; {
		s.turn.Yield()
		if !s.merger.next() {
			s.err = s.merger.failure
			return false
		}
		if shown, s.err = s.hiding.shows(s); s.err != nil {
			return false
		}
	}
	s.n++
	if ms := s.merger.metas; len(ms) > 0 && s.points.step > 0 {
		if s.err = s.budget.use(s.points.bytes(ms[0].MinTime, ms[len(ms)-1].MaxTime, s.mint, s.maxt)); s.err != nil {
			return false
		}
	}
	return true
}

func (s *selection) series() *series {
	return &series{lset: s.merger.lset, metas: s.merger.metas, mint: s.mint, maxt: s.maxt, untrimmed: s.untrimmed, mixed: s.merger.mixed, hidden: s.hiding.hidden}
}

func (s *selection) Err() error {
	s.await()
	return s.err
}

func (s *selection) Warnings() annotations.Annotations { return nil }

type (
	sampleQuerier struct{ *session }
	chunkQuerier  struct{ *session }
	sampleSet     struct{ *selection }
	chunkSet      struct{ *selection }
)

// Select returns the series that match all matchers, sorted if that is asked for. Errors of the set: Unavailable if
// too few replicas or blocks answered, TooLarge over a limit.
func (q sampleQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	return sampleSet{q.selOrdered(ctx, sorted, hints, matchers)}
}

// Select is as sampleQuerier's.
func (q chunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.ChunkSeriesSet {
	return chunkSet{q.selOrdered(ctx, sorted, hints, matchers)}
}

func (s sampleSet) Next() bool             { return s.next() }
func (s sampleSet) At() storage.Series     { return sampleSeries{s.series()} }
func (s chunkSet) Next() bool              { return s.next() }
func (s chunkSet) At() storage.ChunkSeries { return chunkSeries{s.series()} }

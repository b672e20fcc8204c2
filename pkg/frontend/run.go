package frontend

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/frontend/results"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// outerLookback makes the outer query see of a leaf only the point at the time that it evaluates.
const outerLookback = time.Millisecond

// run is one execution of a query.
type run struct {
	q      *query
	plan   plan
	shards int
	slots  chan struct{} // one for each part that is on its way
	kept   *kept         // nil: the answer is not kept

	mu      sync.Mutex // guards what follows
	samples stats.QuerySamples
	fetched work.Fetched
	held    []*work.Result
	works   int // that queriers were asked to do
	again   int // leaves that were asked a second time, as a whole
	// spunBytes are those of kept answers to parts.
	spunBytes int
}

// split returns the ranges that a range is asked in: each ends before a multiple of interval, so that
// different queries over the same days have parts in common.
func split(g grid, interval int64) []grid {
	if interval <= 0 || g.step == 0 {
		return []grid{g}
	}
	var out []grid
	for at := g.start; at <= g.end; {
		day := at / interval
		if at < 0 && at%interval != 0 {
			day--
		}
		next := (day + 1) * interval
		steps := (next - 1 - at) / g.step
		end := min(at+steps*g.step, g.at(g.len()-1))
		out = append(out, grid{at, end, g.step})
		at = end + g.step
	}
	return out
}

// answer is what became of a query or a part of it.
type answer struct {
	value parser.Value
	notes annotations.Annotations
}

// whole asks for the query over its range.
func (r *run) whole(ctx context.Context, parts []grid) (answer, error) {
	part := r.part
	if r.kept != nil {
		part = r.kept.part
	}
	if len(parts) == 1 {
		return part(ctx, parts[0])
	}
	values, all := make([]promql.Matrix, len(parts)), make([]answer, len(parts))
	g, gctx := errs.Together(ctx)
	for i, p := range parts {
		g.Go(func() (err error) {
			if all[i], err = part(gctx, p); err == nil {
				values[i], err = matrixIn(all[i].value)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return answer{}, err
	}
	_, turn, end := r.q.f.deps.Turns.Begin(ctx)
	defer end()
	return answer{results.Append(values, turn), notesOf(all)}, nil
}

// notesOf puts the notes of answers together: of two of one text the later counts, as in the engine.
func notesOf(all []answer) annotations.Annotations {
	var out annotations.Annotations
	for _, a := range all {
		out.Merge(a.notes)
	}
	return out
}

// matrixIn returns the series of an answer.
func matrixIn(v parser.Value) (promql.Matrix, error) {
	switch v := v.(type) {
	case promql.Matrix:
		return v, nil
	case promql.Vector:
		return matrixOf(v), nil
	}
	return nil, errs.New(errs.Internal, "a part of a query was answered by a %T", v)
}

// part evaluates the query on one range.
func (r *run) part(ctx context.Context, at grid) (answer, error) {
	if r.plan.outer == "" {
		return r.leaf(r.within(ctx, 0), r.plan.leaves[0], at)
	}
	values, all := make([]promql.Matrix, len(r.plan.leaves)), make([]answer, len(r.plan.leaves))
	g, gctx := errs.Together(ctx)
	for i, l := range r.plan.leaves {
		g.Go(func() (err error) {
			if all[i], err = r.leaf(r.within(gctx, i), l, at); err == nil {
				values[i], err = matrixIn(all[i].value)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return answer{}, err
	}
	source := embedded{}
	for i, l := range r.plan.leaves {
		source[l.name] = values[i]
	}
	out, err := r.outer(ctx, source, at)
	return answer{out.value, notesOf(append(all, out))}, err
}

// outer evaluates what is left of the query over the answers of its leaves.
func (r *run) outer(ctx context.Context, source embedded, at grid) (answer, error) {
	opts := promql.NewPrometheusQueryOpts(false, outerLookback)
	e := r.q.f.deps.Engine
	var q promql.Query
	var err error
	if at.step == 0 {
		q, err = e.NewInstantQuery(ctx, source, opts, r.plan.outer, timestamp.Time(at.start))
	} else {
		q, err = e.NewRangeQuery(ctx, source, opts, r.plan.outer, timestamp.Time(at.start), timestamp.Time(r.until(at)), time.Duration(at.step)*time.Millisecond)
	}
	if err != nil {
		return answer{}, err
	}
	res := q.Exec(ctx)
	r.hold(work.NewResult(nil, nil, q.Close))
	return answer{res.Value, res.Warnings}, res.Err
}

// ranged says whether q is about more than one time, be it that only one of them is on its grid.
func (q *query) ranged() bool { return q.asked.Step > 0 && q.asked.End != q.asked.Start }

// until is the end of a part as the engine is told it. For the engine, what begins where it ends is an
// instant, in which sort has a meaning: a part of a range never is one.
func (r *run) until(at grid) int64 {
	if at.start == at.end && at.step > 1 && r.q.ranged() {
		return at.end + 1 // a time that is not on the grid
	}
	return at.end
}

// hold keeps a result until the query is closed.
func (r *run) hold(res *work.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, res)
}

// leaf returns the value of one leaf.
func (r *run) leaf(ctx context.Context, l leaf, at grid) (answer, error) {
	if l.spun != nil {
		return r.spun(ctx, l)
	}
	if l.merge == 0 {
		return r.ask(ctx, l.text, at)
	}
	out, ok, err := r.sharded(ctx, l, at)
	if ok || err != nil {
		return out, err
	}
	r.mu.Lock()
	r.again++
	r.mu.Unlock()
	return r.ask(ctx, l.original, at)
}

// ask has queriers evaluate text over all series.
func (r *run) ask(ctx context.Context, text string, at grid) (answer, error) {
	res, err := r.do(ctx, text, at, 0, 0)
	if err != nil {
		return answer{}, err
	}
	r.hold(res)
	return answer{res.Value, res.Warnings}, nil
}

// sharded asks for the shards of a leaf and merges them. ok is false if they do not tell what the whole
// is.
func (r *run) sharded(ctx context.Context, l leaf, at grid) (out answer, ok bool, err error) {
	m := newMerger(l.merge, at)
	var mu sync.Mutex // guards m, series and out
	var series int64
	g, gctx := errs.Together(ctx)
	one := func(text string, shard int, counted bool) {
		g.Go(func() error {
			res, err := r.do(gctx, text, at, shard, r.shards)
			if err != nil {
				return err
			}
			defer res.Release()
			mu.Lock() // before the turn, with which nobody waits for others of this query
			defer mu.Unlock()
			_, turn, end := r.q.f.deps.Turns.Begin(gctx)
			defer end()
			if !counted {
				out.notes.Merge(res.Warnings)
				series += res.Series
			}
			m.add(res.Value, counted, turn)
			return nil
		})
	}
	for shard := range r.shards {
		one(l.text, shard, false)
		if l.count != "" {
			one(l.count, shard, true)
		}
	}
	if err := g.Wait(); err != nil {
		return out, false, err
	}
	r.q.f.seen.note(r.q.key(), series, r.q.f.deps.Now())
	for _, n := range out.notes {
		// A shard that left something out with a warning left out what the whole may have to.
		if errors.Is(n, annotations.PromQLWarning) {
			return out, false, nil
		}
	}
	_, turn, end := r.q.f.deps.Turns.Begin(ctx)
	defer end()
	merged, ok := m.matrix(turn)
	if out.value = merged; at.step == 0 {
		out.value = vectorOf(merged)
	}
	return out, ok, nil
}

// do has a querier do one piece of work, again if that is worth it.
func (r *run) do(ctx context.Context, text string, at grid, shard, shards int) (*work.Result, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	asked := r.q.asked
	asked.Text, asked.Start, asked.End, asked.Step = text, at.start, r.until(at), at.step
	asked.ShardIndex, asked.ShardCount = uint32(shard), uint32(shards)
	pause, try, begin := retryPause, 1, r.q.f.deps.Now()
	defer func() { r.q.f.metrics.tries.Observe(float64(try - 1)) }()
	for ; ; try++ {
		w := &work.Work{Class: work.ClassOf(ctx), Query: &asked}
		err := r.q.f.deps.Run.Run(ctx, w)
		r.mu.Lock()
		r.works++
		if err == nil {
			r.count(&w.Result.Samples, at)
			r.fetched.Add(w.Result.Fetched)
		}
		r.mu.Unlock()
		if err == nil {
			r.trace(ctx, &asked, w.Result, ExplainWork{Tries: try, Seconds: r.q.f.deps.Now().Sub(begin).Seconds()})
			return w.Result, nil
		}
		if errs.KindOf(err) != errs.Unavailable || try >= r.q.f.cfg.MaxRetries || ctx.Err() != nil {
			return nil, err
		}
		r.q.f.metrics.retries.Inc()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
		pause *= 2
	}
}

// trace notes what came of a piece of work, if the query is explained.
func (r *run) trace(ctx context.Context, asked *work.Query, res *work.Result, w ExplainWork) {
	if r.q.trace == nil {
		return
	}
	w.Query, w.ExplainRange = strings.TrimSpace(asked.Text), grid{asked.Start, asked.End, asked.Step}.shown()
	if w.Shards = int(asked.ShardCount); w.Shards > 0 {
		w.Shard, w.Fetched = int(asked.ShardIndex)+1, res.Series
	}
	w.FetchedBytes, w.part = res.Fetched, partOf(ctx)
	w.Samples, w.SamplesRead, w.Peak = res.Samples.TotalSamples, res.Samples.SamplesRead, res.Samples.PeakSamples
	switch v := res.Value.(type) {
	case promql.Matrix:
		w.Series = len(v)
	case promql.Vector:
		w.Series = len(v)
	}
	r.q.trace.evaluated(w)
}

// retryPause is how long a query waits before its first second try.
const retryPause = 50 * time.Millisecond

// count adds the statistics of one piece of work. It needs r.mu.
func (r *run) count(s *stats.QuerySamples, at grid) {
	t := &r.samples
	t.TotalSamples += s.TotalSamples
	t.SamplesRead += s.SamplesRead
	t.PeakSamples = max(t.PeakSamples, s.PeakSamples)
	if !r.q.asked.PerStepStats {
		return
	}
	all := grid{r.q.asked.Start, r.q.asked.End, r.q.asked.Step}
	if t.TotalSamplesPerStep == nil {
		t.EnablePerStepStats, t.StartTimestamp, t.Interval = true, all.start, max(all.step, 1)
		t.TotalSamplesPerStep, t.SamplesReadPerStep = make([]int64, all.len()), make([]int64, all.len())
	}
	from := max(0, all.index(at.start))
	for i, n := range s.TotalSamplesPerStep[:min(len(s.TotalSamplesPerStep), all.len()-from)] {
		t.TotalSamplesPerStep[from+i] += n
	}
	for i, n := range s.SamplesReadPerStep[:min(len(s.SamplesReadPerStep), all.len()-from)] {
		t.SamplesReadPerStep[from+i] += n
	}
}

// release gives back what the answers hold.
func (r *run) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range slices.Backward(r.held) {
		h.Release()
	}
	r.held = nil
}

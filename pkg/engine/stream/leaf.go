package stream

import (
	"context"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// leaf is one selection of series.
type leaf struct {
	run      *run
	tally    tally
	matchers []*labels.Matcher
	hints    storage.SelectHints
	named    bool // all series have the same name
	stale    bool // staleness markers are wanted

	set storage.SeriesSet
}

func (l *leaf) oneName() bool { return l.named }

// named says whether all series that match have the same name.
func named(matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != "" {
			return true
		}
	}
	return false
}

// when is where a selector or subquery looks at each step of a grid.
type when struct {
	grid
	offset int64
	fixed  bool // at offset, whatever the step
}

// whenOf returns the times of a selector with the modifiers at and offset.
func whenOf(g grid, at *int64, offset int64) when {
	if at != nil {
		return when{g, *at - offset, true}
	}
	return when{g, offset, false}
}

func (w when) ref(i int) int64 {
	if w.fixed {
		return w.offset
	}
	return w.at(i) - w.offset
}

// instants is a selector of instant vectors: at each step, the last sample that is younger than the
// lookback, unless it is a staleness marker.
type instants struct {
	*leaf
	when
	crew  *crew
	times bool // the times of the samples instead of their values, in seconds
	names *unique
	out   series
}

func (s *instants) next(ctx context.Context) (*series, error) {
	for {
		f, ok, err := s.crew.next(ctx)
		if err != nil || !ok {
			return nil, err
		}
		s.out = series{lset: f.lset, vals: f.vals, lent: true}
		if f.total == 0 {
			continue
		}
		s.tally.add(f.total, f.read)
		if s.times {
			if err := s.names.unname(&s.out); err != nil {
				return nil, err
			}
		}
		return &s.out, nil
	}
}

// fill sets the values of the steps and returns how many there are.
func (s *instants) fill(_ context.Context, w *worker, _ labels.Labels, vals []float64) (total, read int64, err error) {
	ts, vs := w.ts, w.vs
	next, lookback, n := 0, s.run.lookback, int64(0)
	for i := range vals {
		ref := s.ref(i)
		for next < len(ts) && ts[next] <= ref {
			next++
		}
		if next == 0 || ts[next-1] <= ref-lookback || !present(vs[next-1]) {
			vals[i] = absent()
			continue
		}
		vals[i] = vs[next-1]
		if s.times {
			vals[i] = float64(ts[next-1]) / 1000
		}
		s.tally.at(i, 1, 1)
		n++
	}
	return n, n, nil
}

// tally counts samples for the statistics of a query.
type tally struct {
	run    *run
	steps  int64 // of the query that each sample counts for; 0: it is only read
	single bool  // all counts are for the first step
	unread bool  // the samples are values of a subquery, which reads its own
}

// add counts samples that at was told of by step, if steps are told apart at all.
func (t *tally) add(total, read int64) {
	if t.unread {
		read = 0
	}
	if s := t.run.samples; s != nil && s.TotalSamplesPerStep == nil {
		s.TotalSamples += total * t.steps
		s.SamplesRead += read
	}
}

// at counts samples at a step, if steps are told apart.
func (t *tally) at(step int, total, read int64) {
	if t.unread {
		read = 0
	}
	s := t.run.samples
	if s == nil || s.TotalSamplesPerStep == nil {
		return
	}
	if !t.single {
		s.IncrementSamplesAtStep(step, total*t.steps)
		s.IncrementSamplesReadAtStep(step, read)
		return
	}
	for i := range int(t.steps) {
		s.IncrementSamplesAtStep(i, total)
	}
	s.IncrementSamplesReadAtStep(0, read)
}

// leafOf returns the selection of vs for a grid, reach before each step.
func (p *planner) leafOf(vs *parser.VectorSelector, sc scope, reach int64) (*leaf, when, error) {
	if vs.Anchored || vs.Smoothed {
		return nil, when{}, unsupported("anchored and smoothed selectors")
	}
	w := whenOf(sc.grid, vs.Timestamp, vs.OriginalOffset.Milliseconds())
	l := &leaf{
		run: p.run, tally: sc.tally(p.run), matchers: vs.LabelMatchers, named: named(vs.LabelMatchers),
		hints: storage.SelectHints{
			Start: w.ref(0) - reach + 1, End: w.ref(sc.grid.n - 1), Step: sc.grid.hint(), DisableTrimming: true, Func: sc.fn, By: sc.by, Grouping: sc.grouping,
		},
	}
	p.run.leaves = append(p.run.leaves, l)
	return l, w, nil
}

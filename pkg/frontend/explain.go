package frontend

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// Explanation is how a query is laid out.
type Explanation struct {
	Query  string         `json:"query"`
	Ranges []ExplainRange `json:"ranges"` // asked for beside each other
	Parts  []ExplainPart  `json:"parts"`  // that queriers evaluate for each range
	Outer  string         `json:"outer,omitempty"`
	// What it took; only if it was run.
	Seconds float64 `json:"seconds,omitempty"`
	Works   int     `json:"works,omitempty"`
	Samples int64   `json:"samples,omitempty"`
	Peak    int     `json:"peak_samples,omitempty"`
	Series  int     `json:"series,omitempty"`
	// FetchedBytes is nil if it was not run.
	FetchedBytes *work.Fetched `json:"fetched_bytes,omitempty"`
	// The slowest first, and not more than mostShown of each.
	Evaluated []ExplainWork   `json:"evaluated,omitempty"`
	Cache     []ExplainCached `json:"cache,omitempty"`
}

// mostShown bounds the lists of an explanation: a year has thousands of shards.
const mostShown = 1000

// ExplainWork is what one querier evaluated: a part of the expression, for a range, over all series or a
// shard of them.
type ExplainWork struct {
	Query string `json:"query"`
	ExplainRange
	Shard       int     `json:"shard,omitempty"` // from 1 to Shards
	Shards      int     `json:"shards,omitempty"`
	Seconds     float64 `json:"seconds"` // with the wait for a querier, and all tries
	Tries       int     `json:"tries"`
	Samples     int64   `json:"samples"`
	SamplesRead int64   `json:"samples_read"`
	Peak        int     `json:"peak_samples"`
	Series      int     `json:"series"`                   // of the answer
	Fetched     int64   `json:"fetched_series,omitempty"` // of a shard

	FetchedBytes work.Fetched `json:"fetched_bytes"`

	part int // of the plan, as partOf has it
}

// ExplainCached is what the results cache had of a query, or of a part that is a query of its own, for a
// range.
type ExplainCached struct {
	Query string `json:"query"`
	ExplainRange
	Outcome string  `json:"outcome"` // hit, partial or miss
	Read    int     `json:"read_bytes"`
	Written int     `json:"written_bytes"`
	Seconds float64 `json:"seconds"` // until the range was answered
}

// trace is what became of the parts of a query that is explained.
type trace struct {
	mu     sync.Mutex // guards what follows
	works  []ExplainWork
	cached []ExplainCached
}

func (t *trace) evaluated(w ExplainWork) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.works = append(t.works, w)
}

func (t *trace) kept(c ExplainCached) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cached = append(t.cached, c)
}

type partKey struct{}

// within returns ctx for the part i of the plan, if the query is explained. What is asked for that part in
// queries of its own is of the same part.
func (r *run) within(ctx context.Context, i int) context.Context {
	if r.q.trace == nil || r.q.nested {
		return ctx
	}
	return context.WithValue(ctx, partKey{}, i)
}

// partOf is the part of the plan that ctx is for.
func partOf(ctx context.Context) int {
	i, _ := ctx.Value(partKey{}).(int)
	return i
}

// sum puts into part i what was evaluated of it.
func (t *trace) sum(i int, into *ExplainPart) {
	t.mu.Lock()
	defer t.mu.Unlock()
	into.FetchedBytes = new(work.Fetched)
	for k := range t.works {
		if w := &t.works[k]; w.part == i {
			into.Evaluated++
			into.Samples += w.Samples
			into.FetchedBytes.Add(w.FetchedBytes)
		}
	}
}

// show puts what is known into an explanation.
func (t *trace) show(out *Explanation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.works, func(a, b ExplainWork) int { return cmp.Compare(b.Seconds, a.Seconds) })
	slices.SortStableFunc(t.cached, func(a, b ExplainCached) int { return cmp.Compare(b.Seconds, a.Seconds) })
	out.Evaluated, out.Cache = t.works[:min(len(t.works), mostShown)], t.cached[:min(len(t.cached), mostShown)]
}

// shown is g for an explanation.
func (g grid) shown() ExplainRange {
	return ExplainRange{time.UnixMilli(g.start).UTC(), time.UnixMilli(g.end).UTC()}
}

// ExplainRange is a part of the time of a query.
type ExplainRange struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// ExplainPart is a part of the expression.
type ExplainPart struct {
	Name   string `json:"name,omitempty"` // in the outer query
	Query  string `json:"query"`
	Shards int    `json:"shards,omitempty"`
	Merge  string `json:"merge,omitempty"` // the aggregation of the shards
	// Of a part of an instant query that is a query of its own.
	Ranges int `json:"ranges,omitempty"` // parts of its range
	Steps  int `json:"steps,omitempty"`  // of its subquery
	// Of all that was evaluated of it, if it was run.
	Evaluated    int           `json:"evaluated,omitempty"`
	Samples      int64         `json:"samples,omitempty"`
	FetchedBytes *work.Fetched `json:"fetched_bytes,omitempty"`
}

// Explain says how qs is laid out and, if it is to be run, what that took. Errors: those of the
// language and of the query.
func (f *Frontend) Explain(ctx context.Context, asked work.Query, execute bool) (Explanation, error) {
	p, err := f.prepare(ctx, nil, asked)
	if err != nil {
		return Explanation{}, err
	}
	defer p.Close()
	q, ok := p.(*query)
	if !ok {
		return Explanation{}, errs.New(errs.Internal, "a query is a %T", p)
	}
	out := Explanation{Query: asked.Text}
	if execute {
		q.trace = &trace{}
		res := q.Exec(ctx)
		if res.Err != nil {
			return out, res.Err
		}
		out.Seconds, out.Works, out.Samples, out.Peak = q.took.Seconds(), q.run.works, q.run.samples.TotalSamples, q.run.samples.PeakSamples
		if m, err := matrixIn(res.Value); err == nil {
			out.Series = len(m)
		}
		fetched := q.run.fetched
		out.FetchedBytes = &fetched
		q.trace.show(&out)
	} else {
		q.lay(ctx)
	}
	for _, g := range q.ranges() {
		out.Ranges = append(out.Ranges, g.shown())
	}
	for i, l := range q.run.plan.leaves {
		one := ExplainPart{Name: l.name, Query: strings.TrimSpace(l.text)}
		if l.merge != 0 {
			one.Query, one.Shards, one.Merge = strings.TrimSpace(l.original), q.run.shards, parser.ItemTypeStr[l.merge]
		}
		if x := l.spun; x != nil {
			if one.Ranges = len(x.spans); x.at.step > 0 {
				one.Steps = x.at.len()
			}
		}
		if q.trace != nil {
			q.trace.sum(i, &one)
		}
		out.Parts = append(out.Parts, one)
	}
	out.Outer = strings.Join(strings.Fields(q.run.plan.outer), " ")
	return out, nil
}

package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

// shelf is a storage of series of chunks.
type shelf struct {
	all   []storage.Series
	plain bool // the chunks cannot be had
	at    int
}

func (s shelf) Querier(int64, int64) (storage.Querier, error) { return s, nil }
func (shelf) Close() error                                    { return nil }
func (shelf) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (shelf) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (s shelf) Select(context.Context, bool, *storage.SelectHints, ...*labels.Matcher) storage.SeriesSet {
	return &shelf{all: s.all, plain: s.plain, at: -1}
}

func (s *shelf) Next() bool                      { s.at++; return s.at < len(s.all) }
func (*shelf) Err() error                        { return nil }
func (*shelf) Warnings() annotations.Annotations { return nil }
func (s *shelf) At() storage.Series {
	if s.plain {
		return struct{ storage.Series }{s.all[s.at]}
	}
	return s.all[s.at]
}

// book is a series of one chunk.
type book struct {
	storage.Series
	meta chunks.Meta
	read func() // is told of each reading; nil: nobody
}

func (b book) Chunks(buf []chunks.Meta) (metas []chunks.Meta, mint, maxt int64, ok bool) {
	if b.read != nil {
		b.read()
	}
	return append(buf, b.meta), math.MinInt64, math.MaxInt64, true
}

const shelfStep = 15_000

// books returns n series of so many samples, some of which have gaps, resets and staleness markers, or no sample.
func books(t testing.TB, n, samples int) []storage.Series {
	t.Helper()
	var out []storage.Series
	for i := range n {
		c := chunkenc.NewXORChunk()
		a, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for j := range samples {
			v := float64((i*31+j*j)%97) / 7
			switch {
			case i%50 == 49, i%7 == 3 && j%9 > 5:
				continue
			case i%11 == 5 && j%13 == 7:
				v = math.Float64frombits(value.StaleNaN)
			}
			a.Append(0, int64(j)*shelfStep, v)
		}
		lset := labels.FromStrings("__name__", "m_total", "n", fmt.Sprint(i), "group", fmt.Sprint(i%5))
		one := &storage.SeriesEntry{Lset: lset, SampleIteratorFn: c.Iterator}
		out = append(out, book{Series: one, meta: chunks.Meta{MinTime: 0, MaxTime: int64(samples) * shelfStep, Chunk: c}})
	}
	return out
}

// evaluated answers a query over series, and says how many goroutines beside its own evaluated some.
func evaluated(ctx context.Context, t testing.TB, q shelf, text string, steps int) (answer string, helpers int, err error) {
	t.Helper()
	p := planOf(t, text, steps)
	defer p.Close()
	var counted stats.QuerySamples
	v, notes, err := p.Run(ctx, q, &counted, free{})
	for _, c := range p.run.crews {
		for _, b := range append(c.round, c.spare...) {
			if b.worker != nil {
				helpers++
			}
		}
	}
	if err != nil {
		return "", helpers, err
	}
	return fmt.Sprint(v, notes, counted.TotalSamples, counted.SamplesRead, counted.PeakSamples), helpers, nil
}

// planOf plans a query of so many steps.
func planOf(t testing.TB, text string, steps int) *Plan {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		t.Fatal(err)
	}
	start, step := int64(5*60_000), int64(30_000)
	end := start + int64(steps-1)*step
	if expr, err = promql.PreprocessExpr(expr, timestamp.Time(start), timestamp.Time(end), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	p, err := New(Settings{MaxSamples: 10_000_000, SubqueryStep: func(int64) int64 { return 60_000 }}).Plan(
		Query{Expr: expr, Start: start, End: end, Step: step, Lookback: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// free is memory that nobody counts.
type free struct{}

func (free) Use(int64) error { return nil }

// twoProcessors makes sure that there are helpers.
func twoProcessors(t testing.TB) {
	t.Helper()
	if n := runtime.GOMAXPROCS(0); n < 2 {
		runtime.GOMAXPROCS(2)
		t.Cleanup(func() { runtime.GOMAXPROCS(n) })
	}
}

func TestManySeriesAreEvaluatedByHelpersAsByOne(t *testing.T) {
	twoProcessors(t)
	all := books(t, 1000, 60)
	for _, text := range []string{
		`sum by (group) (rate(m_total[2m]))`, `rate(m_total[2m])`, `m_total`, `avg(m_total)`, `topk(3, increase(m_total[3m]))`,
		`max by (group) (max_over_time(m_total[2m])) / on (group) count by (group) (m_total > 3)`, `timestamp(m_total)`,
		`quantile by (group) (0.9, last_over_time(m_total[90s]))`, `-m_total + 1`, `sum(m_total @ 400)`,
		`max_over_time(sum by (group) (rate(m_total[2m]))[5m:1m])`, `sum by (group) (quantile_over_time(0.9, m_total[2m]))`,
	} {
		for _, steps := range []int{1, 7, 500} {
			got, helpers, err := evaluated(t.Context(), t, shelf{all: all}, text, steps)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			want, alone, err := evaluated(t.Context(), t, shelf{all: all, plain: true}, text, steps)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if helpers == 0 || alone != 0 {
				t.Errorf("%s over %d steps: %d helpers, %d for series that several must not read", text, steps, helpers, alone)
			}
			if got != want {
				t.Errorf("%s over %d steps: %.300s, want %.300s", text, steps, got, want)
			}
		}
	}
}

func TestAFunctionWithAStateHasNoHelpers(t *testing.T) {
	twoProcessors(t)
	for _, text := range []string{
		`predict_linear(m_total[2m], 60)`,
		`quantile_over_time(1.5, m_total[2m])`, // it warns
	} {
		_, helpers, err := evaluated(t.Context(), t, shelf{all: books(t, 500, 60)}, text, 20)
		if err != nil || helpers != 0 {
			t.Errorf("%s: %d helpers, %v", text, helpers, err)
		}
	}
}

// The error of a helper comes behind the series before it, and with it the query ends.
func TestABrokenChunkEndsTheQueryWhoeverReadsIt(t *testing.T) {
	twoProcessors(t)
	for at := range 500 {
		if at%37 != 0 {
			continue
		}
		all := books(t, 500, 20)
		b := all[at].(book)
		c := chunkenc.NewXORChunk()
		c.Reset([]byte{0, 9, 1})
		b.meta.Chunk = c
		all[at] = b
		if _, _, err := evaluated(t.Context(), t, shelf{all: all}, `sum(m_total)`, 20); err == nil || !strings.Contains(err.Error(), "shorter than its samples") {
			t.Errorf("series %d: %v", at, err)
		}
	}
}

func TestAPanicOfAHelperIsOneOfTheQuery(t *testing.T) {
	twoProcessors(t)
	all := books(t, 500, 20)
	for i := alone; i < len(all); i++ { // one of them is a helper's
		b := all[i].(book)
		b.read = func() {
			if i%(2*batchMost) >= batchMost {
				panic("no such book")
			}
		}
		all[i] = b
	}
	defer func() {
		if p := recover(); !strings.Contains(fmt.Sprint(p), "no such book") {
			t.Errorf("panicked with %v", p)
		}
	}()
	_, _, err := evaluated(t.Context(), t, shelf{all: all}, `sum(m_total)`, 20)
	t.Errorf("no panic, %v", err)
}

func TestNoHelperIsLeftOfAQueryThatEnds(t *testing.T) {
	twoProcessors(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		var n, reading atomic.Int32
		all := books(t, 600, 20)
		for i := range all {
			b := all[i].(book)
			b.read = func() {
				reading.Add(1)
				defer reading.Add(-1)
				if n.Add(1) == 300 {
					cancel()
				}
				runtime.Gosched()
			}
			all[i] = b
		}
		if _, _, err := evaluated(ctx, t, shelf{all: all}, `sum(m_total)`, 20); err == nil {
			t.Error("a query that was cancelled was answered")
		}
		read := n.Load()
		runtime.Gosched()
		if reading.Load() != 0 || n.Load() != read {
			t.Error("somebody reads after the end of the query")
		}
	}
}

// looks is a context that is canceled once so many have looked.
type looks struct {
	context.Context
	left atomic.Int32
}

func (l *looks) Err() error {
	if l.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// The steps of one series may take seconds.
func TestOneLongSeriesEndsWithItsQuery(t *testing.T) {
	for _, text := range []string{`quantile_over_time(0.5, m_total[10m])`, `predict_linear(m_total[10m], 5)`, `max_over_time(m_total[10m:15s])`} {
		ctx := &looks{Context: t.Context()}
		ctx.left.Store(20)
		_, _, err := evaluated(ctx, t, shelf{all: books(t, 1, 4000)}, text, 1900)
		if _, ok := errors.AsType[promql.ErrQueryCanceled](err); !ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A query that ends for another reason than its context does not wait for what helpers have still to do.
func TestHelpersEndWithAQueryThatFails(t *testing.T) {
	twoProcessors(t)
	all := books(t, alone+2*batchMost, 20)
	synctest.Test(t, func(t *testing.T) {
		first, p := alone+batchMost, planOf(t, `sum(m_total)`, 20)
		broken := all[alone].(book)
		broken.meta.Chunk = chunkenc.NewXORChunk()
		broken.meta.Chunk.Reset([]byte{0, 9, 1})
		all[alone] = broken
		var read atomic.Int32
		for i := first; i < len(all); i++ {
			b := all[i].(book)
			b.read = func() {
				read.Add(1)
				<-p.run.crews[0].helping.Done()
			}
			all[i] = b
		}
		defer p.Close()
		if _, _, err := p.Run(t.Context(), shelf{all: all}, &stats.QuerySamples{}, free{}); err == nil || !strings.Contains(err.Error(), "shorter than its samples") {
			t.Errorf("a broken chunk: %v", err)
		}
		if n := read.Load(); n > mostHelpers {
			t.Errorf("helpers read %d series of a query that had failed", n)
		}
	})
}

// A helper needs a place of its own, which it gives back.
func TestHelpersHaveTurns(t *testing.T) {
	twoProcessors(t)
	all := books(t, 600, 20)
	for places, want := range map[int]bool{1: false, 4: true} {
		g := turns.New(places, func(context.Context) (string, turns.Class) { return "t", 0 }, nil)
		for range 3 {
			ctx, turn, end := g.Begin(t.Context())
			_, helpers, err := evaluated(ctx, t, shelf{all: all}, `sum(rate(m_total[2m]))`, 20)
			if err != nil || (helpers > 0) != want {
				t.Errorf("%d places: %d helpers, %v", places, helpers, err)
			}
			var ends []func()
			for range places - 1 {
				_, leave, ok := turn.Second()
				if !ok {
					t.Fatalf("of %d places one was not given back", places)
				}
				ends = append(ends, leave)
			}
			for _, leave := range ends {
				leave()
			}
			end()
		}
	}
}

// The labels that storage returns may be views of memory that holds the chunks, too: the result of a range has its own.
func TestARangeDoesNotKeepWhatItWasReadFrom(t *testing.T) {
	all := books(t, 200, 30)
	for _, text := range []string{`m_total`, `rate(m_total[2m])`, `last_over_time(m_total[2m])`, `-m_total`, `m_total > 2`} {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			t.Fatal(err)
		}
		p, err := New(Settings{MaxSamples: 1e6}).Plan(Query{Expr: expr, Start: 60_000, End: 300_000, Step: 30_000, Lookback: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		v, _, err := p.Run(t.Context(), shelf{all: all}, &stats.QuerySamples{}, free{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range v.(promql.Matrix) {
			i, err := strconv.Atoi(s.Metric.Get("n"))
			if err != nil {
				t.Fatal(err)
			}
			if unsafe.StringData(s.Metric.Get("n")) == unsafe.StringData(all[i].Labels().Get("n")) {
				t.Fatalf("%s: series %s has the labels of storage", text, s.Metric)
			}
		}
		if len(v.(promql.Matrix)) == 0 {
			t.Errorf("%s: no series", text)
		}
		p.Close()
	}
}

func BenchmarkEvaluate(b *testing.B) {
	all := books(b, 5000, 240)
	for _, plain := range []bool{false, true} {
		b.Run(fmt.Sprintf("helpers=%t", !plain), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := evaluated(b.Context(), b, shelf{all: all, plain: plain}, `sum by (group) (rate(m_total[5m]))`, 100); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
)

// twins evaluates everything by the stock engine and by our operators, and reports where they differ.
// It answers with what answer says, so that a script of another dialect can be run over it.
type twins struct {
	t      testing.TB
	stock  *Engine
	own    *Engine
	answer promql.QueryEngine

	covered, all *int
	open         *int // queries that are wrong in several places, of which it is open which one is named
}

func newTwins(t testing.TB, opts promql.EngineOpts) twins {
	t.Helper()
	cfg := defaults()
	own, err := newEngine(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QueryEngine = enginePrometheus
	stock, err := newEngine(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return twins{t: t, stock: stock, own: own, covered: new(int), all: new(int), open: new(int)}
}

func (w twins) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	w.compare(qs+" at "+ts.String(), func(e *Engine) (promql.Query, error) {
		return e.NewInstantQuery(Allow(context.Background(), "all"), q, o, qs, ts)
	})
	return w.answer.NewInstantQuery(ctx, q, o, qs, ts)
}

func (w twins) NewRangeQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, start, end time.Time, step time.Duration) (promql.Query, error) {
	w.compare(fmt.Sprintf("%s from %s to %s by %s", qs, start, end, step), func(e *Engine) (promql.Query, error) {
		return e.NewRangeQuery(Allow(context.Background(), "all"), q, o, qs, start, end, step)
	})
	return w.answer.NewRangeQuery(ctx, q, o, qs, start, end, step)
}

// compare runs the query on both engines.
func (w twins) compare(what string, prepare func(*Engine) (promql.Query, error)) {
	w.t.Helper()
	var seen [2]string
	for i, e := range []*Engine{w.stock, w.own} {
		q, err := prepare(e)
		if err != nil {
			seen[i] = "refused: " + err.Error()
			continue
		}
		res := q.Exec(context.Background())
		seen[i] = describe(res, q)
		if i == 1 {
			*w.all++
			if o, ok := q.(*query).Query.(*own); ok && o.fallback == nil {
				*w.covered++
			}
		}
		q.Close()
	}
	if seen[0] == seen[1] {
		return
	}
	if strings.HasPrefix(seen[0], "error: ") && strings.HasPrefix(seen[1], "error: ") {
		*w.open++
		return
	}
	// The Prometheus engine hands results from one operator to the next in the order of a map. Where
	// values tie, or sums depend on the order in their last bits, it does not agree with itself.
	for range 30 {
		q, err := prepare(w.stock)
		if err != nil {
			break
		}
		again := describe(q.Exec(context.Background()), q)
		q.Close()
		if again != seen[0] {
			return
		}
	}
	w.t.Errorf("%s:\nours       %.2000s\nPrometheus %.2000s", what, seen[1], seen[0])
}

// histogramText is h in full. What Prometheus has for that fails for custom buckets whose zero bucket became NaN.
func histogramText(h *histogram.FloatHistogram) string { return fmt.Sprintf("%+v", *h) }

// describe words a result to the last bit, in an order of its own.
func describe(res *promql.Result, q promql.Query) string {
	if res.Err != nil {
		text, _, _ := strings.Cut(res.Err.Error(), "[") // of several series, the first two of a map are named
		text, _, _ = strings.Cut(text, "{")
		return "error: " + text
	}
	var lines []string
	line := func(l labels.Labels, t int64, v float64, more string) {
		bits := fmt.Sprintf("%x", math.Float64bits(v))
		if math.IsNaN(v) {
			bits = "NaN"
		}
		lines = append(lines, fmt.Sprintf("%s %d %v %s%s", l, t, v, bits, more))
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			if s.H != nil {
				line(s.Metric, s.T, 0, histogramText(s.H))
			} else {
				line(s.Metric, s.T, s.F, "")
			}
		}
		slices.Sort(lines)
	case promql.Matrix:
		for _, s := range v {
			lines = append(lines, s.Metric.String())
			for _, p := range s.Floats {
				line(labels.EmptyLabels(), p.T, p.F, "")
			}
			for _, p := range s.Histograms {
				line(labels.EmptyLabels(), p.T, 0, histogramText(p.H))
			}
		}
	case promql.Scalar:
		line(labels.EmptyLabels(), v.T, v.V, "")
	default:
		lines = append(lines, fmt.Sprint(v))
	}
	var notes []string
	for n := range res.Warnings {
		notes = append(notes, n)
	}
	slices.Sort(notes)
	lines = append(lines, "notes: "+strings.Join(notes, "; "), fmt.Sprintf("samples: %d", q.Stats().Samples.TotalSamples), fmt.Sprintf("type: %T", res.Value))
	return strings.Join(lines, "\n")
}

func TestScriptsAnswerAsOnPrometheusInTheDialectWeServe(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute under the race detector, and has nothing that runs beside something else")
	}
	reference, err := newEngine(defaults(), promql.EngineOpts{EnableDelayedNameRemoval: true, UseStartTimestamps: true})
	if err != nil {
		t.Fatal(err)
	}
	w := newTwins(t, promql.EngineOpts{})
	w.answer = permissive{reference}
	promqltest.RunBuiltinTests(t, w)
	if *w.covered < *w.all/3 {
		t.Errorf("our operators answered %d of %d queries, want a third: the others are of native histograms and what is experimental", *w.covered, *w.all)
	}
}

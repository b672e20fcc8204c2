package results

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/amphora-metrics/amphora/pkg/turns"
)

// TestPartsAreAppendedByLabels compares with what a map of all series by their labels gives.
func TestPartsAreAppendedByLabels(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	for range 500 {
		parts := make([]promql.Matrix, 2+rng.IntN(4))
		want := map[string]*promql.Series{}
		for p := range parts {
			for i := range rng.IntN(8) {
				if rng.IntN(3) == 0 {
					continue
				}
				s := promql.Series{Metric: labels.FromStrings("a", fmt.Sprint(i%3), "b", fmt.Sprint(i))}
				for k := range rng.IntN(3) {
					s.Floats = append(s.Floats, promql.FPoint{T: int64(10*p + k), F: rng.Float64()})
				}
				for k := range rng.IntN(2) {
					s.Histograms = append(s.Histograms, promql.HPoint{T: int64(10*p + 5 + k), H: tsdbutil.GenerateTestFloatHistogram(int64(i))})
				}
				parts[p] = append(parts[p], s)
				key := s.Metric.String()
				if want[key] == nil {
					want[key] = &promql.Series{Metric: s.Metric}
				}
				want[key].Floats = append(want[key].Floats, s.Floats...)
				want[key].Histograms = append(want[key].Histograms, s.Histograms...)
			}
			if slices.SortFunc(parts[p], byLabels); rng.IntN(2) == 0 {
				rng.Shuffle(len(parts[p]), func(i, j int) { parts[p][i], parts[p][j] = parts[p][j], parts[p][i] })
			}
		}
		before := fmt.Sprint(parts)
		got := Append(parts, nil)
		if !slices.IsSortedFunc(got, byLabels) || len(got) != len(want) {
			t.Fatalf("%d series, want %d, by labels: %v", len(got), len(want), got)
		}
		for _, s := range got {
			if w := want[s.Metric.String()]; !slices.Equal(s.Floats, w.Floats) || !reflect.DeepEqual(s.Histograms, w.Histograms) {
				t.Fatalf("%v\nwant %v", s, w)
			}
		}
		if after := fmt.Sprint(parts); after != before {
			t.Fatalf("the parts were\n%s\nand are\n%s", before, after)
		}
	}
}

// TestPartsTakeTurns has another tenant wait for the only turn while parts are put together, written and read.
func TestPartsTakeTurns(t *testing.T) {
	long := make([]promql.Matrix, 2)
	for p := range long {
		for i := range 60 {
			s := promql.Series{Metric: labels.FromStrings("i", fmt.Sprint(10_000+i))}
			for k := range 10_000 {
				s.Floats = append(s.Floats, promql.FPoint{T: int64(10_000*p + k), F: float64(k)})
			}
			long[p] = append(long[p], s)
		}
	}
	stored := &Answer{Grid: Grid{Step: 1}, Extents: []Extent{{End: 9_999, Series: long[0]}}}
	item, err := stored.Encode(1<<30, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(*turns.Turn){
		"append": func(turn *turns.Turn) { Append(long, turn) },
		"encode": func(turn *turns.Turn) { _, _ = stored.Encode(1<<30, turn) },
		"decode": func(turn *turns.Turn) { _, _ = DecodeAnswer(item, turn) },
	} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			type key struct{}
			g := turns.New(1, func(ctx context.Context) (string, turns.Class) { return ctx.Value(key{}).(string), 0 }, reg)
			_, turn, end := g.Begin(context.WithValue(t.Context(), key{}, "heavy"))
			defer end()
			ctx, stop := context.WithCancel(t.Context())
			var others sync.WaitGroup
			defer others.Wait()
			defer stop()
			others.Go(func() {
				for ctx.Err() == nil { // on a machine that stands still it may be let go first without a look
					_, _, end := g.Begin(context.WithValue(ctx, key{}, "other"))
					end()
				}
			})
			for begin, often := time.Now(), 0.0; often < 8; { // of some milliseconds of work
				before := counted(t, reg, "amphora_query_turns_yields_total")
				do(turn)
				if often = counted(t, reg, "amphora_query_turns_yields_total") - before; time.Since(begin) > time.Minute {
					t.Fatalf("the other tenant is let go first %g times", often)
				}
			}
		})
	}
}

// counted is what a counter has.
func counted(t *testing.T, reg prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

func byLabels(a, b promql.Series) int {
	return cmp.Or(labels.Compare(a.Metric, b.Metric), cmp.Compare(len(a.Floats), len(b.Floats)))
}

func BenchmarkAppend(b *testing.B) {
	for _, of := range []struct{ parts, series, points int }{{2, 4000, 360}, {30, 1000, 24}, {2, 50_000, 1}} {
		parts := make([]promql.Matrix, of.parts)
		for p := range parts {
			for i := range of.series {
				s := promql.Series{Metric: labels.FromStrings("__name__", "http_requests_total", "instance", fmt.Sprintf("10.0.%03d.%03d", i/250, i%250), "job", "api")}
				for k := range of.points {
					s.Floats = append(s.Floats, promql.FPoint{T: int64(p*of.points + k), F: 1})
				}
				parts[p] = append(parts[p], s)
			}
		}
		b.Run(fmt.Sprintf("parts=%d/series=%d/points=%d", of.parts, of.series, of.points), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Append(parts, nil)
			}
		})
	}
}

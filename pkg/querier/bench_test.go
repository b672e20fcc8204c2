package querier

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/engine"
)

func newEngine(t testing.TB) *engine.Engine {
	t.Helper()
	var cfg engine.Config
	config.NewSet().Mount("querier", &cfg)
	e, err := engine.New(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closing(t, e) })
	return e
}

// loaded returns three replicas that share their nodes' answers, which are read from the first, so
// that a benchmark measures the querier.
func loaded(b *testing.B, series, samples int, twins bool) (*cluster, int) {
	b.Helper()
	dots := reference(series, samples)
	for i := range dots {
		dots[i].h = 0
	}
	var nodes []*node
	for i := range 3 {
		n := newNode(b, fmt.Sprint(i))
		if part := dots; twins || i == 0 {
			add(b, n, part)
		} else {
			// One sample less moves every later chunk boundary: no chunk has a twin.
			add(b, n, part[i*series:])
		}
		nodes = append(nodes, n)
	}
	c := newCluster(b, nodes, nil)
	c.ring.set.MaxErrors = 0
	return c, len(dots)
}

func fetchAll(b *testing.B, c *cluster) []*fetched {
	b.Helper()
	var out []*fetched
	sc, err := c.q.scope(asTenant(b), 0, 1<<40)
	if err != nil {
		b.Fatal(err)
	}
	sources, err := c.q.selectIngesters(asTenant(b), sc, storage.SelectHints{Start: 0, End: 1 << 40}, allMatchers, newBudget(asTenant(b), c.q, c.limits))
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range sources {
		out = append(out, s.(*fetched))
	}
	return out
}

// BenchmarkMerge reads every sample of three replicas, once each.
func BenchmarkMerge(b *testing.B) {
	for _, twins := range []bool{true, false} {
		for _, n := range []int{100, 1000} {
			b.Run(fmt.Sprintf("replicas=3/twins=%v/series=%d", twins, n), func(b *testing.B) {
				c, dots := loaded(b, n, 720, twins)
				replicas := fetchAll(b, c)
				b.ReportAllocs()
				for b.Loop() {
					sources := make([]source, len(replicas))
					for i, r := range replicas {
						sources[i] = &fetched{series: slices.Clone(r.series)} // which is let go of as it is read
					}
					sel := &selection{ready: make(chan struct{}), merger: newMerger(sources, c.q.metrics), maxt: 1 << 40}
					close(sel.ready)
					set := sampleSet{sel}
					var it chunkenc.Iterator
					got := 0
					for set.Next() {
						it = set.At().Iterator(it)
						for it.Next() != chunkenc.ValNone {
							got++
						}
					}
					if got != dots {
						b.Fatalf("%d samples, want %d", got, dots)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(dots), "ns/sample")
			})
		}
	}
}

// BenchmarkQuery evaluates sum(rate()) over three replicas, the replicas' own work included.
func BenchmarkQuery(b *testing.B) {
	c, dots := loaded(b, 1000, 720, true)
	e := newEngine(b)
	b.ReportAllocs()
	for b.Loop() {
		q, err := e.NewRangeQuery(asTenant(b), c.q, nil, `sum by (job) (rate(m[5m]))`, time.Unix(300, 0), time.Unix(10_000, 0), time.Minute)
		if err != nil {
			b.Fatal(err)
		}
		if res := q.Exec(asTenant(b)); res.Err != nil {
			b.Fatal(res.Err)
		}
		q.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(dots), "ns/sample")
}

package querier

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
)

// TestQueriesAnswerAsOnePrometheusWould runs expressions over replicas and blocks with holes, and
// over one TSDB with everything.
func TestQueriesAnswerAsOnePrometheusWould(t *testing.T) {
	dots := reference(12, 600)
	truth := newNode(t, "")
	add(t, truth, dots)
	r := rand.New(rand.NewPCG(3, 4))
	var nodes, old []*node
	for i := range 3 {
		n, o := newNode(t, ""), newNode(t, "")
		n.old = i == 2
		add(t, n, slices.DeleteFunc(slices.Clone(dots), func(d dot) bool { return d.t < 3_000_000 || int(d.t/15_000)%3 == i && r.IntN(2) == 0 }))
		add(t, o, slices.DeleteFunc(slices.Clone(dots), func(d dot) bool { return d.t > 5_000_000 || int(d.t/15_000)%3 == i && r.IntN(2) == 0 }))
		nodes, old = append(nodes, n), append(old, o)
	}
	c := newCluster(t, nodes, withBlocks(t, old...))
	e := newEngine(t)
	for _, qs := range []string{
		`m`, `sum by (job) (rate(m[5m]))`, `count(m)`, `max_over_time(m{job="1"}[10m])`, `histogram_quantile(0.5, sum(rate(m[5m])))`,
		`m offset 7m`, `m @ 4000`, `sum_over_time(sum(m)[10m:1m])`, `changes(m[1h])`, `timestamp(m)`, `topk(2, m)`, `absent(m{i="none"})`,
		`m{i=~"00.*",job!="2"} + on(i) m`, `count_over_time(m[20m])`, `histogram_count(m)`,
	} {
		want := eval(t, e, truth.db, qs)
		for range 3 {
			if got := eval(t, e, c.q, qs); got != want {
				t.Errorf("%s:\n got %.600s\nwant %.600s", qs, got, want)
			}
		}
	}
}

func eval(t *testing.T, e promql.QueryEngine, q storage.Queryable, qs string) string {
	t.Helper()
	qry, err := e.NewRangeQuery(asTenant(t), q, nil, qs, time.Unix(0, 0), time.Unix(10_000, 0), 37*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer qry.Close()
	res := qry.Exec(asTenant(t))
	if res.Err != nil {
		t.Fatalf("%s: %v", qs, res.Err)
	}
	return res.String()
}

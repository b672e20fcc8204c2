package querier

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// TestAnAnswerSaysHowManyBytesWereFetchedFromWhere compares what a query is told with what the process counts.
func TestAnAnswerSaysHowManyBytesWereFetchedFromWhere(t *testing.T) {
	dots := reference(12, 600)
	recent, old := newNode(t, ""), newNode(t, "")
	for _, d := range dots {
		if d.t > 5_000_000 {
			add(t, recent, []dot{d})
		} else {
			add(t, old, []dot{d})
		}
	}
	c := newCluster(t, []*node{recent}, withBlocks(t, old))
	e := &Executor{Engine: newEngine(t), Storage: NewFederation(c.q, 1, false)}
	count := func() work.Fetched {
		of := func(from string) int64 {
			return int64(testutil.ToFloat64(c.q.metrics.chunkBytes.WithLabelValues(from)))
		}
		return work.Fetched{Ingesters: of(fromIngesters), StoreGateways: of(fromBlocks)}
	}
	// Two selections, of which the one with the offset is of blocks alone.
	w := &work.Work{Query: &work.Query{Text: "sum(m) + sum(m offset 1h)", Start: 3_000_000, End: 9_000_000, Step: 60_000, Lookback: 5 * time.Minute}}
	if err := e.Run(asTenant(t), w); err != nil {
		t.Fatal(err)
	}
	defer w.Result.Release()
	if got := w.Result.Fetched; got != count() || got.Ingesters == 0 || got.StoreGateways == 0 {
		t.Errorf("the answer says %+v, the process %+v", got, count())
	}
	before := count()
	other := &work.Work{Query: &work.Query{Text: "sum(m)", Start: 3_000_000, End: 3_000_000, Lookback: 5 * time.Minute}}
	if err := e.Run(asTenant(t), other); err != nil {
		t.Fatal(err)
	}
	defer other.Result.Release()
	now := count()
	if got := other.Result.Fetched; got.Ingesters != now.Ingesters-before.Ingesters || got.StoreGateways != now.StoreGateways-before.StoreGateways || got.StoreGateways == 0 {
		t.Errorf("the second answer says %+v, the process %+v after %+v", got, now, before)
	}
}

package querier

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// TestChunksOfSeveralTenantsCountForEach reads chunks of two tenants of which one has a limit, and of two whose limits
// what both have together would exceed.
func TestChunksOfSeveralTenantsCountForEach(t *testing.T) {
	a := newNode(t, "")
	add(t, a, reference(10, 200))
	c := newCluster(t, []*node{a}, nil)
	of := map[tenant.ID]limits.View{}
	c.q.deps.Limits = func(id tenant.ID) limits.View { return of[id] }
	read := func(ids ...tenant.ID) (int, error) {
		q, err := NewFederation(c.q, 4, false).ChunkQuerier(0, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		}()
		set, n := q.Select(tenant.InjectMany(t.Context(), ids), true, &storage.SelectHints{Start: 0, End: 1 << 40}, all), 0
		for set.Next() {
			n++
			for it := set.At().Iterator(nil); it.Next(); {
				continue
			}
		}
		return n, set.Err()
	}
	for id, v := range map[string]limits.View{
		"max-series-per-query":       limits.MaxFetchedSeriesPerQuery.With(limits.View{}, 9),
		"max-chunks-per-query":       limits.MaxFetchedChunksPerQuery.With(limits.View{}, 9),
		"max-chunks-bytes-per-query": limits.MaxFetchedChunkBytesPerQuery.With(limits.View{}, 1000),
	} {
		of["narrow"] = v
		for _, ids := range [][]tenant.ID{{"narrow"}, {"narrow", "wide"}, {"wide", "narrow"}} {
			_, err := read(ids...)
			if err == nil || !strings.Contains(err.Error(), "(err-amphora-"+id+")") || len(ids) > 1 && !strings.Contains(err.Error(), "tenant narrow") {
				t.Errorf("%s of %v: %v", id, ids, err)
			}
		}
	}
	of["narrow"] = limits.MaxFetchedSeriesPerQuery.With(limits.View{}, 10)
	of["other"] = of["narrow"]
	if n, err := read("narrow", "other"); n != 20 || err != nil {
		t.Errorf("what each may: %d series, %v", n, err)
	}
}

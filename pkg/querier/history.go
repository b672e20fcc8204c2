package querier

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// History is what all blocks of a tenant consist of. A series that is in many blocks is counted once
// for each stretch of time, and of all stretches the largest count is told. Series that are deleted, or
// too old by a retention, are not counted.
type History struct {
	Series           uint64
	MinTime, MaxTime int64 // milliseconds; MaxTime is exclusive
	SeriesByMetric   []block.Count
	ValuesByLabel    []block.Count
	SeriesByPair     []block.Count
}

// statsDepth is how much longer the lists are that are asked for than the answer: of what is spread
// over shards, each sees a part.
const statsDepth = 10

// stretch is a time range of blocks.
type stretch struct{ from, to int64 }

// History counts by the indexes of the blocks of ctx's tenant. Errors: as those of a query.
func (q *Querier) History(ctx context.Context, limit int) (History, error) {
	out := History{}
	release, err := q.acquire(ctx)
	if err != nil {
		return out, err
	}
	defer release()
	sc, err := q.scope(ctx, math.MinInt64, math.MaxInt64)
	if err != nil || !sc.blocks {
		return out, err
	}
	hidden, err := q.hidden(ctx, sc)
	if err != nil {
		return out, err
	}
	gone := goneToWire(hidden)
	answers, err := askStores(ctx, q, sc, storeCall[[]*storepb.BlockStats]{call: func(ctx context.Context, to storeAsked) ([]*storepb.BlockStats, [][]byte, error) {
		return q.blockStats(ctx, to, &storepb.StatsRequest{Blocks: to.blocks, Limit: uint32(limit * statsDepth), Gone: gone, Piecemeal: true})
	}})
	if err != nil {
		return out, err
	}
	idx, err := q.deps.Stores.Indexes.At(ctx, sc.tenant, nil)
	if err != nil {
		return out, err
	}
	times := map[ulid.ULID]stretch{}
	for _, b := range idx.Blocks {
		times[b.ID] = stretch{b.MinTime, b.MaxTime}
	}
	byStretch := map[stretch][]*storepb.BlockStats{}
	for _, a := range answers {
		for _, s := range a {
			if s.Series == 0 {
				continue // nothing is left of it
			}
			at := times[ulid.ULID(s.Block)]
			byStretch[at] = append(byStretch[at], s)
			if len(byStretch) == 1 || at.from < out.MinTime {
				out.MinTime = at.from
			}
			out.MaxTime = max(out.MaxTime, at.to)
		}
	}
	for _, of := range byStretch {
		series := uint64(0)
		for _, s := range of {
			series += s.Series
		}
		out.Series = max(out.Series, series)
	}
	out.SeriesByMetric = largest(byStretch, (*storepb.BlockStats).GetSeriesByMetric, true, limit)
	out.SeriesByPair = largest(byStretch, (*storepb.BlockStats).GetSeriesByPair, true, limit)
	out.ValuesByLabel = largest(byStretch, (*storepb.BlockStats).GetValuesByLabel, false, limit)
	return out, nil
}

// blockStats reads the counts of one store-gateway, which says something again and again while it counts.
func (q *Querier) blockStats(ctx context.Context, to storeAsked, req *storepb.StatsRequest) (stats []*storepb.BlockStats, served [][]byte, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream if it is left before its end
	stream, err := to.client.Stats(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	err = receive(ctx, q.deps.Turns, heard(to.silence, stream.Recv), func(m *storepb.StatsResponse) error {
		stats, served = append(stats, m.Stats...), append(served, m.Blocks...)
		return nil
	})
	return stats, served, err
}

// goneToWire words what is hidden for a store-gateway.
func goneToWire(set tombstone.Set) []*storepb.Gone {
	words := func(in [][]*labels.Matcher) []*ingesterpb.Matchers {
		out := make([]*ingesterpb.Matchers, len(in))
		for i, ms := range in {
			out[i] = &ingesterpb.Matchers{Matchers: toWire(ms)}
		}
		return out
	}
	var out []*storepb.Gone
	for _, t := range set.List() {
		selectors, except := t.Series()
		out = append(out, &storepb.Gone{MinTime: t.MinTime, MaxTime: t.MaxTime, Selectors: words(selectors), Except: words(except)})
	}
	return out
}

// largest returns the largest counts of any stretch of time. The blocks of one stretch are shards,
// whose series add up; values of labels occur in several, so of these the largest count is told.
func largest(byStretch map[stretch][]*storepb.BlockStats, list func(*storepb.BlockStats) []*storepb.NamedCount, add bool, limit int) []block.Count {
	all := map[string]uint64{}
	for _, of := range byStretch {
		here := map[string]uint64{}
		for _, s := range of {
			for _, c := range list(s) {
				if add {
					here[c.Name] += c.Count
				} else {
					here[c.Name] = max(here[c.Name], c.Count)
				}
			}
		}
		for name, n := range here {
			all[name] = max(all[name], n)
		}
	}
	out := make([]block.Count, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, block.Count{Name: name, Count: all[name]})
	}
	slices.SortStableFunc(out, func(a, b block.Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), limit)]
}

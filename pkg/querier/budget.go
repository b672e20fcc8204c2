package querier

import (
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

// budget is what one query may still fetch. All selections of the query charge it while their
// answers arrive, so that a query over its limits stops early. Chunks are charged for each replica
// that sent them: that is the memory they take.
type budget struct {
	q                            *Querier
	maxSeries, maxChunks, maxLen int // 0: no limit

	mu     sync.Mutex // guards what follows
	series map[uint64]struct{}
	chunks int
	bytes  int
}

func newBudget(q *Querier, v limits.View) *budget {
	return &budget{
		q:         q,
		maxSeries: limits.MaxFetchedSeriesPerQuery.Of(v),
		maxChunks: limits.MaxFetchedChunksPerQuery.Of(v),
		maxLen:    limits.MaxFetchedChunkBytesPerQuery.Of(v),
		series:    map[uint64]struct{}{},
	}
}

// chargeSeries charges a series, once however many replicas send it.
func (b *budget) chargeSeries(l labels.Labels) error {
	if b.maxSeries <= 0 {
		return nil
	}
	h := l.Hash()
	b.mu.Lock()
	b.series[h] = struct{}{}
	n := len(b.series)
	b.mu.Unlock()
	if n > b.maxSeries {
		return b.q.reject("max-series-per-query", limits.MaxFetchedSeriesPerQuery.Row(),
			"the query exceeded the maximum number of series (limit: %d series)", b.maxSeries)
	}
	return nil
}

// chargeChunks charges n chunks of size bytes in all.
func (b *budget) chargeChunks(n, size int) error {
	b.mu.Lock()
	b.chunks += n
	b.bytes += size
	n, size = b.chunks, b.bytes
	b.mu.Unlock()
	if b.maxChunks > 0 && n > b.maxChunks {
		return b.q.reject("max-chunks-per-query", limits.MaxFetchedChunksPerQuery.Row(),
			"the query exceeded the maximum number of chunks (limit: %d chunks)", b.maxChunks)
	}
	if b.maxLen > 0 && size > b.maxLen {
		return b.q.reject("max-chunks-bytes-per-query", limits.MaxFetchedChunkBytesPerQuery.Row(),
			"the query exceeded the aggregated chunks size limit (limit: %d bytes)", b.maxLen)
	}
	return nil
}

package querier

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
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
	loan   memory.Loan // of the process's memory for queries, if the query has no working set
	own    int64       // of the working set of the query
	query  *memory.Working
	ended  bool // nothing is charged any more: nobody would give it back

	fetched *fetchedBytes // nil: nobody asks
}

// What a query holds in memory of a series and of a chunk beside their text and data.
const (
	seriesOverheadBytes = 120
	chunkOverheadBytes  = 96
)

func newBudget(ctx context.Context, q *Querier, v limits.View) *budget {
	return &budget{
		q:         q,
		maxSeries: limits.MaxFetchedSeriesPerQuery.Of(v),
		maxChunks: limits.MaxFetchedChunksPerQuery.Of(v),
		maxLen:    limits.MaxFetchedChunkBytesPerQuery.Of(v),
		series:    map[uint64]struct{}{},
		loan:      q.memory.Loan(),
		query:     memory.WorkingOf(ctx),
		fetched:   fetchedOf(ctx),
	}
}

// fetchedBytes counts what a query fetched, over all that it selects.
type fetchedBytes struct{ ingesters, blocks atomic.Int64 }

type fetchedKey struct{}

// countFetched returns ctx for a query whose bytes are counted.
func countFetched(ctx context.Context) (context.Context, *fetchedBytes) {
	f := new(fetchedBytes)
	return context.WithValue(ctx, fetchedKey{}, f), f
}

func fetchedOf(ctx context.Context) *fetchedBytes {
	f, _ := ctx.Value(fetchedKey{}).(*fetchedBytes)
	return f
}

func (f *fetchedBytes) add(bytes int, from string) {
	switch {
	case f == nil:
	case from == fromBlocks:
		f.blocks.Add(int64(bytes))
	default:
		f.ingesters.Add(int64(bytes))
	}
}

// chargeSeries charges a series, once however many replicas send it; the memory of it is charged
// for each.
func (b *budget) chargeSeries(l labels.Labels) error {
	if err := b.use(int64(l.ByteSize()) + seriesOverheadBytes); err != nil {
		return err
	}
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

// use charges memory. Errors: Unavailable, those of the working set of the query.
func (b *budget) use(bytes int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.borrow(bytes)
}

// borrow is use for who has b.mu. The answer of an ingester that was asked and not needed may arrive
// after the query: it ends there.
func (b *budget) borrow(bytes int64) error {
	if b.ended {
		return errSessionClosed
	}
	if b.query == nil {
		return b.loan.Use(bytes)
	}
	err := b.query.Use(bytes)
	if err == nil {
		b.own += bytes
	}
	return err
}

// release gives back what was charged to the process; the query has ended.
func (b *budget) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.loan.Return()
	b.query.Return(b.own)
	b.own = 0
}

// chargeChunks charges n chunks of size bytes in all. Whoever holds the bytes on the heap, and not in
// mapped files, charges them by use as well.
func (b *budget) chargeChunks(n, size int) error {
	b.mu.Lock()
	b.chunks += n
	b.bytes += size
	err := b.borrow(int64(n) * chunkOverheadBytes)
	n, size = b.chunks, b.bytes
	b.mu.Unlock()
	if err != nil {
		return err
	}
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

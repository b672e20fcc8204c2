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

	fetched *fetchedBytes // nil: nobody asks
	tab     *tab          // nil: what is charged stays so until the query ends
	*spent
}

// spent is what was charged to a budget.
type spent struct {
	mu     sync.Mutex // guards what follows, and all tabs
	series map[uint64]struct{}
	chunks int
	bytes  int
	loan   memory.Loan // of the process's memory for queries, if the query has no working set
	own    int64       // of the working set of the query
	query  *memory.Working
	ended  bool // nothing is charged any more: nobody would give it back
}

// tab is what one attempt charges, so that it can be given back when the attempt was in vain. Of two
// attempts at the same, which are rivals, the one that charged more counts against the limits of
// chunks: the other one's answer is thrown away. The memory of both counts.
type tab struct {
	up, rival     *tab // up: it is a part of this one
	chunks, bytes int
	memory        int64
	void          bool // nothing is charged any more
}

// on returns the budget for an attempt whose charges t has.
func (b *budget) on(t *tab) *budget {
	out := *b
	out.tab = t
	return &out
}

// compete makes two attempts rivals, which are parts of the same or of nothing.
func (b *budget) compete(one, other *tab) {
	b.mu.Lock()
	defer b.mu.Unlock()
	chunks, bytes := one.chunks+other.chunks, one.bytes+other.bytes
	one.rival, other.rival = other, one
	weightChunks, weightBytes := one.weight()
	b.book(one.up, weightChunks-chunks, weightBytes-bytes)
}

// drop takes back what an attempt charged, and has it charge no more.
func (b *budget) drop(t *tab) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.book(t, -t.chunks, -t.bytes)
	if t.void = true; b.ended {
		return
	}
	memory := t.memory
	for up := t; up != nil; up = up.up {
		up.memory -= memory
	}
	if b.query == nil {
		_ = b.loan.Use(-memory) // which cannot fail
		return
	}
	b.query.Return(memory)
	b.own -= memory
}

// weight is what a tab and its rival count for.
func (t *tab) weight() (chunks, bytes int) {
	if t.rival == nil {
		return t.chunks, t.bytes
	}
	return max(t.chunks, t.rival.chunks), max(t.bytes, t.rival.bytes)
}

// book counts chunks on t, on what it is a part of, and on the budget. The caller has b.mu.
func (b *budget) book(t *tab, chunks, bytes int) {
	for ; t != nil; t = t.up {
		chunksBefore, bytesBefore := t.weight()
		t.chunks += chunks
		t.bytes += bytes
		chunks, bytes = t.weight()
		chunks -= chunksBefore
		bytes -= bytesBefore
	}
	b.chunks += chunks
	b.bytes += bytes
}

// voided says whether t, or what it is a part of, was dropped.
func (t *tab) voided() bool {
	for ; t != nil; t = t.up {
		if t.void {
			return true
		}
	}
	return false
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
		fetched:   fetchedOf(ctx),
		spent:     &spent{series: map[uint64]struct{}{}, loan: q.memory.Loan(), query: memory.WorkingOf(ctx)},
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
	if b.tab.voided() {
		return errNotNeeded
	}
	if b.query == nil {
		if err := b.loan.Use(bytes); err != nil {
			return err
		}
	} else {
		if err := b.query.Use(bytes); err != nil {
			return err
		}
		b.own += bytes
	}
	for t := b.tab; t != nil; t = t.up {
		t.memory += bytes
	}
	return nil
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
	err := b.borrow(int64(n) * chunkOverheadBytes)
	if err == nil {
		b.book(b.tab, n, size)
	}
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

package querier

import (
	"context"
	"fmt"
	"sync"

	"github.com/grafana/dskit/ring"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

const (
	// indexTries is how often the bucket index is read for one call: blocks that are gone when they
	// are asked for have been compacted, and the next index has what they became.
	indexTries = 3
)

// Stores is how a querier reaches the blocks in object storage.
type Stores struct {
	// Ring is the ring of store-gateways. One healthy replica of a block must be enough for it.
	Ring    ring.ReadRing
	Client  func(addr string) (storepb.StoreGatewayClient, error)
	Indexes *block.Indexes
}

// askStores asks until every block of the scope was looked into, and returns all answers. Errors:
// Internal with the id store-consistency-check-failed if blocks stay missing, Unavailable, and what
// no other store-gateway would spare the caller.
func askStores[T any](ctx context.Context, q *Querier, sc scope, how storeCall[T]) ([]T, error) {
	var idx *block.BucketIndex
	var missing []ulid.ULID
	var made attempts
	if how.budget != nil {
		call := how.call
		how.call = func(ctx context.Context, to storeAsked) (T, [][]byte, error) {
			made.add(to.budget.tab)
			return call(ctx, to)
		}
	}
	for range indexTries {
		var err error
		if idx == nil && !sc.since.IsZero() {
			idx, err = q.deps.Stores.Indexes.Since(ctx, sc.tenant, sc.since)
		} else {
			idx, err = q.deps.Stores.Indexes.At(ctx, sc.tenant, idx)
		}
		if err != nil {
			return nil, err
		}
		blocks := idx.Overlapping(sc.mint, sc.blocksMaxt)
		q.metrics.blocksAsked.Add(float64(len(blocks)))
		var answers []T
		if answers, missing, err = askBlocks(ctx, q, sc, blocks, how); err != nil {
			errs.Raise(err)
			return nil, err
		}
		if len(missing) == 0 {
			return answers, nil
		}
		// What was read belongs to an index that is out of date, so all is read again.
		q.metrics.refetched.Inc()
		made.drop(how.budget)
	}
	q.metrics.inconsistent.Inc()
	return nil, errs.WithID(errs.Internal, "store-consistency-check-failed", "",
		"%d blocks of the bucket index are not in the bucket, the first is %s: an answer without them would have a gap", len(missing), missing[0])
}

// attempts are the charges of the calls of one read of blocks.
type attempts struct {
	mu   sync.Mutex // guards tabs
	tabs []*tab
}

func (a *attempts) add(t *tab) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tabs = append(a.tabs, t)
}

// drop gives back what they charged to b. None of them is under way, or wanted.
func (a *attempts) drop(b *budget) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tabs {
		b.drop(t)
	}
	a.tabs = nil
}

// selectBlocks returns the answers of store-gateways about all blocks of the scope, charged.
func (q *Querier) selectBlocks(ctx context.Context, sc scope, h storage.SelectHints, matchers []*labels.Matcher, b *budget) ([]source, error) {
	answers, err := askStores(ctx, q, sc, storeCall[*fetched]{budget: b, call: func(ctx context.Context, to storeAsked) (*fetched, [][]byte, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the stream if it is left before its end
		return q.selectStore(ctx, to, storeRequest(sc, h, matchers, to.blocks, b))
	}})
	if err != nil {
		return nil, err
	}
	sources := make([]source, len(answers))
	for i, a := range answers {
		sources[i] = a
	}
	return sources, nil
}

// storeRequest words a selection for one store-gateway.
func storeRequest(sc scope, h storage.SelectHints, matchers []*labels.Matcher, blocks [][]byte, b *budget) *storepb.SeriesRequest {
	return &storepb.SeriesRequest{
		MinTime: sc.mint, MaxTime: sc.blocksMaxt, Matchers: toWire(matchers), Blocks: blocks, SkipChunks: h.Func == seriesOnly,
		ShardIndex: uint32(h.ShardIndex), ShardCount: uint32(h.ShardCount),
		MaxSeries: uint64(b.maxSeries), MaxChunks: uint64(b.maxChunks), MaxChunkBytes: uint64(b.maxLen),
		Packed: true,
	}
}

// selectStore reads the answer of one store-gateway.
func (q *Querier) selectStore(ctx context.Context, to storeAsked, req *storepb.SeriesRequest) (*fetched, [][]byte, error) {
	b := to.budget
	stream, err := to.client.Series(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	out := &fetched{}
	var served [][]byte
	var builder labels.ScratchBuilder
	err = receive(ctx, q.deps.Turns, heard(to.silence, stream.Recv), func(m *storepb.SeriesResponse) error {
		served = append(served, m.Blocks...)
		if w := m.Work; w != nil {
			q.metrics.bucketRequests.Add(float64(w.BucketRequests))
		}
		if len(m.Packed) > 0 {
			return q.takePacked(out, pack{m.Packed, m.PackedSeries, m.PackedChunks}, fromBlocks, b)
		}
		return q.takeSeries(out, m.Series, &builder, fromBlocks, b) // of a store-gateway that does not pack
	})
	return out, served, err
}

// takeSeries appends series of one replica to out and charges them.
func (q *Querier) takeSeries(out *fetched, series []*ingesterpb.Series, builder *labels.ScratchBuilder, from string, b *budget) error {
	n := 0
	for _, s := range series {
		n += len(s.Chunks)
	}
	slab, size := make([]chunks.Meta, 0, n), 0
	for _, s := range series {
		lset, err := toLabels(builder, s.Labels)
		if err != nil {
			return err
		}
		if !out.anyOrder && len(out.series) > 0 && labels.Compare(out.series[len(out.series)-1].lset, lset) >= 0 {
			return errs.New(errs.Internal, "series %s arrived out of order", lset)
		}
		start, bytes := len(slab), 0
		if slab, bytes, err = takeChunks(slab, s.Chunks); err != nil {
			return fmt.Errorf("series %s: %w", lset, err)
		}
		size += bytes
		if err := b.chargeSeries(lset); err != nil {
			return err
		}
		out.series = append(out.series, fetchedSeries{lset, slab[start:len(slab):len(slab)]})
	}
	return q.chargeFetched(len(slab), size, from, b)
}

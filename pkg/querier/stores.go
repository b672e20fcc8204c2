package querier

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/ring"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

const (
	// storeTries is how many store-gateways are asked for a block before the query fails.
	storeTries = 3

	// indexTries is how often the bucket index is read for one call: blocks that are gone when they
	// are asked for have been compacted, and the next index has what they became.
	indexTries = 3
)

// storeRead is the operation that store-gateways are found by.
var storeRead = ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil)

// Stores is how a querier reaches the blocks in object storage.
type Stores struct {
	// Ring is the ring of store-gateways. One healthy replica of a block must be enough for it.
	Ring    ring.ReadRing
	Client  func(addr string) (storepb.StoreGatewayClient, error)
	Indexes *block.Indexes
}

// storeCall asks one store-gateway about blocks and returns the answer and the blocks that it
// looked into.
type storeCall[T any] func(ctx context.Context, c storepb.StoreGatewayClient, blocks [][]byte) (T, [][]byte, error)

// askStores asks until every block of the scope was looked into, and returns all answers. Errors:
// Internal with the id store-consistency-check-failed if blocks stay missing, Unavailable, and what
// no other store-gateway would spare the caller.
func askStores[T any](ctx context.Context, q *Querier, sc scope, call storeCall[T]) ([]T, error) {
	var idx *block.BucketIndex
	var missing []ulid.ULID
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
		if answers, missing, err = askBlocks(ctx, q, sc, blocks, call); err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			return answers, nil
		}
		// What was read belongs to an index that is out of date, so all is read again.
		q.metrics.refetched.Inc()
	}
	q.metrics.inconsistent.Inc()
	return nil, errs.WithID(errs.Internal, "store-consistency-check-failed", "",
		"%d blocks of the bucket index are not in the bucket, the first is %s: an answer without them would have a gap", len(missing), missing[0])
}

// askBlocks asks store-gateways for blocks: first the one that has each in its cache, then its other
// replicas. missing are those that all say are gone.
func askBlocks[T any](ctx context.Context, q *Querier, sc scope, blocks []block.IndexedBlock, call storeCall[T]) (answers []T, missing []ulid.ULID, err error) {
	left := make([]ulid.ULID, len(blocks))
	for i := range blocks {
		left[i] = blocks[i].ID
	}
	var last error
	for try := 0; len(left) > 0 && try < storeTries; try++ {
		groups, err := q.placeBlocks(sc, left, try)
		if err != nil {
			return nil, nil, err
		}
		if len(groups) == 0 {
			break // there are no more replicas
		}
		if try > 0 {
			q.metrics.storeRetries.Inc()
		}
		var (
			mu   sync.Mutex // guards answers, done, last and stop
			done = map[ulid.ULID]bool{}
			stop error
			wg   sync.WaitGroup
		)
		last = nil
		for addr, names := range groups {
			wg.Go(func() {
				answer, served, err := askStore(ctx, q, addr, names, call)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					answers = append(answers, answer)
					for _, b := range served {
						done[ulid.ULID(b)] = true
					}
				case terminal(err), errs.KindOf(err) == errs.RateLimited: // others would go on to spend
					stop = err
				default:
					last = err
					q.deps.Logger.Warn("a store-gateway failed, others are asked", "store_gateway", addr, "blocks", len(names), "err", err)
				}
			})
		}
		wg.Wait()
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		if stop != nil {
			return nil, nil, stop
		}
		left = slices.DeleteFunc(left, func(u ulid.ULID) bool { return done[u] })
	}
	if len(left) > 0 && last != nil {
		return nil, nil, errs.New(errs.Unavailable, "too many store-gateways failed: %w", last)
	}
	return answers, left, nil
}

// askStore makes one call.
func askStore[T any](ctx context.Context, q *Querier, addr string, names [][]byte, call storeCall[T]) (T, [][]byte, error) {
	var none T
	c, err := q.deps.Stores.Client(addr)
	if err != nil {
		return none, nil, errs.New(errs.Unavailable, "reach store-gateway %s: %w", addr, err)
	}
	answer, served, err := call(ctx, c, names)
	if err != nil {
		return none, nil, fmt.Errorf("ask store-gateway %s: %w", addr, err)
	}
	for _, b := range served {
		if len(b) != len(ulid.ULID{}) {
			return none, nil, errs.New(errs.Internal, "store-gateway %s names a block of %d bytes", addr, len(b))
		}
	}
	return answer, served, nil
}

// placeBlocks groups blocks by the store-gateway to ask at the given try, the first at 0. The
// replicas of a block are always tried in the same order, so that one of them has it in its cache, of
// each preferred zone if there are some.
func (q *Querier) placeBlocks(sc scope, blocks []ulid.ULID, try int) (map[string][][]byte, error) {
	r := q.deps.Stores.Ring
	if size := limits.StoreGatewayTenantShardSize.Of(sc.limits); size > 0 {
		r = r.ShuffleShard(string(sc.tenant), size)
	}
	groups := map[string][][]byte{}
	descs, hosts, zones := ring.MakeBuffersForGet()
	for _, u := range blocks {
		set, err := r.Get(uint32(xxhash.Sum64(u[:])), storeRead, descs[:0], hosts[:0], zones[:0])
		if err != nil {
			return nil, errs.New(errs.Unavailable, "find store-gateways: %w", err)
		}
		if prefer := q.cfg.PreferAvailabilityZones; len(prefer) > 0 {
			slices.SortStableFunc(set.Instances, func(a, b ring.InstanceDesc) int {
				return first(slices.Contains(prefer, a.Zone), slices.Contains(prefer, b.Zone))
			})
		}
		if try < len(set.Instances) {
			addr := set.Instances[try].Addr
			groups[addr] = append(groups[addr], slices.Clone(u[:]))
		}
	}
	return groups, nil
}

// selectBlocks returns the answers of store-gateways about all blocks of the scope, charged.
func (q *Querier) selectBlocks(ctx context.Context, sc scope, h storage.SelectHints, matchers []*labels.Matcher, b *budget) ([]source, error) {
	answers, err := askStores(ctx, q, sc, func(ctx context.Context, c storepb.StoreGatewayClient, blocks [][]byte) (*fetched, [][]byte, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the stream if it is left before its end
		return q.selectStore(ctx, c, storeRequest(sc, h, matchers, blocks, b), b)
	})
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
func (q *Querier) selectStore(ctx context.Context, c storepb.StoreGatewayClient, req *storepb.SeriesRequest, b *budget) (*fetched, [][]byte, error) {
	stream, err := c.Series(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	out := &fetched{}
	var served [][]byte
	var builder labels.ScratchBuilder
	err = receive(ctx, q.deps.Turns, stream.Recv, func(m *storepb.SeriesResponse) error {
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

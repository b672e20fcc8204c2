package storegateway

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

const (
	// messageSeries and messageBytes bound one message of a stream of series.
	messageSeries = 256
	messageBytes  = 1 << 20
)

// Series streams the matching series of the named blocks, merged and sorted by labels.
func (g *Gateway) Series(req *storepb.SeriesRequest, to grpc.ServerStreamingServer[storepb.SeriesResponse]) (err error) {
	ctx := to.Context()
	end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	began := time.Now()
	defer func() { g.metrics.duration.Observe(time.Since(began).Seconds()) }()
	memory := g.room()
	defer memory.leave()
	sel := block.Selection{Memory: memory.use, MinTime: req.MinTime, MaxTime: req.MaxTime, LabelsOnly: req.SkipChunks,
		ShardIndex: uint64(req.ShardIndex), ShardCount: uint64(req.ShardCount)}
	if sel.Matchers, err = matchersOf(req.Matchers); err != nil {
		return err
	}
	o, err := g.open(ctx, req.Blocks)
	if err != nil {
		return err
	}
	defer o.close()
	sets, err := selectAll(ctx, o.blocks, sel)
	defer func() {
		for _, s := range sets {
			if s != nil {
				err = errors.Join(err, s.Close())
			}
		}
	}()
	if err != nil {
		return err
	}
	ctx, turn, leave := g.deps.Turns.Begin(ctx)
	defer leave()
	w := &writer{to: to, left: left{req: req}, turn: turn}
	if err := w.sendAll(ctx, sets); err != nil {
		return err
	}
	work := g.count(sets)
	w.message().Blocks, w.message().Work = o.names, work
	return w.flush()
}

// count sums up what reading took.
func (g *Gateway) count(sets []*block.SeriesSet) *storepb.Work {
	out := &storepb.Work{}
	for _, s := range sets {
		w := s.Work()
		out.BucketRequests += uint64(w.Requests)
		out.BucketBytes += uint64(w.FetchedBytes)
		out.CacheBytes += uint64(w.CachedBytes)
		out.Postings += uint64(w.Postings)
		out.Series += uint64(w.Series)
		out.Chunks += uint64(w.Chunks)
	}
	g.metrics.series.Observe(float64(out.Series))
	g.metrics.bucketRequests.Observe(float64(out.BucketRequests))
	return out
}

// selectAll begins to read all blocks, side by side: each may have to fetch postings.
func selectAll(ctx context.Context, blocks []*block.Block, sel block.Selection) ([]*block.SeriesSet, error) {
	sets := make([]*block.SeriesSet, len(blocks))
	eg, gctx := errgroup.WithContext(ctx)
	eg.SetLimit(openConcurrency)
	for i, b := range blocks {
		eg.Go(func() error {
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			var err error
			sets[i], err = b.Select(ctx, sel)
			return err
		})
	}
	return sets, eg.Wait()
}

// byLabels is a heap of sets by their current series.
type byLabels []*block.SeriesSet

func (h byLabels) Len() int           { return len(h) }
func (h byLabels) Less(i, j int) bool { return labels.Compare(h[i].At().Labels, h[j].At().Labels) < 0 }
func (h byLabels) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byLabels) Push(x any)        { *h = append(*h, x.(*block.SeriesSet)) } //nolint:forcetypeassert // The heap holds nothing else.
func (h *byLabels) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// writer gathers series into messages.
type writer struct {
	to     grpc.ServerStreamingServer[storepb.SeriesResponse]
	msg    *storepb.SeriesResponse
	bytes  int
	series uint64
	left   left
	turn   *turns.Turn
}

func (w *writer) message() *storepb.SeriesResponse {
	if w.msg == nil {
		w.msg = &storepb.SeriesResponse{}
	}
	return w.msg
}

// sendAll merges the sets and sends what they have, up to the limit of the request.
func (w *writer) sendAll(ctx context.Context, sets []*block.SeriesSet) error {
	var h byLabels
	for _, s := range sets {
		switch {
		case s.Next():
			h = append(h, s)
		case s.Err() != nil:
			return s.Err()
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		w.turn.Yield()
		if limit := w.left.req.Limit; limit > 0 && w.series >= limit {
			return nil
		}
		at := h[0].At()
		ls, metas := at.Labels, at.Chunks
		for more := false; len(h) > 0 && (!more || labels.Equal(h[0].At().Labels, ls)); more = true {
			if more {
				metas = append(metas[:len(metas):len(metas)], h[0].At().Chunks...)
			}
			if h[0].Next() {
				heap.Fix(&h, 0)
			} else if err := h[0].Err(); err != nil {
				return err
			} else {
				heap.Pop(&h)
			}
		}
		if err := w.add(ls, distinct(metas)); err != nil {
			return err
		}
	}
	return nil
}

// distinct sorts chunks by time and drops those that are the same: blocks of several replicas, or a
// block and those it was made of, hold the same chunks.
func distinct(ms []chunks.Meta) []chunks.Meta {
	byTime := func(a, b chunks.Meta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
	}
	if !slices.IsSortedFunc(ms, byTime) {
		slices.SortStableFunc(ms, byTime)
	}
	return slices.CompactFunc(ms, func(a, b chunks.Meta) bool {
		return byTime(a, b) == 0 && a.Chunk.Encoding() == b.Chunk.Encoding() && bytes.Equal(a.Chunk.Bytes(), b.Chunk.Bytes())
	})
}

// add puts a series into the message and charges it.
func (w *writer) add(ls labels.Labels, metas []chunks.Meta) error {
	s := &ingesterpb.Series{Labels: make([]string, 0, 2*ls.Len())}
	ls.Range(func(l labels.Label) {
		s.Labels = append(s.Labels, l.Name, l.Value)
		w.bytes += len(l.Name) + len(l.Value) + 4
	})
	size := 0
	if len(metas) > 0 {
		slab := make([]ingesterpb.Chunk, len(metas))
		s.Chunks = make([]*ingesterpb.Chunk, len(metas))
		for i, m := range metas {
			slab[i].MinTime, slab[i].MaxTime = m.MinTime, m.MaxTime
			slab[i].Encoding, slab[i].Data = uint32(m.Chunk.Encoding()), m.Chunk.Bytes()
			s.Chunks[i] = &slab[i]
			size += len(slab[i].Data)
		}
	}
	if err := w.left.charge(len(metas), size); err != nil {
		return fmt.Errorf("read series %s: %w", ls, err)
	}
	w.bytes += size + 32*len(metas)
	w.series++
	m := w.message()
	m.Series = append(m.Series, s)
	if len(m.Series) >= messageSeries || w.bytes >= messageBytes {
		return w.flush()
	}
	return nil
}

// flush sends the message. Who receives it, perhaps in this process, keeps its memory.
func (w *writer) flush() error {
	if w.msg == nil {
		return nil
	}
	msg := w.msg
	w.msg, w.bytes = nil, 0
	w.turn.Rest() // the reader may be slow
	defer w.turn.Resume()
	return w.to.Send(msg)
}

// left counts against what the tenant's limits leave to a call.
type left struct {
	req                   *storepb.SeriesRequest
	series, chunks, bytes uint64
}

func (l *left) charge(n, size int) error {
	l.series++
	l.chunks += uint64(n)
	l.bytes += uint64(size)
	switch {
	case l.req.MaxSeries > 0 && l.series > l.req.MaxSeries:
		r := limits.MaxFetchedSeriesPerQuery.Row()
		return errs.Limit(errs.TooLarge, "max-series-per-query", r.Flag, r.Name,
			"the query exceeded the maximum number of series (%d more were allowed)", l.req.MaxSeries)
	case l.req.MaxChunks > 0 && l.chunks > l.req.MaxChunks:
		r := limits.MaxFetchedChunksPerQuery.Row()
		return errs.Limit(errs.TooLarge, "max-chunks-per-query", r.Flag, r.Name,
			"the query exceeded the maximum number of chunks (%d more were allowed)", l.req.MaxChunks)
	case l.req.MaxChunkBytes > 0 && l.bytes > l.req.MaxChunkBytes:
		r := limits.MaxFetchedChunkBytesPerQuery.Row()
		return errs.Limit(errs.TooLarge, "max-chunks-bytes-per-query", r.Flag, r.Name,
			"the query exceeded the aggregated chunks size limit (%d more bytes were allowed)", l.req.MaxChunkBytes)
	}
	return nil
}

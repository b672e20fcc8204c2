package storegateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/packed"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

const (
	// messageSeries and messageBytes bound one message of a stream of series.
	messageSeries = 256
	messageBytes  = 1 << 20

	// packedBytes is the aim for one message of packed series, all of which stay in memory while one of
	// them is in use.
	packedBytes = 256 << 10
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
	sets, err := g.selectAll(ctx, o.blocks, sel)
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
	for _, s := range sets {
		s.Waits = resting(turn)
	}
	w := &writer{to: to, left: left{req: req}, turn: turn, packs: req.Packed}
	// gRPC has encoded a message when Send returns; in one process the reader keeps it.
	if _, w.sends = to.(*grpc.GenericServerStream[storepb.SeriesRequest, storepb.SeriesResponse]); w.packs {
		w.takeBuffer(&g.packs)
		defer w.giveBuffer(&g.packs)
	}
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

// selectAll begins to read all blocks, side by side: postings and the first series of each may have to be
// fetched.
func (g *Gateway) selectAll(ctx context.Context, blocks []*block.Block, sel block.Selection) ([]*block.SeriesSet, error) {
	sets := make([]*block.SeriesSet, len(blocks))
	eg, gctx := errs.Together(ctx)
	eg.SetLimit(openConcurrency)
	for i, b := range blocks {
		eg.Go(func() error {
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			var err error
			if sets[i], err = b.Select(ctx, sel); err != nil || len(blocks) == 1 {
				return err
			}
			_, turn, leave := g.deps.Turns.Begin(turns.Apart(ctx))
			defer leave()
			sets[i].Waits = resting(turn)
			return sets[i].Ahead()
		})
	}
	return sets, eg.Wait()
}

// resting gives a turn up while its goroutine waits.
func resting(turn *turns.Turn) func() func() {
	return func() func() {
		turn.Rest()
		return turn.Resume
	}
}

// writer gathers series into messages.
type writer struct {
	to     grpc.ServerStreamingServer[storepb.SeriesResponse]
	msg    *storepb.SeriesResponse
	bytes  int
	series uint64
	left   left
	turn   *turns.Turn

	packs bool
	sends bool   // who receives messages does not keep their memory
	pack  []byte // of msg, used for one message after the other
}

// takeBuffer takes memory for packed series that was used before, if there is any.
func (w *writer) takeBuffer(from *sync.Pool) {
	if b, ok := from.Get().(*[]byte); ok {
		w.pack = (*b)[:0]
	}
}

// giveBuffer gives it back.
func (w *writer) giveBuffer(to *sync.Pool) {
	if b := w.pack; cap(b) > 0 && cap(b) <= 2*packedBytes {
		to.Put(&b)
	}
}

func (w *writer) message() *storepb.SeriesResponse {
	if w.msg == nil {
		w.msg = &storepb.SeriesResponse{}
	}
	return w.msg
}

// sendAll merges the sets and sends what they have, up to the limit of the request.
func (w *writer) sendAll(ctx context.Context, sets []*block.SeriesSet) error {
	m := merge(sets)
	m.turn = w.turn
	for m.next() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		w.turn.Yield()
		if limit := w.left.req.Limit; limit > 0 && w.series >= limit {
			return nil
		}
		if err := w.add(m.labels(), m.all()); err != nil {
			return err
		}
	}
	return m.err
}

// add copies a series into the message and charges it.
func (w *writer) add(ls labels.Labels, cs []block.Chunk) error {
	size := 0
	for i := range cs {
		size += len(cs[i].Data)
	}
	if err := w.left.charge(len(cs), size); err != nil {
		return fmt.Errorf("read series %s: %w", ls, err)
	}
	w.series++
	if w.packs {
		return w.addPacked(ls, cs)
	}
	s := &ingesterpb.Series{Labels: make([]string, 0, 2*ls.Len())}
	ls.Copy().Range(func(l labels.Label) {
		s.Labels = append(s.Labels, l.Name, l.Value)
		w.bytes += len(l.Name) + len(l.Value) + 4
	})
	data := make([]byte, 0, size)
	for i := range cs {
		data = append(data, cs[i].Data...)
		s.Chunks = append(s.Chunks, &ingesterpb.Chunk{MinTime: cs[i].MinTime, MaxTime: cs[i].MaxTime, Encoding: uint32(cs[i].Encoding),
			Data: data[len(data)-len(cs[i].Data) : len(data) : len(data)]})
	}
	w.bytes += size + 32*len(cs)
	m := w.message()
	m.Series = append(m.Series, s)
	if len(m.Series) >= messageSeries || w.bytes >= messageBytes {
		return w.flush()
	}
	return nil
}

// addPacked copies a series into the one piece of the message.
func (w *writer) addPacked(ls labels.Labels, cs []block.Chunk) error {
	w.pack = packed.AppendLabels(w.pack, ls)
	for i := range cs {
		w.pack = packed.AppendChunk(w.pack, packed.Chunk{MinTime: cs[i].MinTime, MaxTime: cs[i].MaxTime, Encoding: cs[i].Encoding, Data: cs[i].Data})
	}
	w.pack = packed.EndChunks(w.pack)
	m := w.message()
	m.PackedSeries++
	m.PackedChunks += uint32(len(cs)) //nolint:gosec // They fit into memory.
	if len(w.pack) >= packedBytes {
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
	if msg.Packed = w.pack; !w.sends {
		msg.Packed = slices.Clone(w.pack) // as much as there is: a buffer that grows takes several times that
	}
	w.pack = w.pack[:0]
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

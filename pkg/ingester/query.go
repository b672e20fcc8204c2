package ingester

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/packed"
)

const (
	// messageSeries and messageBytes bound one message of a stream of series.
	messageSeries = 256
	messageBytes  = 1 << 20
)

// errNotReadable refuses queries of a process that is starting or stopping.
var errNotReadable = errs.New(errs.Unavailable, "the ingester is not answering queries: it is starting or stopping")

// read is one query being answered: a token of the read concurrency and an open head.
type read struct {
	i *Ingester
	t *tenantHead // nil if the tenant has nothing here

	through pass
	failed  bool // for a reason that lies here
}

// beginRead waits for room and opens the tenant of ctx. end must follow. Errors: Unavailable,
// Unauthenticated, Invalid, the cause of ctx.
func (i *Ingester) beginRead(ctx context.Context) (*read, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	through, err := i.readGate.enter(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.takeReadToken(ctx); err != nil {
		i.readGate.leave(through, ownFault(errs.KindOf(err)), false)
		return nil, err
	}
	i.metrics.queries.Inc()
	r := &read{i: i, through: through}
	if t := i.lookup(id); t != nil && t.enter() {
		r.t = t
	}
	return r, nil
}

// takeReadToken waits for room among the queries being answered.
func (i *Ingester) takeReadToken(ctx context.Context) error {
	if err := i.admitRead(); err != nil {
		return err
	}
	select {
	case i.reads <- struct{}{}:
	case <-ctx.Done():
		i.leaveRead()
		return context.Cause(ctx)
	}
	if !i.readable.Load() {
		<-i.reads
		i.leaveRead()
		return errNotReadable
	}
	return nil
}

// ended notes how the query ended, before end.
func (r *read) ended(err error) { r.failed = err != nil && ownFault(errs.KindOf(err)) }

func (r *read) end() {
	r.i.readGate.leave(r.through, r.failed, r.t != nil)
	if r.t != nil {
		r.t.leave()
	}
	<-r.i.reads
	r.i.leaveRead()
}

// matchersOf compiles matchers. Errors: Invalid.
func matchersOf(in []*ingesterpb.Matcher) ([]*labels.Matcher, error) {
	out := make([]*labels.Matcher, 0, len(in))
	for _, m := range in {
		kind := labels.MatchType(m.Type) // the numbers are the same
		if kind < labels.MatchEqual || kind > labels.MatchNotRegexp {
			return nil, errs.New(errs.Invalid, "unknown type of matcher %d", m.Type)
		}
		c, err := labels.NewMatcher(kind, m.Name, m.Value)
		if err != nil {
			return nil, errs.New(errs.Invalid, "matcher of label %q: %w", m.Name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// pairs is the wire form of labels.
func pairs(ls labels.Labels) []string {
	out := make([]string, 0, 2*ls.Len())
	ls.Range(func(l labels.Label) { out = append(out, l.Name, l.Value) })
	return out
}

// Query streams the matching series, sorted by labels unless any order will do, with their chunks as they are: those at the
// edges may hold samples outside the range.
func (i *Ingester) Query(req *ingesterpb.QueryRequest, to grpc.ServerStreamingServer[ingesterpb.QueryResponse]) error {
	ctx := to.Context()
	r, err := i.beginRead(ctx)
	if err != nil {
		return err
	}
	defer r.end()
	first := &ingesterpb.QueryResponse{CompleteSince: i.completeSince.Load()}
	if r.t == nil {
		return to.Send(first)
	}
	ms, err := matchersOf(req.Matchers)
	if err != nil {
		return err
	}
	q, err := r.t.head.ChunkQuerier(req.MinTime, req.MaxTime)
	if err != nil {
		return fmt.Errorf("query tenant %s: %w", r.t.id, err)
	}
	ctx, turn, end := i.turns.Begin(ctx)
	defer end()
	w := seriesStream{to: to, msg: first, turn: turn, packs: req.Packed}
	// gRPC has encoded a message when Send returns; in one process the reader keeps it.
	_, w.sends = to.(*grpc.GenericServerStream[ingesterpb.QueryRequest, ingesterpb.QueryResponse])
	if w.packs {
		w.takeBuffer(&i.packs)
		defer w.giveBuffer(&i.packs)
	}
	hints := &storage.SelectHints{Start: req.MinTime, End: req.MaxTime, DisableTrimming: true}
	set := q.Select(ctx, !req.AnyOrder, hints, ms...)
	err = w.sendAll(ctx, set, uint64(req.ShardIndex), uint64(req.ShardCount))
	if cerr := q.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("query tenant %s: %w", r.t.id, cerr))
	}
	r.ended(err)
	i.metrics.queriedSeries.Observe(float64(w.series))
	i.metrics.queriedSamples.Observe(float64(w.samples))
	return err
}

// seriesStream gathers series into messages.
type seriesStream struct {
	to              grpc.ServerStreamingServer[ingesterpb.QueryResponse]
	msg             *ingesterpb.QueryResponse
	arena           []byte // chunk data of msg
	bytes           int
	series, samples int
	turn            *turns.Turn

	chunks chunks.Iterator
	plain  map[chunkenc.Encoding]chunkenc.Iterator

	// What messages are made of is allocated for many series at once.
	freeSeries []ingesterpb.Series
	freeChunks []ingesterpb.Chunk
	chunkRefs  []*ingesterpb.Chunk
	texts      []string

	packs bool
	sends bool   // who receives messages does not keep their memory
	pack  []byte // of msg, used for one message after the other
}

// takeBuffer takes memory for packed series that was used before, if there is any.
func (w *seriesStream) takeBuffer(from *sync.Pool) {
	if b, ok := from.Get().(*[]byte); ok {
		w.pack = (*b)[:0]
	}
}

// giveBuffer gives it back.
func (w *seriesStream) giveBuffer(to *sync.Pool) {
	if b := w.pack; cap(b) > 0 && cap(b) <= 2*packedBytes {
		to.Put(&b)
	}
}

// slabChunks is how many chunks are allocated at once, slabTexts how many strings of labels.
const (
	slabChunks = 2 * messageSeries
	slabTexts  = 16 * messageSeries
)

// newSeries returns an empty series whose chunks are added to at once.
func (w *seriesStream) newSeries() *ingesterpb.Series {
	if len(w.freeSeries) == 0 {
		w.freeSeries = make([]ingesterpb.Series, messageSeries)
	}
	out := &w.freeSeries[0]
	w.freeSeries = w.freeSeries[1:]
	return out
}

// pairs is the wire form of labels.
func (w *seriesStream) pairs(ls labels.Labels) []string {
	if n := 2 * ls.Len(); n > cap(w.texts)-len(w.texts) {
		w.texts = make([]string, 0, max(n, min(slabTexts, 8*n+4*cap(w.texts))))
	}
	from := len(w.texts)
	ls.Range(func(l labels.Label) { w.texts = append(w.texts, l.Name, l.Value) })
	return w.texts[from:len(w.texts):len(w.texts)]
}

func (w *seriesStream) sendAll(ctx context.Context, set storage.ChunkSeriesSet, shard, shards uint64) error {
	for set.Next() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		w.turn.Yield()
		at := set.At()
		ls := at.Labels()
		if shards > 0 && labels.StableHash(ls)%shards != shard {
			continue
		}
		w.chunks = at.Iterator(w.chunks)
		if w.packs {
			if err := w.addPacked(ls, w.chunks); err != nil {
				return err
			}
			continue
		}
		out, err := w.collect(ls, w.chunks)
		if err != nil {
			return err
		}
		if len(out.Chunks) == 0 {
			continue
		}
		if err := w.add(out); err != nil {
			return err
		}
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("select series: %w", err)
	}
	return w.flush()
}

// collect copies the chunks of one series.
func (w *seriesStream) collect(ls labels.Labels, it chunks.Iterator) (*ingesterpb.Series, error) {
	out := w.newSeries()
	w.chunkRefs = w.chunkRefs[:0]
	if err := w.copyChunks(ls, it); err != nil {
		return nil, err
	}
	if len(w.chunkRefs) > 0 {
		out.Chunks, out.Labels = slices.Clone(w.chunkRefs), w.pairs(ls)
	}
	return out, nil
}

// copyChunks copies the chunks of one series: their memory belongs to the head and goes away with the
// querier.
func (w *seriesStream) copyChunks(ls labels.Labels, it chunks.Iterator) error {
	for it.Next() {
		m := it.At()
		visible, whole := w.visible(m.Chunk)
		if whole {
			w.addChunk(m)
			continue
		}
		// The chunk has samples of a push that was not complete when the query began. The rest
		// of it makes a new chunk.
		again := storage.NewSeriesToChunkEncoder(&storage.SeriesEntry{Lset: ls,
			SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return visible }}).Iterator(nil)
		for again.Next() {
			w.addChunk(again.At())
		}
		if err := again.Err(); err != nil {
			return fmt.Errorf("encode series %s: %w", ls, err)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read series %s: %w", ls, err)
	}
	return nil
}

// visible returns an iterator over the samples of c that the query may see, and whether these are
// all. An open chunk of the head takes the given iterator over again, which costs nothing, unless
// it has to stop early.
func (w *seriesStream) visible(c chunkenc.Chunk) (chunkenc.Iterator, bool) {
	enc := c.Encoding()
	plain := w.plain[enc]
	if plain == nil {
		empty, err := chunkenc.NewEmptyChunk(enc)
		if err != nil {
			return nil, true // an encoding with nothing to hide
		}
		plain = empty.Iterator(nil)
		if w.plain == nil {
			w.plain = map[chunkenc.Encoding]chunkenc.Iterator{}
		}
		w.plain[enc] = plain
	}
	it := c.Iterator(plain)
	return it, it == plain
}

func (w *seriesStream) addChunk(m chunks.Meta) {
	b := m.Chunk.Bytes()
	w.samples += m.Chunk.NumSamples()
	if w.packs {
		w.msg.PackedChunks++
		w.pack = packed.AppendChunk(w.pack, packed.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Encoding: m.Chunk.Encoding(), Data: b})
		return
	}
	if len(b) > cap(w.arena)-len(w.arena) {
		w.arena = make([]byte, 0, max(len(b), min(messageBytes, max(4096, 2*cap(w.arena)))))
	}
	from := len(w.arena)
	w.arena = append(w.arena, b...)
	if len(w.freeChunks) == 0 {
		w.freeChunks = make([]ingesterpb.Chunk, slabChunks)
	}
	c := &w.freeChunks[0]
	w.freeChunks = w.freeChunks[1:]
	c.MinTime, c.MaxTime, c.Encoding = m.MinTime, m.MaxTime, uint32(m.Chunk.Encoding())
	c.Data = w.arena[from:len(w.arena):len(w.arena)]
	w.chunkRefs = append(w.chunkRefs, c)
	w.bytes += len(b) + 32
}

// packedBytes is the aim for one message of packed series, all of which stay in memory while one of them
// is in use.
const packedBytes = 256 << 10

// addPacked copies a series into the message. One without chunks leaves it as it was.
func (w *seriesStream) addPacked(ls labels.Labels, it chunks.Iterator) error {
	if w.msg == nil {
		w.msg = &ingesterpb.QueryResponse{}
	}
	before, had := len(w.pack), w.msg.PackedChunks
	w.pack = packed.AppendLabels(w.pack, ls)
	if err := w.copyChunks(ls, it); err != nil {
		return err
	}
	if w.msg.PackedChunks == had {
		w.pack = w.pack[:before]
		return nil
	}
	w.pack = packed.EndChunks(w.pack)
	w.msg.PackedSeries++
	w.series++
	if len(w.pack) >= packedBytes {
		return w.flush()
	}
	return nil
}

func (w *seriesStream) add(s *ingesterpb.Series) error {
	if w.msg == nil {
		w.msg = &ingesterpb.QueryResponse{}
	}
	w.msg.Series = append(w.msg.Series, s)
	for _, l := range s.Labels {
		w.bytes += len(l) + 2
	}
	w.series++
	if len(w.msg.Series) >= messageSeries || w.bytes >= messageBytes {
		return w.flush()
	}
	return nil
}

// flush sends the message. Who receives it, perhaps in this process, keeps its memory.
func (w *seriesStream) flush() error {
	if w.msg == nil {
		return nil
	}
	msg := w.msg
	w.msg, w.bytes = nil, 0
	if msg.Packed = w.pack; !w.sends {
		msg.Packed = slices.Clone(w.pack) // as much as there is: a buffer that grows takes several times that
	}
	w.pack = w.pack[:0]
	w.arena = w.arena[len(w.arena):]
	w.turn.Rest() // the reader may be slow
	defer w.turn.Resume()
	return w.to.Send(msg)
}

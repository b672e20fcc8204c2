package querier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/amphora-metrics/amphora/pkg/chunkcheck"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/packed"
)

const (
	// hedgeAfter is when the replicas that were not asked are asked as well. It is above what a
	// healthy ingester takes for a large selection, so hedging stays rare.
	hedgeAfter = 3 * time.Second

	// restAtLeast is what the others are given when an ingester lost samples and the read was slow
	// already.
	restAtLeast = 500 * time.Millisecond

	// seriesOnly is the hint by which the series API says that it reads labels alone.
	seriesOnly = "series"
)

// The values of the label source.
const (
	fromIngesters = "ingester"
	fromBlocks    = "block"
)

// replicas returns the ingesters that may hold the tenant's recent samples: those of its shard, now
// and at any time since the oldest sample they are asked for.
func (q *Querier) replicas(sc scope) (ring.ReplicationSet, error) {
	size := 0
	if q.cfg.ShuffleSharding {
		size = q.shards.size(sc.tenant, limits.IngestionTenantShardSize.Of(sc.limits), q.deps.Now())
	}
	set, err := members.ReadSet(q.shard(sc.tenant, size))
	if err != nil {
		return set, errs.New(errs.Unavailable, "find ingesters: %w", err)
	}
	return set, nil
}

// lookback is how long ago samples may be that are in ingesters alone.
func (q *Querier) lookback() time.Duration {
	if w := q.cfg.QueryIngestersWithin; w > 0 {
		return w
	}
	return time.Duration(q.deps.Now().UnixNano())
}

// shard is the ingesters that were in the tenant's shard of the given size, 0 being all, at any time
// of the lookback.
func (q *Querier) shard(id tenant.ID, size int) ring.ReadRing {
	name := ""
	if size > 0 {
		name = string(id) // without a size the shard is the same for all, so it goes by one name
	}
	return q.deps.Ingesters.ShuffleShardWithLookback(name, size, q.lookback(), q.deps.Now())
}

// dated is an answer that says since when, in milliseconds, its ingester has all that it ever
// acknowledged.
type dated interface{ completeSince() int64 }

// ask calls f on as many ingesters as a read quorum needs, and on the others when some fail or are
// slow. The answers are those of a quorum: every acknowledged sample is in at least one, as long as
// nobody lost what it had. If one of them lost samples since mint, with its disk, the others are
// asked as well, and what those that can be reached have is among the answers.
func ask[T any](ctx context.Context, q *Querier, set ring.ReplicationSet, mint int64, f func(context.Context, ingesterpb.IngesterQueryClient) (T, error)) ([]T, error) {
	var mu sync.Mutex // guards answered
	answered := map[string]bool{}
	var hedge sync.Once
	start := time.Now()
	answers, err := askQuorum(ctx, q, set, func(ctx context.Context, inst *ring.InstanceDesc) (T, error) {
		begin := time.Now()
		if begin.Sub(start) >= hedgeAfter {
			hedge.Do(q.metrics.hedged.Inc)
		}
		answer, err := askOne(ctx, q, inst, f)
		if late := time.Since(begin) >= hedgeAfter; late || err == nil || errs.KindOf(err) == errs.Unavailable {
			q.suspects.note(inst.Addr, late || err != nil, time.Now())
		}
		if err == nil {
			mu.Lock()
			answered[inst.Addr] = true
			mu.Unlock()
		}
		return answer, err
	})
	if within := q.cfg.QueryIngestersWithin; within > 0 {
		mint = max(mint, q.deps.Now().Add(-within).UnixMilli()) // blocks have what is older
	}
	if err != nil || !slices.ContainsFunc(answers, func(a T) bool { return lacks(a, mint) }) {
		return answers, err
	}
	mu.Lock()
	rest := slices.DeleteFunc(slices.Clone(set.Instances), func(i ring.InstanceDesc) bool { return answered[i.Addr] })
	mu.Unlock()
	more, err := askRest(ctx, q, rest, max(hedgeAfter-time.Since(start), restAtLeast), f)
	return append(answers, more...), err
}

// lacks says whether answer may miss samples from mint on.
func lacks[T any](answer T, mint int64) bool {
	d, ok := any(answer).(dated)
	return ok && d.completeSince() > mint
}

// askRest asks all of rest and returns the answers of those that can be reached within wait. Errors:
// those that no other ingester would spare the caller.
func askRest[T any](ctx context.Context, q *Querier, rest []ring.InstanceDesc, wait time.Duration, f func(context.Context, ingesterpb.IngesterQueryClient) (T, error)) ([]T, error) {
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	answers, problems := make([]T, len(rest)), make([]error, len(rest))
	var wg sync.WaitGroup
	for i := range rest {
		wg.Go(func() { answers[i], problems[i] = askOne(within, q, &rest[i], f) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var out []T
	for i, err := range problems {
		switch {
		case err == nil:
			out = append(out, answers[i])
		case terminal(err):
			return nil, err
		default:
			q.metrics.unhealed.Inc()
			if q.complained.due(time.Now()) {
				q.deps.Logger.Warn("an ingester does not have all samples of the range and another that may have them did not answer; more such reads are counted and not logged",
					"ingester", rest[i].Addr, "err", err)
			}
		}
	}
	return out, nil
}

func askOne[T any](ctx context.Context, q *Querier, inst *ring.InstanceDesc, f func(context.Context, ingesterpb.IngesterQueryClient) (T, error)) (_ T, err error) {
	defer errs.Caught(&err)
	var none T
	client, err := q.deps.Client(inst.Addr)
	if err != nil {
		return none, errs.New(errs.Unavailable, "reach ingester %s: %w", inst.Addr, err)
	}
	answer, err := f(ctx, client)
	if err != nil {
		return none, fmt.Errorf("ask ingester %s: %w", inst.Addr, err)
	}
	return answer, nil
}

func askQuorum[T any](ctx context.Context, q *Querier, set ring.ReplicationSet, f func(context.Context, *ring.InstanceDesc) (T, error)) ([]T, error) {
	cfg := ring.DoUntilQuorumConfig{
		MinimizeRequests: q.cfg.MinimizeIngesterRequests,
		IsTerminalError:  terminal,
	}
	if cfg.MinimizeRequests {
		cfg.HedgingDelay = hedgeAfter
		cfg.ZoneSorter = q.suspects.zones(set.Instances, q.cfg.PreferAvailabilityZones, time.Now())
	}
	answers, err := ring.DoUntilQuorum(ctx, set, cfg, f, func(T) {})
	errs.Raise(err)
	switch {
	case err == nil:
		return answers, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case terminal(err):
		return nil, err
	}
	return nil, errs.New(errs.Unavailable, "too many ingesters failed: %w", err)
}

// terminal says whether no other replica would answer differently, or none is to be asked as the way of the answer here is
// broken.
func terminal(err error) bool {
	if errs.Panicked(err) {
		return true
	}
	switch errs.KindOf(err) {
	case errs.Invalid, errs.Unauthenticated, errs.Denied, errs.TooLarge, errs.Unprocessable, errs.Unimplemented:
		return true
	}
	return false
}

// receive calls f for each message of a stream until it ends, each in a turn of its own: between them it
// waits for who sends.
func receive[M any](ctx context.Context, g *turns.Gate, recv func() (M, error), f func(M) error) error {
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, _, end := g.Begin(ctx)
		err = f(m)
		end()
		if err != nil {
			return err
		}
	}
}

// selectIngesters returns the answers of a quorum of ingesters, complete and charged.
func (q *Querier) selectIngesters(ctx context.Context, sc scope, h storage.SelectHints, matchers []*labels.Matcher, b *budget) ([]source, error) {
	one := (*Querier).selectOne
	switch h.Func {
	case seriesOnly:
		one = (*Querier).seriesOne
	case activeOnly:
		one = (*Querier).activeOne
	}
	answers, err := ask(ctx, q, sc.replicas, h.Start, func(ctx context.Context, c ingesterpb.IngesterQueryClient) (*fetched, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the stream if it is left before its end
		if sc.anyOrder {
			return q.selectSamples(ctx, c, h, matchers, b, true)
		}
		return one(q, ctx, c, h, matchers, b)
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

func (q *Querier) selectOne(ctx context.Context, c ingesterpb.IngesterQueryClient, h storage.SelectHints, matchers []*labels.Matcher, b *budget) (*fetched, error) {
	return q.selectSamples(ctx, c, h, matchers, b, false)
}

func (q *Querier) selectSamples(ctx context.Context, c ingesterpb.IngesterQueryClient, h storage.SelectHints, matchers []*labels.Matcher, b *budget, anyOrder bool) (*fetched, error) {
	stream, err := c.Query(ctx, &ingesterpb.QueryRequest{
		MinTime: h.Start, MaxTime: h.End, Matchers: toWire(matchers), AnyOrder: anyOrder, Packed: true,
		ShardIndex: uint32(h.ShardIndex), ShardCount: uint32(h.ShardCount),
	})
	if err != nil {
		return nil, err
	}
	out := &fetched{anyOrder: anyOrder}
	var builder labels.ScratchBuilder
	err = receive(ctx, q.deps.Turns, stream.Recv, func(m *ingesterpb.QueryResponse) error {
		out.since = max(out.since, m.CompleteSince)
		if len(m.Packed) > 0 {
			return q.takePacked(out, pack{m.Packed, m.PackedSeries, m.PackedChunks}, fromIngesters, b)
		}
		return q.takeSeries(out, m.Series, &builder, fromIngesters, b) // of an ingester that does not pack
	})
	return out, err
}

// pack is packed series of a message, and how many series and chunks it says these are.
type pack struct {
	b              []byte
	series, chunks uint32
}

// takePacked appends packed series of one replica to out and charges them. They share the memory of
// the message.
func (q *Querier) takePacked(out *fetched, p pack, from string, b *budget) error {
	// What the message says of itself is no more than a hint.
	most := uint32(min(len(p.b)/leastPacked, math.MaxInt32)) //nolint:gosec // Not over that.
	slab, xors := make([]chunks.Meta, 0, min(p.chunks, most)), make([]chunkenc.XORChunk, min(p.chunks, most))
	out.series = slices.Grow(out.series, int(min(p.series, most)))
	size := 0
	r := packed.Read(p.b)
	for {
		lset, ok := r.Next()
		if !ok {
			break
		}
		if !out.anyOrder && len(out.series) > 0 && labels.Compare(out.series[len(out.series)-1].lset, lset) >= 0 {
			return errs.New(errs.Internal, "series %s arrived out of order", lset)
		}
		start := len(slab)
		for c, ok := r.Chunk(); ok; c, ok = r.Chunk() {
			meta := chunks.Meta{MinTime: c.MinTime, MaxTime: c.MaxTime}
			if c.Encoding == chunkenc.EncXOR && len(c.Data) >= leastChunk && len(xors) > 0 {
				xors[0].Reset(c.Data)
				meta.Chunk, xors = &xors[0], xors[1:]
			} else if err := readChunk(&meta, uint32(c.Encoding), c.Data); err != nil {
				return fmt.Errorf("series %s: %w", lset, err)
			}
			slab = append(slab, meta)
			size += len(c.Data)
		}
		if err := b.chargeSeries(lset); err != nil {
			return err
		}
		out.series = append(out.series, fetchedSeries{lset, slab[start:len(slab):len(slab)]})
	}
	if err := r.Err(); err != nil {
		return err
	}
	return q.chargeFetched(len(slab), size, from, b)
}

// leastPacked is what a packed series or chunk takes at least, leastChunk the header of the shortest chunk.
const leastPacked, leastChunk = 2, 2

// takeChunks appends chunks of one series to slab.
func takeChunks(slab []chunks.Meta, cs []*ingesterpb.Chunk) (_ []chunks.Meta, size int, err error) {
	for _, c := range cs {
		m := chunks.Meta{MinTime: c.MinTime, MaxTime: c.MaxTime}
		if err := readChunk(&m, c.Encoding, c.Data); err != nil {
			return nil, 0, err
		}
		slab = append(slab, m)
		size += len(c.Data)
	}
	return slab, size, nil
}

// readChunk sets the chunk of m. Errors: Internal.
func readChunk(m *chunks.Meta, encoding uint32, data []byte) (err error) {
	if encoding > 255 || len(data) < leastChunk { // an encoding is one byte
		return errs.New(errs.Internal, "a chunk of encoding %d and %d bytes makes no sense", encoding, len(data))
	}
	if m.Chunk, err = chunkcheck.Open(chunkenc.Encoding(encoding), data); err != nil {
		return errs.New(errs.Internal, "a chunk is corrupted: %w", err)
	}
	return nil
}

// chargeFetched charges what one message brought.
func (q *Querier) chargeFetched(n, size int, from string, b *budget) error {
	q.metrics.chunks.WithLabelValues(from).Add(float64(n))
	q.metrics.chunkBytes.WithLabelValues(from).Add(float64(size))
	b.fetched.add(size, from)
	if err := b.use(int64(size)); err != nil {
		return err
	}
	return b.chargeChunks(n, size)
}

// seriesOne is selectOne for labels alone.
func (q *Querier) seriesOne(ctx context.Context, c ingesterpb.IngesterQueryClient, h storage.SelectHints, matchers []*labels.Matcher, b *budget) (*fetched, error) {
	stream, err := c.Series(ctx, &ingesterpb.SeriesRequest{
		MinTime: h.Start, MaxTime: h.End,
		Matchers: []*ingesterpb.Matchers{{Matchers: toWire(matchers)}},
		Limit:    uint64(max(h.Limit, 0)),
	})
	if err != nil {
		return nil, err
	}
	out := &fetched{}
	var builder labels.ScratchBuilder
	err = receive(ctx, q.deps.Turns, stream.Recv, func(m *ingesterpb.SeriesResponse) error {
		out.since = max(out.since, m.CompleteSince)
		for _, s := range m.Series {
			lset, err := toLabels(&builder, s.Labels)
			if err != nil {
				return err
			}
			if err := b.chargeSeries(lset); err != nil {
				return err
			}
			out.series = append(out.series, fetchedSeries{lset: lset})
		}
		return nil
	})
	slices.SortFunc(out.series, func(a, b fetchedSeries) int { return labels.Compare(a.lset, b.lset) })
	out.series = slices.CompactFunc(out.series, func(a, b fetchedSeries) bool { return labels.Equal(a.lset, b.lset) })
	return out, err
}

func toLabels(b *labels.ScratchBuilder, pairs []string) (labels.Labels, error) {
	if len(pairs)%2 != 0 {
		return labels.EmptyLabels(), errs.New(errs.Internal, "a label without a value arrived")
	}
	b.Reset()
	for i := 0; i < len(pairs); i += 2 {
		b.Add(pairs[i], pairs[i+1])
	}
	return b.Labels(), nil
}

// toWire translates matchers. An index cannot answer ""="" beside other matchers and fails, which would look like a fault of
// who was asked: there is no label without a name, so such a matcher is decided here.
func toWire(matchers []*labels.Matcher) []*ingesterpb.Matcher {
	out := make([]*ingesterpb.Matcher, 0, len(matchers))
	for _, m := range matchers {
		switch {
		case m.Name != "" || m.Value != "":
			out = append(out, &ingesterpb.Matcher{Type: wireType(m.Type), Name: m.Name, Value: m.Value})
		case !m.Matches(""):
			return []*ingesterpb.Matcher{{Type: ingesterpb.Matcher_NOT_REGEX, Name: model.MetricNameLabel, Value: ".*"}} // nothing
		}
	}
	if len(out) == 0 && len(matchers) > 0 {
		out = append(out, &ingesterpb.Matcher{Type: ingesterpb.Matcher_EQUAL}) // all series
	}
	return out
}

func wireType(t labels.MatchType) ingesterpb.Matcher_Type {
	switch t {
	case labels.MatchNotEqual:
		return ingesterpb.Matcher_NOT_EQUAL
	case labels.MatchRegexp:
		return ingesterpb.Matcher_REGEX
	case labels.MatchNotRegexp:
		return ingesterpb.Matcher_NOT_REGEX
	}
	return ingesterpb.Matcher_EQUAL
}

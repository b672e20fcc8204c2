package querier

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/ring"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/seeds"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// never is the delay of who hangs.
const never = time.Duration(-1)

// door is a store-gateway that does what a test says.
type door struct {
	storepb.StoreGatewayClient // what a test does not use

	mu     sync.Mutex // guards what follows
	delays []time.Duration
	err    error              // after the delay, instead of what is left of the answer
	gone   map[ulid.ULID]bool // of all store-gateways
	asked  map[ulid.ULID]int
	busy   int // calls under way
}

// behave says what comes of calls: before each part of an answer, and before its end, there is a delay.
func (d *door) behave(err error, delays ...time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.delays = err, delays
}

func (d *door) begin(names [][]byte) (served [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy++
	for _, n := range names {
		d.asked[ulid.ULID(n)]++
		if !d.gone[ulid.ULID(n)] {
			served = append(served, n)
		}
	}
	return served
}

func (d *door) end() { d.mu.Lock(); d.busy--; d.mu.Unlock() }

// pause is the i-th delay of a call. With the last one comes the error, or there is no further one.
func (d *door) pause(ctx context.Context, i int) error {
	d.mu.Lock()
	wait, last, err := time.Duration(0), i >= len(d.delays)-1, d.err
	if i < len(d.delays) {
		wait = d.delays[i]
	}
	d.mu.Unlock()
	after := time.After(wait)
	if wait == never {
		after = nil
	}
	select {
	case <-after:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if last {
		return err
	}
	return nil
}

func (d *door) LabelValues(ctx context.Context, in *storepb.LabelValuesRequest, _ ...grpc.CallOption) (*storepb.LabelValuesResponse, error) {
	defer d.end()
	out := &storepb.LabelValuesResponse{Blocks: d.begin(in.Blocks)}
	for _, b := range out.Blocks {
		out.Values = append(out.Values, ulid.ULID(b).String())
	}
	return out, d.pause(ctx, 0)
}

// doorStream sends messages.
type doorStream[M any] struct {
	grpc.ClientStream
	ctx      context.Context
	d        *door
	messages []*M
	sent     int
}

// opened is a stream of d that whoever reads it ends.
func opened[M any](ctx context.Context, d *door, messages ...*M) *doorStream[M] {
	context.AfterFunc(ctx, d.end)
	return &doorStream[M]{ctx: ctx, d: d, messages: messages}
}

func (s *doorStream[M]) Recv() (*M, error) {
	if s.sent == len(s.messages) {
		return nil, io.EOF
	}
	if err := s.d.pause(s.ctx, s.sent); err != nil {
		return nil, err
	}
	s.sent++
	return s.messages[s.sent-1], nil
}

// Stats says twice that it counts, then how many series each block has.
func (d *door) Stats(ctx context.Context, in *storepb.StatsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[storepb.StatsResponse], error) {
	out := opened(ctx, d, &storepb.StatsResponse{}, &storepb.StatsResponse{})
	for _, b := range d.begin(in.Blocks) {
		out.messages = append(out.messages, &storepb.StatsResponse{Blocks: [][]byte{b}, Stats: []*storepb.BlockStats{{Block: b, Series: 1}}})
	}
	return out, nil
}

// Series sends a series of one chunk for each block, then their names.
func (d *door) Series(ctx context.Context, in *storepb.SeriesRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[storepb.SeriesResponse], error) {
	served := d.begin(in.Blocks)
	var names []string
	for _, b := range served {
		names = append(names, ulid.ULID(b).String())
	}
	slices.Sort(names)
	chunk := chunkenc.NewXORChunk()
	app, err := chunk.Appender()
	if err != nil {
		return nil, err
	}
	app.Append(0, 1000, 1)
	out := opened[storepb.SeriesResponse](ctx, d)
	for _, n := range names {
		out.messages = append(out.messages, &storepb.SeriesResponse{Series: []*ingesterpb.Series{{Labels: []string{"block", n},
			Chunks: []*ingesterpb.Chunk{{MinTime: 1000, MaxTime: 1000, Encoding: uint32(chunkenc.EncXOR), Data: chunk.Bytes()}}}}})
	}
	out.messages = append(out.messages, &storepb.SeriesResponse{Blocks: served})
	return out, nil
}

// doorRing is a ring that knows the owners of each block.
type doorRing struct {
	ring.ReadRing
	owners map[uint32][]string
}

func (r doorRing) Get(key uint32, _ ring.Operation, _ []ring.InstanceDesc, _, _ []string) (ring.ReplicationSet, error) {
	var set ring.ReplicationSet
	for _, o := range r.owners[key] {
		set.Instances = append(set.Instances, ring.InstanceDesc{Addr: o, Zone: "zone-" + o})
	}
	return set, nil
}

// doors is a querier over store-gateways a, b, ... and blocks that each has owners.
type doors struct {
	*cluster
	doors  map[string]*door
	owners map[ulid.ULID][]string
	blocks []block.IndexedBlock
	gone   map[ulid.ULID]bool // although the index has them
}

// newDoors makes a block for each of owners, which names them in order.
func newDoors(t *testing.T, owners ...string) *doors {
	t.Helper()
	d := &doors{doors: map[string]*door{}, owners: map[ulid.ULID][]string{}, gone: map[ulid.ULID]bool{}}
	r := doorRing{owners: map[uint32][]string{}}
	for i, of := range owners {
		id := ulid.ULID{byte(i), byte(i >> 8), 1}
		d.blocks = append(d.blocks, block.IndexedBlock{ID: id})
		d.owners[id] = strings.Split(of, "")
		r.owners[uint32(xxhash.Sum64(id[:]))] = d.owners[id] //nolint:gosec // It is cut off on purpose.
		for _, name := range d.owners[id] {
			if d.doors[name] == nil {
				d.doors[name] = &door{asked: map[ulid.ULID]int{}, gone: d.gone}
			}
		}
	}
	d.cluster = newCluster(t, nil, &stores{Stores: &Stores{Ring: r, Client: func(addr string) (storepb.StoreGatewayClient, error) { return d.doors[addr], nil }}})
	return d
}

// values reads label values, which are the names of blocks, and how long that took.
func (d *doors) values(ctx context.Context) (found []string, missing []ulid.ULID, took time.Duration, err error) {
	begin := time.Now()
	answers, missing, err := askBlocks(ctx, d.q, scope{tenant: "t1"}, d.blocks, storeCall[[]string]{call: func(ctx context.Context, to storeAsked) ([]string, [][]byte, error) {
		r, err := to.client.LabelValues(ctx, &storepb.LabelValuesRequest{Blocks: to.blocks})
		return r.GetValues(), r.GetBlocks(), err
	}})
	return slices.Concat(answers...), missing, time.Since(begin), err
}

// series is values by a stream of series, which are charged to b.
func (d *doors) series(ctx context.Context, b *budget) (found []string, missing []ulid.ULID, took time.Duration, err error) {
	begin := time.Now()
	answers, missing, err := askBlocks(ctx, d.q, scope{tenant: "t1"}, d.blocks, storeCall[*fetched]{budget: b, call: func(ctx context.Context, to storeAsked) (*fetched, [][]byte, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return d.q.selectStore(ctx, to, storeRequest(scope{}, storage.SelectHints{}, nil, to.blocks, b))
	}})
	for _, a := range answers {
		for a.next() {
			lset, metas := a.at()
			if len(metas) != 1 {
				return nil, nil, 0, fmt.Errorf("series %s has %d chunks", lset, len(metas))
			}
			found = append(found, lset.Get("block"))
		}
	}
	return found, missing, time.Since(begin), err
}

// all are the names of all blocks that are there.
func (d *doors) all() (out []string) {
	for _, b := range d.blocks {
		if !d.gone[b.ID] {
			out = append(out, b.ID.String())
		}
	}
	return out
}

// calls returns how often each store-gateway was asked for a block, since it was last called, and fails the
// test if calls are left that nobody waits for.
func (d *doors) calls(t *testing.T) string {
	t.Helper()
	synctest.Wait()
	var out []string
	for name, of := range d.doors {
		of.mu.Lock()
		n := 0
		for _, times := range of.asked {
			n += times
		}
		clear(of.asked)
		if of.busy != 0 {
			t.Errorf("%d calls to %s are still under way", of.busy, name)
		}
		of.mu.Unlock()
		if n > 0 {
			out = append(out, fmt.Sprint(name, n))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// once says whether found is all of want, each once.
func once(found, want []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(found)), slices.Sorted(slices.Values(want)))
}

// TestAStoreGatewayThatHangsCostsOneReadThreeSeconds has the others answer, and knows it for a while.
func TestAStoreGatewayThatHangsCostsOneReadThreeSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t, "ab", "ac", "ba", "ab")
		read := func(what string, want time.Duration, hedged float64, calls string) {
			t.Helper()
			got, missing, took, err := d.values(t.Context())
			if err != nil || len(missing) > 0 || !once(got, d.all()) || took != want {
				t.Fatalf("%s: %v, without %v, after %s, %v; want all once after %s", what, got, missing, took, err, want)
			}
			if n := testutil.ToFloat64(d.q.metrics.storeHedged); n != hedged {
				t.Errorf("%s: %g reads count as hedged, want %g", what, n, hedged)
			}
			if c := d.calls(t); c != calls {
				t.Errorf("%s: asked %s, want %s", what, c, calls)
			}
		}
		read("healthy", 0, 0, "a3 b1")
		d.doors["a"].behave(nil, never)
		read("a hangs", hedgeAfter, 1, "a3 b3 c1")
		read("that is known", 0, 1, "b3 c1")
		time.Sleep(suspectFor)
		read("a is tried again", hedgeAfter, 2, "a3 b3 c1")
		d.doors["a"].behave(nil)
		time.Sleep(suspectFor)
		read("healthy again", 0, 2, "a3 b1")
		d.doors["a"].behave(nil, hedgeAfter-1)
		read("just in time", hedgeAfter-1, 2, "a3 b1")
		d.doors["a"].behave(nil, hedgeAfter+time.Second)
		d.doors["b"].behave(nil, 2*time.Second)
		read("late, and sooner than the others", hedgeAfter+time.Second, 3, "a3 b3 c1")
		read("which is no hanging", hedgeAfter+time.Second, 4, "a3 b3 c1")
	})
}

// TestTheZonesThatArePreferredAreAskedFirstAlsoBesideOneThatHangs has a zone that hangs come last of all.
func TestTheZonesThatArePreferredAreAskedFirstAlsoBesideOneThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t, "abc")
		d.q.cfg.PreferAvailabilityZones = []string{"zone-c", "zone-b"}
		for i, want := range []string{"b1", "b1 c1", "c1"} {
			for _, of := range d.doors {
				of.behave(nil)
			}
			if i == 1 {
				d.doors["b"].behave(nil, never)
			}
			if got, _, _, err := d.values(t.Context()); err != nil || !once(got, d.all()) {
				t.Fatalf("%v, %v", got, err)
			}
			if c := d.calls(t); c != want {
				t.Errorf("asked %s, want %s", c, want)
			}
		}
	})
}

// TestWithoutAnotherOwnerThereIsNoHedge waits for as long as the call takes, as it ever did.
func TestWithoutAnotherOwnerThereIsNoHedge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t, "ab", "a")
		d.doors["a"].behave(errs.New(errs.Unavailable, "keepalive"), 15*time.Second)
		_, _, took, err := d.values(t.Context())
		if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "too many store-gateways failed") || took != 15*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
		if n := testutil.ToFloat64(d.q.metrics.storeHedged); n != 0 {
			t.Errorf("%g reads count as hedged", n)
		}
		if c := d.calls(t); c != "a2 b1" { // the next round has the block of which b is an owner
			t.Errorf("asked %s", c)
		}
	})
}

// TestAllOwnersThatHangCostTheReadItsTimeAndNoMoreCalls asks each once, and ends with the read.
func TestAllOwnersThatHangCostTheReadItsTimeAndNoMoreCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoors(t, "abc")
		for _, of := range d.doors {
			of.behave(nil, never)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, errs.New(errs.Unavailable, "out of time"))
		defer cancel()
		_, _, took, err := d.values(ctx)
		if err == nil || err.Error() != "out of time" || took != 20*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
		if c := d.calls(t); c != "a1 b1 c1" {
			t.Errorf("asked %s", c)
		}
	})
}

// TestTwoOfThreeStoreGatewaysThatHangCostOneReadSixSeconds has the last owner answer whole, which is charged once, whatever the
// two say before they are silent; that they are is known for a while, of both.
func TestTwoOfThreeStoreGatewaysThatHangCostOneReadSixSeconds(t *testing.T) {
	t.Parallel()
	late := errs.New(errs.Unavailable, "keepalive")
	for name, w := range map[string]struct {
		a, b  []time.Duration
		err   error // of a and b, after the last of their delays
		after time.Duration
		calls string
		known string // who is asked by the next read
	}{
		"both are silent":           {a: []time.Duration{never}, b: []time.Duration{never}, after: 2 * hedgeAfter, calls: "a3 b3 c3", known: "c3"},
		"both stop half way":        {a: []time.Duration{0, 0, never}, b: []time.Duration{0, time.Second, never}, after: 2*hedgeAfter + time.Second, calls: "a3 b3 c3", known: "c3"},
		"both stop before the end":  {a: []time.Duration{0, 0, 0, never}, b: []time.Duration{0, 0, 0, never}, after: 2 * hedgeAfter, calls: "a3 b3 c3", known: "c3"},
		"the first goes on in time": {a: []time.Duration{2*hedgeAfter - 1}, b: []time.Duration{never}, after: 2*hedgeAfter - 1, calls: "a3 b3", known: "a3"},
		"the next is only slow":     {a: []time.Duration{never}, b: []time.Duration{2 * time.Second, 2 * time.Second}, after: hedgeAfter + 4*time.Second, calls: "a3 b3", known: "b3"},
		"both die, the next first":  {a: []time.Duration{5 * time.Second}, b: []time.Duration{time.Second}, err: late, after: hedgeAfter + time.Second, calls: "a3 b3 c3", known: "b3"},
		"the first dies meanwhile":  {a: []time.Duration{5 * time.Second}, b: []time.Duration{never}, err: late, after: 2 * hedgeAfter, calls: "a3 b3 c3", known: "a3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDoors(t, "abc", "abc", "abc")
				d.doors["a"].behave(w.err, w.a...)
				d.doors["b"].behave(w.err, w.b...)
				b := d.counted(t)
				got, missing, took, err := d.series(t.Context(), b)
				if err != nil || len(missing) > 0 || !once(got, d.all()) || took != w.after {
					t.Errorf("%v, without %v, after %s, %v; want all once after %s", got, missing, took, err, w.after)
				}
				if c := d.calls(t); c != w.calls {
					t.Errorf("asked %s, want %s", c, w.calls)
				}
				healthy := newDoors(t, "a", "a", "a")
				want := healthy.counted(t)
				if _, _, _, err := healthy.series(t.Context(), want); err != nil {
					t.Error(err)
				}
				if b.chunks != want.chunks || b.bytes != want.bytes || b.own != want.own {
					t.Errorf("%d chunks, %d bytes, memory %d are charged, want %d, %d, %d", b.chunks, b.bytes, b.own, want.chunks, want.bytes, want.own)
				}
				if n := testutil.ToFloat64(d.q.metrics.storeHedged); n != 1 {
					t.Errorf("%g reads count as hedged, want 1", n)
				}
				for _, of := range d.doors {
					of.behave(nil)
				}
				if _, _, took, err := d.values(t.Context()); err != nil || took != 0 {
					t.Errorf("the next read: %v after %s", err, took)
				}
				if c := d.calls(t); c != w.known {
					t.Errorf("the next read asked %s, want %s", c, w.known)
				}
			})
		})
	}
}

// TestWhatTheOthersCannotAnswerIsWaitedFor has a hedge fail in each way while the first store-gateway is only slow.
func TestWhatTheOthersCannotAnswerIsWaitedFor(t *testing.T) {
	t.Parallel()
	late, refused := errs.New(errs.Unavailable, "keepalive"), errs.New(errs.RateLimited, "spent")
	for name, w := range map[string]struct {
		a, b  error
		ok    bool
		after time.Duration
		kind  errs.Kind
	}{
		"the others fail":                {b: errDown, ok: true, after: 5 * time.Second},
		"the others may not read":        {b: refused, ok: true, after: 5 * time.Second},
		"all fail":                       {a: late, b: errDown, after: 5 * time.Second, kind: errs.Unavailable},
		"the first fails, others refuse": {a: late, b: refused, after: 5 * time.Second, kind: errs.RateLimited},
		"the others reach a limit":       {b: errs.New(errs.TooLarge, "too much"), after: hedgeAfter, kind: errs.TooLarge},
		"the first reaches a limit":      {a: errs.New(errs.TooLarge, "too much"), b: errDown, after: 5 * time.Second, kind: errs.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDoors(t, "abc", "acb")
				d.doors["a"].behave(w.a, 5*time.Second)
				d.doors["b"].behave(w.b, 0)
				d.doors["c"].behave(w.b, 0)
				got, missing, took, err := d.values(t.Context())
				if w.ok != (err == nil) || took != w.after || w.ok && (!once(got, d.all()) || len(missing) > 0) || !w.ok && errs.KindOf(err) != w.kind {
					t.Errorf("%v, without %v, after %s, %v", got, missing, took, err)
				}
				d.calls(t)
			})
		})
	}
	t.Run("the next owner fails, the one after it answers", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			d := newDoors(t, "abc", "acb")
			d.doors["a"].behave(nil, never)
			d.doors["b"].behave(errDown, 0)
			got, _, took, err := d.values(t.Context())
			if err != nil || !once(got, d.all()) || took != hedgeAfter {
				t.Errorf("%v after %s, %v", got, took, err)
			}
			if c := d.calls(t); c != "a2 b1 c2" {
				t.Errorf("asked %s", c)
			}
		})
	})
}

// TestCountsMayTakeLongButNotBeSilent has store-gateways count for long, which those that say so may.
func TestCountsMayTakeLongButNotBeSilent(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]struct {
		a     []time.Duration
		after time.Duration
		calls string
	}{
		"counts for long":         {a: []time.Duration{2 * time.Second, 2 * time.Second, 2 * time.Second, 2 * time.Second}, after: 8 * time.Second, calls: "a2"},
		"hangs":                   {a: []time.Duration{never}, after: hedgeAfter, calls: "a2 b2"},
		"hangs while it counts":   {a: []time.Duration{time.Second, time.Second, never}, after: 2*time.Second + hedgeAfter, calls: "a2 b2"},
		"hangs between two":       {a: []time.Duration{0, 0, time.Second, never}, after: time.Second + hedgeAfter, calls: "a2 b2"},
		"is silent a bit shorter": {a: []time.Duration{0, 0, hedgeAfter - 1}, after: hedgeAfter - 1, calls: "a2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDoors(t, "ab", "ab")
				d.doors["a"].behave(nil, w.a...)
				begin := time.Now()
				answers, missing, err := askBlocks(t.Context(), d.q, scope{tenant: "t1"}, d.blocks, storeCall[[]*storepb.BlockStats]{call: func(ctx context.Context, to storeAsked) ([]*storepb.BlockStats, [][]byte, error) {
					return d.q.blockStats(ctx, to, &storepb.StatsRequest{Blocks: to.blocks, Piecemeal: true})
				}})
				took := time.Since(begin)
				var got []string
				for _, s := range slices.Concat(answers...) {
					got = append(got, ulid.ULID(s.Block).String())
				}
				if err != nil || len(missing) > 0 || !once(got, d.all()) || took != w.after {
					t.Errorf("%v, without %v, after %s, %v; want all once after %s", got, missing, took, err, w.after)
				}
				if c := d.calls(t); c != w.calls {
					t.Errorf("asked %s, want %s", c, w.calls)
				}
			})
		})
	}
}

// TestAStreamOfSeriesMayTakeLongButNotBeSilent counts the time since the last message, and charges one of the two
// answers that then race.
func TestAStreamOfSeriesMayTakeLongButNotBeSilent(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]struct {
		a      []time.Duration // before each of four series, and the end
		err    error
		after  time.Duration
		hedged float64
	}{
		"steady":          {a: []time.Duration{2 * time.Second, 2 * time.Second, 2 * time.Second, 2 * time.Second, 2 * time.Second}, after: 10 * time.Second},
		"hangs":           {a: []time.Duration{never}, after: hedgeAfter + time.Second, hedged: 1},
		"hangs half way":  {a: []time.Duration{time.Second, time.Second, never}, after: 2*time.Second + hedgeAfter + time.Second, hedged: 1},
		"hangs at last":   {a: []time.Duration{0, 0, 0, 0, never}, after: hedgeAfter + time.Second, hedged: 1},
		"dies half way":   {a: []time.Duration{0, time.Second, 0}, err: errs.New(errs.Unavailable, "broken"), after: 2 * time.Second},
		"dies in between": {a: []time.Duration{0, 0, hedgeAfter + time.Second/2}, err: errs.New(errs.Unavailable, "broken"), after: hedgeAfter + time.Second, hedged: 1},
		"wakes just then": {a: []time.Duration{hedgeAfter + time.Second}, after: hedgeAfter + time.Second, hedged: 1},
		"wakes before":    {a: []time.Duration{hedgeAfter + time.Second - 1, 0}, after: hedgeAfter + time.Second - 1, hedged: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDoors(t, "ab", "ac", "ab", "ac")
				d.doors["a"].behave(w.err, w.a...)
				d.doors["b"].behave(nil, time.Second, 0)
				d.doors["c"].behave(nil, time.Second, 0)
				b := d.counted(t)
				got, missing, took, err := d.series(t.Context(), b)
				if err != nil || len(missing) > 0 || !once(got, d.all()) || took != w.after {
					t.Errorf("%v after %s, %v; want all once after %s", got, took, err, w.after)
				}
				if n := testutil.ToFloat64(d.q.metrics.storeHedged); n != w.hedged {
					t.Errorf("%g reads count as hedged, want %g", n, w.hedged)
				}
				d.calls(t)
				healthy := newDoors(t, "a", "a", "a", "a")
				want := healthy.counted(t)
				if _, _, _, err := healthy.series(t.Context(), want); err != nil {
					t.Error(err)
				}
				if b.chunks != len(d.blocks) || b.bytes != want.bytes || b.own != want.own {
					t.Errorf("%d chunks, %d bytes, memory %d are charged, want %d, %d, %d", b.chunks, b.bytes, b.own, len(d.blocks), want.bytes, want.own)
				}
			})
		})
	}
}

// counted is the budget of a query that may have no more chunks than there are blocks, and has a working set.
func (d *doors) counted(t *testing.T) *budget {
	ctx, of := d.memory.Workings().Begin(t.Context(), 1<<40, errDown)
	t.Cleanup(of.End)
	b := newBudget(ctx, d.q, limits.View{})
	b.maxChunks = len(d.blocks)
	return b
}

// TestOneOfTwoAnswersCountsWhateverTheirOrder tries store-gateways that are slow, hang, fail and lost blocks by
// chance, and both kinds of calls.
func TestOneOfTwoAnswersCountsWhateverTheirOrder(t *testing.T) {
	t.Parallel()
	seeds.Run(t, 300, func(t *testing.T, rnd *rand.Rand) {
		synctest.Test(t, func(t *testing.T) {
			var owners []string
			for range 1 + rnd.IntN(12) {
				of := strings.Split("abcd", "")
				rnd.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
				owners = append(owners, strings.Join(of[:1+rnd.IntN(3)], ""))
			}
			d := newDoors(t, owners...)
			streams, most := rnd.IntN(2) == 0, 1
			if streams {
				most = 2 // messages that any answer has
			}
			down, hang := map[string]bool{}, 0
			for name, of := range d.doors {
				delays := make([]time.Duration, 1+rnd.IntN(5))
				for i := range delays {
					delays[i] = time.Duration(rnd.IntN(9)) * time.Second / 2
				}
				switch rnd.IntN(6) {
				case 0:
					of.behave(errDown, delays[:min(most, len(delays))]...)
					down[name] = true
				case 1:
					delays[rnd.IntN(min(most, len(delays)))] = never
					of.behave(nil, delays...)
					hang, down[name] = hang+1, true
				default:
					of.behave(nil, delays...)
				}
			}
			d.someGone(rnd)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errs.New(errs.Unavailable, "out of time"))
			defer cancel()
			b := d.counted(t)
			read := func() (got []string, missing []ulid.ULID, _ time.Duration, err error) { return d.values(ctx) }
			if streams {
				read = func() (got []string, missing []ulid.ULID, _ time.Duration, err error) { return d.series(ctx, b) }
			}
			got, missing, took, err := read()
			synctest.Wait()
			lost := false // a block that is there
			for id, of := range d.owners {
				lost = lost || !slices.ContainsFunc(of, func(o string) bool { return !down[o] })
				for _, o := range of {
					if n := d.doors[o].asked[id]; n > 1 && !d.gone[id] {
						t.Errorf("%s was asked %d times for a block", o, n)
					}
				}
			}
			d.calls(t)
			switch {
			case err != nil && (lost || len(down) > 0 && len(d.gone) > 0):
			case err != nil:
				t.Errorf("all blocks have an owner that answers: %v after %s", err, took)
			case lost && len(d.gone) == 0:
				t.Errorf("%v although nobody has all of %v", got, d.all())
			case !once(got, d.all()) || len(missing) != len(d.gone):
				t.Errorf("%v, without %v; want %v", got, missing, d.all())
			case streams && b.chunks != len(got):
				t.Errorf("%d chunks are charged for %d blocks", b.chunks, len(got))
			}
		})
	})
}

// someGone has some blocks be gone, or mostly none.
func (d *doors) someGone(rnd *rand.Rand) {
	if rnd.IntN(4) > 0 {
		return
	}
	for _, b := range d.blocks {
		if rnd.IntN(3) == 0 {
			d.gone[b.ID] = true
		}
	}
}

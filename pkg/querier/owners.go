package querier

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/ring"
	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// storeTries is how many store-gateways are asked for a block before the query fails.
const storeTries = 3

// storeRead is the operation that store-gateways are found by.
var storeRead = ring.NewOp([]ring.InstanceState{ring.ACTIVE}, nil)

// storeCall is how store-gateways are asked.
type storeCall[T any] struct {
	// call asks one store-gateway, and returns the answer and the blocks that it looked into.
	call   func(context.Context, storeAsked) (T, [][]byte, error)
	budget *budget // what call charges; nil: nothing
}

// storeAsked is one store-gateway and what it is asked.
type storeAsked struct {
	client  storepb.StoreGatewayClient
	blocks  [][]byte
	budget  *budget // for this call alone
	silence *silence
}

// silence fires when a store-gateway that is waited for has said nothing for hedgeAfter.
type silence struct {
	timer *time.Timer

	mu    sync.Mutex // guards words
	words int
}

// said is how many messages have come.
func (s *silence) said() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.words
}

// heard is recv, during which s is measured: not while the messages are read.
func heard[M any](s *silence, recv func() (M, error)) func() (M, error) {
	return func() (M, error) {
		if s.said() > 0 {
			s.timer.Reset(hedgeAfter)
		}
		m, err := recv()
		s.timer.Stop()
		s.mu.Lock()
		s.words++
		s.mu.Unlock()
		return m, err
	}
}

// asking is one read of blocks.
type asking[T any] struct {
	q      *Querier
	how    storeCall[T]
	owners map[ulid.ULID][]string // in the order in which they are asked
	once   sync.Once              // a read that is hedged counts once
}

// found is what came of asking for some blocks.
type found[T any] struct {
	answers []T
	left    []ulid.ULID // in no answer
	err     error       // why, of some of those left; nil: all say that they are gone
	ended   bool        // those left have no other owner
	stop    error       // ends the read
}

// take adds what came of other blocks.
func (f *found[T]) take(of found[T]) {
	f.answers = append(f.answers, of.answers...)
	f.left = append(f.left, of.left...)
	if f.err == nil {
		f.err = of.err
	}
}

// told is what f returns, in a goroutine that the read waits for. If f panics, that ends the read.
func told[T any](f func() found[T]) (out found[T]) {
	defer errs.Caught(&out.stop)
	return f()
}

// askBlocks asks store-gateways for blocks: first the one that has each in its cache, then its other
// replicas. missing are those that all say are gone. Each block that is not missing is in one answer.
func askBlocks[T any](ctx context.Context, q *Querier, sc scope, blocks []block.IndexedBlock, how storeCall[T]) (answers []T, missing []ulid.ULID, err error) {
	ids := make([]ulid.ULID, len(blocks))
	for i := range blocks {
		ids[i] = blocks[i].ID
	}
	owners, err := q.owners(sc, ids, time.Now())
	if err != nil {
		return nil, nil, err
	}
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(errNotNeeded)
	out := (&asking[T]{q: q, how: how, owners: owners}).rounds(within, ids, 0, nil)
	switch {
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case out.stop != nil:
		return nil, nil, out.stop
	case len(out.left) > 0 && out.err != nil:
		return nil, nil, errs.New(errs.Unavailable, "too many store-gateways failed: %w", out.err)
	}
	return out.answers, out.left, nil
}

// owners returns the store-gateways that may be asked for each block. They are always tried in the
// same order, so that one of them has it in its cache, of each preferred zone if there are some; but
// those that were silent lately come last.
func (q *Querier) owners(sc scope, blocks []ulid.ULID, now time.Time) (map[ulid.ULID][]string, error) {
	r := q.deps.Stores.Ring
	if size := limits.StoreGatewayTenantShardSize.Of(sc.limits); size > 0 {
		r = r.ShuffleShard(string(sc.tenant), size)
	}
	prefer, silent := q.cfg.PreferAvailabilityZones, q.silent.now(now)
	out := make(map[ulid.ULID][]string, len(blocks))
	descs, hosts, zones := ring.MakeBuffersForGet()
	for _, u := range blocks {
		set, err := r.Get(uint32(xxhash.Sum64(u[:])), storeRead, descs[:0], hosts[:0], zones[:0])
		if err != nil {
			return nil, errs.New(errs.Unavailable, "find store-gateways: %w", err)
		}
		if len(prefer) > 0 || len(silent) > 0 {
			slices.SortStableFunc(set.Instances, func(a, b ring.InstanceDesc) int {
				return cmp.Or(first(!silent[a.Addr], !silent[b.Addr]), first(slices.Contains(prefer, a.Zone), slices.Contains(prefer, b.Zone)))
			})
		}
		addrs := make([]string, min(len(set.Instances), storeTries))
		for i := range addrs {
			addrs[i] = set.Instances[i].Addr
		}
		out[u] = addrs
	}
	return out, nil
}

// rounds asks the owners of blocks from the one at index try on, until all have answered or there are
// no more. The charges are part of up, if that is not nil.
func (a *asking[T]) rounds(ctx context.Context, blocks []ulid.ULID, try int, up *tab) (out found[T]) {
	var why error
	for begin := try; len(blocks) > 0; try++ {
		groups := map[string][]ulid.ULID{}
		for _, u := range blocks {
			if owners := a.owners[u]; try < len(owners) {
				groups[owners[try]] = append(groups[owners[try]], u)
			} else {
				out.take(found[T]{left: []ulid.ULID{u}, err: why})
			}
		}
		if len(groups) == 0 {
			break
		}
		if try > begin {
			a.q.metrics.storeRetries.Inc()
		}
		results := make(chan found[T], len(groups))
		for addr, of := range groups {
			go func() {
				results <- told(func() found[T] { return a.group(ctx, addr, of, try, up) })
			}()
		}
		blocks, why = nil, nil
		for range groups {
			switch got := <-results; {
			case got.stop != nil:
				return found[T]{stop: got.stop}
			case got.ended:
				out.take(got)
			default:
				out.answers = append(out.answers, got.answers...)
				blocks = append(blocks, got.left...)
				if why == nil {
					why = got.err
				}
			}
		}
		if ctx.Err() != nil {
			return found[T]{stop: context.Cause(ctx)}
		}
	}
	return out
}

// group asks the store-gateway at addr, the owner of blocks at index try, and if it is silent the
// others. The first whole answer is the one that counts.
func (a *asking[T]) group(ctx context.Context, addr string, blocks []ulid.ULID, try int, up *tab) found[T] {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errNotNeeded) // ends who is not waited for
	c := a.start(ctx, addr, blocks, up)
	defer c.silence.timer.Stop()
	silent := c.silence.timer.C
	if slices.ContainsFunc(blocks, func(u ulid.ULID) bool { return try+1 >= len(a.owners[u]) }) {
		silent = nil // others cannot be asked for all of it
	}
	select {
	case got := <-c.result:
		return got
	case <-ctx.Done():
		return found[T]{stop: context.Cause(ctx)}
	case <-silent:
	}
	a.once.Do(a.q.metrics.storeHedged.Inc)
	if a.q.silenceTold.due(time.Now()) {
		a.q.deps.Logger.Warn("a store-gateway is silent, others are asked as well; more such reads are counted and not logged", "store_gateway", addr, "blocks", len(blocks))
	}
	return a.race(ctx, c, blocks, try+1)
}

// race waits for c, which is silent, and for the owners of its blocks from index try on: of these
// the next one is asked, and if it is silent as well the one after it, and so on.
func (a *asking[T]) race(ctx context.Context, c *storeAsk[T], blocks []ulid.ULID, try int) found[T] {
	said, theirs := c.silence.said(), &tab{up: c.tab.up}
	if b := a.how.budget; b != nil {
		b.compete(c.tab, theirs)
	}
	rest := make(chan found[T], 1)
	go func() {
		rest <- told(func() found[T] { return a.rounds(ctx, blocks, try, theirs) })
	}()
	var late, others *found[T] // how they failed
	for late == nil || others == nil {
		select {
		case got := <-c.result:
			if got.stop != nil || len(got.answers) > 0 {
				a.drop(theirs)
				return got
			}
			late = &got
		case got := <-rest:
			got.ended = true
			switch failed := got.stop != nil || got.err != nil; {
			case !failed:
				if c.silence.said() == said && late == nil {
					a.q.silent.note(c.addr, true, time.Now())
				}
				a.drop(c.tab)
				return got
			case got.stop != nil && errs.KindOf(got.stop) != errs.RateLimited: // it has that to spend already
				return got
			}
			others = &got
		case <-ctx.Done():
			return found[T]{stop: context.Cause(ctx)}
		}
	}
	return *others
}

// storeAsk is a call under way.
type storeAsk[T any] struct {
	addr    string
	tab     *tab
	silence *silence
	result  chan found[T]
}

// start asks the store-gateway at addr for blocks. Who does not wait for the result cancels ctx.
func (a *asking[T]) start(ctx context.Context, addr string, blocks []ulid.ULID, up *tab) *storeAsk[T] {
	c := &storeAsk[T]{addr: addr, tab: &tab{up: up}, silence: &silence{timer: time.NewTimer(hedgeAfter)}, result: make(chan found[T], 1)}
	go func() {
		c.result <- told(func() found[T] { return a.outcome(ctx, c, blocks) })
	}()
	return c
}

// outcome makes one call, and judges it.
func (a *asking[T]) outcome(ctx context.Context, c *storeAsk[T], blocks []ulid.ULID) found[T] {
	answer, served, err := a.ask(ctx, c, blocks)
	if err == nil {
		a.q.silent.note(c.addr, false, time.Now())
		left := slices.DeleteFunc(slices.Clone(blocks), func(u ulid.ULID) bool { return served[u] })
		return found[T]{answers: []T{answer}, left: left}
	}
	a.drop(c.tab)
	if terminal(err) || errs.KindOf(err) == errs.RateLimited { // others would go on to spend
		return found[T]{stop: err}
	}
	if ctx.Err() == nil {
		a.q.deps.Logger.Warn("a store-gateway failed, others are asked", "store_gateway", c.addr, "blocks", len(blocks), "err", err)
	}
	return found[T]{left: blocks, err: err}
}

// ask makes one call, and returns the answer and which blocks are in it.
func (a *asking[T]) ask(ctx context.Context, c *storeAsk[T], blocks []ulid.ULID) (T, map[ulid.ULID]bool, error) {
	var none T
	client, err := a.q.deps.Stores.Client(c.addr)
	if err != nil {
		return none, nil, errs.New(errs.Unavailable, "reach store-gateway %s: %w", c.addr, err)
	}
	to := storeAsked{client: client, blocks: make([][]byte, len(blocks)), silence: c.silence}
	for i := range blocks {
		to.blocks[i] = blocks[i][:]
	}
	if a.how.budget != nil {
		to.budget = a.how.budget.on(c.tab)
	}
	answer, names, err := a.how.call(ctx, to)
	if err != nil {
		return none, nil, fmt.Errorf("ask store-gateway %s: %w", c.addr, err)
	}
	served := make(map[ulid.ULID]bool, len(names))
	for _, b := range names {
		if len(b) != len(ulid.ULID{}) {
			return none, nil, errs.New(errs.Internal, "store-gateway %s names a block of %d bytes", c.addr, len(b))
		}
		served[ulid.ULID(b)] = true
	}
	return answer, served, nil
}

// drop takes back what an answer that is not used has charged.
func (a *asking[T]) drop(t *tab) {
	if a.how.budget != nil {
		a.how.budget.drop(t)
	}
}

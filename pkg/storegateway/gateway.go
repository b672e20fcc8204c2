// Package storegateway owns reads of blocks in object storage on behalf of queriers: queriers name
// blocks, and a gateway reads and merges them through its local copies. A hash ring shares the blocks
// so that each is cached in few places; any gateway can read any block, so one that has just started
// gives the same answers, only slower.
package storegateway

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// RingName and RingKey are where gateways register.
const (
	RingName = "store-gateway"
	RingKey  = "store-gateway"
)

const (
	// openConcurrency is how many blocks of one call are opened at the same time.
	openConcurrency = 16
	// houseTick is how often idle indexes are looked for, and what is on the disk is noted.
	houseTick = time.Minute
	// shortIdle is how long the index of a block stays open without use while memory is short: long
	// enough for the calls of one query.
	shortIdle = 10 * time.Second
	// maxBlocks bounds what one call may name: ten years of two-hour blocks.
	maxBlocks = 50_000
)

// Deps are what a Gateway works with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Store  *block.Store
	Bucket objstore.Bucket // of all tenants
	Memory *memory.Ledger  // nil: not bounded
	Turns  *turns.Gate     // nil: who computes when is left to the machine
}

// Gateway answers queriers. It is a services.Service and a storepb.StoreGatewayServer.
type Gateway struct {
	services.Service
	storepb.UnimplementedStoreGatewayServer

	cfg     Config
	deps    Deps
	metrics *metrics
	gate    chan struct{} // a token for each call being answered
	packs   sync.Pool     // of *[]byte, memory for what calls send
	memory  *memory.Account
}

// New returns a gateway. Errors: Invalid.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if cfg.MaxConcurrent <= 0 {
		return nil, errs.New(errs.Invalid, "blocks_storage.bucket_store.max_concurrent is %d, it must be 1 or more", cfg.MaxConcurrent)
	}
	g := &Gateway{cfg: cfg, deps: deps, metrics: newMetrics(deps.Reg, deps.Store), gate: make(chan struct{}, cfg.MaxConcurrent), memory: deps.Memory.Account(memory.Queries)}
	deps.Memory.OnPressure(func() { deps.Store.Unload(shortIdle) })
	g.Service = services.NewBasicService(nil, g.running, nil).WithName("store-gateway")
	return g, nil
}

// running closes idle indexes, notes what copies there are, and drops those of blocks that are gone.
func (g *Gateway) running(ctx context.Context) error {
	house, sync := time.NewTicker(houseTick), time.NewTicker(g.cfg.SyncInterval)
	defer house.Stop()
	defer sync.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-house.C:
			g.deps.Store.Unload(g.cfg.IdleTimeout)
			if err := g.deps.Store.Note(); err != nil {
				g.deps.Logger.Warn("local copies of blocks not noted; should this process be killed, they are fetched again", "err", err)
			}
		case <-sync.C:
			g.forget(ctx)
		}
	}
}

// forget drops what is kept of blocks that no index has any more.
func (g *Gateway) forget(ctx context.Context) {
	tenants, whole := g.deps.Store.Tenants(), true
	for _, id := range tenants {
		g.metrics.syncs.Inc()
		idx, err := block.ReadBucketIndex(ctx, objstore.NewPrefixedBucket(g.deps.Bucket, string(id)))
		if err == nil {
			known := map[ulid.ULID]bool{}
			for _, b := range idx.Blocks {
				known[b.ID] = true
			}
			// A block that was made after the index was is not in it yet.
			before := ulid.Timestamp(time.Unix(idx.UpdatedAt, 0).Add(-g.cfg.SyncInterval))
			err = g.deps.Store.Forget(id, func(u ulid.ULID) bool { return !known[u] && u.Time() < before })
		}
		if err != nil && errs.KindOf(err) != errs.NotFound {
			whole = false
			if ctx.Err() != nil {
				return
			}
			g.metrics.syncFailures.Inc()
			g.deps.Logger.Warn("local copies of deleted blocks not looked for", "tenant", id, "err", err)
		}
	}
	g.metrics.tenants.Set(float64(len(tenants)))
	if whole {
		g.metrics.lastSync.SetToCurrentTime()
	}
}

// begin waits for room. end must be called. Errors: Unavailable if there is none in time, or no memory.
func (g *Gateway) begin(ctx context.Context) (end func(), err error) {
	if err := g.memory.Room(); err != nil {
		return nil, err
	}
	end = func() { <-g.gate }
	select {
	case g.gate <- struct{}{}:
		return end, nil
	default:
	}
	wait := time.NewTimer(g.cfg.QueueTimeout)
	defer wait.Stop()
	select {
	case g.gate <- struct{}{}:
		return end, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-wait.C:
		g.metrics.rejected.Inc()
		return nil, errs.New(errs.Unavailable, "the store-gateway answers %d queries, and none ended within %s", g.cfg.MaxConcurrent, g.cfg.QueueTimeout)
	}
}

// opened are blocks that a call reads.
type opened struct {
	blocks []*block.Block
	names  [][]byte // as asked for
}

func (o *opened) close() {
	for _, b := range o.blocks {
		_ = b.Close() // it never fails: nothing is written
	}
}

// open opens the named blocks. Those that are gone are left out, which tells the caller so.
func (g *Gateway) open(ctx context.Context, names [][]byte) (*opened, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	if len(names) > maxBlocks {
		return nil, errs.New(errs.Invalid, "%d blocks are named, %d may be", len(names), maxBlocks)
	}
	blocks := make([]*block.Block, len(names))
	eg, gctx := errs.Together(ctx)
	eg.SetLimit(openConcurrency)
	for i, name := range names {
		eg.Go(func() error {
			var u ulid.ULID
			if err := u.UnmarshalBinary(name); err != nil {
				return errs.New(errs.Invalid, "block %x: %w", name, err)
			}
			b, err := g.deps.Store.Open(gctx, id, u)
			if errs.KindOf(err) == errs.NotFound {
				g.metrics.missing.Inc()
				return nil
			}
			blocks[i] = b
			return err
		})
	}
	err = eg.Wait()
	out := &opened{}
	for i, b := range blocks {
		if b != nil {
			out.blocks, out.names = append(out.blocks, b), append(out.names, names[i])
		}
	}
	if err != nil {
		out.close()
		return nil, err
	}
	g.metrics.blocks.Observe(float64(len(out.blocks)))
	return out, nil
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

// LabelNames answers with the names of labels of matching series, sorted.
func (g *Gateway) LabelNames(ctx context.Context, req *storepb.LabelNamesRequest) (*storepb.LabelNamesResponse, error) {
	names, blocks, err := g.strings(ctx, req.Blocks, req.Matchers, req.Limit, (*block.Block).LabelNames)
	return &storepb.LabelNamesResponse{Names: names, Blocks: blocks}, err
}

// LabelValues answers with the values of a label of matching series, sorted.
func (g *Gateway) LabelValues(ctx context.Context, req *storepb.LabelValuesRequest) (*storepb.LabelValuesResponse, error) {
	values, blocks, err := g.strings(ctx, req.Blocks, req.Matchers, req.Limit, func(b *block.Block, ctx context.Context, ms []*labels.Matcher) ([]string, error) {
		return b.LabelValues(ctx, req.Name, ms)
	})
	return &storepb.LabelValuesResponse{Values: values, Blocks: blocks}, err
}

// strings asks every block and merges the answers.
func (g *Gateway) strings(ctx context.Context, names [][]byte, matchers []*ingesterpb.Matcher, limit uint64,
	ask func(*block.Block, context.Context, []*labels.Matcher) ([]string, error)) ([]string, [][]byte, error) {
	end, err := g.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	ms, err := matchersOf(matchers)
	if err != nil {
		return nil, nil, err
	}
	o, err := g.open(ctx, names)
	if err != nil {
		return nil, nil, err
	}
	defer o.close()
	lists := make([][]string, len(o.blocks))
	eg, gctx := errs.Together(ctx)
	eg.SetLimit(openConcurrency)
	for i, b := range o.blocks {
		eg.Go(func() (err error) { lists[i], err = ask(b, gctx, ms); return err })
	}
	if err := eg.Wait(); err != nil {
		return nil, nil, err
	}
	_, _, leave := g.deps.Turns.Begin(ctx)
	defer leave()
	all := slices.Concat(lists...)
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && uint64(len(all)) > limit {
		all = all[:limit]
	}
	return all, o.names, nil
}

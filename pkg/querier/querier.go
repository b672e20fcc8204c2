// Package querier owns the read path below the query engine: it fetches what a query selects from
// ingesters and from blocks in object storage, merges the replicas to what a single Prometheus would
// hold, and enforces the tenant's limits. It never returns a partial answer: missing data is an
// error.
package querier

import (
	"context"
	"log/slog"
	"time"

	"github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
	"github.com/amphora-metrics/amphora/pkg/turns"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// maxFetches is how many selections and label calls of a process run at the same time; each holds
// the answers of its replicas in memory. The others wait, as long as their contexts last.
const maxFetches = 64

// Deps are what a Querier works with.
type Deps struct {
	Logger    *slog.Logger
	Reg       prometheus.Registerer
	Ingesters ring.ReadRing
	Client    func(addr string) (ingesterpb.IngesterQueryClient, error)
	Stores    *Stores // nil: there are no blocks
	// Described returns what is stored about a tenant's metrics beside its blocks. nil: nothing.
	Described func(context.Context, tenant.ID) ([]block.Metadata, error)
	Limits    func(tenant.ID) limits.View
	Memory    *memory.Ledger // nil: not bounded
	// Tombstones returns what queries of a tenant must not show. nil: nothing is hidden.
	Tombstones func(context.Context, tenant.ID) (tombstone.Set, error)
	// Deletions returns when the deletion of samples of a tenant was asked for or taken back. nil: never.
	Deletions func(context.Context, tenant.ID) ([]changes.Change, error)
	Now       func() time.Time // nil: time.Now
	Turns     *turns.Gate      // nil: who computes when is left to the machine
}

// Querier reads the data of one tenant, the one its caller's context names. It is a
// storage.Queryable, ChunkQueryable and ExemplarQueryable.
type Querier struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	slots   chan struct{}
	memory  *memory.Account
	shards  *shards

	suspects   suspects // ingesters
	complained occasional

	silent      suspects // store-gateways
	silenceTold occasional
}

var (
	_ storage.Queryable         = (*Querier)(nil)
	_ storage.ChunkQueryable    = (*Querier)(nil)
	_ storage.ExemplarQueryable = (*Querier)(nil)
)

// New returns a querier. Errors: Invalid for settings that would leave gaps.
func New(cfg Config, deps Deps) (*Querier, error) {
	if cfg.QueryStoreAfter < 0 || cfg.QueryIngestersWithin < 0 {
		return nil, errs.New(errs.Invalid, "querier.query_store_after and query_ingesters_within must not be negative")
	}
	if cfg.QueryIngestersWithin > 0 && cfg.QueryStoreAfter > cfg.QueryIngestersWithin {
		return nil, errs.New(errs.Invalid, "querier.query_store_after %s exceeds query_ingesters_within %s: samples between them would be in neither",
			cfg.QueryStoreAfter, cfg.QueryIngestersWithin)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	q := &Querier{cfg: cfg, deps: deps, metrics: newMetrics(deps.Reg), slots: make(chan struct{}, maxFetches), memory: deps.Memory.Account(memory.Queries)}
	q.shards = &shards{deps: deps, lookback: q.lookback, surveys: q.metrics.surveys, tenants: map[tenant.ID]*shardSizes{}}
	return q, nil
}

// Querier returns the samples with mint <= t <= maxt, in milliseconds.
func (q *Querier) Querier(mint, maxt int64) (storage.Querier, error) {
	return sampleQuerier{newSession(q, mint, maxt)}, nil
}

// ChunkQuerier returns the chunks with samples in mint <= t <= maxt, in milliseconds.
func (q *Querier) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return chunkQuerier{newSession(q, mint, maxt)}, nil
}

// acquire takes one of the process's slots; the caller calls the function it returns. Errors:
// Unavailable if the process is short of memory, the cause of ctx.
func (q *Querier) acquire(ctx context.Context) (func(), error) {
	if err := q.memory.Room(); err != nil {
		return nil, err
	}
	select {
	case q.slots <- struct{}{}:
		return func() { <-q.slots }, nil
	default:
	}
	q.metrics.fetchesWait.Inc()
	defer q.metrics.fetchesWait.Dec()
	select {
	case q.slots <- struct{}{}:
		return func() { <-q.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// scope is where one call of one tenant looks.
type scope struct {
	tenant tenant.ID
	limits limits.View
	mint   int64
	maxt   int64

	anyOrder  bool // the series need not be sorted
	empty     bool // the tenant's lookback or retention ends after the range
	ingesters bool
	blocks    bool
	// blocksMaxt is where the range of the blocks ends.
	blocksMaxt int64
	// replicas are the ingesters to ask. They are settled before anybody looks for blocks, so that
	// what an ingester held that leaves meanwhile is found with it or in the bucket.
	replicas ring.ReplicationSet
	// since is when the bucket index must have been read at the earliest. Zero: within the last minute.
	since time.Time
}

// scope decides who is asked for mint <= t <= maxt on behalf of ctx's tenant.
func (q *Querier) scope(ctx context.Context, mint, maxt int64) (scope, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return scope{}, err
	}
	s := scope{tenant: id, limits: q.deps.Limits(id), mint: mint, maxt: maxt, blocksMaxt: maxt}
	now := q.deps.Now()
	// What is older than every retention is not shown, whether or not its block is gone by now.
	for _, d := range []time.Duration{limits.MaxQueryLookback.Of(s.limits), tombstone.KeepAll(s.limits)} {
		if d > 0 {
			s.mint = max(s.mint, now.Add(-d).UnixMilli())
		}
	}
	s.empty = s.mint > s.maxt
	w := q.cfg.QueryIngestersWithin
	s.ingesters = !s.empty && (w == 0 || s.maxt >= now.Add(-w).UnixMilli())
	if a := q.cfg.QueryStoreAfter; a > 0 {
		s.blocksMaxt = min(s.maxt, now.Add(-a).UnixMilli())
	}
	s.blocks = !s.empty && q.deps.Stores != nil && s.mint <= s.blocksMaxt
	s.since = begun(ctx)
	if q.cfg.FilterQueryables {
		r := work.ReadingOf(ctx)
		s.ingesters, s.blocks = s.ingesters && r.Asks(work.Ingesters), s.blocks && r.Asks(work.StoreGateways)
	}
	if s.ingesters {
		s.replicas, err = q.replicas(s)
	}
	return s, err
}

// checkLength refuses a selection of samples over too long a time.
func (q *Querier) checkLength(s scope) error {
	most := limits.MaxPartialQueryLength.Of(s.limits)
	// The ends of a range may be so far apart that their difference is no int64.
	if length := float64(s.maxt) - float64(s.mint); most > 0 && length > float64(most.Milliseconds()) {
		return q.reject("max-query-length", limits.MaxPartialQueryLength.Row(),
			"the query time range exceeds the limit (query length: %.0f s, limit: %s)", length/1000, most)
	}
	return nil
}

// reject words the error of a limit and counts it.
func (q *Querier) reject(id errs.ID, row *limits.Row, format string, args ...any) error {
	q.metrics.rejected.WithLabelValues(string(id)).Inc()
	return errs.Limit(errs.TooLarge, id, row.Flag, row.Name, format, args...)
}

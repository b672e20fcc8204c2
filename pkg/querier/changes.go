package querier

import (
	"context"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/changes"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

const (
	// changesWait is how long ingesters are waited for, and changesGrace how long the last ones of
	// them when enough have answered.
	changesWait  = 2 * time.Second
	changesGrace = 100 * time.Millisecond
	// blockShowsWithin is how long after its upload a block may come to be seen by all queriers: the
	// bucket index is no older than that, or queries fail.
	blockShowsWithin = time.Hour
	// ownBlocks is the source of blocks whose samples ingesters have had.
	ownBlocks = "amphora"
)

// Changes returns what of the data of ctx's tenants became other since it could be read first: late
// samples, deletions, uploaded blocks and blocks that operators hid. Errors: Unavailable, the cause of ctx.
func (q *Querier) Changes(ctx context.Context) (changes.Log, error) {
	ids, err := tenant.Many(ctx)
	if err != nil {
		return changes.Log{}, err
	}
	logs := make([]changes.Log, len(ids))
	g, ctx := errs.Together(ctx)
	g.SetLimit(sessionFetches)
	for i, id := range ids {
		g.Go(func() (err error) {
			logs[i], err = q.changesOf(tenant.Inject(ctx, id), id)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return changes.Log{}, err
	}
	out := changes.Log{Time: q.deps.Now().UnixMilli()}
	for _, l := range logs {
		out.Merge(l)
	}
	return out.Bounded(), nil
}

func (q *Querier) changesOf(ctx context.Context, id tenant.ID) (changes.Log, error) {
	log := changes.Log{Time: q.deps.Now().UnixMilli()}
	sc, err := q.scope(ctx, math.MinInt64, math.MaxInt64)
	if err != nil {
		return log, err
	}
	if sc.replicas.Instances == nil {
		if sc.replicas, err = q.replicas(sc); err != nil {
			return log, err
		}
	}
	late, err := q.lateWrites(ctx, sc.replicas)
	if err != nil {
		return log, err
	}
	log.Merge(late)
	if q.deps.Deletions != nil {
		list, err := q.deps.Deletions(ctx, id)
		if err != nil {
			return log, err
		}
		log.Changes = append(log.Changes, list...)
	}
	if q.deps.Stores == nil {
		return log, nil
	}
	idx, err := q.deps.Stores.Indexes.At(ctx, id, nil)
	if err != nil {
		return log, err
	}
	for _, a := range idx.Altered {
		log.Changes = append(log.Changes, changes.Change{MinTime: a.MinTime, MaxTime: a.MaxTime, At: time.Unix(a.At, 0).Add(blockShowsWithin).UnixMilli()})
	}
	for i := range idx.Blocks {
		if b := &idx.Blocks[i]; b.Source != ownBlocks {
			log.Changes = append(log.Changes, changes.Change{MinTime: b.MinTime, MaxTime: b.MaxTime, At: time.Unix(b.UploadedAt, 0).Add(blockShowsWithin).UnixMilli()})
		}
	}
	return log, nil
}

// lateWrites asks all ingesters of set, as far as they answer in time. What any of them took and
// acknowledged together with others is known if one of those is.
func (q *Querier) lateWrites(ctx context.Context, set ring.ReplicationSet) (changes.Log, error) {
	type outcome struct {
		i   int
		log changes.Log
	}
	ctx, cancel := context.WithTimeout(ctx, changesWait)
	defer cancel()
	answers := make(chan outcome, len(set.Instances))
	for i := range set.Instances {
		go func() {
			s, err := askOne(ctx, q, &set.Instances[i], func(ctx context.Context, c ingesterpb.IngesterQueryClient) (*ingesterpb.TenantStatsResponse, error) {
				return c.TenantStats(ctx, &ingesterpb.TenantStatsRequest{LateOnly: true})
			})
			answers <- outcome{i, lateLog(s, err)}
		}()
	}
	since := make([]int64, len(set.Instances))
	for i := range since {
		since[i] = math.MaxInt64
	}
	out := changes.Log{Time: q.deps.Now().UnixMilli()}
	var enough <-chan time.Time
collect:
	for range set.Instances {
		select {
		case a := <-answers:
			if since[a.i] = a.log.Since; a.log.Since < math.MaxInt64 {
				out.Time = min(out.Time, a.log.Time)
				out.Changes = append(out.Changes, a.log.Changes...)
			}
			if enough == nil && covered(set, since) < math.MaxInt64 {
				enough = time.After(changesGrace)
			}
		case <-enough:
			break collect
		case <-ctx.Done():
			break collect
		}
	}
	if out.Since = covered(set, since); out.Since == math.MaxInt64 {
		return out, errs.New(errs.Unavailable, "too few ingesters say what late samples came")
	}
	return out, nil
}

// lateLog is what one ingester said; one that said nothing knows nothing.
func lateLog(s *ingesterpb.TenantStatsResponse, err error) changes.Log {
	if err != nil || s.LateSince == 0 {
		return changes.Log{Since: math.MaxInt64}
	}
	out := changes.Log{Time: s.Now, Since: s.LateSince}
	for _, l := range s.Late {
		out.Changes = append(out.Changes, changes.Change{MinTime: l.MinTime, MaxTime: l.MaxTime, At: l.At})
	}
	return out
}

// covered returns from when on all acknowledged late writes are known, if each instance knows its own
// from since on: as many may not know as a read quorum can spare.
func covered(set ring.ReplicationSet, since []int64) int64 {
	spare := set.MaxErrors
	all := slices.Clone(since)
	if set.ZoneAwarenessEnabled || set.MaxUnavailableZones > 0 {
		spare = set.MaxUnavailableZones
		zones := map[string]int64{}
		for i := range set.Instances {
			z := set.Instances[i].Zone
			zones[z] = max(zones[z], since[i])
		}
		all = all[:0]
		for _, s := range zones {
			all = append(all, s)
		}
	}
	slices.Sort(all)
	if n := len(all) - 1 - spare; n >= 0 {
		return all[n]
	}
	return math.MaxInt64
}

// serveChanges answers a frontend.
func (e *Executor) serveChanges(ctx context.Context, w http.ResponseWriter) error {
	if e.Changes == nil {
		return errs.New(errs.Unavailable, "this querier does not know what changed")
	}
	log, err := e.Changes(ctx)
	if err != nil {
		return err
	}
	b, err := log.Encode()
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return errs.Wrap(errs.Canceled, err)
	}
	return nil
}

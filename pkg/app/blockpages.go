package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/compactor"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/querier"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// mountBlocks gives what is done with blocks, in processes that can.
func (a *App) mountBlocks(d *api.BlockDeps) error {
	works, serves := a.cfg.runs("compactor"), a.cfg.runs("store-gateway")
	if works || serves {
		b, err := a.blocksBucket()
		if err != nil {
			return err
		}
		d.Stored = stored{b}
	}
	if a.storeLeave != nil {
		d.StoreShutdown = a.storeLeave
	}
	if works || a.cfg.runs("querier") {
		r, err := a.deletions()
		if err != nil {
			return err
		}
		d.SeriesDeletions = seriesDeletions{r, a.cfg.Compactor.SeriesDeletionWait}
	}
	if works {
		c, err := a.compactor()
		if err != nil {
			return err
		}
		d.Deletions, d.Uploads, d.Planner, d.Marks = c, c, planner{c}, c
	}
	return nil
}

// planner gives a compactor the shape that its pages ask for.
type planner struct{ *compactor.Compactor }

// CompactionPlanner returns what says which jobs compactors of this configuration would do in bkt.
func CompactionPlanner(c *Config, log *slog.Logger, bkt objstore.Bucket, of func(tenant.ID) limits.View) (admin.Planner, error) {
	p, err := compactor.New(c.Compactor, compactor.Deps{Logger: log, Bucket: bkt, Limits: of})
	return planner{p}, err
}

// PlannedJobs is part of admin.Planner.
func (p planner) PlannedJobs(ctx context.Context, id tenant.ID) ([]admin.CompactionJob, error) {
	jobs, err := p.Plan(ctx, id)
	if err != nil {
		return nil, err
	}
	var out []admin.CompactionJob
	for i := range jobs {
		j := &jobs[i]
		job := admin.CompactionJob{Key: j.Key, Stage: string(j.Stage), Shard: j.Shard, Bytes: j.Bytes(),
			MinTime: time.UnixMilli(j.MinTime).UTC(), MaxTime: time.UnixMilli(j.MaxTime).UTC()}
		for _, b := range j.Blocks {
			job.Blocks = append(job.Blocks, b.ID.String())
		}
		out = append(out, job)
	}
	return out, nil
}

// stored shows what the bucket holds by its indexes.
type stored struct{ bkt objstore.Bucket }

// Tenants is part of admin.Stored.
func (s stored) Tenants(ctx context.Context) ([]tenant.ID, error) { return block.Tenants(ctx, s.bkt) }

// Blocks is part of admin.Stored.
func (s stored) Blocks(ctx context.Context, id tenant.ID) ([]admin.StoredBlock, time.Time, error) {
	bkt := objstore.NewPrefixedBucket(s.bkt, string(id))
	idx, err := block.ReadBucketIndex(ctx, bkt)
	if err != nil && errs.KindOf(err) == errs.NotFound {
		return nil, time.Time{}, errs.New(errs.NotFound, "tenant %s has no bucket index: it has no blocks, or no compactor has looked at them yet", id)
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	aside, err := block.NoCompacts(ctx, bkt)
	if err != nil {
		return nil, time.Time{}, err
	}
	why, marked := map[[16]byte]string{}, map[[16]byte]time.Time{}
	for _, m := range aside {
		why[m.ID] = m.Reason + ": " + m.Details
	}
	for _, m := range idx.DeletionMarks {
		marked[m.ID] = time.Unix(m.DeletionTime, 0).UTC()
	}
	var out []admin.StoredBlock
	for _, b := range idx.Blocks {
		out = append(out, admin.StoredBlock{
			ID: b.ID.String(), MinTime: time.UnixMilli(b.MinTime).UTC(), MaxTime: time.UnixMilli(b.MaxTime).UTC(), Level: b.CompactionLevel,
			Shard: b.CompactorShard, OutOfOrder: b.OutOfOrder, Bytes: b.SizeBytes, Uploaded: time.Unix(b.UploadedAt, 0).UTC(),
			MarkedForDelete: marked[b.ID], NotCompacted: why[b.ID],
		})
	}
	return out, time.Unix(idx.UpdatedAt, 0).UTC(), nil
}

// history gives a querier the shape that the API asks for.
type history struct{ *querier.Querier }

// History is part of prom.History.
func (h history) History(ctx context.Context, id tenant.ID, limit int) (prom.Cardinality, error) {
	var out prom.Cardinality
	found, err := h.Querier.History(tenant.Inject(ctx, id), limit)
	if err != nil {
		return out, err
	}
	out.Head.Series, out.Head.MinTime, out.Head.MaxTime = found.Series, found.MinTime, found.MaxTime
	list := func(counts []block.Count) []prom.Stat {
		stats := []prom.Stat{}
		for _, c := range counts {
			stats = append(stats, prom.Stat{Name: c.Name, Value: c.Count})
		}
		return stats
	}
	out.SeriesByMetric, out.ValuesByLabel, out.SeriesByPair, out.BytesByLabel = list(found.SeriesByMetric), list(found.ValuesByLabel), list(found.SeriesByPair), list(nil)
	for _, c := range found.ValuesByLabel {
		out.Head.LabelPairs += c.Count
	}
	return out, nil
}

// Package compactor owns the blocks in object storage after ingesters have uploaded them: it merges
// the blocks of replicas, then ever longer time ranges, splits large tenants by series, deletes
// blocks that retention or a replacement made obsolete, and maintains the bucket indexes by which
// queries find blocks. A crash at any moment leaves every sample in the bucket: sources are marked
// only once the results are complete, and deleted long after that.
package compactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/tombstone"
)

// RingName and RingKey are where compactors register.
const (
	RingName = "compactor"
	RingKey  = "compactor"
)

// startDelay lets a process that has just started see the others before it takes on work.
const startDelay = 5 * time.Second

// Deps are what a Compactor works with.
type Deps struct {
	Logger *slog.Logger
	Reg    prometheus.Registerer
	Bucket objstore.Bucket // of all tenants
	Limits func(tenant.ID) limits.View
	// Owns says whether a piece of work of a tenant is this process's. nil: all is.
	Owns func(id tenant.ID, key string) (bool, error)
	// Peers is how many compactors share the work. nil: this one does all.
	Peers func() int
	// Deletions are the requests to delete series. nil: there are none.
	Deletions *tombstone.Requests
	// Forget deletes what is known of a tenant elsewhere in the bucket. It may be called more than once. nil: there is
	// nothing.
	Forget func(context.Context, tenant.ID) error
	// Activity is told of the jobs under way. nil: nobody is.
	Activity *activity.Tracker
	Now      func() time.Time // nil: time.Now
}

// Compactor works on the bucket while it runs. It is a services.Service.
type Compactor struct {
	services.Service
	cfg     Config
	ranges  []int64
	deps    Deps
	metrics *metrics
	pace    pace

	uploads    uploadTurns
	checks     chan struct{} // a token for each uploaded block being checked
	background sync.WaitGroup
	life       context.Context //nolint:containedctx // Of checks, which outlive the request that starts them.
	end        context.CancelFunc
}

// New returns a compactor. Errors: Invalid.
func New(cfg Config, deps Deps) (*Compactor, error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Owns == nil {
		deps.Owns = func(tenant.ID, string) (bool, error) { return true, nil }
	}
	ranges, err := cfg.ranges()
	if err != nil {
		return nil, errs.New(errs.Invalid, "compactor.block_ranges %w", err)
	}
	c := &Compactor{cfg: cfg, ranges: ranges, deps: deps, metrics: newMetrics(deps.Reg), checks: make(chan struct{}, validations), uploads: uploadTurns{turns: map[uploaded]uint64{}}}
	c.life, c.end = context.WithCancel(bucket.Because(context.Background(), bucket.Import))
	c.Service = services.NewBasicService(c.starting, c.running, c.stopping).WithName("compactor")
	return c, nil
}

func (c *Compactor) bucket(id tenant.ID) objstore.Bucket {
	return objstore.NewPrefixedBucket(c.deps.Bucket, string(id))
}

// scratch is the directory of the jobs.
func (c *Compactor) scratch() string { return filepath.Join(c.cfg.DataDir, "compact") }

// starting empties the scratch directory: a crash may have left parts of blocks there.
func (c *Compactor) starting(context.Context) error {
	if err := errors.Join(os.RemoveAll(c.scratch()), os.MkdirAll(c.scratch(), 0o750)); err != nil {
		return errs.New(errs.Unavailable, "prepare the compactor's directory: %w", err)
	}
	return nil
}

// stopping ends the checks of uploaded blocks.
func (c *Compactor) stopping(error) error {
	c.end()
	c.background.Wait()
	return nil
}

// running cleans up and compacts, each in its own rhythm.
func (c *Compactor) running(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.repeat(ctx, c.cfg.CleanupInterval, c.CleanUp) })
	wg.Go(func() { c.repeat(ctx, c.cfg.Interval, c.Compact) })
	wg.Wait()
	return nil
}

// repeat calls do at once and then at every interval. What failed is logged by do itself.
func (c *Compactor) repeat(ctx context.Context, interval time.Duration, do func(context.Context) error) {
	next := time.NewTimer(startDelay)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			_ = c.guarded("a round", func() error { return do(ctx) })
			next.Reset(interval)
		}
	}
}

// tenants returns the tenants of the bucket in which this process has work named key.
func (c *Compactor) tenants(ctx context.Context, key string) ([]tenant.ID, error) {
	all, err := block.Tenants(ctx, c.deps.Bucket)
	if err != nil {
		return nil, err
	}
	var out []tenant.ID
	for _, id := range all {
		mine, err := c.deps.Owns(id, key)
		if err != nil {
			return nil, fmt.Errorf("ask the ring whose tenant %s is: %w", id, err)
		}
		if mine {
			out = append(out, id)
		}
	}
	return out, nil
}

// anyJob is asked for to find the tenants of which this process may have jobs.
const anyJob = ""

// Compact does the jobs of this process that are due, once through all tenants. What fails is logged
// and counted, and does not keep the rest from being done.
func (c *Compactor) Compact(ctx context.Context) error {
	ctx = bucket.Because(ctx, bucket.Compaction)
	c.metrics.runsStarted.Inc()
	began := c.deps.Now()
	tenants, err := c.tenants(ctx, anyJob)
	if err == nil {
		var problems []error
		for _, id := range tenants {
			if ctx.Err() != nil {
				break
			}
			if err := c.guarded("compacting a tenant", func() error { return c.compactTenant(ctx, id) }, "tenant", id); err != nil && ctx.Err() == nil {
				c.deps.Logger.Error("tenant not compacted, it is tried again in the next round", "tenant", id, "err", err)
				problems = append(problems, fmt.Errorf("tenant %s: %w", id, err))
			}
		}
		err = errors.Join(problems...)
	} else if ctx.Err() == nil {
		c.deps.Logger.Error("tenants not found, compaction is tried again in the next round", "err", err)
	}
	switch {
	case ctx.Err() != nil:
		c.metrics.runsStopped.Inc()
		return context.Cause(ctx)
	case err != nil:
		c.metrics.runsFailed.Inc()
		return err
	}
	c.metrics.runsCompleted.Inc()
	c.metrics.lastRun.Set(float64(c.deps.Now().Unix()))
	c.metrics.runDuration.Observe(c.deps.Now().Sub(began).Seconds())
	return nil
}

// compactTenant does the tenant's jobs that are this process's until none is due or its time is up.
// One listing serves many jobs; another one follows what was done, because compactors of other jobs
// may have made due what these wait for.
func (c *Compactor) compactTenant(ctx context.Context, id tenant.ID) error {
	var until time.Time
	if c.cfg.MaxTenantTime > 0 {
		until = c.deps.Now().Add(c.cfg.MaxTenantTime)
	}
	var r *round
	for ctx.Err() == nil {
		var err error
		if r, err = c.list(ctx, id, r); err == nil {
			var n int
			if n, err = r.run(ctx, until); err == nil && n > 0 && (until.IsZero() || !c.deps.Now().After(until)) {
				continue
			}
		}
		switch {
		case errors.Is(err, errDeleted):
			return nil
		case err == nil && len(r.failed) > 0:
			return errs.New(errs.Internal, "%d jobs failed", len(r.failed))
		}
		return err
	}
	return context.Cause(ctx)
}

// try does a job, with retries if the storage or the disk is at fault.
func (c *Compactor) try(ctx context.Context, r *round, j Job) error {
	var err error
	for range c.cfg.Retries {
		c.metrics.groupRuns.Inc()
		began := time.Now()
		err = c.guarded("a compaction job", func() error { return c.do(ctx, r, j) }, "tenant", r.id, "job", j.Key)
		c.metrics.jobDuration.Observe(time.Since(began).Seconds())
		if err == nil || ctx.Err() != nil || errors.Is(err, errPlanAnew) || errors.Is(err, errDeleted) {
			return err
		}
		c.metrics.groupFailures.Inc()
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			c.metrics.diskFull.Inc()
		}
		c.deps.Logger.Warn("compaction job failed", "tenant", r.id, "job", j.Key, "blocks", len(j.Blocks), "err", err)
	}
	return err
}

// Plan returns the tenant's jobs that are due as of its bucket index, the first to be done first,
// whoever does them. Only a tenant without an index is listed.
func (c *Compactor) Plan(ctx context.Context, id tenant.ID) ([]Job, error) {
	bkt := c.bucket(id)
	idx, err := block.ReadBucketIndex(ctx, bkt)
	var marks block.Marks
	switch k := errs.KindOf(err); {
	case err == nil:
		if marks, err = block.ListMarks(ctx, bkt); err != nil {
			return nil, err
		}
		// What replaces a block that was marked since the index was made is not in it either.
		marks.Deletion = nil
	case k == errs.NotFound || k == errs.Internal:
		scan, err := block.ScanBlocks(ctx, bkt, nil, c.deps.Now())
		if err != nil {
			return nil, err
		}
		idx, marks = scan.Index, scan.Marks
	default:
		return nil, err
	}
	all, erased, err := c.erasures(ctx, id, marks)
	if err != nil {
		return nil, err
	}
	jobs, _ := due(c.planning(id), eligible(idx, marks), all, erased)
	return jobs, nil
}

func (c *Compactor) planning(id tenant.ID) planning {
	v := c.deps.Limits(id)
	return planning{
		ranges: c.ranges, shards: limits.CompactorSplitAndMergeShards.Of(v), groups: limits.CompactorSplitGroups.Of(v),
		wait: c.cfg.FirstLevelWait, lookback: limits.CompactorMaxLookback.Of(v), order: c.cfg.JobsOrder, now: c.deps.Now(),
	}
}

package ingester

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// FlushJob is one call of Flush.
type FlushJob struct {
	ID      string
	Tenants []tenant.ID // nil: all
	Started time.Time
	Ended   time.Time // zero: it runs
	Blocks  int       // cut
	Err     error     // what went wrong; what is not shipped is tried again in time
}

// keptJobs is how many flushes are remembered.
const keptJobs = 100

// flushJobs remembers the last flushes.
type flushJobs struct {
	mu   sync.Mutex // guards list and what it points to
	list []*FlushJob
}

// begin adds a job.
func (j *flushJobs) begin(tenants []tenant.ID, now time.Time) *FlushJob {
	job := &FlushJob{ID: ulid.Make().String(), Tenants: slices.Clone(tenants), Started: now}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.list) == keptJobs {
		j.list = slices.Delete(j.list, 0, 1)
	}
	j.list = append(j.list, job)
	return job
}

func (j *flushJobs) end(job *FlushJob, now time.Time, blocks int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	job.Ended, job.Blocks, job.Err = now, blocks, err
}

func (j *flushJobs) copyOf(job *FlushJob) FlushJob {
	j.mu.Lock()
	defer j.mu.Unlock()
	return *job
}

// FlushJob returns a flush by its ID. Errors: NotFound.
func (i *Ingester) FlushJob(id string) (FlushJob, error) {
	j := &i.background.flushes
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, job := range j.list {
		if job.ID == id {
			return *job, nil
		}
	}
	return FlushJob{}, errs.New(errs.NotFound, "no flush %q is known: the last %d since the start are", id, keptJobs)
}

// Flush cuts all that the named tenants have in memory, of all tenants if none is named, into
// blocks and ships them. With wait it returns when that is done, and its error is that of the job;
// the work goes on if ctx ends before. Errors: Unavailable, and what cutting and shipping return.
func (i *Ingester) Flush(ctx context.Context, tenants []tenant.ID, wait bool) (FlushJob, error) {
	if i.State() != services.Running {
		return FlushJob{}, errs.New(errs.Unavailable, "ingester is %s", i.State())
	}
	job := i.background.flushes.begin(tenants, i.now())
	done := make(chan struct{})
	work := context.WithoutCancel(ctx)
	if !i.background.start(func() {
		defer close(done)
		blocks, err := i.flush(work, job.Tenants)
		if err != nil {
			i.log.Error("flush incomplete, the rest is shipped in time", "job", job.ID, "err", err)
		}
		i.background.flushes.end(job, i.now(), blocks, err)
	}) {
		i.background.flushes.end(job, i.now(), 0, errStopping)
		close(done)
	}
	if !wait {
		return i.background.flushes.copyOf(job), nil
	}
	select {
	case <-done:
	case <-ctx.Done():
		return i.background.flushes.copyOf(job), fmt.Errorf("wait for flush %s: %w", job.ID, context.Cause(ctx))
	}
	out := i.background.flushes.copyOf(job)
	return out, out.Err
}

func (i *Ingester) flush(ctx context.Context, only []tenant.ID) (blocks int, err error) {
	tenants := i.all()
	if len(only) > 0 {
		tenants = slices.DeleteFunc(tenants, func(t *tenantHead) bool { return !slices.Contains(only, t.id) })
	}
	blocks, err = i.compact(ctx, tenants, func(*tenantHead) bool { return true })
	err = errors.Join(err, i.shipNow(ctx, tenants))
	i.reportBlocks(i.all())
	return blocks, err
}

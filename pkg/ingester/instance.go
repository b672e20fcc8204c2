package ingester

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// InstanceLimits protect one process; over them a push or a query is refused as Unavailable and
// may be tried again, a query at another replica.
type InstanceLimits struct {
	MaxIngestionRate        float64 // samples/s
	MaxInflightPushRequests int
	MaxInflightPushBytes    int
	MaxSeries               int
	MaxTenants              int
	MaxInflightReadRequests int
}

// Declare names each setting once.
func (c *InstanceLimits) Declare(s *config.Set) {
	s.Float(&c.MaxIngestionRate, "max-ingestion-rate", 0, "Samples per second stored, as an average of the last seconds. 0: no limit.").Expert()
	s.Int(&c.MaxInflightPushRequests, "max-inflight-push-requests", 30_000, "Pushes at the same time. 0: no limit.").Expert()
	s.Int(&c.MaxInflightPushBytes, "max-inflight-push-requests-bytes", 0, "Estimated bytes of the pushes at the same time. 0: no limit.").Expert()
	s.Int(&c.MaxSeries, "max-series", 0, "Series in memory, of all tenants. 0: no limit.").Expert()
	s.Int(&c.MaxTenants, "max-tenants", 0, "Tenants with recent data. 0: no limit.").Expert()
	s.Int(&c.MaxInflightReadRequests, "max-inflight-read-requests", 0, "Queries answered and waiting at the same time. 0: no limit.").Expert()
}

// instanceLimits are those in force.
func (i *Ingester) instanceLimits() InstanceLimits {
	if i.changed != nil {
		return i.changed(i.cfg.InstanceLimits)
	}
	return i.cfg.InstanceLimits
}

// instanceLimit is the error of a request that a limit of this process refuses as a whole.
func instanceLimit(id errs.ID, flag, what string) error {
	return errs.WithID(errs.Unavailable, id, "To adjust it, set -ingester.instance-limits."+flag+".", "%s", what)
}

// The names by which amphora_ingester_instance_rejected_requests_total tells refusals apart.
const (
	rejectedRate     = "ingester_max_ingestion_rate"
	rejectedTenants  = "ingester_max_tenants"
	rejectedSeries   = "ingester_max_series"
	rejectedPushes   = "ingester_max_inflight_push_requests"
	rejectedBytes    = "ingester_max_inflight_push_requests_bytes"
	rejectedReads    = "ingester_max_inflight_read_requests"
	rejectedDiskLow  = "ingester_disk_low"
	rejectedDiskFull = "ingester_disk_full"
	rejectedMemory   = "ingester_memory"

	rejectedPushLimiter = "ingester_push_reactive_limiter"
	rejectedReadLimiter = "ingester_read_reactive_limiter"
)

// guards refuse work that the process had better not take on.
type guards struct {
	accepting atomic.Bool // pushes are taken
	readable  atomic.Bool // queries are answered
	samples   rate        // stored, of all tenants; ticked every guardTick
	inReads   atomic.Int64
	memory    accounts
	space     space
	load      load

	pushGate, readGate gate
}

// guardTick is how often the guards look at the process and its disk.
const guardTick = time.Second

// errStopping refuses pushes of a process that does not take any.
var errStopping = errs.New(errs.Unavailable, "the ingester is not taking samples: it is starting or stopping")

// admit lets a push of size bytes in, or refuses it. Errors: Unavailable.
func (i *Ingester) admit(size int64) error {
	n, bytes := i.pushes.inflight.Add(1), i.pushes.bytes.Add(size)
	err := i.refusesPush(n, bytes)
	if err == nil {
		if err = i.memory.frames.Reserve(size); err == nil {
			return nil
		}
		i.metrics.rejected.WithLabelValues(rejectedMemory).Inc()
	}
	i.pushes.gone(size)
	return err
}

// refusesPush says why a push is not let in that is the n-th at this time, together of so many
// bytes.
func (i *Ingester) refusesPush(n, bytes int64) error {
	if !i.accepting.Load() {
		return errStopping
	}
	if err := i.space.full(); err != nil {
		i.metrics.rejected.WithLabelValues(rejectedDiskFull).Inc()
		return err
	}
	most := i.instanceLimits()
	switch {
	case most.MaxInflightPushRequests > 0 && n > int64(most.MaxInflightPushRequests):
		i.metrics.rejected.WithLabelValues(rejectedPushes).Inc()
		return instanceLimit("ingester-max-inflight-push-requests", "max-inflight-push-requests", "too many pushes at the same time")
	case most.MaxInflightPushBytes > 0 && bytes > int64(most.MaxInflightPushBytes):
		i.metrics.rejected.WithLabelValues(rejectedBytes).Inc()
		return instanceLimit("ingester-max-inflight-push-requests-bytes", "max-inflight-push-requests-bytes", "too many bytes pushed at the same time")
	case most.MaxIngestionRate > 0 && i.samples.perSecond() >= most.MaxIngestionRate:
		i.metrics.rejected.WithLabelValues(rejectedRate).Inc()
		return instanceLimit("ingester-max-ingestion-rate", "max-ingestion-rate", "the ingester stores as many samples per second as it may")
	}
	return nil
}

func (i *Ingester) release(size int64) {
	i.pushes.gone(size)
	i.memory.frames.Release(size)
}

// refusesNewSeries says why no series may be created, whatever the tenant is allowed. The error
// fails the whole push.
func (i *Ingester) refusesNewSeries() error {
	if most := i.instanceLimits().MaxSeries; most > 0 && i.series.Load() >= int64(most) {
		i.metrics.rejected.WithLabelValues(rejectedSeries).Inc()
		return errInstanceSeries
	}
	err := i.space.low()
	if err != nil {
		i.metrics.rejected.WithLabelValues(rejectedDiskLow).Inc()
	}
	return err
}

// errInstanceSeries is what the hook of a head returns to fail a whole push.
var errInstanceSeries = instanceLimit("ingester-max-series", "max-series", "the ingester holds as many series as it may")

// admitRead lets a query in, or refuses it; leaveRead must follow if it was let in. Errors:
// Unavailable.
func (i *Ingester) admitRead() error {
	n := i.inReads.Add(1)
	err := i.load.busy()
	if err == nil {
		err = i.memory.queries.Room()
	}
	if most := i.instanceLimits().MaxInflightReadRequests; err == nil && most > 0 && n > int64(most) {
		i.metrics.rejected.WithLabelValues(rejectedReads).Inc()
		err = instanceLimit("ingester-max-inflight-read-requests", "max-inflight-read-requests", "too many queries at the same time")
	}
	if err != nil {
		i.leaveRead()
	}
	return err
}

func (i *Ingester) leaveRead() { i.inReads.Add(-1) }

// watch keeps the guards up to date until ctx ends.
func (i *Ingester) watch(ctx context.Context) {
	tick := time.NewTicker(guardTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			i.samples.tick(guardTick)
			i.load.look(now)
		case <-i.space.asked:
		}
		i.space.look()
	}
}

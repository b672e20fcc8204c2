package ingester

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// earlyEvery is the least time between two early cuts of one tenant: each makes blocks of its own.
const earlyEvery = 10 * time.Minute

// saving is what an early cut of a tenant would save.
type saving struct {
	t              *tenantHead
	series, active int64
}

func (s saving) percent() int64 {
	if s.series <= 0 {
		return 0
	}
	return 100 * (s.series - s.active) / s.series
}

// cutEarly cuts the series that are not active any more of the tenants that have too many: the
// tenants over a threshold of their own, and if the process has too many, those who save most.
func (i *Ingester) cutEarly(ctx context.Context, now time.Time) error {
	cfg := i.cfg.EarlyCompaction
	crowded := cfg.MinSeries > 0 && i.series.Load() >= int64(cfg.MinSeries)
	var due []saving
	tick := i.tick()
	for _, t := range i.all() {
		t.activity.expireOnce(tick, i.clock.oldest(tick))
		n := t.activity.counts()
		s := saving{t, n.series, n.active}
		v := i.limits(t.id)
		threshold := limits.EarlyHeadCompactionOwnedSeriesThreshold.Of(v)
		if s.series > s.active && (crowded && s.percent() >= int64(cfg.MinReductionPercent) ||
			threshold > 0 && n.owned >= int64(threshold) && s.percent() >= int64(limits.EarlyHeadCompactionMinReduction.Of(v))) {
			due = append(due, s)
		}
	}
	slices.SortFunc(due, func(a, b saving) int { return int((b.series - b.active) - (a.series - a.active)) })
	var out []error
	for _, s := range due {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.t.cutIdleSeries(ctx, now); err != nil {
			out = append(out, fmt.Errorf("tenant %s: %w", s.t.id, err))
		}
	}
	return errors.Join(out...)
}

// cutIdleSeries cuts the series that are not active into blocks, unless that was done a short time
// ago. What the log has of them stays there until the rest of its time is cut, and a restart brings
// it back into memory.
func (t *tenantHead) cutIdleSeries(ctx context.Context, now time.Time) error {
	t.compacting.Lock()
	defer t.compacting.Unlock()
	if now.Sub(t.cutEarlyAt) < earlyEvery || !t.enter() {
		return nil
	}
	defer t.leave()
	t.cutEarlyAt = now
	refs := t.activity.idle()
	m := t.ing.metrics
	m.earlyCompactions.Inc()
	start := time.Now()
	gone, err := t.head.CutSeries(ctx, refs)
	if err != nil {
		m.compactionsFailed.Inc()
		return err
	}
	m.earlySeries.Add(float64(gone))
	m.compactionDuration.Observe(time.Since(start).Seconds())
	t.ing.log.Info("idle series cut early", "tenant", t.id, "series", len(refs), "left_memory", gone, "took", time.Since(start))
	return nil
}

// idle lists the series in the counts that are not active.
func (a *activity) idle() []head.Ref {
	var out []head.Ref
	dir := a.dir.Load()
	if dir == nil {
		return nil
	}
	for at := range *dir {
		a.mu.Lock()
		if p := a.page(uint64(at)); p != nil {
			for k := range p.flags {
				if p.flags[k]&seriesKnown != 0 && p.stamps[k].Load() == 0 {
					out = append(out, head.Ref(at*pageSeries+k))
				}
			}
		}
		a.mu.Unlock()
	}
	return out
}

package ingester

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// prepareShutdownFile marks, in the data directory, that the next stop is for good.
const prepareShutdownFile = "prepare-shutdown"

// CheckReady says whether the ingester may be sent traffic. Errors: Unavailable.
func (i *Ingester) CheckReady(ctx context.Context) error {
	if s := i.State(); s != services.Running {
		return errs.New(errs.Unavailable, "ingester is %s", s)
	}
	if !i.accepting.Load() {
		return errStopping
	}
	if err := i.lifecycler.CheckReady(ctx); err != nil {
		return errs.New(errs.Unavailable, "ingester's ring entry: %w", err)
	}
	return nil
}

// Shutdown flushes, leaves the ring for good and stops the ingester; it is terminated when
// Shutdown returns.
func (i *Ingester) Shutdown(ctx context.Context) error {
	i.lifecycler.SetFlushOnShutdown(true)
	i.lifecycler.SetUnregisterOnShutdown(true)
	return services.StopAndAwaitTerminated(ctx, i)
}

// PreparedShutdown says whether the next stop is for good.
func (i *Ingester) PreparedShutdown() bool { return i.prepareShutdownMarked() }

// PrepareShutdown makes the next stop flush everything and leave the ring, or takes that back. A
// restart that is no stop, such as a crash, does not forget it.
func (i *Ingester) PrepareShutdown(set bool) error {
	if i.State() != services.Running {
		return errs.New(errs.Unavailable, "ingester is %s", i.State())
	}
	if err := i.markPrepareShutdown(set); err != nil {
		return err
	}
	i.lifecycler.SetFlushOnShutdown(set || i.cfg.FlushBlocksOnShutdown)
	i.lifecycler.SetUnregisterOnShutdown(set || i.unregister)
	i.log.Info("shutdown prepared or taken back", "prepared", set)
	return nil
}

func (i *Ingester) prepareShutdownMarked() bool {
	_, err := os.Stat(filepath.Join(i.cfg.DataDir, prepareShutdownFile))
	return err == nil
}

func (i *Ingester) markPrepareShutdown(set bool) error {
	path := filepath.Join(i.cfg.DataDir, prepareShutdownFile)
	if !set {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.Unavailable, "remove shutdown marker: %w", err)
		}
		return nil
	}
	if err := errors.Join(writeSynced(path, []byte(time.Now().UTC().Format(time.RFC3339)+"\n")), syncDir(i.cfg.DataDir)); err != nil {
		return errs.New(errs.Unavailable, "write shutdown marker: %w", err)
	}
	return nil
}

// ReadOnlySince returns since when the ring says that this ingester takes no new series, the zero
// time if it does not say so.
func (i *Ingester) ReadOnlySince() time.Time {
	if on, since := i.lifecycler.GetReadOnlyState(); on {
		return since
	}
	return time.Time{}
}

// UnregistersOnShutdown says whether the next stop removes the ring entry.
func (i *Ingester) UnregistersOnShutdown() bool { return i.lifecycler.ShouldUnregisterOnShutdown() }

// SetUnregisterOnShutdown changes that until the process ends.
func (i *Ingester) SetUnregisterOnShutdown(on bool) error {
	if i.State() != services.Running {
		return errs.New(errs.Unavailable, "ingester is %s", i.State())
	}
	i.lifecycler.SetUnregisterOnShutdown(on)
	return nil
}

// TenantInfo is what the pages about tenants show.
type TenantInfo struct {
	Tenant           tenant.ID
	Series           uint64
	Active, Owned    uint64    // of Series
	MinTime, MaxTime time.Time // of the samples in memory; zero if there are none
	Blocks           []BlockInfo
	IngestionRate    float64 // samples/s
}

// BlockInfo is one local block.
type BlockInfo struct {
	ID               string
	MinTime, MaxTime time.Time
	Series, Samples  uint64
	OutOfOrder       bool
	Shipped          time.Time // zero: not yet
}

// Tenants lists the tenants with recent data, sorted, without their blocks.
func (i *Ingester) Tenants() []TenantInfo {
	var out []TenantInfo
	for _, t := range i.all() {
		if t.enter() {
			out = append(out, t.info())
			t.leave()
		}
	}
	slices.SortFunc(out, func(a, b TenantInfo) int { return strings.Compare(string(a.Tenant), string(b.Tenant)) })
	return out
}

// Tenant describes one tenant. Errors: NotFound.
func (i *Ingester) Tenant(id tenant.ID) (TenantInfo, error) {
	t, err := i.openTenant(id)
	if err != nil {
		return TenantInfo{}, err
	}
	t.compacting.Lock()
	defer t.compacting.Unlock()
	if !t.enter() {
		return TenantInfo{}, fmt.Errorf("describe tenant: %w", errs.New(errs.NotFound, "tenant %s is gone", id))
	}
	defer t.leave()
	out := t.info()
	for _, b := range t.head.Blocks() {
		info := BlockInfo{ID: b.ID.String(), MinTime: time.UnixMilli(b.MinTime).UTC(), MaxTime: time.UnixMilli(b.MaxTime).UTC(),
			Series: b.Series, Samples: b.Samples, OutOfOrder: b.OutOfOrder}
		if at := t.shipped[b.ID]; at != 0 {
			info.Shipped = time.UnixMilli(at).UTC()
		}
		out.Blocks = append(out.Blocks, info)
	}
	return out, nil
}

// info needs an open head.
func (t *tenantHead) info() TenantInfo {
	out := TenantInfo{Tenant: t.id, Series: t.head.NumSeries(), IngestionRate: t.stats.api.perSecond() + t.stats.rule.perSecond()}
	n := t.activity.counts()
	out.Active, out.Owned = uint64(max(0, n.active)), uint64(max(0, n.owned))
	if mint, maxt := t.head.MinTime(), t.head.MaxTime(); mint <= maxt {
		out.MinTime, out.MaxTime = time.UnixMilli(mint).UTC(), time.UnixMilli(maxt).UTC()
	}
	return out
}

package ingester

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/grafana/dskit/backoff"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/head"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

const (
	// shipConcurrency is the number of tenants whose blocks are uploaded at the same time.
	shipConcurrency = 10
	shipTries       = 3
	shipBackoff     = time.Second
	shipMaxBackoff  = 10 * time.Second
)

// ship uploads the blocks that are not in the bucket yet, and drops local ones whose retention is
// over. What fails is logged, counted and tried again in the next round.
func (i *Ingester) ship(ctx context.Context, tenants []*tenantHead) {
	if err := i.shipNow(ctx, tenants); err != nil && ctx.Err() == nil {
		i.log.Error("blocks not shipped, will retry; they stay on local disk meanwhile", "err", err)
	}
}

// shipNow is ship that returns what went wrong.
func (i *Ingester) shipNow(ctx context.Context, tenants []*tenantHead) error {
	var (
		mu  sync.Mutex
		out []error
	)
	each(tenants, shipConcurrency, func(t *tenantHead) {
		if err := t.ship(ctx); err != nil {
			mu.Lock()
			defer mu.Unlock()
			out = append(out, fmt.Errorf("tenant %s: %w", t.id, err))
		}
	})
	return errors.Join(out...)
}

// ship uploads the tenant's new blocks and drops old ones.
func (t *tenantHead) ship(ctx context.Context) error {
	ctx = bucket.Because(ctx, bucket.Ship)
	t.compacting.Lock()
	defer t.compacting.Unlock()
	if !t.enter() {
		return nil
	}
	defer t.leave()
	blocks := t.head.Blocks()
	changed := t.shipped.forgetAllBut(blocks)
	var out []error
	for _, b := range blocks {
		if t.shipped[b.ID] != 0 {
			continue
		}
		if err := t.upload(ctx, b); err != nil {
			out = append(out, err)
			continue
		}
		t.shipped[b.ID] = t.ing.now().UnixMilli()
		t.unlisted = append(t.unlisted, b.ID)
		t.unexplained, changed = true, true
	}
	if changed {
		if err := t.shipped.write(t.dir); err != nil {
			out = append(out, fmt.Errorf("remember shipped blocks: %w", err))
		}
	}
	if err := t.announce(ctx); err != nil {
		out = append(out, err)
	}
	t.explain(ctx)
	t.dropOld(blocks)
	return errors.Join(out...)
}

// explain puts what is known of the tenant's metrics beside its blocks, after new ones were shipped, so
// that it can be asked for when nobody sends them any more. It needs t.compacting.
func (t *tenantHead) explain(ctx context.Context) {
	if !t.unexplained {
		return
	}
	i := t.ing
	var oldest time.Time
	if keep := limits.CompactorBlocksRetentionPeriod.Of(i.limits(t.id)); keep > 0 {
		oldest = i.now().Add(-keep)
	}
	more := t.metadata.seen()
	if len(more) > 0 {
		if err := block.AddMetadata(ctx, objstore.NewPrefixedBucket(i.bucket, string(t.id)), more, oldest); err != nil {
			i.log.Warn("metadata not written beside the blocks, will retry", "tenant", t.id, "err", err)
			return
		}
	}
	t.unexplained = false
}

// upload ships one block, with a few tries.
func (t *tenantHead) upload(ctx context.Context, b head.Block) error {
	i := t.ing
	tries := backoff.New(ctx, backoff.Config{MinBackoff: shipBackoff, MaxBackoff: shipMaxBackoff, MaxRetries: shipTries})
	var err error
	for tries.Ongoing() {
		i.metrics.uploads.Inc()
		err = block.Upload(ctx, i.log.With("tenant", t.id), objstore.NewPrefixedBucket(i.bucket, string(t.id)), b.Dir, block.Tags{External: t.externalLabels(b)})
		if err == nil {
			i.metrics.lastUpload.Set(float64(i.now().Unix()))
			return nil
		}
		i.metrics.uploadFailures.Inc()
		tries.Wait()
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// lateLabel marks blocks of late samples, as compactors of the field know it.
const lateLabel = "__out_of_order__"

// externalLabels are those that b is published with.
func (t *tenantHead) externalLabels(b head.Block) map[string]string {
	if b.OutOfOrder && limits.OutOfOrderBlocksExternalLabelEnabled.Of(t.ing.limits(t.id)) {
		return map[string]string{lateLabel: "true"}
	}
	return nil
}

// dropOld deletes the blocks that were shipped long enough ago for queriers to know them from the
// bucket. It needs t.compacting.
func (t *tenantHead) dropOld(blocks []head.Block) {
	var old []ulid.ULID
	now := t.ing.now()
	for _, b := range blocks {
		if at := t.shipped[b.ID]; at != 0 && now.Sub(time.UnixMilli(at)) >= t.ing.cfg.BlockRetention {
			old = append(old, b.ID)
		}
	}
	if len(old) == 0 {
		return
	}
	t.head.DropBlocks(old...)
	t.sweep()
}

// sweep takes dropped blocks off the disk and closes unused ones. The head must be entered.
func (t *tenantHead) sweep() {
	if err := t.head.Sweep(); err != nil {
		t.ing.log.Warn("dropped blocks stay on disk or unused ones open, will retry", "tenant", t.id, "err", err)
	}
}

// forgetAllBut removes blocks that are not local any more, and says whether there were any.
func (s shippedBlocks) forgetAllBut(blocks []head.Block) bool {
	here := make(map[ulid.ULID]bool, len(blocks))
	for _, b := range blocks {
		here[b.ID] = true
	}
	changed := false
	for id := range s {
		if !here[id] {
			delete(s, id)
			changed = true
		}
	}
	return changed
}

// reportBlocks sets the gauge of the oldest block that is not in the bucket.
func (i *Ingester) reportBlocks(tenants []*tenantHead) {
	var oldest uint64
	for _, t := range tenants {
		t.compacting.Lock()
		if t.enter() {
			for _, b := range t.head.Blocks() {
				if made := b.ID.Time(); t.shipped[b.ID] == 0 && (oldest == 0 || made < oldest) {
					oldest = made
				}
			}
			t.leave()
		}
		t.compacting.Unlock()
	}
	i.metrics.oldestUnshipped.Set(float64(oldest) / 1000)
}

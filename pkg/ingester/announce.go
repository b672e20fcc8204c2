package ingester

import (
	"context"
	"fmt"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// announce puts the blocks that were just shipped into the tenant's bucket index, so that queriers
// know them within a minute and not only when a compactor has looked at the bucket. It is repeated
// in every round until the index had them already: two ingesters that write it at the same time may
// lose each other's blocks. It needs t.compacting.
func (t *tenantHead) announce(ctx context.Context) error {
	if len(t.unlisted) == 0 {
		return nil
	}
	bkt := objstore.NewPrefixedBucket(t.ing.bucket, string(t.id))
	blocks := make([]block.IndexedBlock, 0, len(t.unlisted))
	for _, id := range t.unlisted {
		m, err := block.ReadMeta(ctx, bkt, id)
		if errs.KindOf(err) == errs.NotFound && err != nil {
			continue // compacted already
		}
		if err != nil {
			return fmt.Errorf("announce block %s: %w", id, err)
		}
		blocks = append(blocks, m.Indexed(t.ing.now()))
	}
	known, err := block.AddToBucketIndex(ctx, bkt, t.ing.now(), blocks...)
	if err != nil {
		return fmt.Errorf("announce blocks: %w", err)
	}
	if known {
		t.unlisted = nil
	}
	return nil
}

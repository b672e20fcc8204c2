package app

import (
	"context"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// described reads what is stored about a tenant's metrics beside its blocks.
func (a *App) described() func(context.Context, tenant.ID) ([]block.Metadata, error) {
	return func(ctx context.Context, id tenant.ID) ([]block.Metadata, error) {
		b, err := a.blocksBucket()
		if err != nil {
			return nil, err
		}
		return block.ReadMetadata(ctx, objstore.NewPrefixedBucket(b, string(id)))
	}
}

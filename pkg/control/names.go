package control

import (
	"context"

	"github.com/amphora-metrics/amphora/pkg/docstore"
)

// Names returns the ids of all workspaces that are registered, deleted ones too. Errors: Unavailable.
func Names(ctx context.Context, documents *docstore.Store) ([]string, error) {
	entries, err := documents.List(ctx, workspacesPrefix)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = workspaceOf(e.Key)
	}
	return out, nil
}

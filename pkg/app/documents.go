package app

import (
	"context"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/docstore"
)

// documents keeps rule files, alertmanager definitions, workspaces and identities in the bucket of
// the blocks.
func (a *App) documents() (*docstore.Store, error) {
	return a.p.documents.get(func() (*docstore.Store, error) {
		b, err := bucket.OpenConditional(context.Background(), a.cfg.Bucket, a.log)
		if err != nil {
			return nil, err
		}
		a.closers = append(a.closers, b.Close)
		if a.cfg.Bucket.Backend == bucket.S3 {
			b = bucket.EncryptingConditional(b, a.encryption())
		}
		return docstore.New(b, docstore.Prefix, a.reg), nil
	})
}

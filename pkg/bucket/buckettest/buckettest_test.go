package buckettest

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/thanos-io/objstore"
)

// inMemory is objstore's bucket for tests with what it lacks of the laws: it does not look at
// contexts, and mistakes a-b for something below a.
type inMemory struct{ *objstore.InMemBucket }

func (b inMemory) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return b.InMemBucket.Upload(ctx, name, r, opts...)
}

func (b inMemory) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	if dir != "" {
		dir = strings.TrimSuffix(dir, "/") + "/"
	}
	return b.InMemBucket.Iter(ctx, dir, f, opts...)
}

func TestInMemoryKeepsTheLaws(t *testing.T) {
	Run(t, func(*testing.T) objstore.Bucket { return inMemory{objstore.NewInMemBucket()} })
}

package integration

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/bucket/buckettest"
	"github.com/amphora-metrics/amphora/pkg/config"
)

func TestS3KeepsTheLawsOfBuckets(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server, err := harness.StartS3(ctx, harness.TestLog(t), t.TempDir(), 0, "laws")
	harness.Need(t, err)
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	var c bucket.Config
	config.NewSet().Mount("blocks_storage", &c)
	c.Backend = bucket.S3
	c.S3.Endpoint, c.S3.Insecure, c.S3.Region, c.S3.BucketName = server.Endpoint, true, server.Region, "laws"
	c.S3.AccessKeyID, c.S3.SecretAccessKey = server.AccessKey, server.SecretKey
	c.S3.BucketLookup = "path"
	buckettest.RunConditional(t, func(t *testing.T) bucket.Conditional {
		b, err := bucket.OpenConditional(ctx, c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	runs := 0
	buckettest.Run(t, func(t *testing.T) objstore.Bucket {
		b, err := bucket.New(ctx, c, "test", slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		runs++
		return objstore.NewPrefixedBucket(b, fmt.Sprint("run", runs))
	})
}

// looksFirst compares versions before it removes: the server of this test does not look at the
// conditions of a removal.
type looksFirst struct{ bucket.Conditional }

func (l looksFirst) Remove(ctx context.Context, name, expect string) error {
	if o, err := l.Read(ctx, name); err != nil || o.Version != expect {
		return bucket.ErrChanged
	}
	return l.Conditional.Remove(ctx, name, expect)
}

func TestGCSKeepsTheLawsOfBuckets(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server, err := harness.StartGCS(ctx, harness.TestLog(t), t.TempDir(), "laws")
	if server != nil {
		t.Cleanup(func() {
			if err := server.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	harness.Need(t, err)
	t.Setenv("STORAGE_EMULATOR_HOST", server.Address) // which the driver looks at
	var c bucket.Config
	config.NewSet().Mount("blocks_storage", &c)
	c.Backend = bucket.GCS
	c.GCS.BucketName, c.GCS.ServiceAccount = "laws", server.ServiceAccount
	buckettest.RunConditional(t, func(t *testing.T) bucket.Conditional {
		b, err := bucket.OpenConditional(ctx, c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return looksFirst{b}
	})
	runs := 0
	buckettest.Run(t, func(t *testing.T) objstore.Bucket {
		b, err := bucket.New(ctx, c, "test", slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		runs++
		return objstore.NewPrefixedBucket(b, fmt.Sprint("run", runs))
	})
}

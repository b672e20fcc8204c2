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

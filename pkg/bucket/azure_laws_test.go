package bucket_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/bucket/buckettest"
	"github.com/amphora-metrics/amphora/pkg/config"
)

// azureOf is the configuration that leads to a.
func azureOf(a *buckettest.Azure) bucket.Config {
	var c bucket.Config
	config.NewSet().Mount("blocks_storage", &c)
	c.Backend = bucket.Azure
	c.Azure.AccountName, c.Azure.ConnectionString, c.Azure.ContainerName = a.Account, a.Connection, a.Container
	return c
}

func TestAzureKeepsTheLaws(t *testing.T) {
	c := azureOf(buckettest.NewAzure(t))
	runs := 0
	buckettest.Run(t, func(t *testing.T) objstore.Bucket {
		b, err := bucket.New(t.Context(), c, "test", slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		runs++
		return objstore.NewPrefixedBucket(b, fmt.Sprint("run", runs))
	})
}

func TestAzureSwapsConditionally(t *testing.T) {
	c := azureOf(buckettest.NewAzure(t))
	buckettest.RunConditional(t, func(t *testing.T) bucket.Conditional {
		b, err := bucket.OpenConditional(t.Context(), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
}

func TestAWrongKeyIsRefused(t *testing.T) {
	a := buckettest.NewAzure(t)
	c := azureOf(a)
	c.Azure.ConnectionString = strings.Replace(c.Azure.ConnectionString, a.Key, "d3Jvbmc=", 1)
	b, err := bucket.New(t.Context(), c, "test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "AuthenticationFailed") {
		t.Errorf("%v, want AuthenticationFailed", err)
	}
}

package bucket_test

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/bucket/buckettest"
	"github.com/amphora-metrics/amphora/pkg/config"
)

func TestFilesystemKeepsTheLaws(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) objstore.Bucket {
		var cfg bucket.Config
		config.NewSet().Mount("blocks_storage", &cfg)
		cfg.Filesystem.Dir = t.TempDir()
		cfg.StoragePrefix = "cell1"
		b, err := bucket.New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		return b
	})
}

func TestFilesystemStandsConcurrentUse(t *testing.T) {
	b, err := bucket.NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	buckettest.Churn(t, b)
}

func TestFilesystemSwapsConditionally(t *testing.T) {
	dir := t.TempDir()
	buckettest.RunConditional(t, func(t *testing.T) bucket.Conditional {
		var cfg bucket.Config
		config.NewSet().Mount("blocks_storage", &cfg)
		cfg.Filesystem.Dir, cfg.StoragePrefix = dir, "cell1"
		b, err := bucket.OpenConditional(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		return b
	})
}

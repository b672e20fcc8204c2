package compactor

import (
	"context"
	"io"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// counted counts the requests of planning: listings, and meta files that are read.
type counted struct {
	objstore.Bucket
	listings, metas, marks atomic.Int64
}

func (c *counted) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	c.listings.Add(1)
	return c.Bucket.Iter(ctx, dir, f, options...)
}

func (c *counted) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if path.Base(name) == block.MetaFile {
		c.metas.Add(1)
	}
	if strings.HasSuffix(name, block.DeletionMarkFile) {
		c.marks.Add(1)
	}
	return c.Bucket.Get(ctx, name)
}

// hung does something once, when the index of a block is read.
type hung struct {
	objstore.Bucket
	meanwhile func()
	once      sync.Once
}

func (h *hung) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if path.Base(name) == block.IndexFile {
		h.once.Do(h.meanwhile)
	}
	return h.Bucket.Get(ctx, name)
}

func TestACompactorThatHungPublishesNothingThatAnotherDidMeanwhile(t *testing.T) {
	for name, shards := range map[string]int{"merged": 0, "split": 2} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.limits = limits.CompactorSplitAndMergeShards.With(w.limits, shards)
			w.replica(0, 10, oneOf(0))
			w.replica(0, 10, oneOf(1))
			w.replica(0, 10, oneOf(2))
			slow := w.compactor()
			w.dir = t.TempDir() // of another process
			quick := w.compactor()
			slow.deps.Bucket = &hung{Bucket: slow.deps.Bucket, meanwhile: func() {
				if err := quick.Compact(t.Context()); err != nil {
					t.Error(err)
				}
			}}
			if err := slow.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.whole("after")
			all, err := block.ScanBlocks(t.Context(), w.tenantBucket(), nil, w.now)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(all.Index.Blocks), 3+max(shards, 1); got != want {
				t.Errorf("%d blocks, want %d: the sources and what was made of them once", got, want)
			}
		})
	}
}

func TestOneListingServesAllJobsOfARound(t *testing.T) {
	for name, shards := range map[string]int{"merged": 0, "split": 2} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.limits = limits.CompactorSplitAndMergeShards.With(w.limits, shards)
			const days = 1
			for from := int64(0); from < days*24; from += 2 {
				w.replica(from, 10, nil)
				w.replica(from, 10, oneOf(2))
			}
			c := w.compactor()
			requests := &counted{Bucket: c.deps.Bucket}
			c.deps.Bucket = requests
			if err := c.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.whole("after")
			n := len(w.index())
			if want := days * max(shards, 1); n != want {
				t.Errorf("%d blocks, want %d", n, want)
			}
			jobs := int64(12*days + 2*days + days) // of 2, 12 and 24 hours
			if shards > 0 {
				jobs = int64(12*days + 2*(2*days+days)) // splits make shards of whole ranges at once
			}
			// Tenants, and marks and blocks before and after; then the marks before each job and before its
			// results are published.
			if got := requests.listings.Load(); got > 5+2*jobs {
				t.Errorf("%d listings for %d jobs", got, jobs)
			}
			// Those of the first blocks twice, by the listing and by their job, and those of new blocks once,
			// when the upload looks whether they are there.
			if got := requests.metas.Load(); got > 2*24*days+2*jobs {
				t.Errorf("%d meta files read for %d jobs", got, jobs)
			}
			if n := requests.marks.Load(); n != 0 {
				t.Errorf("%d marks were read that the compactor set itself", n)
			}
			t.Logf("%d listings, %d meta files for %d jobs", requests.listings.Load(), requests.metas.Load(), jobs)
		})
	}
}

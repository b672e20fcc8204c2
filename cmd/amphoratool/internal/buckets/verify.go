package buckets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/inspection"
	"github.com/amphora-metrics/amphora/pkg/block"
)

// verify names what is wrong, of every chosen tenant, and fails if anything is.
func (c *command) verify(ctx context.Context) error {
	blocks, faults := 0, 0
	fault := func(format string, args ...any) {
		faults++
		c.Say(format, args...)
	}
	err := c.each(ctx, func(id string, s *block.Scan, in []block.IndexedBlock) error {
		for _, b := range slices.SortedFunc(maps.Keys(s.Corrupted), ulid.ULID.Compare) {
			fault("%s/%s: %v", id, b, s.Corrupted[b])
		}
		for _, b := range s.Partial {
			c.Say("%s/%s: has no meta file: it is being uploaded or deleted, or was left behind", id, b)
		}
		p := c.Progress(id, int64(len(in)))
		defer p.Close()
		for _, b := range in {
			blocks++
			if err := c.verifyBlock(ctx, own(c.bkt, id), b.ID); err != nil {
				if ctx.Err() != nil {
					return err
				}
				fault("%s/%s: %v", id, b.ID, err)
			}
			p.Add(1)
		}
		return c.verifyIndex(ctx, id, s, fault)
	})
	if err != nil {
		return err
	}
	c.Say("%d blocks looked at, %d faults", blocks, faults)
	if faults > 0 {
		return fmt.Errorf("%d faults found", faults)
	}
	return nil
}

// verifyIndex compares the bucket index with what lies there. Blocks that came after it was written
// are no fault.
func (c *command) verifyIndex(ctx context.Context, id string, s *block.Scan, fault func(string, ...any)) error {
	idx, err := block.ReadBucketIndex(ctx, own(c.bkt, id))
	if err != nil {
		fault("%s: bucket index: %v", id, err)
		return nil
	}
	there := map[ulid.ULID]bool{}
	for _, b := range s.Index.Blocks {
		there[b.ID] = true
	}
	for _, b := range idx.Blocks {
		if !there[b.ID] {
			fault("%s/%s: is in the bucket index, and not in the bucket", id, b.ID)
		}
	}
	return nil
}

func (c *command) verifyBlock(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) (err error) {
	m, err := block.ReadMeta(ctx, bkt, id)
	if err != nil {
		return err
	}
	for _, f := range m.Thanos.Files {
		if f.RelPath == block.MetaFile {
			continue
		}
		a, err := bkt.Attributes(ctx, path.Join(id.String(), f.RelPath))
		switch {
		case bkt.IsObjNotFoundErr(err):
			return fmt.Errorf("its %s is missing", f.RelPath)
		case err != nil:
			return err
		case f.SizeBytes > 0 && a.Size != f.SizeBytes:
			return fmt.Errorf("its %s has %d bytes, %d are recorded", f.RelPath, a.Size, f.SizeBytes)
		}
	}
	if !c.deep {
		return nil
	}
	dir, err := os.MkdirTemp(c.scratch, "amphoratool-verify-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	to := filepath.Join(dir, id.String())
	if err := block.Download(ctx, bkt, m, to); err != nil {
		return err
	}
	return inspection.Check(ctx, to)
}

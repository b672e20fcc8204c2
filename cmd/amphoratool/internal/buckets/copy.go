package buckets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/pkg/block"
)

// copy copies blocks with their marks; the meta file goes last, as whoever publishes a block has it.
func (c *command) copy(ctx context.Context) (err error) {
	c.to.made = true
	to, err := c.to.open(ctx, c.Env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	copied, there := 0, 0
	err = c.each(ctx, func(id string, _ *block.Scan, in []block.IndexedBlock) error {
		p := c.Progress(id, int64(len(in)))
		defer p.Close()
		for _, b := range in {
			has, err := own(to, id).Exists(ctx, path.Join(b.ID.String(), block.MetaFile))
			if err != nil {
				return err
			}
			switch {
			case has:
				there++
			case c.dry:
				c.Say("%s/%s would be copied, %d bytes", id, b.ID, b.SizeBytes)
				copied++
			default:
				if err := c.copyBlock(ctx, own(c.bkt, id), own(to, id), b.ID); err != nil {
					return fmt.Errorf("copy block %s: %w", b.ID, err)
				}
				copied++
			}
			p.Add(1)
		}
		return nil
	})
	c.Say("blocks: %d copied, %d there already", copied, there)
	return err
}

func (c *command) copyBlock(ctx context.Context, from, to objstore.Bucket, id ulid.ULID) error {
	var names []string
	err := from.Iter(ctx, id.String()+"/", func(name string) error {
		if path.Base(name) != block.MetaFile {
			names = append(names, name)
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(c.concurrency, 1))
	for _, name := range names {
		g.Go(func() error { return copyObject(gctx, from, to, name) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, mark := range []string{block.DeletionMarkFile, block.NoCompactMarkFile} {
		name := path.Join(block.MarkersDir, id.String()+"-"+mark)
		if there, err := from.Exists(ctx, name); err != nil {
			return err
		} else if !there {
			continue
		}
		if err := copyObject(ctx, from, to, name); err != nil {
			return err
		}
	}
	return copyObject(ctx, from, to, path.Join(id.String(), block.MetaFile))
}

func copyObject(ctx context.Context, from, to objstore.Bucket, name string) (err error) {
	r, err := from.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := to.Upload(ctx, name, io.Reader(r)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

package buckets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
)

// reasonManual is why a block is set aside by hand; the word is Mimir's.
const reasonManual = "manual"

func (c *command) markAll(ctx context.Context) error {
	ids, err := c.blockIDs()
	if err != nil {
		return err
	}
	verb := "marked"
	if c.undo {
		verb = "unmarked"
	}
	bkt := own(c.bkt, c.tenantID)
	for _, id := range ids {
		if there, err := bkt.Exists(ctx, path.Join(id.String(), block.MetaFile)); err != nil || !there {
			return errors.Join(fmt.Errorf("block %s of tenant %s is not there", id, c.tenantID), err)
		}
		if c.dry {
			c.Say("%s would be %s: %s", id, verb, c.mark)
			continue
		}
		if err := c.markOne(ctx, bkt, id); err != nil {
			return err
		}
		c.Say("%s %s: %s", id, verb, c.mark)
	}
	return nil
}

func (c *command) markOne(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) error {
	switch {
	case c.mark == "deletion" && c.undo:
		return block.UnmarkForDeletion(ctx, bkt, id)
	case c.mark == "deletion":
		return block.MarkForDeletion(ctx, bkt, id, time.Now(), c.details)
	case c.undo:
		return block.UnmarkNoCompact(ctx, bkt, id)
	}
	return block.MarkNoCompact(ctx, bkt, id, time.Now(), reasonManual, c.details)
}

func (c *command) undelete(ctx context.Context) error {
	ids, err := c.blockIDs()
	if err != nil {
		return err
	}
	bkt := own(c.bkt, c.tenantID)
	if len(ids) == 0 {
		s, err := block.ScanBlocks(ctx, bkt, nil, time.Now())
		if err != nil {
			return err
		}
		for _, m := range s.Index.DeletionMarks {
			ids = append(ids, m.ID)
		}
	}
	for _, id := range ids {
		there, err := bkt.Exists(ctx, path.Join(id.String(), block.MetaFile))
		switch {
		case err != nil:
			return err
		case !there:
			c.Say("%s is gone, or its deletion has begun", id)
			continue
		case c.dry:
			c.Say("%s would be kept", id)
			continue
		}
		if err := block.UnmarkForDeletion(ctx, bkt, id); err != nil {
			return err
		}
		c.Say("%s is kept", id)
	}
	return nil
}

// inspect prints what there is of a block.
func (c *command) inspect(ctx context.Context) error {
	ids, err := c.blockIDs()
	if err != nil {
		return err
	}
	bkt := own(c.bkt, c.tenantID)
	for _, id := range ids {
		m, err := block.ReadMeta(ctx, bkt, id)
		if err != nil {
			return err
		}
		text, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return err
		}
		c.Say("%s", text)
		err = bkt.Iter(ctx, id.String()+"/", func(name string) error {
			a, err := bkt.Attributes(ctx, name)
			c.Say("%12d %s %s", a.Size, a.LastModified.UTC().Format(time.RFC3339), name)
			return err
		}, objstore.WithRecursiveIter())
		if err != nil {
			return err
		}
	}
	return nil
}

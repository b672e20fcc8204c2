package ingester

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/members"
)

// Files in a tenant's directory, beside its blocks.
const (
	shippedFile   = "shipped.json"
	compactedFile = "compacted.json"
)

// shippedBlocks says when a local block was found complete in the bucket, in Unix milliseconds.
type shippedBlocks map[ulid.ULID]int64

func readShipped(dir string) (shippedBlocks, error) {
	s := struct{ Shipped shippedBlocks }{shippedBlocks{}}
	err := readJSON(filepath.Join(dir, shippedFile), &s)
	if s.Shipped == nil {
		s.Shipped = shippedBlocks{}
	}
	return s.Shipped, err
}

func (s shippedBlocks) write(dir string) error {
	return writeJSON(dir, shippedFile, struct{ Shipped shippedBlocks }{s})
}

// compacted says which samples of the log are in blocks: those older than Before, in Unix
// milliseconds, of segments before Segment.
type compacted struct {
	Before  int64
	Segment int
}

func readCompacted(dir string) (compacted, error) {
	var c compacted
	err := readJSON(filepath.Join(dir, compactedFile), &c)
	return c, err
}

func (c compacted) write(dir string) error { return writeJSON(dir, compactedFile, c) }

// sinceFile in the data directory says since when this disk has all that was acknowledged here. A
// new or emptied disk has no such file, and so cannot pass for one that never lost anything.
const sinceFile = "complete-since.json"

type completeSince struct{ Since int64 } // Unix milliseconds

// always is the completeSince of an ingester that nobody ever wrote to before its disk was new: it
// cannot have lost anything.
const always = 1

// loadCompleteSince reads sinceFile, or begins it anew when there is none or the log lost something.
func (i *Ingester) loadCompleteSince(ctx context.Context, lost bool) error {
	var c completeSince
	if err := readJSON(filepath.Join(i.cfg.DataDir, sinceFile), &c); err != nil {
		i.log.Warn("complete-since file unreadable, earlier samples count as lost here; queries ask the other replicas for them", "err", err)
		c.Since, lost = 0, true
	}
	if c.Since == 0 || lost {
		fresh := c.Since == 0 && !lost && i.firstEver(ctx)
		if c.Since = i.now().UnixMilli(); fresh {
			c.Since = always
		}
		if err := writeJSON(i.cfg.DataDir, sinceFile, c); err != nil {
			return errs.New(errs.Unavailable, "write %s: %w", sinceFile, err)
		}
	}
	i.completeSince.Store(c.Since)
	return nil
}

// firstEver says whether this is the first start of an ingester of this name, as far as anybody can
// need to know: the ring remembers for as long as there are samples that are not in blocks, and does
// not know it.
func (i *Ingester) firstEver(ctx context.Context) bool {
	first, err := members.Unknown(ctx, i.lifecycler.KVStore, i.lifecycler.RingKey, i.lifecycler.ID, i.cfg.BlockRetention)
	return err == nil && first
}

// readJSON reads path into v; a file that does not exist leaves v as it is.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// writeJSON replaces the file name in dir by v; it is on disk when writeJSON returns.
func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replaceFile(dir, name, b)
}

// replaceFile replaces the file name in dir by one with the content b; it is on disk when
// replaceFile returns.
func replaceFile(dir, name string, b []byte) error {
	tmp := filepath.Join(dir, name+".tmp")
	if err := writeSynced(tmp, b); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package block

import (
	"bytes"
	"context"
	"encoding/json"
	"path"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
)

// DebugMetasDir below a tenant holds a copy of the meta file of every block that was published, which
// outlives the block: it tells what a deleted block was made of. Its name is that of Mimir and Thanos.
const DebugMetasDir = "debug/metas"

// PublishMeta writes the meta file of a block whose other files are there, which makes the block
// visible, after a copy of it for people; bkt is the tenant's. Errors: Unavailable.
func PublishMeta(ctx context.Context, bkt objstore.Bucket, m Meta) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	id := m.ULID.String()
	for _, name := range []string{path.Join(DebugMetasDir, id+".json"), path.Join(id, MetaFile)} {
		if err := bkt.Upload(ctx, name, bytes.NewReader(b)); err != nil {
			return storeError(ctx, bkt, err, "write %s", name)
		}
	}
	return nil
}

// ForgetDebugMetas removes the copies of meta files of blocks that were made before the given time and
// of which keep says that they are gone; bkt is the tenant's. It returns how many it removed. Errors:
// Unavailable.
func ForgetDebugMetas(ctx context.Context, bkt objstore.Bucket, before time.Time, keep func(ulid.ULID) bool) (n int, err error) {
	var names []string
	err = bkt.Iter(ctx, DebugMetasDir+"/", func(name string) error {
		id, perr := ulid.ParseStrict(strings.TrimSuffix(path.Base(name), ".json"))
		if perr == nil && ulid.Time(id.Time()).Before(before) && !keep(id) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return 0, storeError(ctx, bkt, err, "list %s", DebugMetasDir)
	}
	for _, name := range names {
		if err := bkt.Delete(ctx, name); err != nil && !bkt.IsObjNotFoundErr(err) {
			return n, storeError(ctx, bkt, err, "delete %s", name)
		}
		n++
	}
	return n, nil
}

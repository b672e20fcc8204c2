package block

import (
	"bytes"
	"context"
	"encoding/json"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Names of marks. Their places and contents are those of Mimir, Cortex and Thanos.
const (
	NoCompactMarkFile  = "no-compact-mark.json"
	TenantDeletionMark = "tenant-deletion-mark.json"
)

type noCompactMark struct {
	ID            ulid.ULID `json:"id"`
	Version       int       `json:"version"`
	Details       string    `json:"details,omitempty"`
	NoCompactTime int64     `json:"no_compact_time"` // seconds
	Reason        string    `json:"reason"`
}

// NoCompact says that a block is set aside from compaction, and why.
type NoCompact struct {
	ID              ulid.ULID
	Since           time.Time
	Reason, Details string
}

// MarkNoCompact sets block id aside from compaction; bkt is the tenant's. reason is a word,
// details a text for people.
func MarkNoCompact(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, now time.Time, reason, details string) error {
	return writeMark(ctx, bkt, id, NoCompactMarkFile, noCompactMark{ID: id, Version: markVersion, Details: details, NoCompactTime: now.Unix(), Reason: reason})
}

// UnmarkNoCompact takes that back.
func UnmarkNoCompact(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) error {
	return removeMark(ctx, bkt, id, NoCompactMarkFile)
}

// UnmarkForDeletion takes a deletion mark back, for as long as the block is there.
func UnmarkForDeletion(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) error {
	return removeMark(ctx, bkt, id, DeletionMarkFile)
}

// writeMark writes a mark to both of its places. The one beside the block is written first: a
// reader that sees the one among the tenant's marks then finds both.
func writeMark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, file string, mark any) error {
	b, err := json.Marshal(mark)
	if err != nil {
		return err
	}
	for _, name := range []string{path.Join(id.String(), file), path.Join(MarkersDir, id.String()+"-"+file)} {
		if err := bkt.Upload(ctx, name, bytes.NewReader(b)); err != nil {
			return storeError(ctx, bkt, err, "write %s of block %s", file, id)
		}
	}
	return nil
}

func removeMark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, file string) error {
	for _, name := range []string{path.Join(MarkersDir, id.String()+"-"+file), path.Join(id.String(), file)} {
		if err := bkt.Delete(ctx, name); err != nil && !bkt.IsObjNotFoundErr(err) {
			return storeError(ctx, bkt, err, "remove %s of block %s", file, id)
		}
	}
	return nil
}

// NoCompacts returns the blocks that are set aside, in the order of their IDs; bkt is the tenant's.
func NoCompacts(ctx context.Context, bkt objstore.BucketReader) ([]NoCompact, error) {
	marks, err := ListMarks(ctx, bkt)
	if err != nil {
		return nil, err
	}
	var out []NoCompact
	for id := range marks.NoCompact {
		b, err := readObject(ctx, bkt, path.Join(MarkersDir, id.String()+"-"+NoCompactMarkFile), maxMetaBytes)
		if err != nil && errs.KindOf(err) == errs.NotFound {
			continue // taken back meanwhile
		}
		if err != nil {
			return nil, err
		}
		var m noCompactMark
		if err := json.Unmarshal(b, &m); err != nil {
			m = noCompactMark{Reason: "corrupted", Details: "the mark cannot be read: " + err.Error()}
		}
		out = append(out, NoCompact{ID: id, Since: time.Unix(m.NoCompactTime, 0).UTC(), Reason: m.Reason, Details: m.Details})
	}
	slices.SortFunc(out, func(a, b NoCompact) int { return a.ID.Compare(b.ID) })
	return out, nil
}

// Marks are the marks that a listing of a tenant's part of the bucket found, without their contents.
type Marks struct {
	Deletion, NoCompact, Erased map[ulid.ULID]bool
	// Tenant says that the tenant is marked for deletion.
	Tenant bool
}

// ListMarks lists all marks of a tenant with one request for every thousand; bkt is the tenant's.
// Errors: Unavailable.
func ListMarks(ctx context.Context, bkt objstore.BucketReader) (Marks, error) {
	m := Marks{Deletion: map[ulid.ULID]bool{}, NoCompact: map[ulid.ULID]bool{}, Erased: map[ulid.ULID]bool{}}
	kinds := map[string]map[ulid.ULID]bool{DeletionMarkFile: m.Deletion, NoCompactMarkFile: m.NoCompact, erasedFile: m.Erased}
	err := bkt.Iter(ctx, MarkersDir+"/", func(name string) error {
		base := path.Base(name)
		if base == TenantDeletionMark {
			m.Tenant = true
		}
		if text, file, ok := strings.Cut(base, "-"); ok && kinds[file] != nil {
			if id, err := ulid.ParseStrict(text); err == nil {
				kinds[file][id] = true
			}
		}
		return nil
	})
	if err != nil {
		return Marks{}, storeError(ctx, bkt, err, "list marks")
	}
	return m, nil
}

// TenantDeletion says that a tenant is being deleted. Times are in seconds.
type TenantDeletion struct {
	DeletionTime int64 `json:"deletion_time"`
	// FinishedTime is when the last block was gone; 0: not yet.
	FinishedTime int64 `json:"finished_time,omitempty"`
}

// ReadTenantDeletion returns the mark of a tenant, nil if it has none; bkt is the tenant's.
func ReadTenantDeletion(ctx context.Context, bkt objstore.BucketReader) (*TenantDeletion, error) {
	b, err := readObject(ctx, bkt, path.Join(MarkersDir, TenantDeletionMark), maxMetaBytes)
	if err != nil && errs.KindOf(err) == errs.NotFound {
		return nil, nil //nolint:nilnil // No mark is no error, and the common case.
	}
	if err != nil {
		return nil, err
	}
	d := &TenantDeletion{}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, errs.New(errs.Internal, "%s is corrupted: %w", TenantDeletionMark, err)
	}
	return d, nil
}

// WriteTenantDeletion marks a tenant for deletion, or notes that it is done; bkt is the tenant's.
func WriteTenantDeletion(ctx context.Context, bkt objstore.Bucket, d TenantDeletion) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := bkt.Upload(ctx, path.Join(MarkersDir, TenantDeletionMark), bytes.NewReader(b)); err != nil {
		return storeError(ctx, bkt, err, "mark the tenant for deletion")
	}
	return nil
}

// Delete removes all objects of block id; bkt is the tenant's. The meta file goes first, so that
// what is left after an interruption is a partial block and not a broken one, and the marks go
// last, so that it is tried again. It returns how many objects it removed.
func Delete(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) (n int, err error) {
	remove := func(name string) error {
		if err := bkt.Delete(ctx, name); err != nil {
			if bkt.IsObjNotFoundErr(err) {
				return nil
			}
			return storeError(ctx, bkt, err, "delete %s", name)
		}
		n++
		return nil
	}
	if err := remove(path.Join(id.String(), MetaFile)); err != nil {
		return n, err
	}
	var names []string
	err = bkt.Iter(ctx, id.String()+"/", func(name string) error {
		if path.Base(name) != DeletionMarkFile {
			names = append(names, name)
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return n, storeError(ctx, bkt, err, "list block %s", id)
	}
	names = append(names, path.Join(id.String(), DeletionMarkFile), path.Join(MarkersDir, id.String()+"-"+erasedFile),
		path.Join(MarkersDir, id.String()+"-"+NoCompactMarkFile), path.Join(MarkersDir, id.String()+"-"+DeletionMarkFile))
	for _, name := range names {
		if err := remove(name); err != nil {
			return n, err
		}
	}
	return n, nil
}

// erasedFile among a tenant's marks says of which tombstones a block never had samples. It spares
// to look again, and is not repeated beside the block.
const erasedFile = "erased-mark.json"

type erasedMark struct {
	ID      ulid.ULID `json:"id"`
	Version int       `json:"version"`
	Erased  []string  `json:"erased"`
}

// MarkErased notes that block id has no samples of tombstones; bkt is the tenant's.
func MarkErased(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, tombstones []string) error {
	b, err := json.Marshal(erasedMark{ID: id, Version: markVersion, Erased: tombstones})
	if err != nil {
		return err
	}
	name := path.Join(MarkersDir, id.String()+"-"+erasedFile)
	if err := bkt.Upload(ctx, name, bytes.NewReader(b)); err != nil {
		return storeError(ctx, bkt, err, "write %s", name)
	}
	return nil
}

// ReadErased returns what MarkErased noted of the blocks ids; bkt is the tenant's. Errors: Unavailable.
func ReadErased(ctx context.Context, bkt objstore.BucketReader, ids map[ulid.ULID]bool) (map[ulid.ULID][]string, error) {
	var mu sync.Mutex // guards out
	out := map[ulid.ULID][]string{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(listConcurrency)
	for id := range ids {
		g.Go(func() error {
			b, err := readObject(gctx, bkt, path.Join(MarkersDir, id.String()+"-"+erasedFile), maxMetaBytes)
			if err != nil && errs.KindOf(err) == errs.NotFound {
				return nil // deleted meanwhile
			}
			if err != nil {
				return err
			}
			var m erasedMark
			if json.Unmarshal(b, &m) == nil { // otherwise the block is looked into again
				mu.Lock()
				out[id] = m.Erased
				mu.Unlock()
			}
			return nil
		})
	}
	return out, g.Wait()
}

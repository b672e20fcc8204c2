// Package block owns blocks in object storage: where a block's files and marks lie below a tenant,
// how a block is published and found, and how its series are read. The layout and the meta file are
// those of Prometheus, Thanos and Mimir.
package block

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// The names of a block's objects, below <tenant>/<ulid>/.
const (
	MetaFile         = "meta.json"
	IndexFile        = "index"
	ChunksDir        = "chunks"
	DeletionMarkFile = "deletion-mark.json"
)

// MarkersDir lies below a tenant and repeats the marks of its blocks as <ulid>-<mark file>, so
// that one listing finds them all.
const MarkersDir = "markers"

const (
	metaVersion   = 1
	thanosVersion = 1
	markVersion   = 1

	// source names Amphora's ingesters in the meta file's thanos section.
	source = "amphora"

	// maxMetaBytes bounds a meta file in memory. One that lists the sources of a year of
	// two-hour blocks of 300 ingesters has 40 MB.
	maxMetaBytes = 64 << 20

	// listConcurrency is how many meta files are fetched at the same time.
	listConcurrency = 16
)

// Meta is the meta file of a block.
type Meta struct {
	tsdb.BlockMeta
	Thanos Thanos `json:"thanos"`
	// Amphora is what other programs do not know; nil in blocks of theirs.
	Amphora *Amphora `json:"amphora,omitempty"`
}

// Amphora is the section of the meta file that is Amphora's own.
type Amphora struct {
	// Erased are the IDs of the tombstones whose samples were left out when the block was made.
	Erased []string `json:"erased,omitempty"`
}

// Thanos is the section of the meta file that TSDB itself does not know.
type Thanos struct {
	Version    int               `json:"version,omitempty"`
	Labels     map[string]string `json:"labels"`
	Downsample Downsample        `json:"downsample"`
	Source     string            `json:"source"`
	Files      []File            `json:"files,omitempty"`
}

// Downsample tells the resolution of a block, in milliseconds; 0 is raw.
type Downsample struct {
	Resolution int64 `json:"resolution"`
}

// File is one object of a block. The meta file itself is listed without a size.
type File struct {
	RelPath   string `json:"rel_path"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
	Hash      *Hash  `json:"hash,omitempty"`
}

// Hash is the checksum of a file; Func is "SHA256" and Value hexadecimal.
type Hash struct {
	Func  string `json:"hashFunc"`
	Value string `json:"value"`
}

// hashSHA256 is the one hash function in use.
const hashSHA256 = "SHA256"

// Overlaps says whether the block may hold samples with mint <= t <= maxt. A block's own maximum
// is exclusive.
func (m *Meta) Overlaps(mint, maxt int64) bool { return m.MinTime <= maxt && mint < m.MaxTime }

// ParseMeta reads a meta file. Errors have no kind.
func ParseMeta(b []byte) (Meta, error) { return parseMeta(b) }

func parseMeta(b []byte) (Meta, error) {
	var m Meta
	if err := json.Unmarshal(b, &m); err != nil {
		return Meta{}, err
	}
	switch {
	case m.Version != metaVersion:
		return Meta{}, fmt.Errorf("version %d is unknown", m.Version)
	case m.ULID == ulid.ULID{}:
		return Meta{}, errors.New("it names no block")
	case m.MinTime > m.MaxTime:
		return Meta{}, fmt.Errorf("time range %d-%d is backwards", m.MinTime, m.MaxTime)
	}
	return m, nil
}

// ReadMeta returns the meta file of block id; bkt is the tenant's. Errors: NotFound while the
// block is not fully uploaded or gone, Internal if the file makes no sense, Unavailable.
func ReadMeta(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (Meta, error) {
	b, err := readObject(ctx, bkt, path.Join(id.String(), MetaFile), maxMetaBytes)
	if err != nil {
		return Meta{}, err
	}
	return metaOf(b, id)
}

// metaOf reads the meta file of block id.
func metaOf(b []byte, id ulid.ULID) (Meta, error) {
	m, err := parseMeta(b)
	if err == nil && m.ULID != id {
		err = fmt.Errorf("it is of block %s", m.ULID)
	}
	if err != nil {
		return Meta{}, errs.New(errs.Internal, "meta file of block %s is corrupted: %w", id, err)
	}
	return m, nil
}

func readObject(ctx context.Context, bkt objstore.BucketReader, name string, most int64) ([]byte, error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return nil, storeError(ctx, bkt, err, "read %s", name)
	}
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, storeError(ctx, bkt, err, "read %s", name)
	}
	if int64(len(b)) > most {
		return nil, errs.New(errs.Internal, "read %s: it is larger than %d bytes", name, most)
	}
	return b, nil
}

// storeError gives an error of the object storage its kind and says what was being done. err must
// come from bkt as it is: drivers do not look into wrapped errors.
func storeError(ctx context.Context, bkt objstore.BucketReader, err error, format string, args ...any) error {
	kind := errs.Unavailable
	switch {
	case ctx.Err() != nil:
		kind = errs.KindOf(ctx.Err())
	case bkt.IsObjNotFoundErr(err):
		kind = errs.NotFound
	case errs.KindOf(err) == errs.RateLimited: // by a Budget
		kind = errs.RateLimited
	}
	return errs.New(kind, "%s: %w", fmt.Sprintf(format, args...), err)
}

// blockOf returns the block that a directory of a tenant's listing belongs to.
func blockOf(dir string) (ulid.ULID, bool) {
	name, isDir := strings.CutSuffix(dir, "/")
	id, err := ulid.ParseStrict(name)
	return id, isDir && err == nil && id.String() == name
}

type deletionMark struct {
	ID           ulid.ULID `json:"id"`
	Version      int       `json:"version"`
	Details      string    `json:"details,omitempty"`
	DeletionTime int64     `json:"deletion_time"` // seconds
	// Obsolete says that compaction or retention set the mark.
	Obsolete bool `json:"amphora_obsolete,omitempty"`
}

// MarkForDeletion marks block id at time now as one that an operator wants to go, for the reason why;
// bkt is the tenant's.
func MarkForDeletion(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, now time.Time, why string) error {
	return writeMark(ctx, bkt, id, DeletionMarkFile, deletionMark{ID: id, Version: markVersion, Details: why, DeletionTime: now.Unix()})
}

// MarkObsolete marks block id as replaced or expired at time now, for the reason why: queries that
// do not find it any more answer as before. bkt is the tenant's.
func MarkObsolete(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, now time.Time, why string) error {
	return writeMark(ctx, bkt, id, DeletionMarkFile, deletionMark{ID: id, Version: markVersion, Details: why, DeletionTime: now.Unix(), Obsolete: true})
}

// Tenants returns the tenants that have something in bkt, sorted.
func Tenants(ctx context.Context, bkt objstore.BucketReader) ([]tenant.ID, error) {
	var ids []tenant.ID
	err := bkt.Iter(ctx, "", func(name string) error {
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			if id, err := tenant.Parse(dir); err == nil {
				ids = append(ids, id)
			}
		}
		return nil
	})
	if err != nil {
		return nil, storeError(ctx, bkt, err, "list tenants")
	}
	slices.Sort(ids)
	return ids, nil
}

package block

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Tags are what a block is published with.
type Tags struct {
	External map[string]string // labels by which compactors tell kinds of blocks apart
	Erased   []string          // as in Amphora
}

// Upload publishes the block in directory dir as Publish does.
func Upload(ctx context.Context, logger *slog.Logger, bkt objstore.Bucket, dir string, tags Tags) error {
	_, err := Publish(ctx, logger, bkt, dir, tags)
	return err
}

// Publish publishes the block in directory dir and returns its meta file; bkt is the tenant's. It checks the block first and
// refuses one that is damaged. The meta file goes last, so the block is invisible until it is
// complete; calling again after an error, or after success, is safe. Nothing is deleted locally.
// Errors: Internal for a block that must not be published, Unavailable for the storage.
func Publish(ctx context.Context, logger *slog.Logger, bkt objstore.Bucket, dir string, tags Tags) (Meta, error) {
	start := time.Now()
	meta, err := verify(dir)
	if err != nil {
		return meta, fmt.Errorf("check block %s before upload: %w", dir, err)
	}
	maps.Copy(meta.Thanos.Labels, tags.External)
	if meta.Amphora = nil; len(tags.Erased) > 0 {
		meta.Amphora = &Amphora{Erased: tags.Erased}
	}
	id := meta.ULID.String()
	remote, err := ReadMeta(ctx, bkt, meta.ULID)
	switch {
	case err == nil && sameFiles(remote, meta):
		return meta, nil
	case err != nil && errs.KindOf(err) == errs.Unavailable, ctx.Err() != nil:
		return meta, fmt.Errorf("upload block %s: %w", id, err)
	}
	var size int64
	for _, f := range meta.Thanos.Files {
		if f.RelPath == MetaFile {
			continue
		}
		if err := uploadFile(ctx, bkt, path.Join(id, f.RelPath), filepath.Join(dir, f.RelPath)); err != nil {
			return meta, fmt.Errorf("upload block %s: %w", id, err)
		}
		size += f.SizeBytes
	}
	if err := PublishMeta(ctx, bkt, meta); err != nil {
		return meta, fmt.Errorf("upload block %s: %w", id, err)
	}
	logger.Info("block uploaded", "block", id, "bytes", size, "series", meta.Stats.NumSeries, "samples", meta.Stats.NumSamples, "took", time.Since(start))
	return meta, nil
}

// sameFiles says whether a published block is the local one.
func sameFiles(remote, local Meta) bool {
	if len(remote.Thanos.Files) != len(local.Thanos.Files) {
		return false
	}
	for i, r := range remote.Thanos.Files {
		l := local.Thanos.Files[i]
		if r.RelPath != l.RelPath || r.SizeBytes != l.SizeBytes {
			return false
		}
		if r.Hash != nil && l.Hash != nil && *r.Hash != *l.Hash {
			return false
		}
	}
	return true
}

// verify checks that the block in dir is whole and returns its meta file with the section about
// its files.
func verify(dir string) (Meta, error) {
	b, err := os.ReadFile(filepath.Join(dir, MetaFile))
	if err != nil {
		return Meta{}, errs.Wrap(errs.Internal, err)
	}
	meta, err := parseMeta(b)
	if err != nil {
		return Meta{}, errs.New(errs.Internal, "its meta file is corrupted: %w", err)
	}
	if meta.Stats.NumTombstones > 0 {
		return Meta{}, errs.New(errs.Internal, "it has %d tombstones, which do not travel; compact them away first", meta.Stats.NumTombstones)
	}
	segments, err := verifyData(dir)
	if err != nil {
		return Meta{}, errs.Wrap(errs.Internal, err)
	}
	meta.Thanos = Thanos{Version: thanosVersion, Labels: map[string]string{}, Source: source}
	for _, rel := range append(segments, IndexFile) {
		f, err := describe(dir, rel)
		if err != nil {
			return Meta{}, errs.Wrap(errs.Internal, err)
		}
		meta.Thanos.Files = append(meta.Thanos.Files, f)
	}
	meta.Thanos.Files = append(meta.Thanos.Files, File{RelPath: MetaFile})
	return meta, nil
}

// verifyData opens the index, which checks its table of contents and symbols, and the chunk
// segments, and returns the paths of the latter relative to dir.
func verifyData(dir string) (segments []string, err error) {
	ir, err := index.NewFileReader(filepath.Join(dir, IndexFile), index.DecodePostingsRaw)
	if err != nil {
		return nil, fmt.Errorf("open its index: %w", err)
	}
	defer func() { err = errors.Join(err, ir.Close()) }()
	entries, err := os.ReadDir(filepath.Join(dir, ChunksDir))
	if err != nil {
		return nil, fmt.Errorf("list its chunks: %w", err)
	}
	for i, e := range entries {
		if want := fmt.Sprintf("%06d", i+1); e.Name() != want {
			return nil, fmt.Errorf("chunk segment %s is missing, or %s does not belong here", want, e.Name())
		}
		segments = append(segments, path.Join(ChunksDir, e.Name()))
	}
	cr, err := chunks.NewDirReader(filepath.Join(dir, ChunksDir), nil)
	if err != nil {
		return nil, fmt.Errorf("open its chunks: %w", err)
	}
	return segments, cr.Close()
}

// NoteSums writes the checksums of the files of m, which lie in dir, into m.
func NoteSums(m *Meta, dir string) error {
	files := slices.Clone(m.Thanos.Files)
	for i, f := range files {
		if !isData(f.RelPath) {
			continue
		}
		found, err := describe(dir, f.RelPath)
		if err != nil {
			return errs.Wrap(errs.Unavailable, err)
		}
		files[i].Hash = found.Hash
	}
	m.Thanos.Files = files
	return nil
}

func describe(dir, rel string) (_ File, err error) {
	f, err := os.Open(filepath.Join(dir, rel))
	if err != nil {
		return File{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return File{}, err
	}
	return File{RelPath: rel, SizeBytes: n, Hash: &Hash{Func: hashSHA256, Value: hex.EncodeToString(sum.Sum(nil))}}, nil
}

func uploadFile(ctx context.Context, bkt objstore.Bucket, name, file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return errs.Wrap(errs.Internal, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := bkt.Upload(ctx, name, f); err != nil {
		return storeError(ctx, bkt, err, "upload %s", name)
	}
	return nil
}

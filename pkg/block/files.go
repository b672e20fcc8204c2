package block

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// filesOf returns the data files of a block with their sizes: from its meta file, or, if an older
// writer left them out there, from the storage. bkt is the block's.
func filesOf(ctx context.Context, bkt objstore.BucketReader, m Meta) ([]File, error) {
	files := slices.DeleteFunc(slices.Clone(m.Thanos.Files), func(f File) bool { return !isData(f.RelPath) })
	if len(files) == 0 {
		names := []string{IndexFile}
		err := bkt.Iter(ctx, ChunksDir+"/", func(name string) error { names = append(names, name); return nil })
		if err != nil {
			return nil, storeError(ctx, bkt, err, "list its chunks")
		}
		for _, name := range names {
			attrs, err := bkt.Attributes(ctx, name)
			if err != nil {
				return nil, storeError(ctx, bkt, err, "look up its %s", name)
			}
			files = append(files, File{RelPath: name, SizeBytes: attrs.Size})
		}
		files = slices.DeleteFunc(files, func(f File) bool { return !isData(f.RelPath) })
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.RelPath, b.RelPath) })
	return files, complete(files)
}

// IsData says whether a path relative to a block is one of its data files.
func IsData(rel string) bool { return isData(rel) }

// isData says whether a path of a block is one of those that hold its data. A meta file is
// foreign: no other path of it is ever opened.
func isData(rel string) bool {
	if rel == IndexFile {
		return true
	}
	dir, seg := path.Split(rel)
	return dir == ChunksDir+"/" && len(seg) == 6 && strings.Trim(seg, "0123456789") == ""
}

// complete checks that sorted files are an index and chunk segments without a gap.
func complete(files []File) error {
	for i, f := range files {
		want := fmt.Sprintf("%s/%06d", ChunksDir, i+1)
		if i == len(files)-1 {
			want = IndexFile
		}
		if f.RelPath != want || f.SizeBytes < 0 {
			return errs.New(errs.Internal, "it is corrupted: %s should be %s", f.RelPath, want)
		}
	}
	if len(files) == 0 {
		return errs.New(errs.Internal, "it is corrupted: it has no files")
	}
	return nil
}

// How large files of blocks are at most: references to series and chunks cannot name what lies further behind.
const (
	maxIndexBytes   = 1 << 37
	maxSegmentBytes = 1 << 33
)

// sane checks sizes that somebody announced before room is made for what is known of so many pages.
func sane(index int64, segments []File) error {
	if index > maxIndexBytes {
		return errs.New(errs.Internal, "it is corrupted: an index of %d bytes is announced, the most is %d", index, int64(maxIndexBytes))
	}
	for _, f := range segments {
		if f.SizeBytes > maxSegmentBytes {
			return errs.New(errs.Internal, "it is corrupted: %s of %d bytes is announced, the most is %d", f.RelPath, f.SizeBytes, int64(maxSegmentBytes))
		}
	}
	return nil
}

// Download copies block m to dir, which must be empty or missing, and checks sizes, and checksums
// where the meta file has them; bkt is the tenant's. Errors: Internal if the block is damaged,
// NotFound if it is gone, Unavailable.
func Download(ctx context.Context, bkt objstore.Bucket, m Meta, dir string) error {
	own := objstore.NewPrefixedBucket(bkt, m.ULID.String())
	files, err := filesOf(ctx, own, m)
	if err != nil {
		return fmt.Errorf("download block %s: %w", m.ULID, err)
	}
	if err := download(ctx, own, m, files, dir); err != nil {
		return fmt.Errorf("download block %s: %w", m.ULID, err)
	}
	return nil
}

func download(ctx context.Context, bkt objstore.BucketReader, m Meta, files []File, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, ChunksDir), 0o750); err != nil {
		return err
	}
	for _, f := range files {
		if err := downloadFile(ctx, bkt, f, filepath.Join(dir, filepath.FromSlash(f.RelPath))); err != nil {
			return err
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, MetaFile), b, 0o640)
}

func downloadFile(ctx context.Context, bkt objstore.BucketReader, f File, to string) (err error) {
	r, err := bkt.Get(ctx, f.RelPath)
	if err != nil {
		return storeError(ctx, bkt, err, "get its %s", f.RelPath)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	sum := sha256.New()
	out := io.Writer(w)
	if f.Hash != nil && f.Hash.Func == hashSHA256 {
		out = io.MultiWriter(w, sum)
	}
	n, err := io.Copy(out, io.LimitReader(r, f.SizeBytes+1))
	if err != nil {
		return storeError(ctx, bkt, err, "get its %s", f.RelPath)
	}
	if n != f.SizeBytes {
		return errs.New(errs.Internal, "its %s is corrupted: %d bytes or more, %d are recorded", f.RelPath, n, f.SizeBytes)
	}
	if f.Hash != nil && f.Hash.Func == hashSHA256 {
		if got := hex.EncodeToString(sum.Sum(nil)); got != f.Hash.Value {
			return errs.New(errs.Internal, "its %s is corrupted: checksum %s, %s is recorded", f.RelPath, got, f.Hash.Value)
		}
	}
	return nil
}

// DownloadIndex copies the index of block m to the file to; bkt is the tenant's. Errors: as Download.
func DownloadIndex(ctx context.Context, bkt objstore.Bucket, m Meta, to string) error {
	own := objstore.NewPrefixedBucket(bkt, m.ULID.String())
	files, err := filesOf(ctx, own, m)
	if err == nil {
		err = downloadFile(ctx, own, files[len(files)-1], to) // the index comes last
	}
	if err != nil {
		return fmt.Errorf("download the index of block %s: %w", m.ULID, err)
	}
	return nil
}

package block

import (
	"context"
	"fmt"
	"path"
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

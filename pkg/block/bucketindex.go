package block

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// BucketIndexFile lies below a tenant and lists its blocks and deletion marks, so that whoever reads
// it needs no listing of the bucket. Name and content are those of Mimir and Cortex.
const BucketIndexFile = "bucket-index.json.gz"

const (
	bucketIndexVersion = 2

	// maxBucketIndexBytes bounds a bucket index in memory, packed and unpacked: 200 bytes a block
	// make five million blocks.
	maxBucketIndexBytes = 1 << 30

	// segmentsFormat names chunk segments that are numbered from 1 with six digits.
	segmentsFormat = "1b6d"
)

// Labels of a block's meta file that say where it comes from. Queries do not see them.
const (
	// ShardLabel holds "<i>_of_<n>", i from 1: the block has the series whose labels hash modulo n
	// is i-1.
	ShardLabel = "__compactor_shard_id__"
	// OutOfOrderLabel is "true" for a block of late samples.
	OutOfOrderLabel = "__out_of_order__"
)

// BucketIndex is the blocks of one tenant as of UpdatedAt.
type BucketIndex struct {
	Version       int            `json:"version"`
	Blocks        []IndexedBlock `json:"blocks"`
	DeletionMarks []IndexedMark  `json:"block_deletion_marks"`
	UpdatedAt     int64          `json:"updated_at"` // seconds
	// Altered is what operators did, oldest first.
	Altered []Alteration `json:"amphora_altered,omitempty"`
}

// IndexedBlock is what the index says of a complete block. MinTime <= t < MaxTime, in milliseconds.
type IndexedBlock struct {
	ID              ulid.ULID         `json:"block_id"`
	MinTime         int64             `json:"min_time"`
	MaxTime         int64             `json:"max_time"`
	SegmentsFormat  string            `json:"segments_format,omitempty"`
	SegmentsNum     int               `json:"segments_num,omitempty"`
	CompactorShard  string            `json:"compactor_shard_id,omitempty"`
	Source          string            `json:"source,omitempty"`
	CompactionLevel int               `json:"compaction_level,omitempty"`
	OutOfOrder      bool              `json:"out_of_order,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	UploadedAt      int64             `json:"uploaded_at"` // seconds
	// SizeBytes is the block's size; 0 if its meta file does not tell.
	SizeBytes int64 `json:"size_bytes,omitempty"`
	// Resolution is that of a downsampled block, in milliseconds; 0: raw.
	Resolution int64 `json:"resolution,omitempty"`
	// Erased are the IDs of the tombstones whose samples the block lacks.
	Erased []string `json:"erased,omitempty"`
	// Shape spares readers the meta file; nil if nobody noted it.
	Shape *Shape `json:"amphora_shape,omitempty"`
}

// Shape is what a reader must know of a block before it reads its index: the sizes of its files in
// bytes, and how many series it has.
type Shape struct {
	Index    int64   `json:"index"`
	Segments []int64 `json:"segments"` // by their numbers
	Series   uint64  `json:"series"`
}

// IndexedMark says that a block is marked for deletion, and since when.
type IndexedMark struct {
	ID           ulid.ULID `json:"block_id"`
	DeletionTime int64     `json:"deletion_time"` // seconds
}

// Overlaps says whether the block may hold samples with mint <= t <= maxt.
func (b *IndexedBlock) Overlaps(mint, maxt int64) bool { return b.MinTime <= maxt && mint < b.MaxTime }

// Indexed returns what the bucket index says of a block that was uploaded at the given time.
func (m *Meta) Indexed(uploaded time.Time) IndexedBlock {
	b := IndexedBlock{
		ID: m.ULID, MinTime: m.MinTime, MaxTime: m.MaxTime, UploadedAt: uploaded.Unix(),
		CompactorShard: m.Thanos.Labels[ShardLabel], Source: m.Thanos.Source, CompactionLevel: m.Compaction.Level,
		OutOfOrder: m.Compaction.FromOutOfOrder() || m.Thanos.Labels[OutOfOrderLabel] == "true",
		Resolution: m.Thanos.Downsample.Resolution,
	}
	if m.Amphora != nil {
		b.Erased = m.Amphora.Erased
	}
	for k, v := range m.Thanos.Labels {
		if k != ShardLabel && k != OutOfOrderLabel && !ofOldWriters(k) {
			if b.Labels == nil {
				b.Labels = map[string]string{}
			}
			b.Labels[k] = v
		}
	}
	for _, f := range m.Thanos.Files {
		b.SizeBytes += f.SizeBytes
		if strings.HasPrefix(f.RelPath, ChunksDir+"/") {
			b.SegmentsNum++
		}
	}
	if b.SegmentsNum > 0 {
		b.SegmentsFormat = segmentsFormat
	}
	b.Shape = m.shape()
	return b
}

// shape is nil if the meta file does not list the block's files as they must be.
func (m *Meta) shape() *Shape {
	files := slices.DeleteFunc(slices.Clone(m.Thanos.Files), func(f File) bool { return !isData(f.RelPath) })
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.RelPath, b.RelPath) })
	if complete(files) != nil {
		return nil
	}
	s := &Shape{Series: m.Stats.NumSeries}
	for _, f := range files {
		if f.RelPath == IndexFile {
			s.Index = f.SizeBytes
		} else {
			s.Segments = append(s.Segments, f.SizeBytes)
		}
	}
	return s
}

// ofOldWriters says whether a label of a meta file names who wrote the block in older versions of
// Cortex. It does not tell kinds of blocks apart: those of replicas differ in it.
func ofOldWriters(label string) bool {
	return label == "__org_id__" || label == "__ingester_id__" || label == "__shard_id__"
}

// ReadBucketIndex returns the index of a tenant; bkt is the tenant's. Errors: NotFound if there is
// none yet, Internal if it makes no sense, Unavailable.
func ReadBucketIndex(ctx context.Context, bkt objstore.BucketReader) (*BucketIndex, error) {
	packed, err := readObject(ctx, bkt, BucketIndexFile, maxBucketIndexBytes)
	if err != nil {
		return nil, err
	}
	idx, err := parseBucketIndex(packed)
	if err != nil {
		return nil, errs.New(errs.Internal, "%s is corrupted: %w", BucketIndexFile, err)
	}
	return idx, nil
}

func parseBucketIndex(packed []byte) (*BucketIndex, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(z, maxBucketIndexBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxBucketIndexBytes {
		return nil, fmt.Errorf("it is larger than %d bytes", maxBucketIndexBytes)
	}
	idx := &BucketIndex{}
	if err := json.Unmarshal(b, idx); err != nil {
		return nil, err
	}
	if idx.Version < 1 || idx.Version > bucketIndexVersion {
		return nil, fmt.Errorf("version %d is unknown", idx.Version)
	}
	return idx, nil
}

// WriteBucketIndex replaces the index of a tenant; bkt is the tenant's. Errors: Unavailable.
func WriteBucketIndex(ctx context.Context, bkt objstore.Bucket, idx *BucketIndex) error {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if err := json.NewEncoder(z).Encode(idx); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := bkt.Upload(ctx, BucketIndexFile, &out); err != nil {
		return storeError(ctx, bkt, err, "write %s", BucketIndexFile)
	}
	return nil
}

// Scan is what a look at a tenant's part of the bucket found.
type Scan struct {
	Index *BucketIndex
	// Marks are all marks, of blocks that are gone as well.
	Marks Marks
	// Partial are blocks without a meta file: being uploaded, being deleted, or left behind by an
	// upload that was cut off.
	Partial []ulid.ULID
	// Corrupted are blocks whose meta file makes no sense. They are in no index.
	Corrupted map[ulid.ULID]error

	obsolete map[ulid.ULID]bool // by marks that were read in this scan
}

// ScanBlocks lists a tenant's blocks and marks; bkt is the tenant's. Meta files and marks that old
// knows are not read again: a published block never changes, and neither does a mark but by being
// removed. old may be nil. Errors: Unavailable; never a part.
//
// The marks are listed before the blocks. A block is marked only after the block that replaces it
// is complete, so whoever sees the mark sees the replacement in a listing begun afterwards.
func ScanBlocks(ctx context.Context, bkt objstore.BucketReader, old *BucketIndex, now time.Time) (*Scan, error) {
	known, marks := map[ulid.ULID]IndexedBlock{}, map[ulid.ULID]IndexedMark{}
	if old != nil && old.Version == bucketIndexVersion {
		for _, b := range old.Blocks {
			known[b.ID] = b
		}
		for _, m := range old.DeletionMarks {
			marks[m.ID] = m
		}
	}
	listed, err := ListMarks(ctx, bkt)
	if err != nil {
		return nil, err
	}
	var ids []ulid.ULID
	err = bkt.Iter(ctx, "", func(name string) error {
		if id, ok := blockOf(name); ok {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, storeError(ctx, bkt, err, "list blocks")
	}
	s := &Scan{Index: &BucketIndex{Version: bucketIndexVersion, UpdatedAt: now.Unix()}, Marks: listed, Corrupted: map[ulid.ULID]error{}, obsolete: map[ulid.ULID]bool{}}
	if err := s.readBlocks(ctx, bkt, ids, known, now); err != nil {
		return nil, err
	}
	return s, s.readMarks(ctx, bkt, marks)
}

// readBlocks fills in the blocks ids.
func (s *Scan) readBlocks(ctx context.Context, bkt objstore.BucketReader, ids []ulid.ULID, known map[ulid.ULID]IndexedBlock, now time.Time) error {
	type outcome struct {
		block IndexedBlock
		err   error
	}
	found := make([]outcome, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(listConcurrency)
	for i, id := range ids {
		if b, ok := known[id]; ok {
			found[i].block = b
			continue
		}
		g.Go(func() error {
			m, err := ReadMeta(gctx, bkt, id)
			if err == nil {
				uploaded := now
				if a, aerr := bkt.Attributes(gctx, path.Join(id.String(), MetaFile)); aerr == nil {
					uploaded = a.LastModified
				}
				found[i].block = m.Indexed(uploaded)
				return nil
			}
			found[i].err = err
			if k := errs.KindOf(err); k == errs.NotFound || k == errs.Internal {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, f := range found {
		switch {
		case f.err == nil:
			s.Index.Blocks = append(s.Index.Blocks, f.block)
		case errs.KindOf(f.err) == errs.NotFound:
			s.Partial = append(s.Partial, ids[i])
		default:
			s.Corrupted[ids[i]] = f.err
		}
	}
	slices.SortFunc(s.Index.Blocks, func(a, b IndexedBlock) int { return a.ID.Compare(b.ID) })
	slices.SortFunc(s.Partial, ulid.ULID.Compare)
	return nil
}

// readMarks fills in the deletion marks.
func (s *Scan) readMarks(ctx context.Context, bkt objstore.BucketReader, known map[ulid.ULID]IndexedMark) error {
	for id := range s.Marks.Deletion {
		m, ok := known[id]
		if !ok {
			mark, err := readDeletionMark(ctx, bkt, id)
			if errs.KindOf(err) == errs.NotFound {
				continue // taken back meanwhile
			}
			if err != nil {
				return err
			}
			m = IndexedMark{ID: id, DeletionTime: mark.DeletionTime}
			s.obsolete[id] = mark.Obsolete
		}
		s.Index.DeletionMarks = append(s.Index.DeletionMarks, m)
	}
	slices.SortFunc(s.Index.DeletionMarks, func(a, b IndexedMark) int { return a.ID.Compare(b.ID) })
	return nil
}

func readDeletionMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (deletionMark, error) {
	var m deletionMark
	b, err := readObject(ctx, bkt, path.Join(MarkersDir, id.String()+"-"+DeletionMarkFile), maxMetaBytes)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, errs.New(errs.Internal, "deletion mark of block %s is corrupted: %w", id, err)
	}
	return m, nil
}

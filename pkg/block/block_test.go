package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

var quiet = slog.New(slog.DiscardHandler)

type sample struct {
	t int64
	v float64
}

func (sample) H() *histogram.Histogram       { return nil }
func (s sample) T() int64                    { return s.t }
func (s sample) F() float64                  { return s.v }
func (sample) FH() *histogram.FloatHistogram { return nil }
func (sample) ST() int64                     { return 0 }
func (sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample         { return s }

// makeBlock writes a block with n series of 10 samples from mint on, 1 s apart, and returns its
// directory.
func makeBlock(t testing.TB, mint int64, n int) string {
	t.Helper()
	var series []storage.Series
	for i := range n {
		var ss []chunks.Sample
		for j := range 10 {
			ss = append(ss, sample{mint + int64(j)*1000, float64(i*100 + j)})
		}
		series = append(series, storage.NewListSeries(labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%03d", i)), ss))
	}
	dir, err := tsdb.CreateBlock(series, t.TempDir(), tsdb.DefaultBlockDuration, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func idOf(dir string) ulid.ULID { return ulid.MustParse(filepath.Base(dir)) }

func upload(t testing.TB, bkt objstore.Bucket, dir string) ulid.ULID {
	t.Helper()
	if err := Upload(t.Context(), quiet, objstore.NewPrefixedBucket(bkt, "t1"), dir, Tags{}); err != nil {
		t.Fatal(err)
	}
	return idOf(dir)
}

func newBucket(t testing.TB) objstore.Bucket {
	t.Helper()
	b, err := bucket.NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// scan lists the blocks of a tenant.
func scan(t testing.TB, tb objstore.Bucket) *BucketIndex {
	t.Helper()
	s, err := ScanBlocks(t.Context(), tb, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s.Index
}

func TestUploadedBlocksAreListedAndRead(t *testing.T) {
	bkt := newBucket(t)
	a, b := upload(t, bkt, makeBlock(t, 0, 5)), upload(t, bkt, makeBlock(t, 7_200_000, 3))
	tb := objstore.NewPrefixedBucket(bkt, "t1")
	idx := scan(t, tb)
	if len(idx.Overlapping(0, 1<<40)) != 2 || idx.Blocks[0].SegmentsNum != 1 || idx.Blocks[0].SizeBytes == 0 {
		t.Fatalf("listed %+v", idx)
	}
	m, err := ReadMeta(t.Context(), tb, a)
	if err != nil || m.Stats.NumSeries != 5 || m.Thanos.Labels == nil || len(m.Thanos.Files) != 3 {
		t.Errorf("meta %+v, %v", m, err)
	}
	if ids, err := Tenants(t.Context(), bkt); err != nil || len(ids) != 1 || ids[0] != "t1" {
		t.Errorf("tenants %v, %v", ids, err)
	}
	if over := idx.Overlapping(100_000, 7_199_999); len(over) != 0 {
		t.Errorf("%d blocks overlap the hole between %s and %s", len(over), a, b)
	}
}

// cutBucket fails every upload after the first n.
type cutBucket struct {
	objstore.Bucket
	left atomic.Int64
}

func (b *cutBucket) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if b.left.Add(-1) < 0 {
		return errors.New("connection lost")
	}
	return b.Bucket.Upload(ctx, name, r, opts...)
}

func TestAPartialUploadIsInvisibleAndCanBeRepeated(t *testing.T) {
	dir := makeBlock(t, 0, 5)
	for n := range 4 {
		cut := &cutBucket{Bucket: newBucket(t)}
		cut.left.Store(int64(n))
		tb := objstore.NewPrefixedBucket(cut, "t1")
		if err := Upload(t.Context(), quiet, tb, dir, Tags{}); errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("cut after %d objects: %v, want Unavailable", n, err)
		}
		if idx := scan(t, tb); len(idx.Blocks) != 0 {
			t.Errorf("cut after %d objects: %d blocks are listed", n, len(idx.Blocks))
		}
		cut.left.Store(100)
		for range 2 {
			if err := Upload(t.Context(), quiet, tb, dir, Tags{}); err != nil {
				t.Fatal(err)
			}
		}
		if done := 100 - cut.left.Load(); done != 4 {
			t.Errorf("two uploads after the cut wrote %d objects, want 4", done)
		}
		if idx := scan(t, tb); len(idx.Blocks) != 1 {
			t.Errorf("after repeating: %d blocks", len(idx.Blocks))
		}
	}
}

func TestADamagedBlockIsNotUploaded(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"no index":      func(d string) error { return os.Remove(filepath.Join(d, IndexFile)) },
		"cut index":     func(d string) error { return os.Truncate(filepath.Join(d, IndexFile), 100) },
		"no chunks":     func(d string) error { return os.RemoveAll(filepath.Join(d, ChunksDir)) },
		"empty segment": func(d string) error { return os.Truncate(filepath.Join(d, ChunksDir, "000001"), 0) },
		"missing number": func(d string) error {
			return os.Rename(filepath.Join(d, ChunksDir, "000001"), filepath.Join(d, ChunksDir, "000002"))
		},
		"no meta":  func(d string) error { return os.Remove(filepath.Join(d, MetaFile)) },
		"cut meta": func(d string) error { return os.Truncate(filepath.Join(d, MetaFile), 20) },
	} {
		dir := makeBlock(t, 0, 2)
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		bkt := objstore.NewInMemBucket()
		if err := Upload(t.Context(), quiet, bkt, dir, Tags{}); errs.KindOf(err) != errs.Internal {
			t.Errorf("%s: %v, want Internal", name, err)
		}
		if n := len(bkt.Objects()); n != 0 {
			t.Errorf("%s: %d objects were written", name, n)
		}
	}
}

func TestMarkedBlocksAreNotListed(t *testing.T) {
	bkt := newBucket(t)
	a, b := upload(t, bkt, makeBlock(t, 0, 1)), upload(t, bkt, makeBlock(t, 0, 1))
	tb := objstore.NewPrefixedBucket(bkt, "t1")
	if err := MarkForDeletion(t.Context(), tb, a, time.Unix(1700000000, 0), "compacted"); err != nil {
		t.Fatal(err)
	}
	idx := scan(t, tb)
	if over := idx.Overlapping(0, 1<<40); len(over) != 1 || over[0].ID != b || len(idx.DeletionMarks) != 1 || idx.DeletionMarks[0].DeletionTime != 1700000000 {
		t.Errorf("listed %+v; want %s alone", idx, b)
	}
	for _, name := range []string{a.String() + "/deletion-mark.json", "markers/" + a.String() + "-deletion-mark.json"} {
		if ok, err := tb.Exists(t.Context(), name); !ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}

func TestACorruptedMetaIsAnErrorNotAGap(t *testing.T) {
	bkt := newBucket(t)
	id := upload(t, bkt, makeBlock(t, 0, 1))
	if err := bkt.Upload(t.Context(), "t1/"+id.String()+"/meta.json", strings.NewReader(`{"version":1`)); err != nil {
		t.Fatal(err)
	}
	x := NewIndexes(IndexesDeps{Logger: quiet, Bucket: bkt})
	if _, err := x.At(t.Context(), "t1", nil); err == nil || !strings.Contains(err.Error(), id.String()) {
		t.Errorf("error %v does not name block %s", err, id)
	}
}

// countingBucket counts reads and can be out of order.
type countingBucket struct {
	objstore.Bucket
	gets, iters atomic.Int64
	down        atomic.Bool
}

func (b *countingBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	b.gets.Add(1)
	if b.down.Load() {
		return nil, errors.New("out of order")
	}
	return b.Bucket.Get(ctx, name)
}

func (b *countingBucket) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	b.iters.Add(1)
	return b.Bucket.Iter(ctx, dir, f, opts...)
}

func TestABucketIndexSparesListingsAndIsReadAgainEveryMinute(t *testing.T) {
	bkt := &countingBucket{Bucket: newBucket(t)}
	tb := objstore.NewPrefixedBucket(bkt, "t1")
	var clock atomic.Int64
	now := func() time.Time { return time.Unix(1700000000+clock.Load(), 0) }
	x := NewIndexes(IndexesDeps{Logger: quiet, Bucket: bkt, Now: now, MaxStale: time.Hour})
	var last *BucketIndex
	at := func(old *BucketIndex, want int) {
		t.Helper()
		idx, err := x.At(t.Context(), "t1", old)
		last = idx
		if err != nil || len(idx.Blocks) != want {
			t.Fatalf("%+v, %v; want %d blocks", idx, err, want)
		}
	}
	upload(t, bkt, makeBlock(t, 0, 1))
	at(nil, 1)
	if bkt.iters.Load() != 2 {
		t.Errorf("%d listings stood in for the missing index, want 2 (marks, blocks)", bkt.iters.Load())
	}
	s, err := ScanBlocks(t.Context(), tb, nil, now())
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteBucketIndex(t.Context(), tb, s.Index); err != nil {
		t.Fatal(err)
	}
	clock.Store(360)
	lists, gets := bkt.iters.Load(), bkt.gets.Load()
	at(nil, 1)
	at(nil, 1)
	if bkt.iters.Load() != lists || bkt.gets.Load() != gets+1 {
		t.Errorf("%d listings and %d reads for two looks at the index, want 0 and 1", bkt.iters.Load()-lists, bkt.gets.Load()-gets)
	}
	dir := makeBlock(t, 0, 2)
	id := upload(t, bkt, dir)
	m, err := ReadMeta(t.Context(), tb, id)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true} {
		if known, err := AddToBucketIndex(t.Context(), tb, now(), m.Indexed(now())); err != nil || known != want {
			t.Errorf("adding, time %d: known %v, %v", i+1, known, err)
		}
	}
	at(nil, 1)
	at(last, 2) // whoever found a block gone asks for a newer index
	gets = bkt.gets.Load()
	clock.Add(1)
	x.Renew() // and so does who lost an ingester that held samples
	at(nil, 2)
	at(nil, 2)
	if n := bkt.gets.Load() - gets; n != 1 {
		t.Errorf("%d reads of the index for two looks after it was renewed, want 1", n)
	}
	bkt.down.Store(true)
	clock.Store(960)
	at(nil, 2)
	clock.Store(1300)
	if _, err := x.At(t.Context(), "t1", nil); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("after 15 minutes without the storage: %v, want Unavailable", err)
	}
	bkt.down.Store(false)
	clock.Store(3700)
	if _, err := x.At(t.Context(), "t1", nil); err == nil || !strings.Contains(err.Error(), "bucket-index-too-old") {
		t.Errorf("an index that nobody updated for an hour: %v", err)
	}
}

func TestAScanTellsPartialAndCorruptedBlocksApart(t *testing.T) {
	bkt := newBucket(t)
	tb := objstore.NewPrefixedBucket(bkt, "t1")
	whole, partial, bad := upload(t, bkt, makeBlock(t, 0, 1)), upload(t, bkt, makeBlock(t, 0, 1)), upload(t, bkt, makeBlock(t, 0, 1))
	if err := tb.Delete(t.Context(), partial.String()+"/"+MetaFile); err != nil {
		t.Fatal(err)
	}
	if err := tb.Upload(t.Context(), bad.String()+"/"+MetaFile, strings.NewReader("{")); err != nil {
		t.Fatal(err)
	}
	s, err := ScanBlocks(t.Context(), tb, nil, time.Now())
	if err != nil || len(s.Index.Blocks) != 1 || s.Index.Blocks[0].ID != whole || len(s.Partial) != 1 || s.Partial[0] != partial || s.Corrupted[bad] == nil {
		t.Errorf("%+v, %v", s, err)
	}
}

func FuzzBucketIndex(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		idx, err := parseBucketIndex(b)
		if err != nil {
			return
		}
		bkt := objstore.NewInMemBucket()
		idx.Version = bucketIndexVersion
		if err := WriteBucketIndex(t.Context(), bkt, idx); err != nil {
			t.Fatal(err)
		}
		again, err := ReadBucketIndex(t.Context(), bkt)
		if err != nil || len(again.Blocks) != len(idx.Blocks) || len(again.DeletionMarks) != len(idx.DeletionMarks) {
			t.Fatalf("%+v became %+v, %v", idx, again, err)
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			return
		}
		files, err := filesOf(t.Context(), objstore.NewInMemBucket(), m)
		if err != nil {
			return
		}
		for _, file := range files {
			if !filepath.IsLocal(filepath.FromSlash(file.RelPath)) || !isData(file.RelPath) {
				t.Fatalf("path %q", file.RelPath)
			}
		}
	})
}

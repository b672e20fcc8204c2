package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
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
	if err := Upload(t.Context(), quiet, objstore.NewPrefixedBucket(bkt, "t1"), dir); err != nil {
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

func newReader(t testing.TB, bkt objstore.Bucket, maxBytes int, now func() time.Time) *Reader {
	t.Helper()
	r, err := NewReader(Config{SyncDir: t.TempDir(), MaxCacheBytes: maxBytes}, Deps{Logger: quiet, Reg: prometheus.NewRegistry(), Bucket: bkt, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// count opens the range and returns how many blocks, series and samples it holds.
func count(t testing.TB, r *Reader, mint, maxt int64) (blocks, series, samples int) {
	t.Helper()
	s, err := r.Open(t.Context(), "t1", mint, maxt)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	qs, err := s.ChunkQueriers()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range qs {
		set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
		for set.Next() {
			series++
			it := set.At().Iterator(nil)
			for it.Next() {
				samples += it.At().Chunk.NumSamples()
			}
			if it.Err() != nil {
				t.Fatal(it.Err())
			}
		}
		if set.Err() != nil {
			t.Fatal(set.Err())
		}
	}
	return s.Len(), series, samples
}

func TestUploadedBlocksAreListedAndRead(t *testing.T) {
	bkt := newBucket(t)
	a, b := upload(t, bkt, makeBlock(t, 0, 5)), upload(t, bkt, makeBlock(t, 7_200_000, 3))
	tb := objstore.NewPrefixedBucket(bkt, "t1")
	metas, err := ListMetas(t.Context(), tb)
	if err != nil || len(metas) != 2 {
		t.Fatalf("listed %d blocks, %v", len(metas), err)
	}
	m, err := ReadMeta(t.Context(), tb, a)
	if err != nil || m.Stats.NumSeries != 5 || m.Thanos.Labels == nil || len(m.Thanos.Files) != 3 {
		t.Errorf("meta %+v, %v", m, err)
	}
	if ids, err := Tenants(t.Context(), bkt); err != nil || len(ids) != 1 || ids[0] != "t1" {
		t.Errorf("tenants %v, %v", ids, err)
	}
	r := newReader(t, bkt, 1<<30, nil)
	if blocks, series, samples := count(t, r, 0, 1<<40); blocks != 2 || series != 8 || samples != 80 {
		t.Errorf("read %d blocks, %d series, %d samples; want 2, 8, 80", blocks, series, samples)
	}
	if blocks, _, _ := count(t, r, 100_000, 7_199_999); blocks != 0 {
		t.Errorf("%d blocks overlap the hole between %s and %s", blocks, a, b)
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
	for n := range 3 {
		cut := &cutBucket{Bucket: newBucket(t)}
		cut.left.Store(int64(n))
		tb := objstore.NewPrefixedBucket(cut, "t1")
		if err := Upload(t.Context(), quiet, tb, dir); errs.KindOf(err) != errs.Unavailable {
			t.Fatalf("cut after %d objects: %v, want Unavailable", n, err)
		}
		if metas, err := ListMetas(t.Context(), tb); err != nil || len(metas) != 0 {
			t.Errorf("cut after %d objects: %d blocks are listed, %v", n, len(metas), err)
		}
		cut.left.Store(100)
		for range 2 {
			if err := Upload(t.Context(), quiet, tb, dir); err != nil {
				t.Fatal(err)
			}
		}
		if done := 100 - cut.left.Load(); done != 3 {
			t.Errorf("two uploads after the cut wrote %d objects, want 3", done)
		}
		if metas, err := ListMetas(t.Context(), tb); err != nil || len(metas) != 1 {
			t.Errorf("after repeating: %d blocks, %v", len(metas), err)
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
		if err := Upload(t.Context(), quiet, bkt, dir); errs.KindOf(err) != errs.Internal {
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
	metas, err := ListMetas(t.Context(), tb)
	if err != nil || len(metas) != 1 || metas[0].ULID != b {
		t.Errorf("listed %v, %v; want %s alone", metas, err, b)
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
	if _, err := ListMetas(t.Context(), objstore.NewPrefixedBucket(bkt, "t1")); err == nil || !strings.Contains(err.Error(), id.String()) {
		t.Errorf("error %v does not name block %s", err, id)
	}
}

func TestACorruptedDownloadNamesTheBlockAndIsTriedAgain(t *testing.T) {
	bkt := newBucket(t)
	id := upload(t, bkt, makeBlock(t, 0, 4))
	name := "t1/" + id.String() + "/chunks/000001"
	good := read(t, bkt, name)
	bad := slices.Clone(good)
	bad[len(bad)-3] ^= 1
	r := newReader(t, bkt, 1<<30, nil)
	for what, body := range map[string][]byte{"flipped bit": bad, "short": good[:len(good)-1], "long": append(slices.Clone(good), 0)} {
		write(t, bkt, name, body)
		if _, err := r.Open(t.Context(), "t1", 0, 1<<40); errs.KindOf(err) != errs.Internal || !strings.Contains(err.Error(), id.String()) {
			t.Errorf("%s: %v, want Internal naming the block", what, err)
		}
	}
	write(t, bkt, name, good)
	if _, series, _ := count(t, r, 0, 1<<40); series != 4 {
		t.Errorf("after repair: %d series", series)
	}
}

func read(t testing.TB, b objstore.Bucket, name string) []byte {
	t.Helper()
	r, err := b.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return body
}

func write(t testing.TB, b objstore.Bucket, name string, body []byte) {
	t.Helper()
	if err := b.Upload(t.Context(), name, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
}

func removeBlock(t testing.TB, b objstore.Bucket, id ulid.ULID) {
	t.Helper()
	var names []string
	if err := b.Iter(t.Context(), "t1/"+id.String(), func(n string) error { names = append(names, n); return nil }, objstore.WithRecursiveIter()); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := b.Delete(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAReplacedBlockIsLookedUpAgain(t *testing.T) {
	bkt := newBucket(t)
	old, other := upload(t, bkt, makeBlock(t, 0, 4)), upload(t, bkt, makeBlock(t, 1<<41, 1))
	r := newReader(t, bkt, 1<<30, nil)
	if n, _, _ := count(t, r, 1<<41, 1<<42); n != 1 { // fills the list, leaves old alone
		t.Fatalf("%d blocks around %s", n, other)
	}
	removeBlock(t, bkt, old)
	upload(t, bkt, makeBlock(t, 0, 6))
	if n, series, _ := count(t, r, 0, 1<<40); n != 1 || series != 6 {
		t.Errorf("%d blocks with %d series, want the new block with 6", n, series)
	}
}

func TestABlockThatStaysAwayFailsTheQuery(t *testing.T) {
	bkt := newBucket(t)
	id := upload(t, bkt, makeBlock(t, 0, 4))
	if err := bkt.Delete(t.Context(), "t1/"+id.String()+"/index"); err != nil {
		t.Fatal(err)
	}
	r := newReader(t, bkt, 1<<30, nil)
	if _, err := r.Open(t.Context(), "t1", 0, 1<<40); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), id.String()) {
		t.Errorf("%v, want Unavailable naming the block", err)
	}
}

func TestTheCacheKeepsItsSizeAndOpenBlocks(t *testing.T) {
	bkt := newBucket(t)
	const blocks = 6
	var size int
	for i := range blocks {
		dir := makeBlock(t, int64(i)*7_200_000, 50)
		upload(t, bkt, dir)
		m, err := verify(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Thanos.Files {
			size = max(size, int(f.SizeBytes))
		}
	}
	r := newReader(t, bkt, 3*size, nil) // room for two blocks of an index and less than half a size of chunks
	at := func(i int) (int64, int64) { return int64(i) * 7_200_000, int64(i)*7_200_000 + 9000 }
	pinned, err := r.Open(t.Context(), "t1", 0, 9000)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pinned.Close(); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		for i := range blocks {
			mint, maxt := at(i)
			if n, series, _ := count(t, r, mint, maxt); n != 1 || series != 50 {
				t.Fatalf("block %d: %d blocks, %d series", i, n, series)
			}
			if used := diskUse(t, r.cache.dir); used > 4*size {
				t.Fatalf("the cache holds %d bytes", used)
			}
		}
	}
	if _, err := r.Open(t.Context(), "t1", 0, 1<<40); errs.KindOf(err) != errs.TooLarge {
		t.Errorf("all blocks at once: %v, want TooLarge", err)
	}
	if err := pinned.Close(); err != nil { // the cleanup closes it again
		t.Error(err)
	}
}

func diskUse(t testing.TB, dir string) int {
	t.Helper()
	n := 0
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && filepath.Base(p) != MetaFile {
			n += int(info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// countingBucket counts gets of indexes and can fail listings.
type countingBucket struct {
	objstore.Bucket
	gets, iters atomic.Int64
	down        atomic.Bool
}

func (b *countingBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if strings.HasSuffix(name, "/index") {
		b.gets.Add(1)
	}
	return b.Bucket.Get(ctx, name)
}

func (b *countingBucket) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	b.iters.Add(1)
	if b.down.Load() {
		return errors.New("storage is down")
	}
	return b.Bucket.Iter(ctx, dir, f, opts...)
}

func TestConcurrentQueriesShareOneDownloadAndOneListing(t *testing.T) {
	bkt := &countingBucket{Bucket: newBucket(t)}
	upload(t, bkt, makeBlock(t, 0, 4))
	r := newReader(t, bkt, 1<<30, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { count(t, r, 0, 1<<40) })
	}
	wg.Wait()
	if bkt.gets.Load() != 1 || bkt.iters.Load() != 2 {
		t.Errorf("%d downloads and %d listings for 8 queries, want 1 and 2 (marks, blocks)", bkt.gets.Load(), bkt.iters.Load())
	}
}

func TestAnOutageOfTheStorageIsBridgedForAWhile(t *testing.T) {
	bkt := &countingBucket{Bucket: newBucket(t)}
	upload(t, bkt, makeBlock(t, 0, 4))
	var clock atomic.Int64
	r := newReader(t, bkt, 1<<30, func() time.Time { return time.Unix(1700000000+clock.Load(), 0) })
	count(t, r, 0, 1<<40)
	bkt.down.Store(true)
	clock.Store(600)
	if _, series, _ := count(t, r, 0, 1<<40); series != 4 {
		t.Errorf("10 minutes into the outage: %d series", series)
	}
	clock.Store(1000)
	if _, err := r.Open(t.Context(), "t1", 0, 1<<40); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("after 16 minutes: %v, want Unavailable", err)
	}
}

func TestACancelledQueryDoesNotWait(t *testing.T) {
	r := newReader(t, newBucket(t), 1<<30, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Open(ctx, "t1", 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
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

package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// counting counts the range requests of a bucket, and fails or cuts them if it is told to.
type counting struct {
	objstore.Bucket
	ranges atomic.Int64
	fail   atomic.Int64 // how many more requests fail
	cut    atomic.Int64 // how many more answers end early
	mad    atomic.Int64 // how many more requests panic
}

func (c *counting) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	c.ranges.Add(1)
	if c.mad.Add(-1) >= 0 {
		panic("no such storage")
	}
	if c.fail.Add(-1) >= 0 {
		return nil, errors.New("the storage is out of order")
	}
	r, err := c.Bucket.GetRange(ctx, name, off, length)
	if err == nil && c.cut.Add(-1) >= 0 {
		return struct {
			io.Reader
			io.Closer
		}{io.LimitReader(r, length/2), r}, nil
	}
	return r, err
}

// wideBlock makes a block with n series of 130 samples with chunks of many sizes.
func wideBlock(t testing.TB, n int) string {
	t.Helper()
	var series []storage.Series
	for i := range n {
		var ss []chunks.Sample
		for j := range 130 {
			ss = append(ss, sample{int64(j) * 10_000, float64((i*7919 + j*j) % (1 + i%1000))})
		}
		series = append(series, storage.NewListSeries(labels.FromStrings("__name__", fmt.Sprintf("m%d", i%10),
			"i", fmt.Sprintf("%05d", i), "zone", fmt.Sprintf("z%d", i%3), "pad", strings.Repeat("x", i%50)), ss))
	}
	dir, err := tsdb.CreateBlock(series, t.TempDir(), tsdb.DefaultBlockDuration, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func newStore(t testing.TB, bkt objstore.Bucket, dir string, most int64) *Store {
	t.Helper()
	s, err := NewStore(StoreDeps{Logger: quiet, Reg: prometheus.NewRegistry(), Bucket: bkt, LocalBytes: most, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// readAll selects from a block in the bucket and words every series with its chunks.
func readAll(ctx context.Context, s *Store, id ulid.ULID, sel Selection) (out []string, work Work, err error) {
	b, err := s.Open(ctx, "t1", id)
	if err != nil {
		return nil, work, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	set, err := b.Select(ctx, sel)
	if err != nil {
		return nil, work, err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	for set.Next() {
		out = append(out, inWords(set.At().Labels, set.At().Chunks))
	}
	return out, set.Work(), set.Err()
}

func inWords(ls labels.Labels, cs []Chunk) string {
	var b strings.Builder
	b.WriteString(ls.String())
	for _, c := range cs {
		fmt.Fprintf(&b, " %d-%d %d:%x", c.MinTime, c.MaxTime, c.Encoding, c.Data)
	}
	return b.String()
}

// asTSDB is readAll by the TSDB itself, on the local block.
func asTSDB(t testing.TB, dir string, sel Selection) (out []string) {
	t.Helper()
	b, err := tsdb.OpenBlock(quiet, dir, nil, tsdb.DefaultPostingsDecoderFactory)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ix, err := b.Index()
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	cr, err := b.Chunks()
	if err != nil {
		t.Fatal(err)
	}
	defer cr.Close()
	p, err := tsdb.PostingsForMatchers(t.Context(), ix, slices.Clone(sel.Matchers)...)
	if err != nil {
		t.Fatal(err)
	}
	var builder labels.ScratchBuilder
	for p.Next() {
		var metas []chunks.Meta
		if err := ix.Series(p.At(), &builder, &metas); err != nil {
			t.Fatal(err)
		}
		metas = slices.DeleteFunc(metas, func(m chunks.Meta) bool { return !m.OverlapsClosedInterval(sel.MinTime, sel.MaxTime) })
		if len(metas) == 0 || sel.ShardCount > 0 && labels.StableHash(builder.Labels())%sel.ShardCount != sel.ShardIndex {
			continue
		}
		var cs []Chunk
		for _, m := range metas {
			c, _, err := cr.ChunkOrIterable(m)
			if err != nil {
				t.Fatal(err)
			}
			cs = append(cs, Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Encoding: c.Encoding(), Data: c.Bytes()})
		}
		out = append(out, inWords(builder.Labels(), cs))
	}
	return out
}

func eq(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

func TestStoreReadsWhatTheTSDBReads(t *testing.T) {
	dir := wideBlock(t, 2500) // more than a batch
	bkt := newBucket(t)
	id := upload(t, bkt, dir)
	s := newStore(t, bkt, t.TempDir(), 1<<30)
	defer closeStore(t, s)
	all := labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")
	for name, sel := range map[string]Selection{
		"everything": {MaxTime: 1 << 40, Matchers: []*labels.Matcher{all}},
		"a metric":   {MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("__name__", "m3")}},
		"a time":     {MinTime: 300_000, MaxTime: 500_000, Matchers: []*labels.Matcher{all}},
		"a shard":    {MaxTime: 1 << 40, Matchers: []*labels.Matcher{all}, ShardIndex: 1, ShardCount: 3},
		"not":        {MaxTime: 1 << 40, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotRegexp, "i", "0.*"), eq("zone", "z1")}},
		"nothing":    {MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("__name__", "none")}},
		"no time":    {MinTime: 1 << 40, MaxTime: 1 << 41, Matchers: []*labels.Matcher{all}},
	} {
		for _, round := range []string{"cold", "warm"} {
			got, _, err := readAll(t.Context(), s, id, sel)
			if want := asTSDB(t, dir, sel); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s, %s: %d series, want %d; %v", name, round, len(got), len(want), err)
			}
		}
	}
}

func TestStoreFetchesOnceAndInFewRequests(t *testing.T) {
	bkt := &counting{Bucket: newBucket(t)}
	id := upload(t, bkt, wideBlock(t, 1500))
	dir := t.TempDir()
	s := newStore(t, bkt, dir, 1<<30)
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("__name__", "m3")}}
	first, work, err := readAll(t.Context(), s, id, sel)
	if err != nil || len(first) != 150 || work.Requests == 0 {
		t.Fatalf("%d series, %+v, %v", len(first), work, err)
	}
	if n := bkt.ranges.Load(); n > 8 {
		t.Errorf("%d requests for 150 series of one metric", n)
	}
	before := bkt.ranges.Load()
	if _, work, err = readAll(t.Context(), s, id, sel); err != nil || bkt.ranges.Load() != before || work.FetchedBytes != 0 || work.CachedBytes == 0 {
		t.Errorf("a second look made %d requests: %+v, %v", bkt.ranges.Load()-before, work, err)
	}
	closeStore(t, s)

	s = newStore(t, bkt, dir, 1<<30)
	defer closeStore(t, s)
	again, _, err := readAll(t.Context(), s, id, sel)
	if err != nil || !slices.Equal(again, first) || bkt.ranges.Load() != before {
		t.Errorf("after a restart: %d requests, %d series, %v", bkt.ranges.Load()-before, len(again), err)
	}
}

// TestManySeriesTakeFewRequests reads many batches, whose parts of index and chunks lie behind each other.
func TestManySeriesTakeFewRequests(t *testing.T) {
	bkt := &counting{Bucket: newBucket(t)}
	id := upload(t, bkt, makeBlock(t, 0, 12*batchSeries))
	s := newStore(t, bkt, t.TempDir(), 1<<30)
	defer closeStore(t, s)
	out, work, err := readAll(t.Context(), s, id, Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("__name__", "m")}})
	if err != nil || len(out) != 12*batchSeries {
		t.Fatalf("%d series, %v", len(out), err)
	}
	if n := bkt.ranges.Load(); n > 10 {
		t.Errorf("%d requests, %d of them for series and chunks", n, work.Requests)
	}
}

func TestWhoReadsIsToldOfWaits(t *testing.T) {
	bkt := newBucket(t)
	id := upload(t, bkt, makeBlock(t, 0, 3*batchSeries))
	s := newStore(t, bkt, t.TempDir(), 1<<30)
	defer closeStore(t, s)
	b, err := s.Open(t.Context(), "t1", id)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("__name__", "m")}}
	for _, ahead := range []bool{true, false} {
		set, err := b.Select(t.Context(), sel)
		if err != nil {
			t.Fatal(err)
		}
		waits, waiting := 0, false
		set.Waits = func() func() {
			waits, waiting = waits+1, true
			return func() { waiting = false }
		}
		if ahead { // which is the first to read
			if err := set.Ahead(); err != nil || waits == 0 {
				t.Errorf("waited %d times, %v", waits, err)
			}
		}
		n, last := 0, ""
		for ; set.Next(); n++ {
			i := set.Labels().Get("i")
			if i <= last {
				t.Errorf("series %s comes after %s", i, last)
			}
			last = strings.Clone(i)
		}
		if err := errors.Join(set.Err(), set.Close()); err != nil || n != 3*batchSeries || waiting || !ahead && waits > 0 {
			t.Errorf("ahead %t: %d series, waited %d times, still waits %t, %v", ahead, n, waits, waiting, err)
		}
	}
}

// naming counts what is read whole.
type naming struct {
	objstore.Bucket
	mu   sync.Mutex
	gets map[string]int
}

func (n *naming) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	n.mu.Lock()
	n.gets[path.Base(name)]++
	n.mu.Unlock()
	return n.Bucket.Get(ctx, name)
}

func TestABucketIndexSparesTheMetaFiles(t *testing.T) {
	bkt := &naming{Bucket: newBucket(t), gets: map[string]int{}}
	var ids []ulid.ULID
	for i := range int64(5) {
		ids = append(ids, upload(t, bkt, makeBlock(t, i*1000, 3)))
	}
	late := upload(t, bkt, makeBlock(t, 9000, 3))
	tb := objstore.NewPrefixedBucket(bkt.Bucket, "t1")
	idx := scan(t, tb)
	idx.Blocks = slices.DeleteFunc(idx.Blocks, func(b IndexedBlock) bool { return b.ID == late })
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")}}
	var want, got [][]string
	read := func(x *Indexes, into *[][]string) {
		t.Helper()
		s, err := NewStore(StoreDeps{Logger: quiet, Reg: prometheus.NewRegistry(), Bucket: bkt, LocalBytes: 1 << 30, Dir: t.TempDir(), Indexes: x})
		if err != nil {
			t.Fatal(err)
		}
		defer closeStore(t, s)
		clear(bkt.gets)
		for _, id := range append(slices.Clone(ids), late) {
			out, _, err := readAll(t.Context(), s, id, sel)
			if err != nil || len(out) == 0 {
				t.Fatalf("%v, %v", out, err)
			}
			*into = append(*into, out)
		}
	}
	indexes := NewIndexes(IndexesDeps{Logger: quiet, Bucket: bkt, IndexOnly: true})
	read(indexes, &want) // there is no index yet
	if bkt.gets[MetaFile] != 6 || bkt.gets[BucketIndexFile] != 1 {
		t.Errorf("without an index: %v", bkt.gets)
	}
	if err := WriteBucketIndex(t.Context(), tb, idx); err != nil {
		t.Fatal(err)
	}
	read(NewIndexes(IndexesDeps{Logger: quiet, Bucket: bkt, IndexOnly: true}), &got)
	if bkt.gets[MetaFile] != 1 || bkt.gets[BucketIndexFile] != 1 { // the block that is not listed yet
		t.Errorf("with an index: %v", bkt.gets)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOpeningALargeIndexFetchesItsTablesAlone(t *testing.T) {
	var series []storage.Series
	for i := range 40_000 {
		series = append(series, storage.NewListSeries(labels.FromStrings("__name__", "m", "a", fmt.Sprint(i%50), "b", fmt.Sprint(i%70), "c", fmt.Sprint(i/1000), "d", fmt.Sprint(i%1000)),
			[]chunks.Sample{sample{int64(i % 1000), 1}}))
	}
	dir, err := tsdb.CreateBlock(series, t.TempDir(), tsdb.DefaultBlockDuration, quiet)
	if err != nil {
		t.Fatal(err)
	}
	bkt := &counting{Bucket: newBucket(t)}
	id := upload(t, bkt, dir)
	s := newStore(t, bkt, t.TempDir(), 1<<30)
	defer closeStore(t, s)
	b, err := s.Open(t.Context(), "t1", id)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(b.opened.file.Len())
	if got := s.pages.Bytes(); size < 2<<20 || got > size/8 {
		t.Errorf("%d bytes of an index of %d were fetched", got, size)
	}
	if n := bkt.ranges.Load(); n > 4 {
		t.Errorf("%d requests to open an index", n)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("a", "7"), eq("d", "507")}}
	got, _, err := readAll(t.Context(), s, id, sel)
	if want := asTSDB(t, dir, sel); err != nil || len(got) != 40 || !slices.Equal(got, want) {
		t.Errorf("%d series, %v; want %d", len(got), err, len(want))
	}
}

func TestDamagedLocalPagesAreFetchedAgain(t *testing.T) {
	bkt := &counting{Bucket: newBucket(t)}
	id := upload(t, bkt, wideBlock(t, 700))
	dir := t.TempDir()
	s := newStore(t, bkt, dir, 1<<30)
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("zone", "z1")}}
	first, _, err := readAll(t.Context(), s, id, sel)
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	local, err := filepath.Glob(filepath.Join(dir, "pages", "*.pages"))
	if err != nil || len(local) != 2 {
		t.Fatalf("local copies: %v, %v", local, err)
	}
	for _, f := range local {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i := 100; i < len(b); i += 5000 {
			b[i] ^= 0xff
		}
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = newStore(t, bkt, dir, 1<<30)
	defer closeStore(t, s)
	before := bkt.ranges.Load()
	again, _, err := readAll(t.Context(), s, id, sel)
	if err != nil || !slices.Equal(again, first) || bkt.ranges.Load() == before {
		t.Errorf("%d series, want %d; %d requests; %v", len(again), len(first), bkt.ranges.Load()-before, err)
	}
}

func TestAKilledProcessFindsWhatItNoted(t *testing.T) {
	bkt := &counting{Bucket: newBucket(t)}
	id := upload(t, bkt, wideBlock(t, 700))
	dir := t.TempDir()
	s := newStore(t, bkt, dir, 1<<30)
	defer closeStore(t, s)
	noted, later := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("zone", "z1")}}, Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("zone", "z2")}}
	first, _, err := readAll(t.Context(), s, id, noted)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Note(); err != nil {
		t.Fatal(err)
	}
	second, _, err := readAll(t.Context(), s, id, later)
	if err != nil {
		t.Fatal(err)
	}
	left := t.TempDir() // what a kill leaves
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	again := newStore(t, bkt, left, 1<<30)
	defer closeStore(t, again)
	before := bkt.ranges.Load()
	if got, _, err := readAll(t.Context(), again, id, noted); err != nil || !slices.Equal(got, first) || bkt.ranges.Load() != before {
		t.Errorf("%d series, want %d; %d requests for what was noted; %v", len(got), len(first), bkt.ranges.Load()-before, err)
	}
	if got, _, err := readAll(t.Context(), again, id, later); err != nil || !slices.Equal(got, second) {
		t.Errorf("%d series, want %d; %v", len(got), len(second), err)
	}
}

func TestFaultsOfTheStorageAreRetriedAndThenReported(t *testing.T) {
	dir := wideBlock(t, 500)
	bkt := &counting{Bucket: newBucket(t)}
	id := upload(t, bkt, dir)
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("zone", "z1")}}
	want := asTSDB(t, dir, sel)

	bkt.fail.Store(2)
	bkt.cut.Store(1)
	s := newStore(t, bkt, t.TempDir(), 1<<30)
	got, _, err := readAll(t.Context(), s, id, sel)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("after some faults: %d series, %v", len(got), err)
	}
	closeStore(t, s)

	bkt.fail.Store(1 << 30)
	s = newStore(t, bkt, t.TempDir(), 1<<30)
	defer closeStore(t, s)
	if _, _, err := readAll(t.Context(), s, id, sel); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("with a dead storage: %v", err)
	}
	bkt.fail.Store(0)
	if got, _, err := readAll(t.Context(), s, id, sel); err != nil || !slices.Equal(got, want) {
		t.Errorf("after the storage came back: %d series, %v", len(got), err)
	}
}

func TestCorruptedBlocksAreErrors(t *testing.T) {
	for _, file := range []string{IndexFile, ChunksDir + "/000001"} {
		dir := wideBlock(t, 200)
		root := t.TempDir()
		bkt := newBucket(t)
		id := upload(t, bkt, dir)
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for i := len(b) / 3; i < len(b)*2/3; i += 97 {
			b[i] ^= 0x55
		}
		if err := bkt.Upload(t.Context(), "t1/"+id.String()+"/"+file, strings.NewReader(string(b))); err != nil {
			t.Fatal(err)
		}
		s := newStore(t, bkt, root, 1<<30)
		_, _, err = readAll(t.Context(), s, id, Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "i", ".+")}})
		if errs.KindOf(err) != errs.Internal {
			t.Errorf("%s damaged: %v", file, err)
		}
		if n := testutil.ToFloat64(s.metrics.corrupted); n != 1 {
			t.Errorf("%s damaged: %g reads are counted, want 1", file, n)
		}
		closeStore(t, s)
	}
}

func TestTheLocalDiskIsBounded(t *testing.T) {
	bkt := newBucket(t)
	var ids []ulid.ULID
	for _, n := range []int{2500, 600, 600, 600} {
		ids = append(ids, upload(t, bkt, wideBlock(t, n)))
	}
	dir := t.TempDir()
	const most = 640 << 10
	s := newStore(t, bkt, dir, most)
	defer closeStore(t, s)
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("__name__", "m3")}}
	for round := range 2 {
		for _, id := range ids {
			if _, _, err := readAll(t.Context(), s, id, sel); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			s.Unload(0)
		}
	}
	if got := s.pages.Bytes(); got > most {
		t.Errorf("%d bytes on the local disk, %d are allowed", got, most)
	}
	// A query that needs more than there is room for is refused, and leaves nothing broken behind.
	all := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "i", ".+")}}
	if _, _, err := readAll(t.Context(), s, ids[0], all); errs.KindOf(err) != errs.TooLarge {
		t.Errorf("everything of a large block: %v", err)
	}
	s.Unload(0)
	if _, _, err := readAll(t.Context(), s, ids[1], sel); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

// TestAPanicOfARequestIsOfThoseWhoRead has many readers wait for requests that panic. They are told, and the next one reads.
func TestAPanicOfARequestIsOfThoseWhoRead(t *testing.T) {
	dir := wideBlock(t, 700)
	bkt := &counting{Bucket: newBucket(t)}
	id := upload(t, bkt, dir)
	s := newStore(t, bkt, t.TempDir(), 1<<30)
	defer closeStore(t, s)
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("zone", "z2")}}
	b, err := s.Open(t.Context(), "t1", id)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	bkt.mad.Store(1 << 30)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			defer func() {
				if p := fmt.Sprint(recover()); !strings.Contains(p, "no such storage") || !strings.Contains(p, "store_test.go") {
					t.Errorf("reader %d panics with %.200s", i, p)
				}
			}()
			set, err := b.Select(t.Context(), sel)
			if err != nil {
				panic(err) // of what reads an index
			}
			defer set.Close()
			for set.Next() {
				continue
			}
			t.Errorf("reader %d goes on: %v", i, set.Err())
		})
	}
	wg.Wait()
	bkt.mad.Store(0)
	if got, _, err := readAll(t.Context(), s, id, sel); err != nil || !slices.Equal(got, asTSDB(t, dir, sel)) {
		t.Errorf("after that: %d series, %v", len(got), err)
	}
}

func TestManyReadersShareOneFetch(t *testing.T) {
	dir := wideBlock(t, 700)
	bkt := &counting{Bucket: newBucket(t)}
	id := upload(t, bkt, dir)
	s := newStore(t, bkt, t.TempDir(), 1<<30)
	defer closeStore(t, s)
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("zone", "z2")}}
	want := asTSDB(t, dir, sel)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			if i%4 == 0 {
				cancel() // some give up at once, which must not hurt the others
			}
			defer cancel()
			got, _, err := readAll(ctx, s, id, sel)
			if i%4 != 0 && (err != nil || !slices.Equal(got, want)) {
				t.Errorf("reader %d: %d series, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
	if n := bkt.ranges.Load(); n > 40 {
		t.Errorf("%d requests for 12 equal reads", n)
	}
}

func TestLabelsAndStatsOfAStoredBlock(t *testing.T) {
	bkt := newBucket(t)
	id := upload(t, bkt, wideBlock(t, 300))
	s := newStore(t, bkt, t.TempDir(), 1<<30)
	defer closeStore(t, s)
	b, err := s.Open(t.Context(), "t1", id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	names, err := b.LabelNames(t.Context(), nil)
	if want := []string{"__name__", "i", "pad", "zone"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("names %v, %v", names, err)
	}
	if names, err = b.LabelNames(t.Context(), []*labels.Matcher{eq("i", "00000")}); err != nil || !slices.Equal(names, []string{"__name__", "i", "zone"}) {
		t.Errorf("names of one series %v, %v", names, err)
	}
	values, err := b.LabelValues(t.Context(), "zone", nil)
	if want := []string{"z0", "z1", "z2"}; err != nil || !slices.Equal(values, want) {
		t.Errorf("values %v, %v", values, err)
	}
	if values, err = b.LabelValues(t.Context(), "zone", []*labels.Matcher{eq("i", "00001")}); err != nil || !slices.Equal(values, []string{"z1"}) {
		t.Errorf("values of one series %v, %v", values, err)
	}
	steps := 0
	st, err := b.Stats(t.Context(), 2, Gone{}, func() error { steps++; return nil })
	if err != nil || st.Series != 300 || len(st.SeriesByMetric) != 2 || st.SeriesByMetric[0] != (Count{"m0", 30}) || st.ValuesByLabel[0] != (Count{"i", 300}) {
		t.Errorf("%+v, %v", st, err)
	}
	if steps < 300 {
		t.Errorf("%d steps are told of counting 300 values", steps)
	}
	enough := errors.New("enough")
	if _, err := b.Stats(t.Context(), 2, Gone{}, func() error { return enough }); !errors.Is(err, enough) {
		t.Errorf("counting that is to end: %v", err)
	}
}

func TestForgottenBlocksLeaveTheDisk(t *testing.T) {
	bkt := newBucket(t)
	id := upload(t, bkt, wideBlock(t, 100))
	dir := t.TempDir()
	s := newStore(t, bkt, dir, 1<<30)
	defer closeStore(t, s)
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("zone", "z2")}}
	if _, _, err := readAll(t.Context(), s, id, sel); err != nil {
		t.Fatal(err)
	}
	if err := s.Forget("t2", func(ulid.ULID) bool { return true }); err != nil || s.pages.Bytes() == 0 {
		t.Fatalf("another tenant's blocks went: %d bytes, %v", s.pages.Bytes(), err)
	}
	if err := s.Forget("t1", func(u ulid.ULID) bool { return u == id }); err != nil || s.pages.Bytes() != 0 || s.Loaded() != 0 {
		t.Errorf("%d bytes, %d open, %v", s.pages.Bytes(), s.Loaded(), err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "pages", "*")); err != nil || len(left) != 0 {
		t.Errorf("left on disk: %v, %v", left, err)
	}
}

func BenchmarkStoreSelectWarm(b *testing.B) {
	bkt := newBucket(b)
	id := upload(b, bkt, wideBlock(b, 10_000))
	s := newStore(b, bkt, b.TempDir(), 1<<30)
	defer closeStore(b, s)
	blk, err := s.Open(b.Context(), "t1", id)
	if err != nil {
		b.Fatal(err)
	}
	defer blk.Close()
	sel := Selection{MaxTime: 1 << 40, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "i", ".+")}}
	b.ReportAllocs()
	start := time.Now()
	series := 0
	for b.Loop() {
		set, err := blk.Select(b.Context(), sel)
		if err != nil {
			b.Fatal(err)
		}
		for set.Next() {
			series++
		}
		if err := errors.Join(set.Err(), set.Close()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(time.Since(start).Nanoseconds())/float64(series), "ns/series")
}

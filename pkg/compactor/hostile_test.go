package compactor

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/chunkcheck"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/seeds"
)

// raw is a series of a block that is written as it is told.
type raw struct {
	lset  labels.Labels
	metas []chunks.Meta
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeBlock makes a block of the two hours from the hour from on, of sorted series.
func writeBlock(t testing.TB, from int64, series ...raw) (dir string) {
	t.Helper()
	fail := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	id := ulid.MustNew(uint64(from*hour), strings.NewReader(strings.Repeat("hostile-", 9)))
	dir = filepath.Join(t.TempDir(), id.String())
	cw, err := chunks.NewWriter(filepath.Join(dir, block.ChunksDir), chunks.WithSegmentSize(1<<20))
	fail(err)
	known := map[string]bool{"": true}
	symbols := []string{""}
	for i := range series {
		fail(cw.WriteChunks(series[i].metas...))
		series[i].lset.Range(func(l labels.Label) {
			for _, s := range []string{l.Name, l.Value} {
				if !known[s] {
					known[s] = true
					symbols = append(symbols, s)
				}
			}
		})
	}
	fail(cw.Close())
	slices.Sort(symbols)
	iw, err := index.NewWriter(t.Context(), filepath.Join(dir, block.IndexFile))
	fail(err)
	for _, s := range symbols {
		fail(iw.AddSymbol(s))
	}
	for i := range series {
		fail(iw.AddSeries(storage.SeriesRef(i), series[i].lset, series[i].metas...)) //nolint:gosec // Few.
	}
	fail(iw.Close())
	meta := tsdb.BlockMeta{ULID: id, Version: 1, MinTime: from * hour, MaxTime: (from + 2) * hour,
		Stats: tsdb.BlockStats{NumSeries: uint64(len(series))}, Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}}}
	text, err := json.Marshal(meta)
	fail(err)
	fail(os.WriteFile(filepath.Join(dir, block.MetaFile), text, 0o600))
	return dir
}

// finer is a chunk of histograms of schema 20, whose spans cannot be made coarser: the TSDB's reader panics.
func finer(t testing.TB, from int64) chunks.Meta {
	t.Helper()
	c := chunkenc.NewHistogramChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	h := &histogram.Histogram{Schema: 20, Count: 3, Sum: 9, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}, {Offset: -1, Length: 1}}, PositiveBuckets: []int64{1, 0, 0}}
	for i := range int64(3) {
		if _, _, app, err = app.AppendHistogram(nil, 0, from+1000*i, h, false); err != nil {
			t.Fatal(err)
		}
	}
	return chunks.Meta{MinTime: from, MaxTime: from + 2000, Chunk: c}
}

// floats is a chunk of n samples, one a second.
func floats(t testing.TB, from int64, n int) chunks.Meta {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(n) {
		app.Append(0, from+1000*i, float64(i))
	}
	return chunks.Meta{MinTime: from, MaxTime: from + 1000*int64(n-1), Chunk: c}
}

func (w *world) publish(dir string) ulid.ULID {
	w.t.Helper()
	if err := block.Upload(w.t.Context(), discard, w.tenantBucket(), dir, block.Tags{}); err != nil {
		w.t.Fatal(err)
	}
	return ulid.MustParse(filepath.Base(dir))
}

// aside are the blocks that were set aside, and why.
func (w *world) aside() map[ulid.ULID]string {
	w.t.Helper()
	list, err := block.NoCompacts(w.t.Context(), w.tenantBucket())
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[ulid.ULID]string{}
	for _, m := range list {
		out[m.ID] = m.Details
	}
	return out
}

// short is a chunk that ends before its last sample.
func short(t testing.TB, from int64) chunks.Meta {
	t.Helper()
	m := floats(t, from, 100)
	c, err := chunkenc.FromData(chunkenc.EncXOR, m.Chunk.Bytes()[:len(m.Chunk.Bytes())/2])
	if err != nil {
		t.Fatal(err)
	}
	m.Chunk = c
	return m
}

func TestABlockThatBreaksCompactionIsSetAsideAndTheRestGoesOn(t *testing.T) {
	for what, c := range map[string]struct {
		series string
		chunk  chunks.Meta
	}{
		"the TSDB panics": {"0009", finer(t, 30_000)}, // which is seen before
		"the TSDB fails":  {"0001", short(t, 30_000)}, // which is seen by then
	} {
		w := newWorld(t)
		a, b := w.replica(0, 10, oneOf(0)), w.replica(0, 10, oneOf(1))
		bad := w.publish(writeBlock(t, 0, raw{labels.FromStrings("__name__", "m", "i", c.series), []chunks.Meta{c.chunk}}))
		comp := w.compactor()
		if err := comp.Compact(t.Context()); err != nil {
			t.Fatal(what, err)
		}
		if n := testutil.ToFloat64(comp.metrics.panics); n != 0 {
			t.Errorf("%s: %v panics", what, n)
		}
		if aside := w.aside(); len(aside) != 1 || !strings.Contains(aside[bad], "chunk 0 of series") || !strings.Contains(aside[bad], c.series) {
			t.Errorf("%s: set aside: %v, want %s", what, aside, bad)
		}
		left := map[ulid.ULID]bool{}
		for _, x := range w.index() {
			left[x.ID] = true
		}
		if len(left) != 2 || !left[bad] || left[a] || left[b] {
			t.Errorf("%s: blocks %v; want %s and what %s and %s became", what, left, bad, a, b)
		}
	}
}

func TestBlamedBlocksAreSetAsideAfterAPanicToo(t *testing.T) {
	w := newWorld(t)
	good := w.replica(0, 3, nil)
	dir := writeBlock(t, 0, raw{labels.FromStrings("__name__", "m", "i", "0001"), []chunks.Meta{short(t, 0)}})
	bad := w.publish(dir)
	c := w.compactor()
	r, err := c.list(t.Context(), "t1", nil)
	if err != nil {
		t.Fatal(err)
	}
	job := &work{c: c, round: r, id: "t1", bkt: w.tenantBucket(), dir: t.TempDir()}
	for _, id := range []ulid.ULID{good, bad} {
		m, err := block.ReadMeta(t.Context(), w.tenantBucket(), id)
		if err != nil {
			t.Fatal(err)
		}
		job.sources = append(job.sources, m)
	}
	if err := job.download(t.Context()); err != nil {
		t.Fatal(err)
	}
	why := c.guarded("making new blocks", func() error { panic("an index out of range") })
	if err := job.blame(t.Context(), why); !errors.Is(err, errPlanAnew) || !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	if aside := w.aside(); len(aside) != 1 || aside[bad] == "" {
		t.Errorf("set aside: %v, want %s", aside, bad)
	}
	if err := job.blame(t.Context(), errs.New(errs.Unavailable, "the disk is full")); errors.Is(err, errPlanAnew) {
		t.Errorf("a full disk is no fault of a block: %v", err)
	}
}

func TestAPanicOfOneTenantsWorkIsItsOwnError(t *testing.T) {
	w := newWorld(t)
	c := w.compactor()
	for range 2 {
		if err := c.guarded("a job", func() error { panic("no such thing") }, "tenant", "t1"); errs.KindOf(err) != errs.Internal || !strings.Contains(err.Error(), "a job panicked") {
			t.Errorf("%v", err)
		}
	}
	if n := testutil.ToFloat64(c.metrics.panics); n != 2 {
		t.Errorf("%v panics are counted", n)
	}
	// A bucket that panics for one tenant only.
	w.replica(0, 3, oneOf(0))
	w.replica(0, 3, oneOf(1))
	c.deps.Bucket = brokenFor{w.bkt, "t0/"}
	if err := w.bkt.Upload(t.Context(), "t0/markers/x", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := c.Compact(t.Context()); err == nil || !strings.Contains(err.Error(), "tenant t0") {
		t.Errorf("compaction: %v", err)
	}
	if err := c.CleanUp(t.Context()); err == nil || !strings.Contains(err.Error(), "tenant t0") {
		t.Errorf("cleaning up: %v", err)
	}
	if n := testutil.ToFloat64(c.metrics.panics); n != 4 {
		t.Errorf("%v panics are counted", n)
	}
	if got := w.index(); len(got) != 1 {
		t.Errorf("%d blocks of the other tenant, want what both became", len(got))
	}
}

func TestWhatAnUploadedBlockMayNotBe(t *testing.T) {
	good := labels.FromStrings("__name__", "m", "i", "1")
	one := func(ls labels.Labels, metas ...chunks.Meta) []raw { return []raw{{ls, metas}} }
	early := floats(t, 5000, 3)
	early.MinTime, early.MaxTime = 6000, 8000
	for what, c := range map[string]struct {
		series []raw
		want   string
	}{
		"good":                 {one(good, floats(t, 5000, 3)), ""},
		"a finer schema":       {one(good, finer(t, 0)), "chunk 0 of series"},
		"samples elsewhere":    {one(good, early), "outside of 6000 to 8000"},
		"outside the block":    {one(good, floats(t, 3*hour, 3)), "outside the block"},
		"invalid UTF-8":        {one(labels.FromStrings("__name__", "m", "i", "\xff"), floats(t, 5000, 3)), "UTF-8"},
		"an empty value":       {one(labels.New(labels.Label{Name: "__name__", Value: "m"}, labels.Label{Name: "i", Value: ""}), floats(t, 5000, 3)), "no name or no value"},
		"very long labels":     {one(labels.FromStrings("__name__", "m", "i", strings.Repeat("x", 2<<20)), floats(t, 5000, 3)), "more than 1048576 bytes"},
		"a series without any": {one(good), "no chunks"},
	} {
		dir := writeBlock(t, 0, c.series...)
		err := check(t.Context(), dir, ofEverything)
		if c.want == "" && err != nil || c.want != "" && (errs.KindOf(err) != errs.Internal || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 2000) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

func TestAnIndexMustBeAsTheTSDBWritesIt(t *testing.T) {
	for what, c := range map[string]struct {
		kind   string
		change func(b []byte)
		want   string
	}{
		"another series": {"list", func(b []byte) { binary.BigEndian.PutUint32(b[len(b)-4:], 77) }, "series"},
		"not sorted":     {"list", func(b []byte) { copy(b[len(b)-4:], b[4:8]) }, "series"},
		"too many":       {"list", func(b []byte) { b[3]-- }, "postings"},
		"another label":  {"series", func(b []byte) { b[4] = b[2] }, "its lists of series"},
		"a label twice":  {"series", func(b []byte) { b[1] = b[3] }, `label "i" follows "i"`},
		"no such label":  {"series", func(b []byte) { b[3] = 99 }, "symbol"},
		"symbols":        {"symbols", func(b []byte) { b[6] = 'z' }, "symbol"},
	} {
		dir := writeBlock(t, 0, raw{labels.FromStrings("__name__", "m", "i", "1"), []chunks.Meta{floats(t, 0, 3)}},
			raw{labels.FromStrings("__name__", "m", "i", "2"), []chunks.Meta{floats(t, 0, 3)}})
		m := mutable(t, dir)
		for _, r := range slices.Backward(m.regions) {
			if r.kind == c.kind && (c.kind != "list" || r.to-r.from == 4+2*4) { // of __name__="m" or of all
				c.change(m.index[r.from:r.to])
				m.seal(r)
				break
			}
		}
		m.write(t)
		if err := check(t.Context(), dir, ofEverything); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

func TestAHostileUploadIsRefusedWithoutAPanic(t *testing.T) {
	u := newUploader(t)
	dir := writeBlock(t, 0, raw{labels.FromStrings("__name__", "m"), []chunks.Meta{finer(t, 0)}})
	u.dir, u.id = dir, ulid.MustParse(filepath.Base(dir))
	u.meta.ULID, u.meta.Stats.NumSeries, u.meta.Thanos.Files = u.id, 1, nil
	for _, name := range []string{block.ChunksDir + "/000001", block.IndexFile} {
		f, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		u.meta.Thanos.Files = append(u.meta.Thanos.Files, block.File{RelPath: name, SizeBytes: f.Size()})
	}
	if err := u.start(nil); err != nil {
		t.Fatal(err)
	}
	u.all()
	if err := u.c.FinishUpload(t.Context(), "t1", u.id); err != nil {
		t.Fatal(err)
	}
	if s, problem := u.wait(); s != UploadFailed || !strings.Contains(problem, u.id.String()) || !strings.Contains(problem, "chunk 0 of series") {
		t.Errorf("%s: %s", s, problem)
	}
	if n := testutil.ToFloat64(u.c.metrics.panics); n != 0 {
		t.Errorf("%v panics raise the alarm of operators for what a tenant sent", n)
	}
}

func TestWhatWasCheckedIsWhatIsPublished(t *testing.T) {
	u := withoutSums(t)
	if err := u.c.note(t.Context(), "t1", u.id, ""); err != nil { // some process checks it
		t.Fatal(err)
	}
	if err := u.file(block.IndexFile, nil); errs.KindOf(err) != errs.Conflict || !strings.Contains(err.Error(), "being validated") {
		t.Errorf("a file that comes while the block is checked: %v", err)
	}
	u.w.now = u.w.now.Add(2 * validationLost) // it is gone
	if err := u.c.FinishUpload(t.Context(), "t1", u.id); err != nil {
		t.Fatal(err)
	}
	if s, problem := u.wait(); s != UploadComplete {
		t.Fatalf("%s: %s", s, problem)
	}
	m, err := block.ReadMeta(t.Context(), u.w.tenantBucket(), u.id)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Thanos.Files {
		if f.RelPath != block.MetaFile && (f.Hash == nil || len(f.Hash.Value) != 64) {
			t.Errorf("%s has no checksum, so nobody sees it if it is replaced: %+v", f.RelPath, f)
		}
	}
}

// brokenFor is a bucket that panics for what begins with a prefix.
type brokenFor struct {
	objstore.Bucket
	prefix string
}

func (b brokenFor) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	if strings.HasPrefix(dir, b.prefix) {
		panic("broken for " + b.prefix)
	}
	return b.Bucket.Iter(ctx, dir, f, options...)
}

func (b brokenFor) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if strings.HasPrefix(dir, b.prefix) {
		panic("broken for " + b.prefix)
	}
	return b.Bucket.IterWithAttributes(ctx, dir, f, options...)
}

// region is a part of an index that a checksum follows.
type region struct {
	kind     string
	from, to int
}

// mutant is a block whose bytes are changed, with checksums as they should be.
type mutant struct {
	dir            string
	index, segment []byte
	regions        []region // of the index
	chunks         []region // of the segment
}

func mutable(t testing.TB, dir string) *mutant {
	t.Helper()
	m := &mutant{dir: dir}
	var err error
	if m.index, err = os.ReadFile(filepath.Join(dir, block.IndexFile)); err != nil {
		t.Fatal(err)
	}
	if m.segment, err = os.ReadFile(filepath.Join(dir, block.ChunksDir, "000001")); err != nil {
		t.Fatal(err)
	}
	r, err := index.NewReader(held(m.index), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	toc, err := index.NewTOCFromByteSlice(held(m.index))
	if err != nil {
		t.Fatal(err)
	}
	section := func(kind string, at uint64) {
		n := binary.BigEndian.Uint32(m.index[at:])
		m.regions = append(m.regions, region{kind, int(at) + 4, int(at) + 4 + int(n)})
	}
	section("symbols", toc.Symbols)
	section("table", toc.PostingsTable)
	if err := index.ReadPostingsOffsetTable(held(m.index), toc.PostingsTable, func(_, _ []byte, at uint64, _ int) error {
		section("list", at)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	name, value := index.AllPostingsKey()
	p, err := r.Postings(t.Context(), name, value)
	if err != nil {
		t.Fatal(err)
	}
	for p.Next() {
		at := 16 * int(p.At())
		n, w := binary.Uvarint(m.index[at:])
		m.regions = append(m.regions, region{"series", at + w, at + w + int(n)})
	}
	m.regions = append(m.regions, region{"contents", len(m.index) - 52, len(m.index) - 4})
	for at := chunks.SegmentHeaderSize; at < len(m.segment); {
		n, w := binary.Uvarint(m.segment[at:])
		r := region{"chunk", at + w, at + w + 1 + int(n)}
		m.chunks = append(m.chunks, r)
		at = r.to + 4
	}
	return m
}

type held []byte

func (b held) Len() int                  { return len(b) }
func (b held) Range(from, to int) []byte { return b[from:to] }

// seal makes the checksum of a region right.
func (m *mutant) seal(r region) {
	b := m.index
	if r.kind == "chunk" {
		b = m.segment
	}
	binary.BigEndian.PutUint32(b[r.to:], crc32.Checksum(b[r.from:r.to], castagnoli))
}

func (m *mutant) write(t testing.TB) {
	t.Helper()
	for name, b := range map[string][]byte{block.IndexFile: m.index, block.ChunksDir + "/000001": m.segment} {
		if err := os.WriteFile(filepath.Join(m.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// change changes bytes of a region as somebody would who knows the format.
func (m *mutant) change(r region, how, at byte, v uint32) {
	b := m.index[r.from:r.to]
	if r.kind == "chunk" {
		b = m.segment[r.from:r.to]
	}
	if len(b) == 0 {
		return
	}
	b = b[int(at)%len(b):]
	switch how % 5 {
	case 0:
		b[0] ^= 1 << (v % 8)
	case 1:
		binary.BigEndian.PutUint32(pad(b, 4), v)
	case 2: // a varint that says much
		binary.PutUvarint(pad(b, 10), 1<<(v%64))
	case 3:
		for i := range b[:min(len(b), int(v%9))] {
			b[i] = 0xff
		}
	case 4:
		b[0] = byte(v)
	}
	m.seal(r)
}

// pad returns b if it is long enough, else memory that nobody reads.
func pad(b []byte, n int) []byte {
	if len(b) < n {
		return make([]byte, n)
	}
	return b
}

// specimen is a block of what there is: floats, histograms, several chunks.
func specimen(t testing.TB) string {
	t.Helper()
	h := chunkenc.NewHistogramChunk()
	app, err := h.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(5) {
		if _, _, app, err = app.AppendHistogram(nil, 0, 30_000+1000*i, &histogram.Histogram{Schema: 3, Count: uint64(3 + i), Sum: 9,
			PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}, {Offset: 2, Length: 1}}, PositiveBuckets: []int64{1 + i, -i, 0}}, false); err != nil {
			t.Fatal(err)
		}
	}
	return writeBlock(t, 0,
		raw{labels.FromStrings("__name__", "m", "i", "0001"), []chunks.Meta{floats(t, 30_000, 5), floats(t, 50_000, 3)}},
		raw{labels.FromStrings("__name__", "m", "i", "0002", "zone", "z"), []chunks.Meta{floats(t, 30_000, 2)}},
		raw{labels.FromStrings("__name__", "m", "i", "0009"), []chunks.Meta{{MinTime: 30_000, MaxTime: 34_000, Chunk: h}}})
}

// read asks a store-gateway's store for all of a block, as queries do. What it answers is not looked at.
func readStore(t testing.TB, bkt objstore.Bucket, id ulid.ULID) {
	t.Helper()
	s, err := block.NewStore(block.StoreDeps{Logger: discard, Reg: prometheus.NewRegistry(), Bucket: bkt, LocalBytes: 1 << 30, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	b, err := s.Open(t.Context(), "t1", id)
	if err != nil {
		return
	}
	defer b.Close()
	for _, m := range []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"), labels.MustNewMatcher(labels.MatchRegexp, "i", "0.+"),
		labels.MustNewMatcher(labels.MatchNotEqual, "zone", "z"),
	} {
		set, err := b.Select(t.Context(), block.Selection{MinTime: -1 << 60, MaxTime: 1 << 60, Matchers: []*labels.Matcher{m}})
		if err == nil {
			for set.Next() {
				_ = set.At().Labels.String()
			}
			if err := set.Close(); err != nil {
				t.Error(err)
			}
		}
		_, _ = b.LabelNames(t.Context(), []*labels.Matcher{m})
		_, _ = b.LabelValues(t.Context(), "i", []*labels.Matcher{m})
	}
	_, _ = b.LabelNames(t.Context(), nil)
	_, _ = b.LabelValues(t.Context(), "i", nil)
	_, _ = b.Stats(t.Context(), 10, block.Gone{}, func() error { return nil })
}

// mostAllocated is what reading a mutant of some kilobytes may take, the pages of the store included.
const mostAllocated = 64 << 20

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// place puts the mutant's files into the bucket in which the block is.
func (m *mutant) place(t testing.TB, tenants objstore.Bucket) {
	t.Helper()
	id := filepath.Base(m.dir)
	for name, b := range map[string][]byte{block.IndexFile: m.index, block.ChunksDir + "/000001": m.segment} {
		if err := tenants.Upload(t.Context(), id+"/"+name, strings.NewReader(string(b))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMutilatedBlocksHurtNobody(t *testing.T) {
	seeds.Run(t, 6, func(t *testing.T, rnd *rand.Rand) {
		w := newWorld(t)
		w.replica(0, 10, nil)
		var m *mutant
		var id ulid.ULID
		var damage error
		for range 6 {
			m = mutable(t, specimen(t))
			all := append(m.regions, m.chunks...)
			for range 1 + rnd.IntN(3) {
				m.change(all[rnd.IntN(len(all))], byte(rnd.Uint32()), byte(rnd.Uint32()), rnd.Uint32())
			}
			m.write(t)
			id = w.publishAsItIs(m)
			before := allocated()
			readStore(t, w.bkt, id)
			damage = check(t.Context(), m.dir, ofEverything)
			if n := allocated() - before; n > mostAllocated {
				t.Errorf("%d bytes were allocated for a block of %d", n, len(m.index)+len(m.segment))
			}
		}
		c := w.compactor()
		if err := c.Compact(t.Context()); err != nil {
			t.Errorf("compaction: %v; the block: %v", err, damage)
		}
		if err := c.CleanUp(t.Context()); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
		w.hasTruth(id)
	})
}

// hasTruth fails the test unless every sample of the truth is in a block beside that one, but for as many series
// as a specimen may have spoiled by samples of its own.
func (w *world) hasTruth(beside ulid.ULID) {
	w.t.Helper()
	store, err := block.NewStore(block.StoreDeps{Logger: discard, Reg: prometheus.NewRegistry(), Bucket: w.bkt, LocalBytes: 1 << 30, Dir: w.t.TempDir()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	got, spoiled := truth{}, 0
	for _, b := range w.index() {
		if b.ID == beside {
			continue
		}
		spoiled += w.readSound(got, store, b.ID)
	}
	if spoiled > 3 {
		w.t.Fatalf("%d series cannot be read", spoiled)
	}
	for series, samples := range w.truth {
		for at, v := range samples {
			if got[series][at] != v {
				if spoiled--; spoiled < 0 {
					w.t.Fatalf("series %s at %d: %q, want %q", series, at, got[series][at], v)
				}
				break
			}
		}
	}
}

// readSound adds the samples of a block to out, as far as they can be read, and returns how many series end early.
func (w *world) readSound(out truth, store *block.Store, id ulid.ULID) (spoiled int) {
	w.t.Helper()
	b, err := store.Open(w.t.Context(), "t1", id)
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	set, err := b.Select(w.t.Context(), block.Selection{MinTime: -1 << 60, MaxTime: 1 << 60,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "i", ".+")}})
	if err != nil {
		w.t.Fatal(err)
	}
	for set.Next() {
		name, broken := set.At().Labels.String(), false
		for _, c := range set.At().Chunks {
			err := chunkcheck.Each(c.Encoding, c.Data, func(s *chunkcheck.Sample) error {
				if s.Kind == chunkenc.ValFloat {
					out.add(name, s.T, fmt.Sprint(s.V))
				} else if s.Kind == chunkenc.ValHistogram {
					out.add(name, s.T, plain(s.H.ToFloat(nil)))
				}
				return nil
			})
			broken = broken || err != nil
		}
		if broken {
			spoiled++
		}
	}
	if err := errors.Join(set.Err(), set.Close()); err != nil {
		w.t.Fatal(err)
	}
	return spoiled
}

func TestNumbersThatAnIndexAnnouncesTakeNoMemory(t *testing.T) {
	for what, change := range map[string]func(m *mutant, r region) bool{
		"symbols": func(m *mutant, r region) bool {
			if r.kind != "symbols" {
				return false
			}
			binary.BigEndian.PutUint32(m.index[r.from:], 1<<32-1)
			return true
		},
		"labels": func(m *mutant, r region) bool {
			if r.kind != "series" {
				return false
			}
			binary.PutUvarint(m.index[r.from:], 1<<34)
			return true
		},
	} {
		dir := specimen(t)
		m := mutable(t, dir)
		for _, r := range m.regions {
			if change(m, r) {
				m.seal(r)
			}
		}
		m.write(t)
		w := newWorld(t)
		id := w.publishAsItIs(m)
		before := allocated()
		readStore(t, w.bkt, id)
		if err := check(t.Context(), dir, ofBytes); err == nil {
			t.Errorf("%s: no error", what)
		}
		if n := allocated() - before; n > mostAllocated {
			t.Errorf("%s: %d bytes were allocated", what, n)
		}
	}
	// Files of sizes that cannot be.
	w := newWorld(t)
	id := w.publish(specimen(t))
	meta, err := block.ReadMeta(t.Context(), w.tenantBucket(), id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range meta.Thanos.Files {
		meta.Thanos.Files[i].SizeBytes = 1 << 58
	}
	if err := block.PublishMeta(t.Context(), w.tenantBucket(), meta); err != nil {
		t.Fatal(err)
	}
	readStore(t, w.bkt, id)
}

// publishAsItIs writes a block into the bucket without a check.
func (w *world) publishAsItIs(m *mutant) ulid.ULID {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, block.MetaFile))
	if err != nil {
		w.t.Fatal(err)
	}
	meta, err := block.ParseMeta(text)
	if err != nil {
		w.t.Fatal(err)
	}
	m.place(w.t, w.tenantBucket())
	if err := block.PublishMeta(w.t.Context(), w.tenantBucket(), meta); err != nil {
		w.t.Fatal(err)
	}
	return meta.ULID
}

func FuzzDamagedBlock(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 255, 255, 255, 255})
	f.Add([]byte{0, 5, 2, 0, 0, 0, 0, 33, 0, 1, 0, 3, 0, 0, 0, 1})
	good := specimen(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		dir := filepath.Join(t.TempDir(), filepath.Base(good))
		if err := fileutil.CopyDirs(good, dir); err != nil {
			t.Fatal(err)
		}
		m := mutable(t, dir)
		all := append(m.regions, m.chunks...)
		for ; len(script) >= 8; script = script[8:] {
			m.change(all[int(binary.BigEndian.Uint16(script))%len(all)], script[2], script[3], binary.BigEndian.Uint32(script[4:]))
		}
		m.write(t)
		before := allocated()
		for d := ofBytes; d <= ofEverything; d++ {
			_ = check(t.Context(), dir, d)
		}
		if n := allocated() - before; n > mostAllocated {
			t.Errorf("%d bytes were allocated", n)
		}
	})
}

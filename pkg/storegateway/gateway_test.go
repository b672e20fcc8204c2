package storegateway

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/packed"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
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

// world is a gateway over a bucket.
type world struct {
	t   testing.TB
	bkt objstore.Bucket
	dir string // of local copies
	g   *Gateway
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	bkt, err := bucket.NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store, err := block.NewStore(block.StoreDeps{Logger: quiet, Bucket: bkt, LocalBytes: 1 << 30, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{SyncInterval: 10 * time.Millisecond, IdleTimeout: time.Hour, MaxConcurrent: 4, QueueTimeout: 10 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg, Deps{Logger: quiet, Reg: prometheus.NewRegistry(), Store: store, Bucket: bkt})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t, bkt, dir, g}
}

// block uploads a block of n series from the series number from on, with samples from mint on.
func (w *world) block(mint int64, from, n int) []byte {
	w.t.Helper()
	var series []storage.Series
	for i := from; i < from+n; i++ {
		var ss []chunks.Sample
		for j := range 10 {
			ss = append(ss, sample{mint + int64(j)*1000, float64(i*100 + j)})
		}
		series = append(series, storage.NewListSeries(labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%03d", i), "odd", fmt.Sprint(i%2)), ss))
	}
	dir, err := tsdb.CreateBlock(series, w.t.TempDir(), tsdb.DefaultBlockDuration, quiet)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := block.Upload(w.t.Context(), quiet, objstore.NewPrefixedBucket(w.bkt, "t1"), dir, block.Tags{}); err != nil {
		w.t.Fatal(err)
	}
	id := ulid.MustParse(filepath.Base(dir))
	return id[:]
}

// reply collects a stream.
type reply struct {
	grpc.ServerStream
	ctx    context.Context
	series []*ingesterpb.Series
	blocks [][]byte
	work   *storepb.Work

	messages []*storepb.SeriesResponse
}

func (r *reply) Context() context.Context { return r.ctx }
func (r *reply) Send(m *storepb.SeriesResponse) error {
	r.messages = append(r.messages, m)
	r.series = append(r.series, m.Series...)
	p := packed.Read(m.Packed)
	for ls, ok := p.Next(); ok; ls, ok = p.Next() {
		s := &ingesterpb.Series{}
		ls.Range(func(l labels.Label) { s.Labels = append(s.Labels, l.Name, l.Value) })
		for c, ok := p.Chunk(); ok; c, ok = p.Chunk() {
			s.Chunks = append(s.Chunks, &ingesterpb.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: uint32(c.Encoding), Data: c.Data})
		}
		r.series = append(r.series, s)
	}
	if p.Err() != nil {
		return p.Err()
	}
	r.blocks = append(r.blocks, m.Blocks...)
	if m.Work != nil {
		r.work = m.Work
	}
	return nil
}

// ask returns the answer about all series of the metric m.
func (w *world) ask(change func(*storepb.SeriesRequest), blocks ...[]byte) (*reply, error) {
	req := &storepb.SeriesRequest{MaxTime: 1 << 40, Packed: true, Blocks: blocks, Matchers: []*ingesterpb.Matcher{{Name: "__name__", Value: "m"}}}
	if change != nil {
		change(req)
	}
	r := &reply{ctx: tenant.Inject(w.t.Context(), "t1")}
	return r, w.g.Series(req, r)
}

// told is what a gateway says of blocks.
type told struct {
	grpc.ServerStream
	ctx      context.Context
	messages []*storepb.StatsResponse
}

func (s *told) Context() context.Context { return s.ctx }

func (s *told) Send(m *storepb.StatsResponse) error {
	s.messages = append(s.messages, m)
	return nil
}

// stats counts, and fails the test if the counts in one message are not those in several.
func (w *world) stats(req *storepb.StatsRequest) (*storepb.StatsResponse, error) {
	one, some := &told{ctx: tenant.Inject(w.t.Context(), "t1")}, &told{ctx: tenant.Inject(w.t.Context(), "t1")}
	if err := w.g.Stats(req, one); err != nil {
		return nil, err
	}
	req.Piecemeal = true
	if err := w.g.Stats(req, some); err != nil {
		return nil, err
	}
	all := &storepb.StatsResponse{}
	for _, m := range some.messages {
		all.Blocks, all.Stats = append(all.Blocks, m.Blocks...), append(all.Stats, m.Stats...)
	}
	if len(one.messages) != 1 || len(some.messages) < len(all.Blocks) || !proto.Equal(all, one.messages[0]) {
		w.t.Errorf("%d messages with %v, and %d with %v if several are allowed", len(one.messages), one.messages, len(some.messages), all)
	}
	return all, nil
}

// TestWhoCountsForLongSaysSo sends a word each second, to who takes it.
func TestWhoCountsForLongSaysSo(t *testing.T) {
	t.Parallel()
	for _, some := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			to := &told{ctx: t.Context()}
			p := &pulse{to: to, some: some, last: time.Now()}
			for range 25 {
				if err := p.beat(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(pulseEvery / 5)
			}
			want := 0
			if some {
				want = 4
			}
			if len(to.messages) != want {
				t.Errorf("%d words in 5 s, want %d", len(to.messages), want)
			}
			if err := p.add([]byte("one"), &storepb.BlockStats{Series: 1}); err != nil {
				t.Fatal(err)
			}
			if err := p.end(); err != nil || len(to.messages) != want+1 || len(to.messages[want].Stats) != 1 {
				t.Errorf("%v, %v", to.messages, err)
			}
		})
	}
}

func (r *reply) names() (out []string) {
	for _, s := range r.series {
		out = append(out, s.Labels[3])
	}
	return out
}

func TestSeriesOfSeveralBlocksAreMergedSortedAndOnce(t *testing.T) {
	w := newWorld(t, nil)
	a, b, c := w.block(0, 0, 300), w.block(0, 200, 300), w.block(7_200_000, 100, 150)
	r, err := w.ask(nil, a, b, c)
	if err != nil || len(r.series) != 500 || !slices.IsSorted(r.names()) {
		t.Fatalf("%d series, %v", len(r.series), err)
	}
	if len(r.blocks) != 3 || r.work == nil || r.work.Series != 750 || r.work.BucketRequests == 0 {
		t.Errorf("%d blocks, %+v", len(r.blocks), r.work)
	}
	for i, s := range r.series {
		want := 1 // blocks a and b hold the same chunk of the series they share
		if i >= 100 && i < 250 {
			want++
		}
		if len(s.Chunks) != want || !slices.IsSortedFunc(s.Chunks, func(x, y *ingesterpb.Chunk) int { return int(x.MinTime - y.MinTime) }) {
			t.Fatalf("series %v has %d chunks, want %d", s.Labels, len(s.Chunks), want)
		}
	}
}

func TestWhatARequestNarrowsIsNotSent(t *testing.T) {
	w := newWorld(t, nil)
	a := w.block(0, 0, 100)
	for name, c := range map[string]struct {
		change func(*storepb.SeriesRequest)
		want   int
	}{
		"a matcher": {func(r *storepb.SeriesRequest) {
			r.Matchers = append(r.Matchers, &ingesterpb.Matcher{Name: "odd", Value: "1"})
		}, 50},
		"a limit": {func(r *storepb.SeriesRequest) { r.Limit = 7 }, 7},
		"a time":  {func(r *storepb.SeriesRequest) { r.MinTime = 10_000 }, 0},
	} {
		if r, err := w.ask(c.change, a); err != nil || len(r.series) != c.want || len(r.blocks) != 1 {
			t.Errorf("%s: %d series of %d blocks, want %d of 1; %v", name, len(r.series), len(r.blocks), c.want, err)
		}
	}
	seen := 0
	for i := range uint32(3) {
		r, err := w.ask(func(r *storepb.SeriesRequest) { r.ShardIndex, r.ShardCount = i, 3 }, a)
		if err != nil || len(r.series) == 0 {
			t.Errorf("shard %d: %d series, %v", i, len(r.series), err)
		}
		seen += len(r.series)
	}
	if seen != 100 {
		t.Errorf("three shards have %d series, want 100", seen)
	}
	r, err := w.ask(func(r *storepb.SeriesRequest) { r.SkipChunks = true }, a)
	if err != nil || len(r.series) != 100 || len(r.series[0].Chunks) != 0 {
		t.Errorf("without chunks: %d series, %v", len(r.series), err)
	}
}

func TestABlockThatIsGoneIsLeftOut(t *testing.T) {
	w := newWorld(t, nil)
	a := w.block(0, 0, 10)
	gone := ulid.MustNew(1, nil)
	r, err := w.ask(nil, gone[:], a)
	if err != nil || len(r.series) != 10 || len(r.blocks) != 1 || !slices.Equal(r.blocks[0], a) {
		t.Errorf("%d series of blocks %x, %v", len(r.series), r.blocks, err)
	}
	if _, err := w.ask(nil, []byte("short")); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a name that is none: %v", err)
	}
}

func TestATenantSeesNoOtherTenantsBlocks(t *testing.T) {
	w := newWorld(t, nil)
	a := w.block(0, 0, 10)
	r := &reply{ctx: tenant.Inject(t.Context(), "t2")}
	err := w.g.Series(&storepb.SeriesRequest{MaxTime: 1 << 40, Blocks: [][]byte{a}, Matchers: []*ingesterpb.Matcher{{Name: "__name__", Value: "m"}}}, r)
	if err != nil || len(r.series) != 0 || len(r.blocks) != 0 {
		t.Errorf("%d series of another tenant, %v", len(r.series), err)
	}
	if err := w.g.Series(&storepb.SeriesRequest{}, &reply{ctx: t.Context()}); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("without a tenant: %v", err)
	}
}

func TestLimitsAreChargedWhileStreaming(t *testing.T) {
	w := newWorld(t, nil)
	a := w.block(0, 0, 100)
	for id, change := range map[string]func(*storepb.SeriesRequest){
		"max-series-per-query":       func(r *storepb.SeriesRequest) { r.MaxSeries = 99 },
		"max-chunks-per-query":       func(r *storepb.SeriesRequest) { r.MaxChunks = 99 },
		"max-chunks-bytes-per-query": func(r *storepb.SeriesRequest) { r.MaxChunkBytes = 500 },
	} {
		if _, err := w.ask(change, a); errs.KindOf(err) != errs.TooLarge || !strings.Contains(err.Error(), "(err-amphora-"+id+")") {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestLabelsOfSeveralBlocks(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.block(0, 0, 3), w.block(0, 2, 3)
	ctx := tenant.Inject(t.Context(), "t1")
	v, err := w.g.LabelValues(ctx, &storepb.LabelValuesRequest{Name: "i", Blocks: [][]byte{a, b}, Limit: 4})
	if want := []string{"000", "001", "002", "003"}; err != nil || !slices.Equal(v.Values, want) || len(v.Blocks) != 2 {
		t.Errorf("%v, %v", v, err)
	}
	n, err := w.g.LabelNames(ctx, &storepb.LabelNamesRequest{Blocks: [][]byte{a, b}})
	if want := []string{"__name__", "i", "odd"}; err != nil || !slices.Equal(n.Names, want) {
		t.Errorf("%v, %v", n, err)
	}
	s, err := w.stats(&storepb.StatsRequest{Blocks: [][]byte{a, b, ulid.MustNew(1, nil).Bytes()}, Limit: 1})
	if err != nil || len(s.Stats) != 2 || len(s.Blocks) != 2 || s.Stats[0].Series != 3 || s.Stats[0].SeriesByMetric[0].Count != 3 {
		t.Errorf("%v, %v", s, err)
	}
}

func TestStatsLeaveOutWhatIsGone(t *testing.T) {
	w := newWorld(t, nil)
	a := w.block(10_000, 0, 6) // samples from second 10 to 19
	is := func(name, value string) *ingesterpb.Matchers {
		return &ingesterpb.Matchers{Matchers: []*ingesterpb.Matcher{{Name: name, Value: value}}}
	}
	all := []*ingesterpb.Matchers{{}}
	for name, c := range map[string]struct {
		gone []*storepb.Gone
		want string
	}{
		"nothing":           {nil, "6 m:6 __name__:1,i:6,odd:2"},
		"a request":         {[]*storepb.Gone{{MaxTime: 1 << 40, Selectors: []*ingesterpb.Matchers{is("i", "003"), is("i", "999"), is("i", "005")}}}, "4 m:4 __name__:1,i:4,odd:2"},
		"a part of a range": {[]*storepb.Gone{{MinTime: 11_000, MaxTime: 1 << 40, Selectors: all}}, "6 m:6 __name__:1,i:6,odd:2"},
		"another range":     {[]*storepb.Gone{{MinTime: 19_001, MaxTime: 1 << 40, Selectors: all}}, "6 m:6 __name__:1,i:6,odd:2"},
		"two halves": {[]*storepb.Gone{{MaxTime: 14_500, Selectors: []*ingesterpb.Matchers{is("odd", "1")}},
			{MinTime: 14_501, MaxTime: 19_000, Selectors: []*ingesterpb.Matchers{is("odd", "1"), is("i", "000")}}}, "3 m:3 __name__:1,i:3,odd:1"},
		"all but some": {[]*storepb.Gone{{MinTime: -1 << 60, MaxTime: 19_000, Selectors: all, Except: []*ingesterpb.Matchers{is("i", "002"), is("i", "004")}}}, "2 m:2 __name__:1,i:2,odd:1"},
		"all":          {[]*storepb.Gone{{MinTime: -1 << 60, MaxTime: 19_000, Selectors: all}}, "0  "},
	} {
		r, err := w.stats(&storepb.StatsRequest{Blocks: [][]byte{a}, Gone: c.gone})
		if err != nil || len(r.Stats) != 1 {
			t.Fatalf("%s: %v, %v", name, r, err)
		}
		s := r.Stats[0]
		list := func(of []*storepb.NamedCount) string {
			var out []string
			for _, n := range of {
				out = append(out, fmt.Sprintf("%s:%d", n.Name, n.Count))
			}
			slices.Sort(out)
			return strings.Join(out, ",")
		}
		if got := fmt.Sprint(s.Series, " ", list(s.SeriesByMetric), " ", list(s.ValuesByLabel)); got != c.want {
			t.Errorf("%s is gone: %q, want %q", name, got, c.want)
		}
		for _, p := range s.SeriesByPair {
			if p.Count == 0 || name == "all but some" && strings.HasPrefix(p.Name, "i=") && p.Name != "i=002" && p.Name != "i=004" {
				t.Errorf("%s is gone: %s has %d series", name, p.Name, p.Count)
			}
		}
	}
	wrong := []*storepb.Gone{{Selectors: []*ingesterpb.Matchers{{Matchers: []*ingesterpb.Matcher{{Type: 9, Name: "i"}}}}}}
	if _, err := w.stats(&storepb.StatsRequest{Blocks: [][]byte{a}, Gone: wrong}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("an unknown matcher: %v, want Invalid", err)
	}
}

func TestMoreCallsThanAllowedWaitAndAreRefused(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxConcurrent = 1 })
	a := w.block(0, 0, 1)
	w.g.gate <- struct{}{}
	if _, err := w.ask(nil, a); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("over the limit: %v, want Unavailable", err)
	}
	<-w.g.gate
	if _, err := w.ask(nil, a); err != nil {
		t.Error(err)
	}
}

func TestCopiesAreNotedEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.SyncInterval = time.Hour })
		if _, err := w.ask(nil, w.block(0, 0, 10)); err != nil {
			t.Fatal(err)
		}
		if err := services.StartAndAwaitRunning(t.Context(), w.g); err != nil {
			t.Fatal(err)
		}
		time.Sleep(houseTick + time.Second)
		synctest.Wait()
		if notes, err := filepath.Glob(filepath.Join(w.dir, "pages", "*.notes")); err != nil || len(notes) != 2 {
			t.Errorf("notes of an index and a segment: %v, %v", notes, err)
		}
		if err := services.StopAndAwaitTerminated(t.Context(), w.g); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCopiesOfDeletedBlocksAreDropped(t *testing.T) {
	w := newWorld(t, nil)
	a := w.block(0, 0, 10)
	if _, err := w.ask(nil, a); err != nil {
		t.Fatal(err)
	}
	// An index from the future, without the block.
	if err := block.WriteBucketIndex(t.Context(), objstore.NewPrefixedBucket(w.bkt, "t1"), &block.BucketIndex{Version: 2, UpdatedAt: time.Now().Add(time.Hour).Unix()}); err != nil {
		t.Fatal(err)
	}
	if err := services.StartAndAwaitRunning(t.Context(), w.g); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(w.g.deps.Store.Tenants()) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the copy of a deleted block stays")
		}
		time.Sleep(time.Millisecond)
	}
	if err := services.StopAndAwaitTerminated(t.Context(), w.g); err != nil {
		t.Fatal(err)
	}
}

func TestALookForDeletedBlocksCountsOnlyIfItSawAllTenants(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := w.ask(nil, w.block(0, 0, 1)); err != nil {
		t.Fatal(err)
	}
	own := objstore.NewPrefixedBucket(w.bkt, "t1")
	if err := own.Upload(t.Context(), "bucket-index.json.gz", strings.NewReader("damaged")); err != nil {
		t.Fatal(err)
	}
	w.g.forget(t.Context())
	if at, n := testutil.ToFloat64(w.g.metrics.lastSync), testutil.ToFloat64(w.g.metrics.tenants); at != 0 || n != 1 {
		t.Errorf("after a look at a damaged index: %v, %v tenants; want 0, 1", at, n)
	}
	if err := block.WriteBucketIndex(t.Context(), own, &block.BucketIndex{Version: 2, UpdatedAt: time.Now().Unix()}); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	w.g.forget(ended) // told to stop: whatever it saw, it was no failure
	before := float64(time.Now().Unix())
	w.g.forget(t.Context())
	if at := testutil.ToFloat64(w.g.metrics.lastSync); at < before {
		t.Errorf("the last look is of %v, want at least %v", at, before)
	}
	if n := testutil.ToFloat64(w.g.metrics.syncFailures); n != 1 {
		t.Errorf("%v looks failed, want 1", n)
	}
}

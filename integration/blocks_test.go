package integration

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestBlocksHoldEverySample fills several hours, flushes, and looks for every sample: in the
// bucket with the tools of Prometheus, and by queries with and without the ingester's memory.
func TestBlocksHoldEverySample(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]bool{"files": true, "S3": false} {
		t.Run(name, func(t *testing.T) {
			ctx := bounded(t, 3*time.Minute)
			dir := t.TempDir()
			c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: files, Flags: []string{
				"-distributor.ingestion-rate-limit=0", "-ingester.out-of-order-time-window=48h", "-querier.max-samples=10000000",
			}})
			bucket := filepath.Join(dir, "blocks")
			if c.S3 != nil {
				bucket = filepath.Join(c.S3.Dir, "blocks")
			}
			blocksHoldEverything(ctx, t, c.Nodes()[0], bucket)
		})
	}
}

func blocksHoldEverything(ctx context.Context, t *testing.T, n *harness.Node, bucket string) {
	j := fillHours(ctx, t, n)
	j.verify(ctx, t, n.URL(""))

	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	inBucket(ctx, t, j, filepath.Join(bucket, j.tenant), 2*time.Hour)
	j.verify(ctx, t, n.URL("")) // the ingester and the bucket both have everything
	hasHistograms(ctx, t, n, j)

	must(t, n.Process.Stop())
	must(t, os.RemoveAll(n.DataDir))
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	j.verify(ctx, t, n.URL("")) // the bucket alone
	hasHistograms(ctx, t, n, j)
	names := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/label/__name__/values"), nil, "X-Scope-OrgID", j.tenant)
	if !strings.Contains(names.body, `["journal","shapes"]`) {
		t.Errorf("metric names from the bucket: %s", names)
	}
}

// fillHours pushes five hours of samples every 30 s, in order; then a late one between any two, and
// a native histogram beside the first ones.
func fillHours(ctx context.Context, t *testing.T, n *harness.Node) *journal {
	t.Helper()
	end := time.Now().Add(-time.Minute).Truncate(time.Minute).UnixMilli()
	j := newJournal("team-a", func() []string { return []string{n.URL("")} })
	j.series, j.step, j.start = 20, 30*time.Second, end-5*time.Hour.Milliseconds()
	w := &writer{trying: math.MinInt64}
	j.writers = []*writer{w}
	for _, offset := range []int64{0, 15_000} {
		for at := j.start + offset; at < end; at += j.step.Milliseconds() {
			must(t, j.push(ctx, j.body(w.id, at)))
			w.acked = append(w.acked, at)
			if offset == 0 {
				stored(t, pushV1(ctx, t, n.URL(""), j.tenant, prompb.TimeSeries{Labels: pairs("__name__", "shapes"),
					Histograms: []prompb.Histogram{prompb.FromIntHistogram(at, integers())}}))
			}
		}
	}
	return j
}

// hasHistograms asserts that each native histogram is there once.
func hasHistograms(ctx context.Context, t *testing.T, n *harness.Node, j *journal) {
	t.Helper()
	got, err := matrix(ctx, n.URL(""), j.tenant, "shapes[6h]", time.Now().UnixMilli())
	must(t, err)
	if len(got) != 1 || len(got[0].Histograms) != len(j.writers[0].acked)/2 {
		t.Fatalf("%d series of histograms, want 1 with %d samples", len(got), len(j.writers[0].acked)/2)
	}
	for i, pair := range got[0].Histograms {
		if want := float64(j.writers[0].acked[i]) / 1000; pair[0] != want || pair[1].(map[string]any)["count"] != "3" {
			t.Fatalf("histogram %d is %v, want one of 3 observations at %v", i, pair, want)
		}
	}
}

// inBucket looks at a tenant's directory of the bucket with promtool and the TSDB library. No block may reach beyond one range of longest.
func inBucket(ctx context.Context, t *testing.T, j *journal, dir string, longest time.Duration) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	db := t.TempDir() // the blocks alone; the tools also write beside them
	var blocks []string
	for _, e := range entries {
		if !regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`).MatchString(e.Name()) {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "markers", e.Name()+"-deletion-mark.json")); err == nil {
			continue // another block has its samples
		}
		blocks = append(blocks, e.Name())
		for _, file := range []string{"meta.json", "index", "chunks/000001"} {
			if info, err := os.Stat(filepath.Join(dir, e.Name(), file)); err != nil || info.Size() == 0 {
				t.Errorf("block %s has no %s: %v", e.Name(), file, err)
			}
		}
		must(t, os.CopyFS(filepath.Join(db, e.Name()), os.DirFS(filepath.Join(dir, e.Name()))))
	}
	if least := int(6 * time.Hour / longest); len(blocks) < least {
		t.Fatalf("%d blocks of at most %s for five hours: %q", len(blocks), longest, blocks)
	}
	list := promtool(ctx, t, "tsdb", "list", db)
	for _, b := range blocks {
		if !strings.Contains(list, b) {
			t.Errorf("promtool tsdb list does not know block %s:\n%s", b, list)
		}
		if out := promtool(ctx, t, "tsdb", "analyze", db, b); !strings.Contains(out, "Block ID: "+b) || !strings.Contains(out, "journal") {
			t.Errorf("promtool tsdb analyze says of block %s:\n%s", b, out)
		}
	}
	inLibrary(t, j, db, blocks, longest)
}

// inLibrary reads every block by itself: together they have each sample once.
func inLibrary(t *testing.T, j *journal, db string, blocks []string, longest time.Duration) {
	t.Helper()
	counts := map[string]map[int64]int{} // by label i
	histograms := 0
	for _, id := range blocks {
		b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), filepath.Join(db, id), nil, tsdb.DefaultPostingsDecoderFactory)
		must(t, err)
		defer func() { must(t, b.Close()) }()
		if m, most := b.Meta(), longest.Milliseconds(); m.MaxTime-m.MinTime > most || m.MinTime/most != (m.MaxTime-1)/most {
			t.Errorf("block %s reaches from %d to %d, beyond one range of %s", id, m.MinTime, m.MaxTime, longest)
		}
		q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
		must(t, err)
		defer func() { must(t, q.Close()) }()
		set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
		for set.Next() {
			s := set.At()
			it := s.Iterator(nil)
			for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
				if kind != chunkenc.ValFloat {
					histograms++
					continue
				}
				at, v := it.At()
				i := s.Labels().Get("i")
				if counts[i] == nil {
					counts[i] = map[int64]int{}
				}
				counts[i][at]++
				if number, err := strconv.Atoi(i); err != nil || v != value(0, number, at) {
					t.Fatalf("block %s: %s is %v at %d", id, s.Labels(), v, at)
				}
			}
			must(t, it.Err())
		}
		must(t, set.Err())
	}
	want := map[int64]int{}
	for _, at := range j.writers[0].acked {
		want[at] = 1
	}
	for i := range j.series {
		if got := counts[strconv.Itoa(i)]; !maps.Equal(got, want) {
			t.Errorf("series %d has %d times in the blocks, want %d, each once: %s", i, len(got), len(want), some(got, want))
		}
	}
	if len(counts) != j.series || histograms != len(j.writers[0].acked)/2 {
		t.Errorf("%d series and %d histograms in the blocks, want %d and %d", len(counts), histograms, j.series, len(j.writers[0].acked)/2)
	}
}

// some names a few times that are not what is wanted.
func some(got, want map[int64]int) string {
	var out []string
	for _, at := range slices.Sorted(maps.Keys(want)) {
		if got[at] != want[at] && len(out) < 5 {
			out = append(out, fmt.Sprintf("%d %d times", at, got[at]))
		}
	}
	return strings.Join(out, ", ")
}

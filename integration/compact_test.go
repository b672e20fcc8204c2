package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
)

// daysVariable names how many days of blocks TestAKilledCompactorLosesNoSample compacts; 30 take ten
// minutes on two idle cores: AMPHORA_TEST_DAYS=30 go test -timeout 0 -run TestAKilledCompactor ./integration
const daysVariable = "AMPHORA_TEST_DAYS"

const (
	pastTenants = 3
	pastSeries  = 20
	pastStep    = 5 * time.Minute
	// pastShards is into how many blocks those of the last tenant are split.
	pastShards = 2
	// mostKills bounds the kills: in the first five seconds of a process no compaction begins.
	mostKills = 15
)

// pastValue is the one value of series i of a tenant at a time.
func pastValue(tenant, i int, at int64) float64 {
	return float64(at/1000)*10 + float64(i) + float64(tenant)/8
}

// pastHistogram is a native histogram of which the sum is v.
func pastHistogram(i int, v float64) *histogram.Histogram {
	h := tsdbutil.GenerateTestHistogram(int64(i))
	h.Sum = v
	return h
}

// TestAKilledCompactorLosesNoSample compacts days of blocks of several tenants, one of them split, each
// cut by two replicas with holes, through all ranges, while the process is killed at random moments.
// Afterwards every sample is there once, by the TSDB's own reader, and promtool reads every block.
func TestAKilledCompactorLosesNoSample(t *testing.T) {
	t.Parallel()
	days := 1
	if text := os.Getenv(daysVariable); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		days = n
	}
	ctx := bounded(t, time.Duration(3+3*days)*time.Minute)
	dir := t.TempDir()
	start := time.Now().Add(-time.Duration(days+1) * 24 * time.Hour).Truncate(24 * time.Hour).UnixMilli()
	blocks := filepath.Join(dir, "blocks")
	began := time.Now()
	made := past(ctx, t, blocks, start, days)
	making := time.Since(began)
	overrides := filepath.Join(dir, "overrides.yaml")
	must(t, os.WriteFile(overrides, fmt.Appendf(nil, "overrides:\n  past-%d: {compactor_split_and_merge_shards: %d}\n", pastTenants-1, pastShards), 0o600))

	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{
		"-compactor.compaction-interval=100ms", "-compactor.cleanup-interval=1s", "-compactor.first-level-compaction-wait-period=0s",
		"-compactor.deletion-delay=2s", "-compactor.compaction-concurrency=2", "-runtime-config.file=" + overrides,
	}})
	began = time.Now()
	n := c.Nodes()[0]
	kills := 0
	random := rand.New(rand.NewPCG(1, uint64(start)))
	spread := 3*time.Second + time.Duration(days-1)*600*time.Millisecond // so that kills hit jobs of all ranges
	for left := compactions(ctx, t, n); left > 0; left = compactions(ctx, t, n) {
		if kills < min(2+days, mostKills) {
			pause(ctx, t, 5*time.Second+time.Duration(random.Int64N(int64(spread)))) // into the midst of some job
			must(t, n.Process.Kill())
			kills++
			must(t, n.Start())
			must(t, n.WaitReady(ctx))
			continue
		}
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			if left := compactions(ctx, t, n); left > 0 {
				return fmt.Errorf("%d jobs are due", left)
			}
			return nil
		}))
	}
	must(t, n.Process.Stop())
	took := time.Since(began)
	after := 0
	checking := time.Now()
	for tenant := range pastTenants {
		after += pastIsWhole(ctx, t, filepath.Join(blocks, fmt.Sprintf("past-%d", tenant)), tenant, start, days)
	}
	t.Logf("%d blocks of %d days and %d tenants, made in %s, became %d in %s, with %d kills; every sample is there once, and the TSDB's reader and promtool read every block, which took %s",
		made, days, pastTenants, making.Round(time.Second), after, took.Round(time.Second), kills, time.Since(checking).Round(time.Second))
	if want := (pastTenants - 1 + pastShards) * days; after != want {
		t.Errorf("%d blocks, want %d, one for each tenant or shard and day", after, want)
	}
}

// compactions is how many jobs are due.
func compactions(ctx context.Context, t *testing.T, n *harness.Node) int {
	t.Helper()
	jobs := 0
	for tenant := range pastTenants {
		r := call(ctx, t, http.MethodGet, n.URL(fmt.Sprintf("/compactor/tenant/past-%d/planned_jobs", tenant)), nil, "Accept", "application/json")
		if r.status != http.StatusOK {
			t.Fatalf("planned jobs answered %s", r)
		}
		jobs += strings.Count(r.body, `"key":`)
	}
	return jobs
}

// past writes the blocks of two replicas of which each lacks a third of the samples, and returns how many.
func past(ctx context.Context, t *testing.T, dir string, start int64, days int) (made int) {
	t.Helper()
	bkt, err := bucket.NewFilesystem(dir)
	must(t, err)
	span := 2 * time.Hour.Milliseconds()
	g, gctx := errgroup.WithContext(ctx)
	for tenant := range pastTenants {
		work := t.TempDir()
		for from := start; from < start+int64(days)*24*time.Hour.Milliseconds(); from += span {
			made += 2
		}
		g.Go(func() error {
			for from := start; from < start+int64(days)*24*time.Hour.Milliseconds(); from += span {
				for replica := range 2 {
					if err := pastBlock(gctx, objstore.NewPrefixedBucket(bkt, fmt.Sprintf("past-%d", tenant)), work, tenant, replica, from); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	return made
}

// pastBlock writes the block of two hours of one replica.
func pastBlock(ctx context.Context, own objstore.Bucket, work string, tenant, replica int, from int64) error {
	quiet := slog.New(slog.DiscardHandler)
	span := 2 * time.Hour.Milliseconds()
	options := tsdb.DefaultHeadOptions()
	options.ChunkRange, options.ChunkDirRoot, options.StripeSize = 2*span, work, tsdb.DefaultStripeSize/256
	head, err := tsdb.NewHead(nil, quiet, nil, nil, options, nil)
	if err == nil {
		err = head.Init(math.MinInt64)
	}
	if err != nil {
		return err
	}
	app := head.Appender(ctx)
	for at := from; at < from+span; at += pastStep.Milliseconds() {
		for i := range pastSeries {
			if (int(at/pastStep.Milliseconds())+i)%3 == replica {
				continue
			}
			ls, v := labels.FromStrings("__name__", "past", "i", strconv.Itoa(i)), pastValue(tenant, i, at)
			if i%5 == 4 {
				_, err = app.AppendHistogram(0, ls, at, pastHistogram(i, v), nil)
			} else {
				_, err = app.Append(0, ls, at, v)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := app.Commit(); err != nil {
		return err
	}
	// Small segments: the TSDB takes the room of a whole one, 512 MiB, for each block.
	c, err := tsdb.NewLeveledCompactorWithOptions(ctx, nil, quiet, []int64{span}, nil, tsdb.LeveledCompactorOptions{MaxBlockChunkSegmentSize: 1 << 20})
	if err != nil {
		return err
	}
	ids, err := c.Write(work, head, head.MinTime(), head.MaxTime()+1, nil)
	if err := errors.Join(err, head.Close()); err != nil {
		return err
	}
	dir := filepath.Join(work, ids[0].String())
	return errors.Join(block.Upload(ctx, quiet, own, dir, block.Tags{}), os.RemoveAll(dir))
}

// pastIsWhole reads the blocks of a tenant that are not marked, and returns how many there are.
func pastIsWhole(ctx context.Context, t *testing.T, dir string, tenant int, start int64, days int) (n int) {
	t.Helper()
	seen := map[string]map[int64]int{}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		_, complete := os.Stat(filepath.Join(path, "meta.json"))
		_, marked := os.Stat(filepath.Join(path, "deletion-mark.json"))
		if complete != nil || marked == nil {
			continue
		}
		n++
		copied := filepath.Join(t.TempDir(), e.Name())
		must(t, os.CopyFS(copied, os.DirFS(path)))
		if out := promtool(ctx, t, "tsdb", "analyze", filepath.Dir(copied), e.Name()); !strings.Contains(out, "past") {
			t.Errorf("promtool says of block %s:\n%s", e.Name(), out)
		}
		b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), copied, nil, tsdb.DefaultPostingsDecoderFactory)
		must(t, err)
		q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
		must(t, err)
		set := q.Select(ctx, true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "past"))
		for set.Next() {
			i := set.At().Labels().Get("i")
			number, err := strconv.Atoi(i)
			must(t, err)
			if seen[i] == nil {
				seen[i] = map[int64]int{}
			}
			it := set.At().Iterator(nil)
			for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
				at := it.AtT()
				seen[i][at]++
				want := pastValue(tenant, number, at)
				if kind == chunkenc.ValHistogram {
					if _, h := it.AtHistogram(nil); !h.Compact(0).Equals(pastHistogram(number, want).Compact(0)) {
						t.Fatalf("series %s has %v at %d", i, h, at)
					}
				} else if _, v := it.At(); v != want {
					t.Fatalf("series %s has %v at %d", i, v, at)
				}
			}
			must(t, it.Err())
		}
		must(t, set.Err())
		must(t, q.Close())
		must(t, b.Close())
	}
	for i := range pastSeries {
		of := seen[strconv.Itoa(i)]
		for at := start; at < start+int64(days)*24*time.Hour.Milliseconds(); at += pastStep.Milliseconds() {
			if of[at] != 1 {
				t.Fatalf("tenant %d: series %d has %d samples at %d", tenant, i, of[at], at)
			}
		}
	}
	return n
}

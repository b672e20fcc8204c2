package integration

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
)

// blocksVariable names how many blocks TestManyBlocksAreServedAtOnce makes; docs/performance.md has
// the figures of 2,000.
const blocksVariable = "AMPHORA_TEST_BLOCKS"

// TestManyBlocksAreServedAtOnce starts a process before a bucket of many small blocks: it is ready before it
// has looked at any, and what a query read is on its disk for the next one, over a restart.
func TestManyBlocksAreServedAtOnce(t *testing.T) {
	t.Parallel()
	n := 60
	if text := os.Getenv(blocksVariable); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
	}
	ctx := bounded(t, 5*time.Minute+time.Duration(n)*400*time.Millisecond)
	dir := t.TempDir()
	start := time.Now().Add(-time.Duration(n+24) * 2 * time.Hour).Truncate(2 * time.Hour)
	smallBlocks(ctx, t, filepath.Join(dir, "blocks"), "team-a", start, n)
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{"-compactor.first-level-compaction-wait-period=100000h", "-querier.timeout=2m"}})
	node := c.Nodes()[0]

	ask := func(what string) (requests int) {
		t.Helper()
		read := func() int {
			return metric(t, call(ctx, t, http.MethodGet, node.URL("/metrics"), nil).body, `amphora_objstore_requests_total\{[^}]*cause="query"[^}]*\}`)
		}
		before, began := read(), time.Now()
		end := start.Add(time.Duration(n) * 2 * time.Hour)
		r := call(ctx, t, http.MethodGet, node.URL("/prometheus/api/v1/query_range?"+url.Values{"query": {"sum(count_over_time(small[2h]))"},
			"start": {seconds(start.Add(2*time.Hour - time.Millisecond).UnixMilli())}, "end": {seconds(end.UnixMilli())}, "step": {"2h"}}.Encode()), nil, "X-Scope-OrgID", "team-a")
		took := time.Since(began)
		if r.status != http.StatusOK {
			t.Fatalf("%s: query answered %s", what, r)
		}
		requests = read() - before
		t.Logf("%s: %d blocks in %s with %d requests to the bucket", what, n, took.Round(time.Millisecond), requests)
		return requests
	}
	harness.Need(t, harness.Poll(ctx, func(context.Context) error { // the bucket index tells the sizes of blocks
		_, err := os.Stat(filepath.Join(dir, "blocks", "team-a", block.BucketIndexFile))
		return err
	}))
	if cold := ask("cold"); cold > 2*n { // an index and a segment of chunks each
		t.Errorf("%d requests for %d blocks", cold, n)
	}
	if again := ask("warm"); again != 0 {
		t.Errorf("%d requests for what is on the disk", again)
	}
	must(t, node.Process.Stop())
	began := time.Now()
	must(t, node.Start())
	must(t, node.WaitReady(ctx))
	t.Logf("ready %s after the start", time.Since(began).Round(time.Millisecond))
	if again := ask("after a restart"); again != 0 {
		t.Errorf("%d requests after a restart", again)
	}
}

// smallBlocks writes n blocks of two hours with three series each.
func smallBlocks(ctx context.Context, t *testing.T, dir, tenant string, start time.Time, n int) {
	t.Helper()
	bkt, err := bucket.NewFilesystem(dir)
	must(t, err)
	quiet := slog.New(slog.DiscardHandler)
	work := t.TempDir()
	for k := range n {
		w, err := tsdb.NewBlockWriter(quiet, work, 4*time.Hour.Milliseconds())
		must(t, err)
		app := w.Appender(ctx)
		for j := range 24 {
			at := start.Add(time.Duration(k)*2*time.Hour + time.Duration(j)*5*time.Minute).UnixMilli()
			for i := range 3 {
				_, err := app.Append(0, labels.FromStrings("__name__", "small", "i", fmt.Sprint(i)), at, float64(j))
				must(t, err)
			}
		}
		must(t, app.Commit())
		id, err := w.Flush(ctx)
		must(t, err)
		must(t, w.Close())
		must(t, block.Upload(ctx, quiet, objstore.NewPrefixedBucket(bkt, tenant), filepath.Join(work, id.String()), block.Tags{}))
		must(t, os.RemoveAll(filepath.Join(work, id.String())))
	}
}

package integration

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/block"
	"github.com/amphora-metrics/amphora/pkg/bucket"
)

// TestABlockThatIsSetAsideIsLeftAloneUntilThatIsTakenBack starts a process before blocks of two replicas, one
// of which another program has set aside, takes that back, hides a block, and brings it back. The question
// is the same all the time, so that answers are kept: what happens to the block reaches those, too.
func TestABlockThatIsSetAsideIsLeftAloneUntilThatIsTakenBack(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 6*time.Minute)
	dir := t.TempDir()
	bkt, err := bucket.NewFilesystem(filepath.Join(dir, "blocks"))
	must(t, err)
	own := objstore.NewPrefixedBucket(bkt, "team-a")
	start := time.Now().Add(-72 * time.Hour).Truncate(24 * time.Hour)
	first := oneBlock(ctx, t, own, start, "a")
	oneBlock(ctx, t, own, start, "b")
	must(t, block.MarkNoCompact(ctx, own, first, time.Now(), "manual", "look at it first"))
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{
		"-compactor.compaction-interval=500ms", "-compactor.cleanup-interval=500ms", "-compactor.first-level-compaction-wait-period=0s",
	}})
	n := c.Nodes()[0]
	page := func(path string) string {
		t.Helper()
		r := call(ctx, t, http.MethodGet, n.URL(path), nil, "Accept", "application/json", "X-Scope-OrgID", "team-a")
		if r.status != http.StatusOK {
			t.Fatalf("%s answered %s", path, r)
		}
		return r.body
	}
	until := func(what string, fulfilled func() bool) {
		t.Helper()
		harness.Need(t, harness.Poll(ctx, func(context.Context) error {
			if fulfilled() {
				return nil
			}
			return fmt.Errorf("waiting for %s", what)
		}))
	}
	mark := func(method, id, kind string) {
		t.Helper()
		if r := call(ctx, t, method, n.URL("/compactor/tenant/team-a/block/"+id+"/"+kind+"?details=test"), nil); r.status/100 != 2 {
			t.Fatalf("%s of %s answered %s", method, kind, r)
		}
	}

	until("three rounds of compaction", func() bool {
		return metric(t, page("/metrics"), `amphora_compactor_runs_completed_total`) >= 3 &&
			metric(t, page("/metrics"), `amphora_bucket_blocks_marked_for_no_compaction_count\{[^}]*\}`) == 1
	})
	if blocks := storedBlocks(ctx, t, n, "team-a"); len(blocks) != 2 || !strings.Contains(page("/compactor/tenant/team-a/planned_jobs"), `"jobs":[]`) {
		t.Errorf("with a block set aside there are %v", blocks)
	}
	mark(http.MethodDelete, first.String(), "no-compact-mark")
	merged := ""
	until("the blocks to be merged", func() bool {
		for _, b := range storedBlocks(ctx, t, n, "team-a") {
			if b.Level > 1 {
				merged = b.ID
			}
		}
		return merged != "" && metric(t, page("/metrics"), `amphora_bucket_blocks_marked_for_deletion_count\{[^}]*\}`) == 2
	})
	query := fmt.Sprintf("/prometheus/api/v1/query?query=count(count_over_time(aside[2h]))&time=%d", start.Add(2*time.Hour-time.Second).Unix())
	until("both replicas' series in the merged block", func() bool { return strings.Contains(page(query), `"2"]`) })
	mark(http.MethodPost, merged, "deletion-mark")
	until("a marked block to be hidden", func() bool { return strings.Contains(page(query), `"result":[]`) })
	must(t, block.UnmarkForDeletion(ctx, own, ulid.MustParse(merged))) // as one does who has only the bucket
	until("the block to be back", func() bool { return strings.Contains(page(query), `"2"]`) })

	metrics := page("/metrics")
	for _, m := range []string{`amphora_bucket_index_estimated_compaction_seconds{user="team-a"}`, `amphora_bucket_index_estimated_compaction_jobs{type="merge",user="team-a"}`,
		`amphora_objstore_tenant_requests_total{`, `cause="compaction"`, `cause="query"`} {
		if !strings.Contains(metrics, m) {
			t.Errorf("there is no %s", m)
		}
	}
	if s := page("/prometheus/api/v1/status/tsdb"); !strings.Contains(s, `{"name":"aside","value":2}`) {
		t.Errorf("status of the stored series: %s", s)
	}
}

// oneBlock writes a block of two hours with one series.
func oneBlock(ctx context.Context, t *testing.T, own objstore.Bucket, start time.Time, replica string) ulid.ULID {
	t.Helper()
	work := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	w, err := tsdb.NewBlockWriter(quiet, work, 4*time.Hour.Milliseconds())
	must(t, err)
	app := w.Appender(ctx)
	for j := range 24 {
		_, err := app.Append(0, labels.FromStrings("__name__", "aside", "i", replica), start.Add(time.Duration(j)*5*time.Minute).UnixMilli(), float64(j))
		must(t, err)
	}
	must(t, app.Commit())
	id, err := w.Flush(ctx)
	must(t, err)
	must(t, w.Close())
	must(t, block.Upload(ctx, quiet, own, filepath.Join(work, id.String()), block.Tags{}))
	must(t, os.RemoveAll(filepath.Join(work, id.String())))
	return id
}

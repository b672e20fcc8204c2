package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestBlocksAreCompactedUploadedAndDeleted lets a process compact what its ingester ships, brings
// it a block from elsewhere, and deletes a tenant, while queries see the same samples throughout.
func TestBlocksAreCompactedUploadedAndDeleted(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	dir := t.TempDir()
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{
		"-distributor.ingestion-rate-limit=0", "-ingester.out-of-order-time-window=48h", "-querier.max-samples=10000000",
		"-compactor.compaction-interval=1s", "-compactor.cleanup-interval=1s", "-compactor.first-level-compaction-wait-period=0s",
		"-compactor.deletion-delay=2s", "-compactor.block-upload-enabled=true",
	}})
	n := c.Nodes()[0]
	j := fillHours(ctx, t, n)
	if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
		t.Fatalf("flush answered %s", r)
	}
	uploadBlock(ctx, t, n, j.tenant) // the first query: it reads the bucket index

	// In order and late samples of the same two hours become one block each.
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		jobs := call(ctx, t, http.MethodGet, n.URL("/compactor/tenant/"+j.tenant+"/planned_jobs"), nil, "Accept", "application/json")
		levels, overlaps := 0, 0
		blocks := slices.DeleteFunc(storedBlocks(ctx, t, n, j.tenant), func(b storedBlock) bool { return !b.Marked.IsZero() })
		for i, b := range blocks {
			if b.Level > 1 {
				levels++
			}
			if slices.ContainsFunc(blocks[:i], func(o storedBlock) bool { return o.MinTime.Before(b.MaxTime) && b.MinTime.Before(o.MaxTime) }) {
				overlaps++
			}
		}
		if !strings.Contains(jobs.body, `"jobs":[]`) || levels == 0 || overlaps > 0 {
			return fmt.Errorf("%d blocks, of which %d were compacted and %d have times of others; planned: %s", len(blocks), levels, overlaps, jobs)
		}
		return nil
	}))
	j.verify(ctx, t, n.URL("")) // the index that the querier knows names blocks that are gone
	must(t, n.Process.Stop())
	must(t, os.RemoveAll(n.DataDir))
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	j.verify(ctx, t, n.URL("")) // compacted blocks alone

	if r := call(ctx, t, http.MethodPost, n.URL("/compactor/delete_tenant"), nil, "X-Scope-OrgID", j.tenant); r.status != http.StatusOK {
		t.Fatalf("delete_tenant answered %s", r)
	}
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		r := call(ctx, t, http.MethodGet, n.URL("/compactor/delete_tenant_status"), nil, "X-Scope-OrgID", j.tenant)
		if r.status != http.StatusOK || !strings.Contains(r.body, `"blocks_deleted":true`) {
			return fmt.Errorf("status answered %s", r)
		}
		return nil
	}))
}

type storedBlock struct {
	ID      string    `json:"id"`
	Level   int       `json:"level"`
	MinTime time.Time `json:"minTime"`
	MaxTime time.Time `json:"maxTime"`
	Marked  time.Time `json:"markedForDeletion"`
}

func storedBlocks(ctx context.Context, t *testing.T, n *harness.Node, tenant string) []storedBlock {
	t.Helper()
	r := call(ctx, t, http.MethodGet, n.URL("/store-gateway/tenant/"+tenant+"/blocks"), nil, "Accept", "application/json")
	var out struct{ Blocks []storedBlock }
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		t.Fatalf("blocks page answered %s: %v", r, err)
	}
	return out.Blocks
}

// uploadBlock brings a block of ten days ago by the block upload API and queries it.
func uploadBlock(ctx context.Context, t *testing.T, n *harness.Node, tenant string) {
	t.Helper()
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, 4*time.Hour.Milliseconds())
	must(t, err)
	at := time.Now().Add(-240 * time.Hour).Truncate(2 * time.Hour).UnixMilli()
	app := w.Appender(ctx)
	for i := range 120 {
		_, err := app.Append(0, labels.FromStrings("__name__", "imported"), at+int64(i)*60_000, float64(i))
		must(t, err)
	}
	must(t, app.Commit())
	id, err := w.Flush(ctx)
	must(t, err)
	must(t, w.Close())
	dir = filepath.Join(dir, id.String())

	send := func(path string, body []byte) {
		t.Helper()
		if r := call(ctx, t, http.MethodPost, n.URL("/api/v1/upload/block/"+id.String()+path), body, "X-Scope-OrgID", tenant); r.status != http.StatusOK {
			t.Fatalf("%s answered %s", path, r)
		}
	}
	send("/start", metaWithFiles(t, dir, id))
	for _, name := range []string{"index", "chunks/000001"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		send("/files?path="+name, b)
	}
	send("/finish", nil)
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		r := call(ctx, t, http.MethodGet, n.URL("/api/v1/upload/block/"+id.String()+"/check"), nil, "X-Scope-OrgID", tenant)
		if strings.Contains(r.body, "failed") {
			return harness.Giveup(fmt.Errorf("check answered %s", r))
		}
		if !strings.Contains(r.body, `"complete"`) {
			return fmt.Errorf("check answered %s", r)
		}
		return nil
	}))
	query := fmt.Sprintf("/prometheus/api/v1/query?query=sum_over_time(imported[2h])&time=%d", at/1000+7199)
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		r := call(ctx, t, http.MethodGet, n.URL(query), nil, "X-Scope-OrgID", tenant)
		if !strings.Contains(r.body, `"7140"`) { // 0+1+...+119
			return fmt.Errorf("query of the uploaded block answered %s", r)
		}
		return nil
	}))
}

// metaWithFiles returns the meta file of a block with the list of its files that an upload needs.
func metaWithFiles(t *testing.T, dir string, id ulid.ULID) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal(b, &m))
	var files []map[string]any
	for _, name := range []string{"index", "chunks/000001"} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		files = append(files, map[string]any{"rel_path": name, "size_bytes": info.Size()})
	}
	m["thanos"] = map[string]any{"labels": map[string]string{}, "files": files}
	out, err := json.Marshal(m)
	must(t, err)
	return out
}

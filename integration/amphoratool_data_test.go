package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/integration/harness"
)

func TestTheToolReadsSamplesAndFindsOutWhichAreUsed(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	a := newTool(n, "team")
	now := time.Now()
	for i := range 10 {
		at := now.Add(time.Duration(i-10) * time.Second)
		stored(t, pushV1(ctx, t, n.URL(""), "team", floats(at, 1, "__name__", "orders_total", "job", "a"), floats(at, 2, "__name__", "orders_total", "job", "b"), floats(at, 3, "__name__", "idle", "job", "a")))
	}
	for _, chunks := range []string{"--use-chunks", "--no-use-chunks"} {
		out := a.run(ctx, t, "orders_total", "remote-read", "stats", "--selector", `{__name__=~"orders_total|idle"}`, "--output", "json", chunks)
		var counts []struct{ Series, Samples int }
		must(t, json.Unmarshal([]byte(out), &counts))
		if len(counts) != 2 || counts[0].Series != 2 || counts[0].Samples != 20 || counts[1].Samples != 10 {
			t.Errorf("%s: %s", chunks, out)
		}
	}
	if out := a.run(ctx, t, `{__name__="idle", job="a"} 3 `, "remote-read", "dump", "--selector", "idle"); strings.Count(out, "\n") != 10 {
		t.Errorf("%s", out)
	}
	dir := t.TempDir()
	a.run(ctx, t, "20 samples in ", "remote-read", "export", "--selector", "orders_total", "--tsdb-path", dir)
	promtool(ctx, t, "tsdb", "list", dir)
	blocks, err := filepath.Glob(filepath.Join(dir, "0*"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("%v, %v", blocks, err)
	}
	a.run(ctx, t, "every series and chunk can be read", "inspect", "block", blocks[0])
	a.run(ctx, t, "job", "inspect", "index", blocks[0])

	board := file(t, dir, "board.json", `{"title": "T", "panels": [{"targets": [{"expr": "rate(orders_total{job=~\"$job\"}[$__rate_interval])"}]}]}`)
	used, unused := filepath.Join(dir, "grafana.json"), filepath.Join(dir, "prometheus.json")
	a.run(ctx, t, "1 metrics in 1 dashboards", "analyze", "dashboard", "--output", used, board)
	a.run(ctx, t, "series: 3, of which 2 are used and 1 are not", "analyze", "prometheus", "--grafana-metrics-file", used, "--ruler-metrics-file", filepath.Join(dir, "none"), "--output", unused)
	a.run(ctx, t, "0 metrics in 0 rule groups", "analyze", "ruler", "--output", filepath.Join(dir, "ruler.json"))
	got, err := os.ReadFile(unused)
	if err != nil || !strings.Contains(string(got), `"metric": "idle"`) {
		t.Errorf("%s, %v", got, err)
	}
	a.run(ctx, t, "acknowledged", "loadgen", "--write-url", n.URL("/api/v1/push"), "--active-series", "50", "--scrape-interval", "1s", "--duration", "3s", "--query-url", n.URL("/prometheus"), "--query-parallelism", "1")
}

func TestTheToolWorksOnBlocksInABucket(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 2*time.Minute)
	dir := t.TempDir()
	n := oneProcess(ctx, t, harness.Options{Files: true, Dir: dir, Flags: []string{"-compactor.block-upload-enabled=true", "-compactor.cleanup-interval=2s"}}).Nodes()[0]
	a := newTool(n, "team")
	at := time.Now().Add(-24 * time.Hour).Truncate(2 * time.Hour)
	a.run(ctx, t, "1 uploaded", "migrate", "prometheus", "--sleep-time", "200ms", prometheusData(ctx, t, at))
	bucket := "--filesystem.dir=" + filepath.Join(dir, "blocks")

	out := a.run(ctx, t, "team", "bucket", bucket, "ls", "--output", "json")
	var listed []struct{ Tenant, Block string }
	must(t, json.Unmarshal([]byte(out), &listed))
	if len(listed) != 1 || listed[0].Tenant != "team" {
		t.Fatalf("%s", out)
	}
	block := listed[0].Block
	if _, err := ulid.ParseStrict(block); err != nil {
		t.Error(err)
	}
	a.run(ctx, t, "chunks/000001", "bucket", bucket, "inspect", "team", block)
	// The bucket index comes with the first cleanup.
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		if out, status := a.try(ctx, t, "bucket", bucket, "verify", "--deep"); status != 0 || !strings.Contains(out, "1 blocks looked at, 0 faults") {
			return fmt.Errorf("%d: %s", status, out)
		}
		return nil
	}))
	a.run(ctx, t, block, "bucket", bucket, "index", "team", "--from", at.Format(time.RFC3339), "--until", at.Add(time.Hour).Format(time.RFC3339))
	if out := a.run(ctx, t, "the index is of ", "bucket", bucket, "index", "team", "--until", at.Add(-48*time.Hour).Format(time.RFC3339)); strings.Contains(out, block) {
		t.Errorf("a query of two days before is said to read the block: %s", out)
	}
	// One block is nothing to merge, and by these limits something to split.
	if out := a.run(ctx, t, "[]", "bucket", bucket, "plan", "--output", "json"); strings.Contains(out, block) {
		t.Errorf("a lone block is planned: %s", out)
	}
	server := file(t, t.TempDir(), "amphora.yaml", "blocks_storage: {filesystem: {dir: "+filepath.Join(dir, "blocks")+"}}\nlimits: {compactor_split_and_merge_shards: 2}\ncompactor: {first_level_compaction_wait_period: 0s}\n")
	a.run(ctx, t, block, "bucket", "--config.file", server, "plan", "--output", "yaml")
	a.run(ctx, t, "split", "bucket", "--config.file", server, "plan", "--tenant", "team")
	a.run(ctx, t, "-activity-tracker.max-entries", "config", "inspect", "activity")

	a.run(ctx, t, "marked: no-compact", "bucket", bucket, "mark", "--type", "no-compact", "--details", "a look", "team", block)
	a.run(ctx, t, "manual", "bucket", bucket, "ls")
	a.run(ctx, t, "unmarked: no-compact", "bucket", bucket, "mark", "--type", "no-compact", "--remove", "team", block)
	a.run(ctx, t, "marked: deletion", "bucket", bucket, "mark", "--type", "deletion", "team", block)
	a.run(ctx, t, "is kept", "bucket", bucket, "undelete", "team")
	if out := a.run(ctx, t, block, "bucket", bucket, "ls"); strings.Contains(out, "deletion") {
		t.Errorf("still marked: %s", out)
	}

	other := t.TempDir()
	a.run(ctx, t, "1 copied, 0 there already", "bucket", bucket, "copy", "--to.filesystem.dir="+other)
	a.run(ctx, t, "0 copied, 1 there already", "bucket", bucket, "copy", "--to.filesystem.dir="+other)
	must(t, os.Truncate(filepath.Join(other, "team", block, "chunks", "000001"), 10))
	if out, status := a.try(ctx, t, "bucket", "--filesystem.dir="+other, "verify"); status == 0 || !strings.Contains(out, "has 10 bytes") {
		t.Errorf("a cut chunk was not found: %s", out)
	}
	a.run(ctx, t, "does what is needed", "bucket-validation", "--filesystem.dir="+other, "--object-count", "10")
	a.run(ctx, t, "does what is needed", "bucket-validation", "--bucket-config=-backend=filesystem -filesystem.dir "+other, "--object-count", "10")
	stored(t, pushV1(ctx, t, n.URL(""), "team", floats(time.Now(), 1, "__name__", "x")))
	a.run(ctx, t, "whole", "inspect", "wal", filepath.Join(n.DataDir, "wal"))
}

func TestTheToolManagesWorkspacesWithAnAccessKey(t *testing.T) {
	buildTool(t)
	ctx := bounded(t, 2*time.Minute)
	identities := file(t, t.TempDir(), "identities.yaml", gatewayIdentities)
	n := everything(ctx, t, "-auth.enabled", "-auth.identity-file="+identities)
	a := newTool(n, "")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDOWNER001")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "owner-secret-owner")
	out := a.run(ctx, t, "ws-", "workspace", "create", "--alias", "shop", "--tag", "team=a", "--output", "json")
	var made []struct{ WorkspaceID string }
	must(t, json.Unmarshal([]byte(out), &made))
	if len(made) != 1 {
		t.Fatalf("%s", out)
	}
	id := made[0].WorkspaceID
	a.run(ctx, t, "team=a", "workspace", "list")
	a.run(ctx, t, "", "workspace", "rename", id, "store")
	a.run(ctx, t, "alias: store", "workspace", "describe", id, "--output", "yaml")
	a.run(ctx, t, "", "workspace", "delete", id)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	if out, status := a.try(ctx, t, "workspace", "list"); status == 0 || !strings.Contains(out, "InvalidSignature") {
		t.Errorf("a wrong secret lists: %s", out)
	}
}

func TestTheToolConvertsAConfigurationThatTheServerTakes(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 2*time.Minute)
	a := newTool(everything(ctx, t), "")
	dir := t.TempDir()
	theirs := file(t, dir, "mimir.yaml", "multitenancy_enabled: false\nusage_stats: {enabled: true}\nblocks_storage: {backend: filesystem, filesystem: {dir: "+dir+"/blocks}, tsdb: {dir: "+dir+"/tsdb}}\nlimits: {ingestion_rate: 7}\n")
	overrides := file(t, dir, "overrides.yaml", "overrides: {team: {ingestion_rate: 5, max_series_per_user: 1}}\n")
	ours, runtime := filepath.Join(dir, "amphora.yaml"), filepath.Join(dir, "limits.yaml")
	out := a.run(ctx, t, "left out: usage_stats.enabled", "config", "convert", "--yaml-file", theirs, "--yaml-out", ours, "--runtime-config-file", overrides, "--runtime-config-out", runtime)
	if !strings.Contains(out, "max_global_series_per_user") {
		t.Errorf("%s", out)
	}
	a.run(ctx, t, "valid", "runtime-config", "validate", "--config-file", runtime)
	a.run(ctx, t, "ingestion_rate: 7", "config", "check", ours)
	if out, status := run(ctx, t, binary(ctx, t), "-config.check", "-config.file="+ours); status != 0 {
		t.Errorf("the server refuses it: %s", out)
	}
	if out, status := a.try(ctx, t, "config", "check", theirs); status == 0 || !strings.Contains(out, "usage_stats") {
		t.Errorf("a foreign configuration passes: %s", out)
	}
}

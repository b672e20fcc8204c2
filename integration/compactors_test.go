package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/block"
)

// TestCompactorsShareTheWorkAndTakeOverFromOneThatDies lets three compactors do the jobs of several tenants,
// one of them split, and kills one that is at work. It does not come back and nobody forgets it; the others
// do what was its own, and every sample is there once.
func TestCompactorsShareTheWorkAndTakeOverFromOneThatDies(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 5*time.Minute)
	dir := t.TempDir()
	start := time.Now().Add(-48 * time.Hour).Truncate(24 * time.Hour).UnixMilli()
	made, blocks := filepath.Join(dir, "made"), filepath.Join(dir, "blocks")
	must(t, os.MkdirAll(blocks, 0o750))
	sources := past(ctx, t, made, start, 1)
	overrides := filepath.Join(dir, "overrides.yaml")
	must(t, os.WriteFile(overrides, fmt.Appendf(nil, "overrides:\n  past-%d: {compactor_split_and_merge_shards: %d}\n", pastTenants-1, pastShards), 0o600))
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Dir: dir, Replicas: 1, Files: true,
		Nodes: []harness.Spec{{Name: "compactor-1", Target: "compactor"}, {Name: "compactor-2", Target: "compactor"}, {Name: "compactor-3", Target: "compactor"}},
		Flags: []string{
			"-compactor.compaction-interval=100ms", "-compactor.cleanup-interval=1s", "-compactor.first-level-compaction-wait-period=0s",
			"-compactor.sharding-ring.heartbeat-period=500ms", "-compactor.sharding-ring.heartbeat-timeout=10s",
			"-compactor.sharding-ring.auto-forget-unhealthy-periods=0", "-runtime-config.file=" + overrides,
		}})
	for _, n := range c.Nodes() {
		harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
			members, err := ringOf(ctx, n.URL("/compactor/ring"))
			if err == nil && len(members) != 3 {
				err = fmt.Errorf("%s sees %v", n.Spec.Name, members)
			}
			return err
		}))
	}
	for tenant := range pastTenants { // all blocks of a tenant at once, when everybody knows everybody
		name := fmt.Sprintf("past-%d", tenant)
		must(t, os.Rename(filepath.Join(made, name), filepath.Join(blocks, name)))
	}
	victim := atWork(ctx, t, c, blocks, sources+8)
	must(t, victim.Kill())
	killed := time.Now()

	var survivors []*harness.Node
	for _, n := range c.Nodes() {
		if n != victim {
			survivors = append(survivors, n)
		}
	}
	left := compactions(ctx, t, survivors[0])
	harness.Need(t, harness.Poll(ctx, func(ctx context.Context) error {
		if left := compactions(ctx, t, survivors[0]); left > 0 {
			return fmt.Errorf("%d jobs are due", left)
		}
		return nil
	}))
	took := time.Since(killed)
	members, err := ringOf(ctx, survivors[0].URL("/compactor/ring"))
	must(t, err)
	if len(members) != 3 {
		t.Errorf("the ring has %v, want the dead one, too", members)
	}
	for _, n := range survivors {
		must(t, n.Process.Stop())
	}
	jobs := map[string]int{}
	for _, n := range c.Nodes() {
		text, err := os.ReadFile(n.LogFile)
		must(t, err)
		jobs[n.Spec.Name] = strings.Count(string(text), "blocks compacted")
		if jobs[n.Spec.Name] == 0 && n != victim {
			t.Errorf("%s did nothing", n.Spec.Name)
		}
	}
	after, twice := 0, 0
	for tenant := range pastTenants {
		own := filepath.Join(blocks, fmt.Sprintf("past-%d", tenant))
		after += pastIsWhole(ctx, t, own, tenant, start, 1)
		twice += madeTwice(t, own)
	}
	if want := pastTenants - 1 + pastShards; after != want {
		t.Errorf("%d blocks, want %d, one for each tenant or shard", after, want)
	}
	// Of the one job that was cut off, shards but not all may have been there.
	if twice > pastShards-1 {
		t.Errorf("%d blocks were made twice", twice)
	}
	t.Logf("%d blocks became %d; jobs done by each: %v; %s was killed with %d jobs due, which took %s; %d results were made twice",
		sources, after, jobs, victim.Spec.Name, left, took.Round(time.Millisecond), twice)
}

// atWork waits until there are n blocks, and then for a compactor that is in the middle of a job.
func atWork(ctx context.Context, t *testing.T, c *harness.Cluster, blocks string, n int) *harness.Node {
	t.Helper()
	for ctx.Err() == nil {
		if n > 0 {
			metas, err := filepath.Glob(filepath.Join(blocks, "*", "*", block.MetaFile))
			must(t, err)
			if len(metas) < n {
				pause(ctx, t, 5*time.Millisecond)
				continue
			}
			n = 0
		}
		for _, node := range c.Nodes() {
			files, err := filepath.Glob(filepath.Join(filepath.Dir(node.LogFile), "data", "compactor", "compact", "*", "results", "*"))
			must(t, err)
			if len(files) > 0 {
				return node
			}
		}
		pause(ctx, t, time.Millisecond)
	}
	t.Fatalf("no compactor is seen at work: %v", context.Cause(ctx))
	return nil
}

// madeTwice is how many blocks of a tenant have the sources and the shard of another one, marked or not.
func madeTwice(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	seen := map[string]bool{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name(), block.MetaFile))
		if errors.Is(err, fs.ErrNotExist) || e.Name() == "markers" || !e.IsDir() {
			continue
		}
		must(t, err)
		var m block.Meta
		must(t, json.Unmarshal(text, &m))
		what := fmt.Sprint(m.Compaction.Level > 1, m.Compaction.Sources, m.Thanos.Labels[block.ShardLabel])
		if seen[what] {
			n++
		}
		seen[what] = true
	}
	return n
}

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestATenantThatHasUsedUpItsRequestsIsRefusedAlone reads old blocks, without a bucket index, of a tenant that
// may read three objects an hour, of one that may list once, and of one that may do what it likes.
func TestATenantThatHasUsedUpItsRequestsIsRefusedAlone(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	dir := t.TempDir()
	s := &shelves{blocks: 6}
	s.start = time.Now().Add(-time.Duration(s.blocks+24) * 2 * time.Hour).Truncate(2 * time.Hour)
	s.end = s.start.Add(time.Duration(s.blocks) * 2 * time.Hour)
	const reads, lists, free = "team-reads", "team-lists", "team-free"
	for _, tenant := range []string{reads, lists, free} {
		smallBlocks(ctx, t, filepath.Join(dir, "blocks"), tenant, s.start, s.blocks)
	}
	overrides := filepath.Join(dir, "overrides.yaml")
	must(t, os.WriteFile(overrides, []byte("overrides:\n  "+reads+": {max_object_store_gets_per_hour: 3}\n  "+lists+": {max_object_store_lists_per_hour: 1}\n"), 0o600))
	s.Cluster = harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Dir: dir, Replicas: 1, Files: true,
		Nodes: []harness.Spec{{Name: "base", Target: "ingester,distributor,querier,store-gateway"}}, Flags: []string{"-runtime-config.file=" + overrides}})
	s.base = s.Node("base")
	now := time.Now()
	for tenant, id := range map[string]string{reads: "err-amphora-max-object-store-gets-per-hour", lists: "err-amphora-max-object-store-lists-per-hour"} {
		for range 3 {
			r, err := s.ask(ctx, tenant)
			must(t, err)
			if r.status != http.StatusTooManyRequests || strings.Count(r.body, id) != 1 {
				t.Errorf("tenant %s: the query answered %s, want 429 with %s", tenant, r, id)
			}
		}
		// What needs no request goes on.
		stored(t, pushV1(ctx, t, s.base.URL(""), tenant, prompb.TimeSeries{Labels: pairs("__name__", "fresh"), Samples: []prompb.Sample{{Timestamp: now.UnixMilli(), Value: 7}}}))
	}
	s.whole(ctx, t, free)
	s.whole(ctx, t, free)
	page := call(ctx, t, http.MethodGet, s.base.URL("/metrics"), nil).body
	for _, request := range []string{"get", "list"} {
		if n := metric(t, page, `amphora_bucket_store_over_budget_requests_total\{request="`+request+`"\}`); n == 0 {
			t.Errorf("no request %s that was not made is counted", request)
		}
	}
}

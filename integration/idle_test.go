package integration

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestATenantThatFallsSilentLeavesTheIngester pushes once for two tenants: what they have in memory is cut
// into blocks and shipped, the log is shortened by it, and the tenants are closed, while queries find their
// samples as before. A push opens one of them again.
func TestATenantThatFallsSilentLeavesTheIngester(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	dir := t.TempDir()
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{
		"-blocks-storage.tsdb.head-compaction-interval=1s", "-blocks-storage.tsdb.head-compaction-idle-timeout=3s", "-ingester.wal-truncation-interval=1s",
		"-blocks-storage.tsdb.retention-period=2s", "-querier.query-ingesters-within=1s",
	}})
	n := c.Nodes()[0]
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	tenants := []string{"team-a", "team-b"}
	for _, tenant := range tenants {
		stored(t, pushV1(ctx, t, n.URL(""), tenant, floats(at, 7, "__name__", "quiet")))
	}
	home := func(tenant string) error {
		if _, err := os.Stat(filepath.Join(n.DataDir, "tenants", tenant)); err == nil {
			return errors.New("its directory is there")
		} else if !os.IsNotExist(err) {
			return err
		}
		return nil
	}
	for _, tenant := range tenants {
		eventually(ctx, t, tenant+" to be closed", func() error { return home(tenant) })
	}
	if v := scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_memory_series"); v != 0 {
		t.Errorf("%g series are in memory", v)
	}
	eventually(ctx, t, "the log to be shortened", func() error {
		if v := scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_tsdb_wal_truncations_total"); v == 0 {
			return errors.New("it was not")
		}
		return nil
	})
	query := "/prometheus/api/v1/query?" + url.Values{"query": {"quiet"}, "time": {fmt.Sprint(at.Unix() + 1)}}.Encode()
	for _, tenant := range tenants {
		eventually(ctx, t, "the sample of "+tenant+" in its block", func() error {
			if r := call(ctx, t, http.MethodGet, n.URL(query), nil, "X-Scope-OrgID", tenant); r.status != http.StatusOK || !strings.Contains(r.body, `"7"]`) {
				return fmt.Errorf("query answered %s", r)
			}
			return nil
		})
	}
	eventually(ctx, t, "team-a to be back", func() error {
		stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(time.Now(), 8, "__name__", "quiet")))
		if home("team-a") == nil { // it may have fallen silent already
			return errors.New("it has no directory")
		}
		return nil
	})
	if home("team-b") != nil {
		t.Error("a tenant that is still silent has a directory")
	}
}

package integration

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestABadObjectStoreLosesAndHoldsUpNothing ships, compacts and queries through an object store that
// fails, loses answers and breaks off bodies, hangs, and is away. Writes do not notice, blocks arrive
// whole, and what is answered is right.
func TestABadObjectStoreLosesAndHoldsUpNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	dir := t.TempDir()
	s3, err := harness.StartS3(ctx, harness.TestLog(t), filepath.Join(dir, "s3"), 0, "blocks")
	t.Cleanup(func() {
		if s3 != nil {
			must(t, s3.Stop())
		}
	})
	harness.Need(t, err)
	proxy, err := harness.NewFaultProxy(s3.Endpoint)
	must(t, err)
	t.Cleanup(func() { must(t, proxy.Close()) })
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: append(s3.Flags("blocks"),
		"-blocks-storage.s3.endpoint="+proxy.Endpoint, "-distributor.ingestion-rate-limit=0", "-ingester.out-of-order-time-window=48h",
		"-querier.max-samples=10000000", "-compactor.compaction-interval=1s", "-compactor.cleanup-interval=1s",
		"-compactor.first-level-compaction-wait-period=0s")})
	n := c.Nodes()[0]
	sick := harness.Faults{Fail: 0.3, Lose: 0.1, Cut: 0.1}
	proxy.Set(sick)
	j := fillHours(ctx, t, n)
	flush := func() error {
		if r := call(ctx, t, http.MethodPost, n.URL("/ingester/flush?wait=true"), nil); r.status/100 != 2 {
			return errors.New(r.String())
		}
		return nil
	}
	eventually(ctx, t, "all blocks to be shipped", flush)

	// Nothing can be reached: what is in memory is still written and read, and what is not is refused.
	must(t, n.Process.Stop())
	must(t, os.RemoveAll(n.DataDir))
	proxy.Set(harness.Faults{})
	must(t, n.Start())
	must(t, n.WaitReady(ctx))
	recent := func() {
		t.Helper()
		begin := time.Now()
		r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query?query=now"), nil, "X-Scope-OrgID", "team-b")
		if took := time.Since(begin); !strings.Contains(r.body, `"now"`) || took > 15*time.Second {
			t.Errorf("a query of what is in memory answered %s after %s", r, took)
		}
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-b", floats(time.Now(), 0, "__name__", "now")))
	recent()
	proxy.Set(harness.Faults{Down: true})
	stored(t, pushV1(ctx, t, n.URL(""), "team-b", floats(time.Now(), 1, "__name__", "now")))
	pause(ctx, t, 35*time.Second) // what is remembered of the object store is to be looked at again
	recent()
	if r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query?query=count_over_time(journal[5h])"), nil, "X-Scope-OrgID", j.tenant); r.status/100 != 5 {
		t.Errorf("a query of blocks that cannot be read answered %s", r)
	}

	// It hangs: writes are as fast as ever.
	proxy.Set(harness.Faults{Delay: 20 * time.Second})
	begin := time.Now()
	stored(t, pushV1(ctx, t, n.URL(""), "team-b", floats(time.Now(), 2, "__name__", "now")))
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("a push took %s while the object store hangs", took)
	}

	recent()
	recent()

	proxy.Set(sick)
	eventually(ctx, t, "a sick object store to be read", func() error {
		r, err := try(ctx, http.MethodGet, n.URL("/prometheus/api/v1/query?query=count_over_time(journal[6h])"), nil, "X-Scope-OrgID", j.tenant)
		if err == nil && r.status != http.StatusOK {
			err = errors.New(r.String())
		}
		return err
	})
	proxy.Set(harness.Faults{})
	j.verify(ctx, t, n.URL(""))
	harness.Need(t, harness.Poll(ctx, func(context.Context) error {
		jobs := call(ctx, t, http.MethodGet, n.URL("/compactor/tenant/"+j.tenant+"/planned_jobs"), nil, "Accept", "application/json")
		if !strings.Contains(jobs.body, `"jobs":[]`) {
			return errors.New(jobs.String())
		}
		return nil
	}))
	j.verify(ctx, t, n.URL(""))
	must(t, n.Process.Stop()) // so that no block is on its way
	// What is left of uploads that broke off is no block; the compactor removes it a day later.
	blocks, err := filepath.Glob(filepath.Join(s3.Dir, "blocks", j.tenant, "01*"))
	must(t, err)
	for _, b := range blocks {
		if _, err := os.Stat(filepath.Join(b, "meta.json")); errors.Is(err, os.ErrNotExist) {
			must(t, os.RemoveAll(b))
		}
	}
	inBucket(ctx, t, j, filepath.Join(s3.Dir, "blocks", j.tenant), 24*time.Hour) // how far they were merged depends on the time of day
	requests, done := proxy.Counts()
	t.Logf("%d requests, %d of them with a fault", requests, done)
}

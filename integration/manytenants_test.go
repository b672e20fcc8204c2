package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

// tenantsVariable says how many tenants there are.
const tenantsVariable = "AMPHORA_TEST_TENANTS"

// What a tenant may cost that has pushed once and does nothing since. Live memory is what a collection
// leaves, with the series; what the process has beside it does not grow with tenants.
const (
	heapOfTenant       = 100e3 // bytes
	goroutinesOfTenant = 2
	filesOfTenant      = 2
)

// footprint is what a process uses while nothing happens.
type footprint struct{ heap, goroutines, files float64 }

// TestManyTenantsCostLittle: a process with many tenants holds little for each, and is back with all of their
// samples after it was killed. With make tenants they are 10,000.
func TestManyTenantsCostLittle(t *testing.T) {
	t.Parallel()
	tenants, series := 1000, 5
	if text := os.Getenv(tenantsVariable); text != "" {
		var err error
		tenants, err = strconv.Atoi(text)
		must(t, err)
	}
	ctx := bounded(t, 3*time.Minute+time.Duration(tenants)*100*time.Millisecond)
	c := oneProcess(ctx, t, harness.Options{Files: true, Flags: []string{"-distributor.ingestion-rate-limit=1e8", "-distributor.ingestion-burst-size=100000000"}})
	n := c.Nodes()[0]
	look := func() footprint {
		t.Helper()
		for range 2 { // what the first collection finds in pools is garbage for the second
			_, err := harness.Get(ctx, n.URL("/debug/pprof/heap?gc=1"))
			must(t, err)
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
		must(t, err)
		page := n.URL("/metrics")
		return footprint{scrape(ctx, t, page, "go_memstats_heap_alloc_bytes"), scrape(ctx, t, page, "go_goroutines"), float64(len(files))}
	}
	bound := func(when string, before, now footprint) {
		t.Helper()
		many := float64(tenants)
		each := footprint{(now.heap - before.heap) / many, (now.goroutines - before.goroutines) / many, (now.files - before.files) / many}
		t.Logf("%s: %d tenants of %d series: each %.1f kB of memory, %.3f goroutines, %.4f files", when, tenants, series, each.heap/1e3, each.goroutines, each.files)
		if each.heap > heapOfTenant || each.goroutines > goroutinesOfTenant || each.files > filesOfTenant {
			t.Errorf("%s: a tenant costs %+v", when, each)
		}
	}
	empty := look()
	at := time.Now().Truncate(time.Second)
	options := load.Options{Series: series, Tenants: tenants, Tenant: "tenant", Start: at}
	l, err := load.New(options)
	must(t, err)
	batch, err := l.Prepare(ctx, 1)
	must(t, err)
	report, err := load.Target{URL: n.URL("/api/v1/push"), Connections: 4, Retries: 20}.Send(ctx, batch, false)
	must(t, err)
	if report.Refused > 0 {
		t.Fatalf("%d of %d samples were refused: %s", report.Refused, batch.Samples, report.Refusal)
	}
	eventually(ctx, t, "every tenant to be there", func() error {
		return between(scrape(ctx, t, n.URL("/metrics"), "amphora_ingester_memory_users"), float64(tenants), float64(tenants)+1)
	})
	bound("pushed once", empty, look())
	must(t, n.Kill())
	began := time.Now()
	must(t, errors.Join(n.Start(), n.WaitReady(ctx)))
	t.Logf("ready %s after a kill", time.Since(began).Round(time.Millisecond))
	for i := 0; i < tenants; i += tenants / 50 {
		tenant := options.TenantName(i)
		query := "/prometheus/api/v1/query?" + url.Values{"query": {`count({__name__=~".+"})`}, "time": {fmt.Sprint(at.Unix() + 20)}}.Encode()
		eventually(ctx, t, "the series of "+tenant, func() error {
			r := call(ctx, t, http.MethodGet, n.URL(query), nil, "X-Scope-OrgID", tenant)
			var out struct {
				Data struct{ Result []struct{ Value [2]any } }
			}
			if err := json.Unmarshal([]byte(r.body), &out); err != nil || len(out.Data.Result) != 1 || out.Data.Result[0].Value[1] != strconv.Itoa(series) {
				return fmt.Errorf("it is answered %s, %w", r, err)
			}
			return nil
		})
	}
	bound("read back", empty, look())
}

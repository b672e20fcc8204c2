package integration

import (
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/tools/loadgen/load"
)

// TestLoadIsThereToTheLastSample pushes every kind of sample, with targets that come and go, in
// both versions of remote write, and counts what can be read afterwards.
func TestLoadIsThereToTheLastSample(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	c := oneProcess(ctx, t, harness.Options{Files: true, Flags: []string{
		"-distributor.ingestion-rate-limit=0", "-ingester.max-global-exemplars-per-user=1000",
	}})
	n := c.Nodes()[0]
	for tenant, v2 := range map[string]bool{"v1": false, "v2": true} {
		l, err := load.New(load.Options{
			Series: 3000, Tenants: 3, Tenant: tenant, Version2: v2, Churn: 0.1, Exemplars: 0.05, NativeHistograms: 0.05,
			RequestSamples: 500, Start: time.Now().Add(-2 * time.Minute),
		})
		must(t, err)
		batch, err := l.Prepare(ctx, 8)
		must(t, err)
		report, err := load.Target{URL: n.URL("/api/v1/push"), Connections: 4}.Send(ctx, batch, v2)
		must(t, err)
		if report.Refused > 0 {
			t.Fatalf("%d samples refused: %s", report.Refused, report.Refusal)
		}
		found, err := l.ReadBack(ctx, n.URL("/prometheus"), nil)
		must(t, err)
		must(t, l.Check(found, report))
	}
}

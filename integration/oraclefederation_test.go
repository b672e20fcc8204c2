package integration

import (
	"context"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// newUnitedOracle has tenants of different data and with the limits of overrides, and a Prometheus that has the data of both
// with the label of the tenant.
func newUnitedOracle(ctx context.Context, t *testing.T, overrides string, flags ...string) *oracle {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "overrides.yaml")
	must(t, os.WriteFile(file, []byte(overrides), 0o600))
	n := everything(ctx, t, append(flags, "-runtime-config.file="+file, "-query-frontend.split-queries-by-interval="+oracleSplit.String(), "-query-frontend.parallelize-shardable-queries", "-query-frontend.cache-results",
		"-query-frontend.cache-unaligned-requests", "-querier.query-ingesters-within=0", "-ingester.out-of-order-time-window=500000h", "-validation.name-validation-scheme=utf8",
		"-query-frontend.enabled-promql-experimental-functions=all", "-distributor.ingestion-rate-limit=0", "-query-frontend.query-stats-enabled=false", "-tenant-federation.enabled")...)
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Dir: filepath.Join(dir, "prometheus"), Receiver: true, Late: true, Features: oracleFeatures()})
	harness.Need(t, err)
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	o := &oracle{n: n, base: "http://" + p.Address, tenants: []string{"one|two"}}
	o.start = time.Now().Add(-36 * time.Hour).Truncate(time.Hour).UnixMilli()
	for i, tenant := range []string{"one", "two"} {
		for _, req := range oracleData(uint64(i+1), o.start) {
			if i == 1 {
				thin(req)
			}
			o.pushOf(ctx, t, tenant, req)
		}
	}
	return o
}

// pushOf sends a request for a tenant, and Prometheus the same with the label of the tenant.
func (o *oracle) pushOf(ctx context.Context, t *testing.T, tenant string, req *prompb.WriteRequest) {
	t.Helper()
	raw, err := req.Marshal()
	must(t, err)
	keep(ctx, t, o.n.URL(""), tenant, raw)
	for k := range req.Timeseries { // __tenant_id__ comes before all other labels but __name__
		ls := req.Timeseries[k].Labels
		at := 0
		if ls[0].Name == "__name__" {
			at = 1
		}
		req.Timeseries[k].Labels = append(append(append([]prompb.Label{}, ls[:at]...), prompb.Label{Name: tenantLabel, Value: tenant}), ls[at:]...)
	}
	raw, err = req.Marshal()
	must(t, err)
	stored(t, call(ctx, t, http.MethodPost, o.base+"/api/v1/write", snappy.Encode(nil, raw), "Content-Type", typeV1, "Content-Encoding", "snappy"))
}

// thin takes series from a request, and makes others of another kind: what is a histogram with one tenant is a float
// with the other.
func thin(req *prompb.WriteRequest) {
	kept := req.Timeseries[:0]
	for _, ts := range req.Timeseries {
		text := labelText(ts.Labels)
		switch {
		case strings.Contains(text, `"b"="2"`), strings.Contains(text, `="build_info"`):
			continue
		case strings.Contains(text, `="nhgauge"`) && strings.Contains(text, `"a"="x"`):
			for _, h := range ts.Histograms {
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: h.Timestamp, Value: 7})
			}
			ts.Histograms = nil
		}
		kept = append(kept, ts)
	}
	req.Timeseries = kept
}

// united makes a request name tenants, every so often.
func (g oracleGrammar) united(c oracleCall) oracleCall {
	query := c.form.Get("query")
	swap := func(old string, by ...string) {
		if g.chance(2) {
			query = strings.ReplaceAll(query, old, g.pick(by...))
		}
	}
	swap(`{a="x"}`, `{__tenant_id__="one"}`, `{a="x",__tenant_id__!="one"}`, `{__tenant_id__=~"two|x"}`, `{__tenant_id__!~"t.*"}`)
	swap(`{b!="1"}`, `{__tenant_id__=""}`, `{__tenant_id__="none"}`, `{__tenant_id__=~".+",b!="1"}`, `{original___tenant_id__=""}`)
	swap(` by (a)`, ` by (__tenant_id__)`, ` by (a, __tenant_id__)`, ` without (__tenant_id__)`)
	swap(` on (a)`, ` on (a, __tenant_id__)`, ` on (a, b, __tenant_id__)`)
	swap(` ignoring (b)`, ` ignoring (b, __tenant_id__)`)
	c.form.Set("query", query)
	return c
}

// TestSeveralTenantsAnswerAsOnePrometheus asks for two tenants at once, and a Prometheus that has the data of both
// for the same: results, warnings and infos are those of one.
func TestSeveralTenantsAnswerAsOnePrometheus(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	o := newUnitedOracle(ctx, t, `overrides:
  one: {query_sharding_total_shards: 0, results_cache_ttl: 0s}
  two: {query_sharding_total_shards: 0, results_cache_ttl: 0s}
`)
	asked, wrong, notes := 0, 0, 0
	for seed := range uint64(300) {
		g := oracleGrammar{rand.New(rand.NewPCG(seed, 21))}
		c := g.united(g.call(o.start)[0])
		asked++
		before := o.noted
		if err := o.compare(ctx, c); err != nil {
			t.Errorf("seed %d: %v", seed, err)
			if wrong++; wrong > 20 {
				break
			}
		}
		if o.noted > before {
			notes++
		}
	}
	if t.Logf("%d requests were compared, of which %d have points, %d warnings or infos; %d differ", asked, o.filled, notes, wrong); o.filled < 100 || notes < 50 {
		t.Error("too few have points, or warnings")
	}
}

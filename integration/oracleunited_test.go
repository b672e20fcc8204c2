package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// unitedSeeds are of the requests that are asked before and after samples come late and others are deleted.
const unitedSeeds = 60

// TestSeveralTenantsAnswerAsOnePrometheusFromTheCache asks for two tenants at once, whose queries are sharded, split, spun off
// and kept, and a Prometheus that has the data of both: at first, after samples of one have come late, and after
// some of the other were deleted. Nothing kept may hide that.
func TestSeveralTenantsAnswerAsOnePrometheusFromTheCache(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 6*time.Minute)
	limits := "{query_sharding_total_shards: 4, subquery_spin_off_enabled: true, split_instant_queries_by_interval: 1h, results_cache_ttl_for_labels_query: 1h, results_cache_ttl_for_out_of_order_time_window: 1h}"
	o := newUnitedOracle(ctx, t, "overrides:\n  one: "+limits+"\n  two: "+strings.Replace(limits, "shards: 4", "shards: 3", 1)+"\n", "-compactor.cleanup-interval=1s")
	o.ways = [][]string{{"Cache-Control", "no-store"}, nil, nil}

	kept := o.resultsCacheHits(ctx, t)
	o.compareUnited(ctx, t, "at first")
	if hits := o.resultsCacheHits(ctx, t) - kept; hits < 100 {
		t.Errorf("%v parts of answers came from the results cache, want more", hits)
	}

	late := oracleData(5, o.start)[7:12]
	for _, req := range late {
		thin(req)
		for i := range req.Timeseries {
			for k := range req.Timeseries[i].Samples {
				req.Timeseries[i].Samples[k].Timestamp += 31_007 // between those that there are
			}
			for k := range req.Timeseries[i].Histograms {
				req.Timeseries[i].Histograms[k].Timestamp += 31_007
			}
			if i%5 == 0 { // of some series there was nothing
				req.Timeseries[i].Labels = append(req.Timeseries[i].Labels, prompb.Label{Name: "zz_late", Value: "yes"})
			}
		}
		o.pushOf(ctx, t, "two", req)
	}
	o.compareUnited(ctx, t, "after late samples")

	from, to := o.start+4*3_600_000, o.start+19*3_600_000
	o.erase(ctx, t, "one", `a="y"`, from, to)
	o.erase(ctx, t, "one", `__name__="c_total",b="0"`, o.start, o.start+9*3_600_000)
	o.compareUnited(ctx, t, "after deletions")
	if t.Logf("%d answers have points, %d warnings or infos", o.filled, o.noted); o.filled < 2*unitedSeeds {
		t.Error("too few have points")
	}
}

// resultsCacheHits is how many requests of the results cache were answered from it.
func (o *oracle) resultsCacheHits(ctx context.Context, t *testing.T) float64 {
	t.Helper()
	return scrape(ctx, t, o.n.URL("/metrics"), "amphora_frontend_query_result_cache_hits_total")
}

// compareUnited compares queries and lists. They are the same each time.
func (o *oracle) compareUnited(ctx context.Context, t *testing.T, when string) {
	t.Helper()
	wrong, failed := 0, 0
	for seed := range uint64(unitedSeeds) {
		g := oracleGrammar{rand.New(rand.NewPCG(seed, 33))}
		for _, c := range g.call(o.start) {
			err := o.compare(ctx, oracleGrammar{rand.New(rand.NewPCG(seed, 34))}.united(c))
			switch {
			case err == nil:
				continue
			case strings.Contains(err.Error(), "unexpected error: runtime error"): // Prometheus fails over what was deleted from its head
				failed++
			default:
				t.Errorf("%s, seed %d: %v", when, seed, err)
				wrong++
			}
			break
		}
		if wrong > 10 {
			t.FailNow()
		}
	}
	if t.Logf("%s Prometheus failed over %d queries", when, failed); failed > unitedSeeds/4 {
		t.Errorf("%s: that is too many", when)
	}
	g := oracleGrammar{rand.New(rand.NewPCG(4, 35))}
	for range 60 {
		path := g.pick("labels", "series", "series", "label/a/values", "label/__name__/values", "label/__tenant_id__/values", "label/zz_late/values", "label/original___tenant_id__/values", "label/le/values")
		form := url.Values{"match[]": {g.pick(g.selector(), `{__tenant_id__="one",a="y"}`, `c_total{__tenant_id__="one"}`, `{__tenant_id__=~"two|three"}`, `{__tenant_id__!="two"}`, `{zz_late!=""}`, `{__tenant_id__="none"}`)}}
		form.Set("start", seconds(o.start-3_600_000)) // Prometheus goes by blocks, which begin where it likes
		form.Set("end", seconds(o.start+oracleSpan+3_600_000))
		for range 2 {
			if err := o.compareLists(ctx, path, form); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
}

// erase deletes samples of a tenant's series, and of Prometheus's, and waits until they are gone.
func (o *oracle) erase(ctx context.Context, t *testing.T, tenant, matchers string, from, to int64) {
	t.Helper()
	form := url.Values{"match[]": {"{" + matchers + "}"}, "start": {seconds(from)}, "end": {seconds(to)}}
	if r := call(ctx, t, http.MethodPost, o.n.URL("/prometheus/api/v1/admin/tsdb/delete_series?"+form.Encode()), nil, "X-Scope-OrgID", tenant); r.status != http.StatusNoContent {
		t.Fatalf("deleting answered %s", r)
	}
	united := "{" + tenantLabel + "=" + fmt.Sprintf("%q", tenant) + "," + matchers + "}"
	form.Set("match[]", united)
	if r := call(ctx, t, http.MethodPost, o.base+"/api/v1/admin/tsdb/delete_series?"+form.Encode(), nil); r.status != http.StatusNoContent {
		t.Fatalf("deleting from Prometheus answered %s", r)
	}
	// Those who read hear of it within a minute; whoever took the request knows at once.
	eventually(ctx, t, "the deletion to be seen", func() error {
		return o.compare(ctx, oracleCall{"query", url.Values{"query": {"count(count_over_time(" + united + "[20h]))"}, "time": {seconds(o.start + 20*3_600_000)}}})
	})
}

package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// shelfOwners are tenants with the same series: ten of the name shelves, of an hour, with a sample a minute.
type shelfOwners struct {
	n   *harness.Node
	end time.Time
}

func newShelfOwners(ctx context.Context, t *testing.T, overrides string, tenants ...string) shelfOwners {
	t.Helper()
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	must(t, os.WriteFile(file, []byte(overrides), 0o600))
	c := shelfOwners{end: time.Now().Truncate(time.Minute).Add(-20 * time.Minute)}
	c.n = everything(ctx, t, "-runtime-config.file="+file, "-tenant-federation.enabled", "-ingester.out-of-order-time-window=6h", "-query-frontend.cache-results", "-query-frontend.cache-unaligned-requests",
		"-query-frontend.parallelize-shardable-queries", "-query-frontend.query-sharding-total-shards=2", "-query-frontend.split-queries-by-interval=30m", "-compactor.cleanup-interval=1s")
	for _, tenant := range tenants {
		var series []prompb.TimeSeries
		for i := range 10 {
			s := prompb.TimeSeries{Labels: pairs("__name__", "shelves", "i", fmt.Sprint(i))}
			for m := range 61 {
				s.Samples = append(s.Samples, prompb.Sample{Timestamp: c.end.Add(time.Duration(m-60) * time.Minute).UnixMilli(), Value: 1})
			}
			series = append(series, s)
		}
		stored(t, pushV1(ctx, t, c.n.URL(""), tenant, series...))
	}
	return c
}

// ask asks for the whole hour, as a range or, without a step, for its end.
func (c shelfOwners) ask(ctx context.Context, t *testing.T, tenants, query, step string, header ...string) reply {
	t.Helper()
	form := url.Values{"query": {query}, "time": {seconds(c.end.UnixMilli())}}
	path := "query"
	if step != "" {
		path = "query_range"
		form = url.Values{"query": {query}, "step": {step}, "start": {seconds(c.end.Add(-time.Hour).UnixMilli())}, "end": {seconds(c.end.UnixMilli())}}
	}
	return asker{c.n, tenants}.get(ctx, t, path, form, header...)
}

// TestNoLimitOfATenantIsLooserAmongOthers asks for tenants of which one has a limit, together with another that has none. What is
// fetched counts for each shard.
func TestNoLimitOfATenantIsLooserAmongOthers(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	c := newShelfOwners(ctx, t, `overrides:
  series: {max_fetched_series_per_query: 2}
  chunks: {max_fetched_chunks_per_query: 2}
  bytes: {max_fetched_chunk_bytes_per_query: 100}
  length: {max_total_query_length: 30m}
  text: {max_query_expression_size_bytes: 20}
  blocked: {blocked_queries: [{pattern: 'sum(shelves)', reason: "not this"}]}
  plain: {enabled_promql_experimental_functions: ""}
  free: {enabled_promql_experimental_functions: all}
  fits: {max_fetched_series_per_query: 10}
`, "free", "series", "chunks", "bytes", "length", "text", "blocked", "plain", "fits")
	for tenant, want := range map[string]struct {
		query  string
		status int
		text   string
	}{
		"series":  {"sum(shelves)", 422, "max_fetched_series_per_query"},
		"chunks":  {"sum(shelves)", 422, "max_fetched_chunks_per_query"},
		"bytes":   {"sum(shelves)", 422, "max_fetched_chunk_bytes_per_query"},
		"length":  {"sum(rate(shelves[40m]))", 400, "max_total_query_length"},
		"text":    {"sum(rate(shelves[40m]))", 400, "max_query_expression_size_bytes"},
		"blocked": {"sum(shelves)", 400, "not this"},
		"plain":   {"max(mad_over_time(shelves[5m]))", 400, "enabled_promql_experimental_functions"},
	} {
		for _, of := range []string{tenant, tenant + "|free", "free|" + tenant, "fits|free|" + tenant} {
			for _, step := range []string{"", "60"} {
				for range 2 { // nothing of it is kept
					r := c.ask(ctx, t, of, want.query, step)
					wants(t, fmt.Sprintf("%s of %s by %q", want.query, of, step), r, want.status, want.text)
					if strings.Contains(of, "|") && want.status == 422 && !strings.Contains(r.body, "tenant "+tenant) {
						t.Errorf("of %s: %s, which does not say whose limit that is", of, r)
					}
				}
			}
		}
	}
	// What one tenant has, does not count for another.
	for _, of := range []string{"fits|free", "free|fits"} {
		for range 2 {
			wants(t, of, c.ask(ctx, t, of, "sum(shelves)", ""), 200, `"20"]`)
			if r := c.ask(ctx, t, of, "sum(shelves)", "60"); r.status != 200 || strings.Count(r.body, `"20"]`) != 61 {
				t.Errorf("of %s: %s", of, r)
			}
		}
	}
	// A matcher that leaves the tenant out leaves its limit out, too, where that is about what is fetched.
	wants(t, "without the one", c.ask(ctx, t, "free|series", `sum(shelves{__tenant_id__!="series"})`, ""), 200, `"10"]`)
	now := c.end
	for what, r := range map[string]reply{
		"remote read of samples": asker{c.n, "free|series"}.read(ctx, t, "shelves", now.Add(-time.Hour), now),
		"federate":               call(ctx, t, http.MethodGet, c.n.URL("/prometheus/federate?match[]=shelves"), nil, "X-Scope-OrgID", "free|nobody"),
	} {
		if what == "federate" {
			wants(t, what, r, 200, "") // the samples are too old
			continue
		}
		wants(t, what, r, 422, "max_fetched_series_per_query")
	}
}

// TestTenantsThatAreNotThereLeaveTheOthersTheirAnswers asks for tenants together with one that never wrote, and with one that is
// deleted, whose samples are in no answer any more, be it kept.
func TestTenantsThatAreNotThereLeaveTheOthersTheirAnswers(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	c := newShelfOwners(ctx, t, "overrides:\n  looks: {max_query_lookback: 50m}\n", "stays", "leaves", "looks")
	const query = "sum by (__tenant_id__) (shelves)"
	counts := func(of string, want ...string) error { // of points of each tenant
		for range 2 {
			r := c.ask(ctx, t, of, query, "60")
			lines := strings.Split(r.body, `"__tenant_id__":"`)[1:]
			var got []string
			for _, l := range lines {
				name, rest, _ := strings.Cut(l, `"`)
				got = append(got, fmt.Sprint(name, " ", strings.Count(rest, `"10"]`)))
			}
			if r.status != 200 || strings.Join(got, ", ") != strings.Join(want, ", ") {
				return fmt.Errorf("%s: %s, which has %q, want %q", of, r, got, want)
			}
		}
		return nil
	}
	must(t, counts("stays|nobody", "stays 61"))
	must(t, counts("nobody|neither"))
	must(t, counts("leaves|stays", "leaves 61", "stays 61"))
	if err := counts("leaves|nobody|stays", "leaves 61", "stays 61"); err != nil {
		t.Error(err)
	}
	// How far back one may look is that of its own series.
	r := c.ask(ctx, t, "looks|stays", query, "60")
	own := strings.Split(r.body, `"__tenant_id__":"`)
	if len(own) != 3 || !strings.HasPrefix(own[1], "looks") || strings.Count(own[1], `"10"]`) > 40 || strings.Count(own[2], `"10"]`) != 61 {
		t.Errorf("of the last 50 minutes of one, and all of the other: %s", r)
	}
	stored(t, call(ctx, t, http.MethodPost, c.n.URL("/ingester/flush?wait=true"), nil))
	must(t, counts("leaves|stays", "leaves 61", "stays 61"))
	if r := call(ctx, t, http.MethodPost, c.n.URL("/compactor/delete_tenant"), nil, "X-Scope-OrgID", "leaves"); r.status != 200 {
		t.Fatalf("deleting a tenant answered %s", r)
	}
	eventually(ctx, t, "the answer without the tenant", func() error { return counts("leaves|stays", "stays 61") })
	must(t, counts("leaves|nobody|stays", "stays 61"))
	for _, path := range []string{"label/i/values", "series"} {
		r := asker{c.n, "leaves|stays"}.get(ctx, t, path, url.Values{"match[]": {`{__tenant_id__="leaves"}`}, "start": {seconds(c.end.Add(-time.Hour).UnixMilli())}})
		wants(t, path+" of who left", r, 200, `"data":[]`)
	}
}

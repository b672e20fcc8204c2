package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/api"
)

// patternIdentities has somebody who may do everything with team-a and team-b, and nothing else.
const patternIdentities = gatewayIdentities + `
      - name: free
        keys: [{id: AKIDFREE0001, secret: free-secret-free}]
        policies: [AmazonPrometheusFullAccess]
      - name: held
        keys: [{id: AKIDHELD0001, secret: held-secret-held}]
        inline:
          teams: {Version: "2012-10-17", Statement: {Effect: Allow, Action: "*", Resource: ["arn:aws:aps:*:*:workspace/team-a", "arn:aws:aps:*:*:workspace/team-b"]}}
`

// TestAPatternReadsWhatTheCallerMay asks every row of the table of routes for the tenants that a regular
// expression matches, of tenants that have recent samples only: none shows a tenant that the caller may
// not read, and the reads of several tenants show those that he may.
func TestAPatternReadsWhatTheCallerMay(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	n := guarded(ctx, t, patternIdentities, "-tenant-federation.enabled", "-tenant-federation.regex-matcher-enabled", "-tenant-federation.max-tenants=2",
		"-querier.cardinality-analysis-enabled=true", "-ingester.max-global-exemplars-per-user=1000", "-auth.process-api-rate=0", "-auth.alertmanager-api-rate=0")
	now := time.Now()
	push := func(id, text string) {
		t.Helper()
		s := floats(now, 1, "__name__", "m_"+text, text, "1", "secret", text)
		s.Exemplars = []prompb.Exemplar{{Labels: pairs("trace_id", text), Value: 1, Timestamp: now.UnixMilli()}}
		raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{s}, Metadata: []prompb.MetricMetadata{{MetricFamilyName: "m_" + text, Help: text, Type: prompb.MetricMetadata_GAUGE}}}).Marshal()
		must(t, err)
		if r := signedCall(ctx, t, keyOf("FREE"), "POST", n.URL("/api/v1/push"), string(snappy.Encode(nil, raw)), "X-Scope-OrgID", id, "Content-Encoding", "snappy", "Content-Type", typeV1); r.status != 200 {
			t.Fatalf("push: %s", r)
		}
	}
	for id, text := range map[string]string{"team-a": "seenofa", "team-b": "seenofb", "team-secret": hidden} {
		push(id, text)
	}
	shown := map[string]bool{}
	for _, a := range requests("team-a") {
		row := a.route.Path
		if !strings.HasPrefix(a.path, strings.SplitN(row, "{", 2)[0]) {
			continue // below a workspace there is no header
		}
		a.asks(now)
		a.header[1] = "~team-.*"
		r := signedCall(ctx, t, keyOf("HELD"), a.method, n.URL(a.path), a.body, a.header...)
		if r.shows(hidden) {
			t.Errorf("%s %s shows what the caller may not read: %s", a.method, a.path, r)
		}
		switch {
		case a.route.Tenancy == api.OneTenant && a.route.Style != api.GRPC && r.status != http.StatusUnprocessableEntity && r.status != http.StatusForbidden:
			t.Errorf("%s %s takes a pattern for one tenant: %s", a.method, a.path, r)
		case a.route.Tenancy == api.Tenants && r.shows("seenofa") && r.shows("seenofb"):
			shown[row] = true
		}
	}
	for _, row := range []string{"query", "query_range", "query_exemplars", "series", "labels", "label/{name}/values", "metadata", "read"} {
		if !shown["/prometheus/api/v1/"+row] {
			t.Errorf("%s does not show both tenants; shown: %v", row, fmt.Sprint(shown))
		}
	}
	query := func(key, tenants, text string) reply {
		return signedCall(ctx, t, keyOf(key), "GET", n.URL("/prometheus/api/v1/query?query="+text), "", "X-Scope-OrgID", tenants)
	}
	for _, tc := range []struct {
		key, tenants, query string
		status              int
		want                string
	}{
		{"HELD", "~team-secret", "count(m_" + hidden + ")", 403, "AccessDenied"},
		{"HELD", "team-a|team-secret", "count(m_" + hidden + ")", 403, "AccessDenied"},
		{"HELD", "~team-.*", `count({__tenant_id__="team-secret",__name__=~".%2B"})`, 200, `"result":[]`},
		{"HELD", "~team-.*", `count({__tenant_id__="team-b",__name__=~".%2B"})`, 200, `"1"`},
		{"FREE", "~team-.*", "vector(1)", 422, "at most 2"},
		{"WRITER", "~.*", "vector(1)", 403, "AccessDenied"},
	} {
		if r := query(tc.key, tc.tenants, tc.query); r.status != tc.status || !strings.Contains(r.body, tc.want) && r.header.Get("X-Amzn-Errortype") != tc.want+"Exception" {
			t.Errorf("%s asks %s for %s: %s, want %d and %s", tc.key, tc.tenants, tc.query, r, tc.status, tc.want)
		}
	}
}

// TestPartialDataNamesWhatItLacks reads two tenants of which one cannot be read: whole answers fail, those that
// ask for partial data have what there is and a warning, and never become the answer of somebody else.
func TestPartialDataNamesWhatItLacks(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	file := filepath.Join(t.TempDir(), "limits.yaml")
	must(t, os.WriteFile(file, []byte("overrides: {team-b: {max_fetched_series_per_query: 1}}\n"), 0o600))
	flags := []string{"-tenant-federation.enabled", "-runtime-config.file=" + file, "-query-frontend.parallelize-shardable-queries", "-query-frontend.query-sharding-total-shards=2", "-query-frontend.cache-unaligned-requests"}
	on, off := everything(ctx, t, append(flags, "-tenant-federation.partial-data-enabled")...), everything(ctx, t, flags...)
	now := time.Now()
	for _, n := range []*harness.Node{on, off} {
		for _, id := range []string{"team-a", "team-b"} {
			stored(t, pushV1(ctx, t, n.URL(""), id, floats(now, 1, "__name__", "m", "x", "1"), floats(now, 1, "__name__", "m", "x", "2")))
		}
	}
	at := "&start=" + seconds(now.Add(-time.Hour).UnixMilli()) + "&end=" + seconds(now.UnixMilli()) + "&step=60"
	partial := []string{"X-Scope-OrgID", "team-a|team-b", "X-Amphora-Partial-Data", "true"}
	for range 2 { // the second time what was kept could be given
		for _, path := range []string{"query?query=sum(m)", "query_range?query=sum(m)" + at, "query?query=avg(m)", "series?match[]=m" + at} {
			if r := call(ctx, t, "GET", on.URL("/prometheus/api/v1/"+path), nil, partial...); r.status != 200 || !strings.Contains(r.body, "warnings") || !strings.Contains(r.body, "tenant team-b could not be read") {
				t.Errorf("%s: %s, want 200 with a warning about team-b", path, r)
			}
			if r := call(ctx, t, "GET", on.URL("/prometheus/api/v1/"+path), nil, partial[:2]...); r.status/100 == 2 {
				t.Errorf("%s, not asked for: %s", path, r)
			}
			if r := call(ctx, t, "GET", off.URL("/prometheus/api/v1/"+path), nil, partial...); r.status/100 == 2 {
				t.Errorf("%s, switched off: %s", path, r)
			}
			if r := call(ctx, t, "GET", on.URL("/prometheus/api/v1/"+path), nil, "X-Scope-OrgID", "team-b", "X-Amphora-Partial-Data", "true"); r.status/100 == 2 {
				t.Errorf("%s, of the one tenant that fails: %s", path, r)
			}
		}
	}
	if r := call(ctx, t, "GET", on.URL("/prometheus/api/v1/query?query=sum(m)"), nil, partial...); !strings.Contains(r.body, `"2"]`) {
		t.Errorf("sum: %s, want 2, of team-a", r)
	}
}

// TestAPatternIsReadWhileAnIngesterIsDown: a gateway in a process of its own finds the tenants of a pattern with as many
// ingesters as a read needs, and refuses rather than leave tenants out.
func TestAPatternIsReadWhileAnIngesterIsDown(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 4*time.Minute)
	federation := []string{"-tenant-federation.enabled", "-tenant-federation.regex-matcher-enabled"}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Flags: append(busyFlags(), federation...), Nodes: []harness.Spec{
		{Name: "ingester-1", Target: "ingester"}, {Name: "ingester-2", Target: "ingester"}, {Name: "ingester-3", Target: "ingester"},
		{Name: "services", Target: "distributor,query-frontend,query-scheduler,querier,store-gateway"},
	}})
	settled(ctx, t, c.Nodes(), "ingester-1", "ingester-2", "ingester-3")
	file := filepath.Join(t.TempDir(), "identities.yaml")
	must(t, os.WriteFile(file, []byte(patternIdentities), 0o600))
	services := c.Node("services").URL("")
	g, err := c.Add(harness.Spec{Name: "gateway", Target: "gateway", Flags: []string{"-auth.enabled", "-auth.identity-file=" + file, "-auth.workspace-api-rate=0",
		"-gateway.upstreams=distributor=" + services + ",querier=" + services}})
	must(t, err)
	must(t, g.WaitReady(ctx))
	now := time.Now()
	for _, id := range []string{"team-a", "team-b"} {
		stored(t, pushV1(ctx, t, services, id, floats(now, 1, "__name__", "m")))
	}
	read := func() reply {
		return signedCall(ctx, t, keyOf("FREE"), "GET", g.URL("/prometheus/api/v1/query?query=sum(m)"), "", "X-Scope-OrgID", "~team-.*")
	}
	two := func(when string) {
		t.Helper()
		if r := read(); r.status != 200 || !strings.Contains(r.body, `"2"]`) {
			t.Errorf("%s: %s, want 2, of both tenants", when, r)
		}
	}
	eventually(ctx, t, "the gateway and those that it asks to know each other", func() error {
		if r := read(); r.status == 503 {
			return fmt.Errorf("answered %s", r)
		}
		return nil
	})
	two("all are there")
	must(t, c.Node("ingester-3").Kill())
	two("one is down")
	must(t, c.Node("ingester-2").Kill())
	if r := read(); r.status != 503 {
		t.Errorf("two are down: %s, want 503", r)
	}
}

package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

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

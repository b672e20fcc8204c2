package integration

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// apart is the read path in processes of its own, beside one process of everything else.
func apart() []harness.Spec {
	return []harness.Spec{
		{Name: "store", Target: "ingester,distributor,store-gateway,compactor"},
		{Name: "scheduler-1", Target: "query-scheduler"},
		{Name: "scheduler-2", Target: "query-scheduler"},
		{Name: "querier-1", Target: "querier"},
		{Name: "querier-2", Target: "querier"},
		{Name: "frontend", Target: "query-frontend"},
	}
}

// TestTheReadPathWorksInProcessesOfItsOwn asks a frontend that reaches queriers only by query-schedulers,
// while one of each is killed.
func TestTheReadPathWorksInProcessesOfItsOwn(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Nodes: apart(), Replicas: 1, Files: true,
		Flags: []string{"-query-scheduler.ring.heartbeat-period=1s", "-query-scheduler.ring.heartbeat-timeout=5s", "-querier.timeout=20s"}})
	now := time.Now()
	eventually(ctx, t, "the distributor to store", func() error {
		if r := pushV1(ctx, t, c.Node("store").URL(""), "team-a", floats(now, 7, "__name__", "shelves", "room", "a"), floats(now, 3, "__name__", "shelves", "room", "b")); r.status != 200 {
			return errors.New(r.String())
		}
		return nil
	})
	at := seconds(now.UnixMilli())
	ask := func(path string, form url.Values) (reply, error) {
		return try(ctx, http.MethodGet, c.Node("frontend").URL("/prometheus/api/v1/"+path+"?")+form.Encode(), nil, "X-Scope-OrgID", "team-a")
	}
	expect := func(path, want string, form url.Values) {
		t.Helper()
		eventually(ctx, t, path+" to be answered", func() error {
			r, err := ask(path, form)
			if err != nil {
				return err
			}
			if r.status != 200 || !strings.Contains(r.body, want) {
				return errors.New(r.String())
			}
			return nil
		})
	}
	expect("query", `"10"]`, url.Values{"query": {"sum(shelves)"}, "time": {at}})
	expect("query_range", `"10"]`, url.Values{"query": {"sum(shelves)"}, "start": {at}, "end": {at}, "step": {"15"}})
	expect("label/room/values", `["a","b"]`, nil)
	expect("series", `"room":"b"`, url.Values{"match[]": {"shelves"}})
	if r, err := ask("query", url.Values{"query": {"sum("}}); err != nil || r.status != 400 || !strings.Contains(r.body, "bad_data") {
		t.Errorf("a broken query: %s, %v", r, err)
	}
	if r, err := ask("query", url.Values{"query": {`shelves * on() shelves`}, "time": {at}}); err != nil || r.status != 422 || !strings.Contains(r.body, "many-to-many") {
		t.Errorf("a query that cannot be evaluated: %s, %v", r, err)
	}
	for _, name := range []string{"querier-1", "scheduler-1"} {
		must(t, c.Node(name).Kill())
		expect("query", `"10"]`, url.Values{"query": {"sum(shelves)"}, "time": {at}})
	}
}

// TestSeveralTenantsAreReadAtOnce reads of two tenants, and of no third.
func TestSeveralTenantsAreReadAtOnce(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t, "-tenant-federation.enabled", "-tenant-federation.max-tenants=2")
	now := time.Now()
	for i, id := range []string{"team-a", "team-b", "team-c"} {
		stored(t, pushV1(ctx, t, n.URL(""), id, floats(now, float64(i+1), "__name__", "shelves", "room", id)))
	}
	at := seconds(now.UnixMilli())
	for _, c := range []struct {
		tenants, path string
		form          url.Values
		status        int
		want          string
	}{
		{"team-a|team-b", "query", url.Values{"query": {"sum(shelves)"}, "time": {at}}, 200, `"3"]`},
		{"team-a|team-b", "query", url.Values{"query": {"sum by (__tenant_id__) (shelves{__tenant_id__!=\"team-a\"})"}, "time": {at}}, 200, `{"metric":{"__tenant_id__":"team-b"},"value"`},
		{"team-a|team-b", "query", url.Values{"query": {"shelves{__tenant_id__=\"team-c\"}"}, "time": {at}}, 200, `"result":[]`},
		{"team-a|team-b", "label/__tenant_id__/values", nil, 200, `["team-a","team-b"]`},
		{"team-a|team-b", "labels", nil, 200, `["__name__","__tenant_id__","room"]`},
		{"team-a|team-b", "series", url.Values{"match[]": {"shelves"}}, 200, `[{"__name__":"shelves","__tenant_id__":"team-a","room":"team-a"},{"__name__":"shelves","__tenant_id__":"team-b","room":"team-b"}]`},
		{"team-a", "query", url.Values{"query": {"shelves"}, "time": {at}}, 200, `{"metric":{"__name__":"shelves","room":"team-a"}`},
		{"team-a|team-b|team-c", "query", url.Values{"query": {"shelves"}, "time": {at}}, 422, "too many tenants"},
	} {
		r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/"+c.path+"?")+c.form.Encode(), nil, "X-Scope-OrgID", c.tenants)
		if r.status != c.status || !strings.Contains(r.body, c.want) {
			t.Errorf("%s %s %v: %s, want %d with %s", c.tenants, c.path, c.form, r, c.status, c.want)
		}
	}
}

// TestSeriesAreCountedByTheirLabels asks how many series there are of which labels.
func TestSeriesAreCountedByTheirLabels(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t, "-querier.cardinality-analysis-enabled")
	now := time.Now()
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", floats(now, 1, "__name__", "shelves", "room", "a", "floor", "1"), floats(now, 1, "__name__", "shelves", "room", "b", "floor", "1"),
		floats(now, 1, "__name__", "doors", "room", "a")))
	for _, c := range []struct{ path, want string }{
		{"label_names", `{"label_values_count_total":5,"label_names_count":3,"cardinality":[{"label_name":"__name__","label_values_count":2},{"label_name":"room","label_values_count":2},{"label_name":"floor","label_values_count":1}]}`},
		{"label_names?count_method=active&limit=1&selector=shelves", `{"label_values_count_total":4,"label_names_count":3,"cardinality":[{"label_name":"room","label_values_count":2}]}`},
		{"label_values?label_names[]=room", `{"series_count_total":3,"labels":[{"label_name":"room","label_values_count":2,"series_count":3,"cardinality":[{"label_value":"a","series_count":2},{"label_value":"b","series_count":1}]}]}`},
		{"active_series?selector=shelves", `{"data":[{"__name__":"shelves","floor":"1","room":"a"},{"__name__":"shelves","floor":"1","room":"b"}]}`},
	} {
		r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/cardinality/"+c.path), nil, "X-Scope-OrgID", "team-a")
		if r.status != 200 || strings.TrimSpace(r.body) != c.want {
			t.Errorf("%s: %s\nwant %s", c.path, r, c.want)
		}
	}
	if r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/cardinality/label_names?limit=501"), nil, "X-Scope-OrgID", "team-a"); r.status != 400 {
		t.Errorf("too large a limit: %s", r)
	}
}

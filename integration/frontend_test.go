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

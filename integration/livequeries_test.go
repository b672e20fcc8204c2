package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// live is a list of queries under way.
type live struct {
	Status string
	Data   []struct {
		ID, Frontend, Class, Query string
		Tenants                    []string
		Since                      time.Time
	}
	Warnings []string
}

// underway asks a frontend what is under way: of a tenant, or of all if that is empty.
func underway(ctx context.Context, t *testing.T, n *harness.Node, tenant string) live {
	t.Helper()
	path, header := "/query-frontend/active_queries", []string{}
	if tenant != "" {
		path, header = "/prometheus/api/v1/status/active_queries", []string{"X-Scope-OrgID", tenant}
	}
	got := call(ctx, t, http.MethodGet, n.URL(path), nil, header...)
	var out live
	if err := json.Unmarshal([]byte(got.body), &out); err != nil || got.status != 200 || out.Data == nil {
		t.Fatalf("queries under way: %s, %v", got, err)
	}
	return out
}

// TestQueriesOfAnotherFrontendAreListedAndStopped asks one frontend for what another runs, which ends by kill -9 at last.
func TestQueriesOfAnotherFrontendAreListedAndStopped(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Replicas: 1, Files: true, Nodes: []harness.Spec{
		{Name: "store", Target: "ingester,distributor,store-gateway,query-scheduler"}, {Name: "querier", Target: "querier"},
		{Name: "asked", Target: "query-frontend"}, {Name: "other", Target: "query-frontend"},
	}, Flags: []string{"-query-scheduler.ring.heartbeat-period=1s", "-frontend.ring.heartbeat-period=1s",
		"-distributor.ingestion-rate-limit=0", "-distributor.ingestion-burst-size=10000000"}})
	asked, other, now := c.Node("asked"), c.Node("other"), time.Now().Truncate(time.Minute)
	var all []prompb.TimeSeries
	for i := range 2000 {
		s := prompb.TimeSeries{Labels: pairs("__name__", "shelves", "room", strconv.Itoa(i))}
		for m := 60; m >= 0; m-- {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: now.Add(-time.Duration(m) * time.Minute).UnixMilli(), Value: float64(m * i % 97)})
		}
		all = append(all, s)
	}
	eventually(ctx, t, "the distributor to store", func() error {
		if got := pushV1(ctx, t, c.Node("store").URL(""), "team-a", all...); got.status != 200 {
			return errors.New(got.String())
		}
		return nil
	})
	eventually(ctx, t, "the frontends to find each other", func() error {
		got := call(ctx, t, http.MethodGet, asked.URL("/query-frontend/ring"), nil, "Accept", "application/json")
		if strings.Count(got.body, `"state":"ACTIVE"`) != 2 {
			return errors.New(got.String())
		}
		return nil
	})
	eventually(ctx, t, "a querier to answer", func() error {
		if got := (asker{other, "team-a"}).get(ctx, t, "query", url.Values{"query": {"count(shelves)"}}); got.status != 200 || !strings.Contains(got.body, `"2000"`) {
			return errors.New(got.String())
		}
		return nil
	})
	eventually(ctx, t, "a timeout in the words of the engine", func() error {
		if got := slow(ctx, other, now, "timeout", "0.3"); got.status != 503 || !strings.Contains(got.body, `"errorType":"timeout","error":"query timed out in `) {
			return errors.New(got.String())
		}
		return nil
	})

	answer := make(chan reply, 1)
	begin := func() string {
		go func() { answer <- slow(ctx, other, now) }()
		var id string
		eventually(ctx, t, "the query to be under way", func() error {
			got := underway(ctx, t, asked, "team-a")
			if len(got.Data) != 1 || len(got.Warnings) > 0 {
				return fmt.Errorf("%+v", got)
			}
			if q := got.Data[0]; q.Frontend != "other" || q.Query != slowQuery || q.Class != "ad-hoc" || len(q.Tenants) != 1 || q.Tenants[0] != "team-a" || time.Since(q.Since) > time.Minute {
				return fmt.Errorf("%+v", q)
			}
			id = got.Data[0].ID
			return nil
		})
		return id
	}
	stop := func(path, id string, header ...string) reply {
		return call(ctx, t, http.MethodDelete, asked.URL(path+"/active_queries/"+id), nil, header...)
	}
	computed := func() int {
		page, err := harness.Get(ctx, c.Node("querier").URL("/metrics"))
		must(t, err)
		return metric(t, string(page), `amphora_querier_request_duration_seconds_count{[^}]*status_code="499"[^}]*}`)
	}
	before, id := computed(), begin()
	eventually(ctx, t, "a querier to have it", func() error {
		page, err := harness.Get(ctx, c.Node("store").URL("/metrics"))
		must(t, err)
		if metric(t, string(page), `amphora_query_scheduler_inflight_requests`) == 0 || metric(t, string(page), `amphora_query_scheduler_queue_length(?:{[^}]*})?`) > 0 {
			return errors.New("it is on its way, or waits")
		}
		return nil
	})
	if got := underway(ctx, t, asked, "team-b"); len(got.Data) != 0 {
		t.Errorf("another tenant sees %+v", got)
	}
	if got := underway(ctx, t, asked, ""); len(got.Data) != 1 || got.Data[0].ID != id {
		t.Errorf("an operator sees %+v", got)
	}
	wants(t, "another tenant that stops it", stop("/prometheus/api/v1/status", id, "X-Scope-OrgID", "team-b"), 404, "not_found")
	wants(t, "stopping it", stop("/prometheus/api/v1/status", id, "X-Scope-OrgID", "team-a"), 200, "")
	wants(t, "the stopped query", <-answer, 422, "stopped on request")
	eventually(ctx, t, "the querier to stop computing", func() error {
		if got := computed(); got <= before {
			return fmt.Errorf("%d queries were canceled there, %d before", got, before)
		}
		return nil
	})
	wants(t, "an operator who stops one", stop("/query-frontend", begin()), 200, "")
	wants(t, "the other stopped query", <-answer, 422, "stopped on request")
	page, err := harness.Get(ctx, other.URL("/metrics"))
	must(t, err)
	if got := metric(t, string(page), "amphora_query_frontend_stopped_queries_total"); got != 2 {
		t.Errorf("%d queries were stopped, want 2", got)
	}

	id = begin()
	must(t, other.Kill())
	<-answer
	got := underway(ctx, t, asked, "team-a")
	if len(got.Data) != 0 || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "query-frontend other did not answer") {
		t.Errorf("without the other one: %+v", got)
	}
	wants(t, "stopping what died with it", stop("/query-frontend", id), 503, "query-frontend other did not answer")
}

// slowQuery computes for minutes over an hour in steps of a fraction of a second.
const slowQuery = "sum(quantile_over_time(0.9, shelves[1h]))"

// slow asks it. What goes wrong is in the answer.
func slow(ctx context.Context, n *harness.Node, now time.Time, kv ...string) reply {
	form := around(now, 55*time.Minute, append([]string{"query", slowQuery, "step", "0.301"}, kv...)...)
	got, err := try(ctx, http.MethodGet, n.URL("/prometheus/api/v1/query_range?")+form.Encode(), nil, "X-Scope-OrgID", "team-a", "Cache-Control", "no-store")
	if err != nil {
		got.body = err.Error()
	}
	return got
}

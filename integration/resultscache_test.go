package integration

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// TestAKeptAnswerNeverHidesALateSample asks the same range again, before and after a sample of it comes
// late, and after series are new to it.
func TestAKeptAnswerNeverHidesALateSample(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-ingester.out-of-order-time-window=6h")
	end := time.Now().Truncate(time.Minute).Add(-30 * time.Minute)
	shelf := func(room string, minutes int) prompb.TimeSeries {
		s := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "shelves"}, {Name: "room", Value: room}}}
		for i := minutes; i >= 0; i-- {
			s.Samples = append(s.Samples, prompb.Sample{Timestamp: end.Add(-time.Duration(i) * time.Minute).UnixMilli(), Value: 1})
		}
		return s
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", shelf("a", 60), shelf("b", 60)))
	form := url.Values{"query": {"sum(shelves)"}, "start": {seconds(end.Add(-time.Hour).UnixMilli())}, "end": {seconds(end.UnixMilli())}, "step": {"60"}}
	ask := func(header ...string) (reply, bool) {
		t.Helper()
		r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query_range?")+form.Encode(), nil, append(header, "X-Scope-OrgID", "team-a", "X-Amphora-Response-Query-Stats", "true")...)
		if r.status != 200 {
			t.Fatalf("%s", r)
		}
		return r, !strings.Contains(r.header.Get("Server-Timing"), "results_cache_hit_bytes;val=0")
	}
	first, kept := ask()
	if kept || strings.Count(first.body, `"2"]`) != 61 {
		t.Errorf("the first answer: kept %t, %s", kept, first)
	}
	again, kept := ask()
	if !kept || again.body != first.body {
		t.Errorf("the second answer: kept %t, %s", kept, again)
	}
	if _, kept := ask("Cache-Control", "no-store"); kept {
		t.Error("a request that asks for a new answer was given a kept one")
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", shelf("late", 0)))
	if late, _ := ask(); strings.Count(late.body, `"2"]`) != 60 || strings.Count(late.body, `"3"]`) != 1 {
		t.Errorf("after a late sample: %s", late)
	}
	stored(t, pushV1(ctx, t, n.URL(""), "team-a", shelf("new", 60)))
	if late, _ := ask(); strings.Count(late.body, `"3"]`) != 60 || strings.Count(late.body, `"4"]`) != 1 {
		t.Errorf("after a late series: %s", late)
	}
	if _, kept := ask(); !kept {
		t.Error("what late samples changed is not kept again")
	}
	if r := call(ctx, t, http.MethodGet, n.URL("/prometheus/api/v1/query_range?")+form.Encode(), nil, "X-Scope-OrgID", "team-b"); !strings.Contains(r.body, `"result":[]`) {
		t.Errorf("another tenant: %s", r)
	}
}

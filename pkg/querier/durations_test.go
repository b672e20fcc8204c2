package querier_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/querier"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// TestWorkIsMeasuredByItsRoute: values of labels in paths are no routes, and the status is the one that the client has.
func TestWorkIsMeasuredByItsRoute(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/prometheus/api/v1/label/{name}/values", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") == "bad" {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write([]byte("{}"))
	})
	reg := prometheus.NewRegistry()
	e := &querier.Executor{API: mux, Durations: querier.NewDurations(reg)}
	for _, path := range []string{"/prometheus/api/v1/label/job/values", "/prometheus/api/v1/label/pod/values", "/prometheus/api/v1/label/bad/values", "/somewhere"} {
		rec := httptest.NewRecorder()
		if err := e.Run(t.Context(), &work.Work{Request: httptest.NewRequest(http.MethodGet, path, nil), Writer: rec}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Run(t.Context(), &work.Work{Query: &work.Query{Text: "up", Step: 1, ShardIndex: 2, ShardCount: 1}}); errs.KindOf(err) != errs.Invalid {
		t.Fatalf("a shard that does not exist: %v", err)
	}
	if n := testutil.CollectAndCount(e.Durations); n != 4 {
		t.Errorf("%d series, want one for each route and status: 200, 400, unknown, query", n)
	}
	for labels, want := range map[[3]string]int{
		{"GET", "prometheus_api_v1_label_name_values", "200"}: 2,
		{"GET", "prometheus_api_v1_label_name_values", "400"}: 1,
		{"GET", "other", "404"}:                               1,
		{"POST", "prometheus_api_v1_query_range", "400"}:      1,
	} {
		if got := observed(t, reg, labels); got != want {
			t.Errorf("%v was measured %d times, want %d", labels, got, want)
		}
	}
}

// observed counts the observations of a method, a route and a status.
func observed(t *testing.T, reg prometheus.Gatherer, of [3]string) int {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			if has["method"] == of[0] && has["route"] == of[1] && has["status_code"] == of[2] {
				n += int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return n
}

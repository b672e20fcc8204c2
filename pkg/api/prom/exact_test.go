package prom

import (
	"net/http/httptest"
	"testing"

	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// TestNativeHistogramsAreToldWholeToWhoAcceptsIt: their schema and spans, which JSON does not have. Errors are as
// for everybody.
func TestNativeHistogramsAreToldWholeToWhoAcceptsIt(t *testing.T) {
	a := newAPI(t, setup{})
	ask := func(path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept", work.ExactType+", application/json;q=0.5")
		return a.do(r)
	}
	rec := ask("/query?query=lat")
	v, err := work.ReadExact(rec.Body.Bytes())
	vector, ok := v.(promql.Vector)
	if err != nil || rec.Code != 200 || rec.Header().Get("Content-Type") != work.ExactType || !ok || len(vector) != 1 || vector[0].T != 600_000 ||
		vector[0].H == nil || vector[0].H.PositiveSpans[0].Length != 2 || vector[0].H.PositiveBuckets[1] != 3 {
		t.Errorf("instant: %d %s %v, %v", rec.Code, rec.Header(), v, err)
	}
	rec = ask("/query_range?query=lat&start=0&end=600&step=60")
	v, err = work.ReadExact(rec.Body.Bytes())
	if m, ok := v.(promql.Matrix); err != nil || !ok || len(m) != 1 || len(m[0].Histograms) != 11 {
		t.Errorf("range: %d %v, %v", rec.Code, v, err)
	}
	if rec = ask("/query?query=("); rec.Code != 400 || rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("wrong query: %d %s", rec.Code, rec.Header())
	}
}

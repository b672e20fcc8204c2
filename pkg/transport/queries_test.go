package transport

import (
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

func TestARemoteQueryHasTheAnswerAndTheErrorsOfTheAPI(t *testing.T) {
	tries, often := 0, 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/p/api/v1/query" || r.Header.Get("X-Scope-OrgID") != "a|b" || r.FormValue("time") != "12.345" || r.Header.Get(tenant.ClassHeader) != "rule" {
			t.Errorf("%s, tenant %s, time %s", r.URL, r.Header.Get("X-Scope-OrgID"), r.FormValue("time"))
		}
		switch r.FormValue("query") {
		case "vector":
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"x","z":"1","a":"2"},"value":[12.345,"1.5"]},{"metric":{},"value":[12.345,"NaN"]}]}}`))
		case "scalar":
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"scalar","result":[12.345,"+Inf"]}}`))
		case "histogram":
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[12.345,{"count":"1","sum":"1","buckets":[]}]}]}}`))
		case "exact":
			if !work.AcceptsExact(r.Header.Get("Accept")) {
				t.Error("exact answers are not asked for")
			}
			w.Header().Set("Content-Type", work.ExactType)
			whole := &histogram.FloatHistogram{Schema: 2, Count: 3, Sum: 7, PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}}, PositiveBuckets: []float64{3}}
			if err := work.Exact(promql.Vector{{Metric: labels.FromStrings("a", "b"), T: 12345, H: whole}}, nil, "", func(b []byte) { _, _ = w.Write(b) }); err != nil {
				t.Error(err)
			}
		case "matrix":
			w.Header().Set("Content-Type", work.ExactType)
			if err := work.Exact(promql.Matrix{}, nil, "", func(b []byte) { _, _ = w.Write(b) }); err != nil {
				t.Error(err)
			}
		case "often":
			often++
			w.WriteHeader(429)
			_, _ = w.Write([]byte(`{"status":"error","errorType":"too_many_requests","error":"too many outstanding requests"}`))
		case "bad":
			w.WriteHeader(400)
			_, _ = w.Write([]byte(`{"status":"error","errorType":"bad_data","error":"no such function"}`))
		case "again":
			if tries++; tries < 2 {
				w.WriteHeader(503)
				return
			}
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[]}}`))
		default:
			_, _ = w.Write([]byte(`<html>`))
		}
	}))
	defer s.Close()
	q, err := NewQueries(s.URL+"/p/", time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := work.WithClass(tenant.InjectMany(t.Context(), []tenant.ID{"a", "b"}), work.Rule)
	at := time.UnixMilli(12345)
	v, err := q.Instant(ctx, "vector", at)
	if err != nil || len(v) != 2 || v[0].Metric.String() != `{__name__="x", a="2", z="1"}` || v[0].F != 1.5 || v[0].T != 12345 || !math.IsNaN(v[1].F) {
		t.Errorf("vector: %v, %v", v, err)
	}
	if v, err = q.Instant(ctx, "scalar", at); err != nil || len(v) != 1 || !math.IsInf(v[0].F, 1) {
		t.Errorf("scalar: %v, %v", v, err)
	}
	if v, err = q.Instant(ctx, "again", at); err != nil || len(v) != 0 || tries != 2 {
		t.Errorf("after %d tries: %v, %v", tries, v, err)
	}
	if _, err = q.Instant(ctx, "bad", at); errs.KindOf(err) != errs.Invalid || err.Error() != "no such function" {
		t.Errorf("bad: %v", err)
	}
	if _, err = q.Instant(ctx, "histogram", at); errs.KindOf(err) != errs.Unprocessable {
		t.Errorf("histogram: %v", err)
	}
	if v, err = q.Instant(ctx, "exact", at); err != nil || len(v) != 1 || v[0].H == nil || v[0].H.Schema != 2 || v[0].H.PositiveBuckets[0] != 3 || v[0].Metric.Get("a") != "b" {
		t.Errorf("exact: %v, %v", v, err)
	}
	if _, err = q.Instant(ctx, "matrix", at); err == nil {
		t.Error("a matrix is taken for what a rule records")
	}
	if _, err = q.Instant(ctx, "often", at); errs.KindOf(err) != errs.RateLimited || err.Error() != "too many outstanding requests" || often < 2 {
		t.Errorf("after %d tries: %v", often, err)
	}
	if _, err = q.Instant(ctx, "other", at); errs.KindOf(err) != errs.Internal || !strings.Contains(err.Error(), "<html>") {
		t.Errorf("what is no answer: %v", err)
	}
	for _, bad := range []string{"ftp://x", "http://", "http://a b"} {
		if _, err := NewQueries(bad, time.Second, nil); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if q, err = NewQueries("dns:///front:8080", time.Second, nil); err != nil || q.url != "http://front:8080/prometheus/api/v1/query" {
		t.Errorf("%v, %v", q, err)
	}
}

// FuzzAnswersOfTheQueryAPI reads any answer: it is a vector or an error.
func FuzzAnswersOfTheQueryAPI(f *testing.F) {
	f.Add(200, []byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"2"},"value":[12.345,"1.5"]}]}}`))
	f.Add(200, []byte(`{"status":"success","data":{"resultType":"scalar","result":[1,"+Inf"]}}`))
	f.Add(422, []byte(`{"status":"error","error":"x"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		v, err := decodeAnswer(status, body)
		if err == nil {
			for _, s := range v {
				_ = s.Metric.String()
			}
		}
	})
}

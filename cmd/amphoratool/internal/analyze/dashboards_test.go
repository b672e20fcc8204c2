package analyze

import (
	"slices"
	"testing"
)

func TestMetricsOfADashboardAreFoundBehindItsVariables(t *testing.T) {
	in := &inDashboards{}
	err := in.add([]byte(`{"title": "T", "uid": "u", "templating": {"list": [
		{"query": "label_values(build_info{job=~\"$job\"}, version)"},
		{"query": {"query": "query_result(topk(3, loads_total))"}},
		{"query": "a,b,c"}]},
		"rows": [{"panels": [{"targets": [{"expr": "sum by ($by) (rate(a_total{job=~\"$job\"}[$__rate_interval]))"}]}]}],
		"panels": [{"panels": [{"targets": [{"expr": "max_over_time(b[${window}:$step]) / $__range_s"}, {"expr": "c offset $ago"}, {"expr": "sum("}]}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	in.finish()
	if want := []string{"a_total", "b", "build_info", "c", "loads_total"}; !slices.Equal(in.MetricsUsed, want) {
		t.Errorf("%q, want %q", in.MetricsUsed, want)
	}
	if d := in.Dashboards[0]; d.Title != "T" || len(d.ParseErrors) != 1 {
		t.Errorf("%+v", d)
	}
}

package integration

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// TestPromtoolPushesAndQueries uses a process without tenants as if it were a Prometheus.
func TestPromtoolPushesAndQueries(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t, "-auth.multitenancy-enabled=false")
	file := filepath.Join(t.TempDir(), "metrics")
	must(t, os.WriteFile(file, []byte("# HELP shelves Number of shelves.\n# TYPE shelves gauge\nshelves{room=\"a\"} 1\nshelves{room=\"b\"} 2\n"), 0o600))
	for _, job := range []string{"one", "two"} {
		promtool(ctx, t, "push", "metrics", "--remote-write.path=/api/v1/push", "--label=job="+job, n.URL(""), file)
	}
	base := n.URL("/prometheus")
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"instant", base, `sum by (job) (shelves)`}, []string{`{job="one"} => 3`, `{job="two"} => 3`}},
		{[]string{"range", "--start=" + strconv.FormatInt(time.Now().Unix()-60, 10), "--end=" + strconv.FormatInt(time.Now().Unix()+1, 10), "--step=1s", base, `shelves{room="b",job="one"}`}, []string{`shelves{job="one", room="b"} =>`, "2 @["}},
		{[]string{"labels", base, "room"}, []string{"a\nb"}},
		{[]string{"series", "--match=shelves", base}, []string{`{__name__="shelves", job="one", room="a"}`, `{__name__="shelves", job="two", room="b"}`}},
	} {
		out := promtool(ctx, t, append([]string{"query"}, c.args...)...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("promtool query %s printed\n%s\nwant %q in it", c.args[0], out, want)
			}
		}
	}
}

// TestGrafanaDataSourceCalls makes the calls by which Grafana checks a Prometheus data source and
// fills its query editor.
func TestGrafanaDataSourceCalls(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, time.Minute)
	n := everything(ctx, t)
	now := time.Now().Truncate(time.Second) // programs write fractions of seconds in more than one way
	stored(t, pushRequest(ctx, t, n.URL(""), "team-a", &prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{floats(now, 7, "__name__", "shelves", "room", "a")},
		Metadata:   []prompb.MetricMetadata{{Type: prompb.MetricMetadata_GAUGE, MetricFamilyName: "shelves", Help: "Number of shelves."}},
	}))
	at := seconds(now.UnixMilli())
	span := url.Values{"start": {seconds(now.UnixMilli() - 60_000)}, "end": {at}}
	with := func(kv ...string) url.Values {
		v := url.Values{}
		for k, all := range span {
			v[k] = all
		}
		for i := 0; i+1 < len(kv); i += 2 {
			v.Add(kv[i], kv[i+1])
		}
		return v
	}
	for _, c := range []struct {
		name, method, path string
		form               url.Values
		want               string
	}{
		{"health check", "POST", "query", url.Values{"query": {"1+1"}, "time": {at}}, `"resultType":"scalar","result":[` + short(now.UnixMilli()) + `,"2"]`},
		{"health check by GET", "GET", "query", url.Values{"query": {"1+1"}, "time": {at}}, `"2"]`},
		{"build", "GET", "status/buildinfo", nil, `"application":"Amphora"`},
		{"flags", "GET", "status/flags", nil, `"status":"success"`},
		{"configuration", "GET", "status/config", nil, `"status":"success"`},
		{"metrics", "GET", "label/__name__/values", with("limit", "40000"), `"data":["shelves"]`},
		{"metrics that match", "GET", "label/__name__/values", with("match[]", `{room="a"}`), `"data":["shelves"]`},
		{"metrics that do not", "GET", "label/__name__/values", with("match[]", `{room="b"}`), `"data":[]`},
		{"labels", "POST", "labels", with("match[]", `{__name__="shelves"}`), `"data":["__name__","room"]`},
		{"labels by GET", "GET", "labels", span, `"data":["__name__","room"]`},
		{"series", "POST", "series", with("match[]", `shelves{room=~".+"}`), `"data":[{"__name__":"shelves","room":"a"}]`},
		{"metadata", "GET", "metadata", url.Values{"limit": {"40000"}}, `"shelves":[{"type":"gauge","unit":"","help":"Number of shelves."}]`},
		{"metadata of one", "GET", "metadata", url.Values{"metric": {"shelves"}}, `"gauge"`},
		{"graph", "POST", "query_range", with("query", "shelves", "step", "15"), `"values":[[` + short(now.UnixMilli()) + `,"7"]]`},
		{"table", "POST", "query", url.Values{"query": {"shelves"}, "time": {at}}, `"metric":{"__name__":"shelves","room":"a"},"value":[` + short(now.UnixMilli()) + `,"7"]`},
		{"exemplars", "POST", "query_exemplars", with("query", "shelves"), `"data":[]`},
		{"layout", "GET", "format_query", url.Values{"query": {"sum(shelves)by(room)"}}, `"data":"sum by (room) (shelves)"`},
		{"syntax tree", "POST", "parse_query", url.Values{"query": {"sum(shelves)"}}, `"type":"aggregation"`},
		{"no time range", "GET", "label/room/values", nil, `"data":["a"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, body := n.URL("/prometheus/api/v1/"+c.path), ""
			header := []string{"X-Scope-OrgID", "team-a", "User-Agent", "Grafana/12.2.0"}
			if c.method == http.MethodPost {
				body, header = c.form.Encode(), append(header, "Content-Type", "application/x-www-form-urlencoded")
			} else {
				target += "?" + c.form.Encode()
			}
			r := call(ctx, t, c.method, target, []byte(body), header...)
			if r.status != 200 || !json.Valid([]byte(r.body)) || !strings.Contains(r.body, c.want) {
				t.Errorf("answered %s\nwant %s", r, c.want)
			}
			if kind := r.header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("content type %q", kind)
			}
		})
	}
}

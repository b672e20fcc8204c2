package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// exchange is one request as it goes over the wire.
type exchange struct {
	method, target, body string
	header               []string
	// ours is the status that ours has where that is not Prometheus's on purpose.
	ours int
}

func (e exchange) String() string {
	return fmt.Sprintf("%s %s %q %q", e.method, e.target, e.body, e.header)
}

// send sends e to where base is, without what Go's client adds, and undoes the encoding of the answer.
func (e exchange) send(ctx context.Context, base string) (r reply, err error) {
	client := http.Client{Transport: bare, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, e.method, base+e.target, strings.NewReader(e.body))
	if err != nil {
		return r, err
	}
	req.Header.Set("X-Scope-OrgID", "full")
	for i := 0; i < len(e.header); i += 2 {
		req.Header.Add(e.header[i], e.header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return r, err
	}
	defer res.Body.Close()
	body := io.Reader(res.Body)
	if e.method != http.MethodHead {
		switch res.Header.Get("Content-Encoding") {
		case "":
		case "gzip":
			body, err = gzip.NewReader(body)
		case "deflate":
			body, err = zlib.NewReader(body)
		default:
			err = fmt.Errorf("unknown encoding of %s", res.Header)
		}
		if err != nil {
			return r, err
		}
	}
	text, err := io.ReadAll(body)
	return reply{status: res.StatusCode, header: res.Header, body: string(text)}, err
}

var bare = &http.Transport{DisableCompression: true}

// TestAnswersOverHTTPAreThoseOfPrometheus compares methods, encodings, paths and parameters that are odd.
// What is intended to differ:
//   - There is no CORS and no OPTIONS: what is read needs a tenant's credentials, which pages of other sites must not use.
//   - Prometheus compresses by gzip or deflate when their name stands alone in Accept-Encoding, ours by gzip what is
//     larger than a packet, and heeds q.
//   - HEAD is answered wherever GET is, which Prometheus refuses (405).
//   - POST of label values is answered, as by Grafana Mimir.
//   - A path with a slash at its end is unknown (404): Prometheus redirects it to where there is nothing.
//   - A form or content type that is broken is refused (400), whatever the call: Prometheus leaves out what it cannot
//     read of queries, and of POST, without a word.
//   - What a Prometheus says of its own targets, notifications and state does not exist for tenants (404).
func TestAnswersOverHTTPAreThoseOfPrometheus(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	o := newOracle(ctx, t)
	for _, e := range exchanges(o.start) {
		want, err := e.send(ctx, o.base+"/api/v1/")
		must(t, err)
		got, err := e.send(ctx, o.n.URL("/prometheus/api/v1/"))
		if err != nil {
			t.Errorf("%s: %v", e, err)
			continue
		}
		status := want.status
		if e.ours != 0 {
			status = e.ours
		}
		if got.status != status {
			t.Errorf("%s\nanswered %s\nwant %d, for %s", e, got, status, want)
			continue
		}
		if e.ours != 0 {
			if e.method == http.MethodGet && e.ours/100 == 4 && (mediaType(got) != "application/json" || refusal(got).Error == "") {
				t.Errorf("%s: refused without JSON: %s", e, got)
			}
			continue
		}
		kind, wantKind := mediaType(got), mediaType(want)
		if want.body != "" && kind != wantKind && wantKind == "application/json" {
			t.Errorf("%s: content type %q, want %q", e, kind, wantKind)
		}
		if g, w := comparable(got.body), comparable(want.body); wantKind == "application/json" && g != w {
			t.Errorf("%s\nanswered %.800s\nwant     %.800s", e, g, w)
		}
	}
	o.compareStatus(ctx, t)
}

func mediaType(r reply) string {
	kind, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	return kind
}

// comparable is JSON in one order, of statistics only the names.
func comparable(body string) string {
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return body
	}
	if data, ok := v["data"].(map[string]any); ok && data["stats"] != nil {
		data["stats"] = keysOf(data["stats"])
	}
	if list, ok := v["data"].([]any); ok {
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	if data, ok := v["data"].(map[string]any); ok {
		if list, ok := data["result"].([]any); ok && data["resultType"] != "scalar" && data["resultType"] != "string" {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	}
	out, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// keysOf has only the names of what v has.
func keysOf(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return "value"
	}
	out := map[string]any{}
	for k, x := range m {
		out[k] = keysOf(x)
	}
	return out
}

func exchanges(start int64) []exchange {
	at := seconds(start + oracleSpan/2)
	query := "query?time=" + at + "&query="
	ranged := "query_range?start=" + at + "&end=" + seconds(start+oracleSpan/2+3_600_000) + "&step=60&query="
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	get := func(target string, header ...string) exchange {
		return exchange{method: "GET", target: target, header: header}
	}
	post := func(target, body string) exchange {
		return exchange{method: "POST", target: target, body: body, header: form}
	}
	var out []exchange
	large := ranged + url.QueryEscape(`{a="x"}`)
	for _, enc := range []string{"", "gzip", "gzip;q=0", "gzip;q=0.5, deflate", "gzip; q=1.0", "deflate", "deflate, gzip", "zstd", "br, zstd, gzip", "identity", "*", "*;q=0", "identity;q=0", "GZIP", "gzip;q=x", ",,", "x-gzip"} {
		out = append(out, get(large, "Accept-Encoding", enc), get("labels", "Accept-Encoding", enc), get(query+"1%2B", "Accept-Encoding", enc))
	}
	for _, accept := range []string{"application/json", "application/x-protobuf", "text/html", "*/*", "text/plain;q=0", "application/json;q=0.1, */*;q=0", "nonsense"} {
		out = append(out, get(query+"g", "Accept", accept), get("series?match[]=g", "Accept", accept), get(query+")", "Accept", accept))
	}
	for _, target := range []string{query + "1", "labels", "label/a/values", "series?match[]=g", "metadata", "format_query?query=1", "parse_query?query=1", "query_exemplars?query=g"} {
		out = append(out, exchange{method: "HEAD", target: target, ours: 200}, exchange{method: "OPTIONS", target: target, header: []string{"Origin", "http://other.example"}, ours: 405},
			get(target, "Origin", "http://other.example"), exchange{method: "DELETE", target: target}, exchange{method: "PUT", target: target})
	}
	for _, target := range []string{"query/?query=1", "labels/", "label/a/values/", "status/runtimeinfo", "features", "notifications", "targets", "targets/metadata", "scrape_pools", "alertmanagers", "status/walreplay", "status/self_metrics"} {
		out = append(out, exchange{method: "GET", target: target, ours: 404})
	}
	for _, target := range []string{"/labels", "./labels", "label/a/../b/values", "nothing", "", "label/a", "query%20?query=1"} {
		out = append(out, get(target))
	}
	for _, params := range []string{"", "&time=", "&timeout=", "&limit=", "&lookback_delta=", "&stats=", "&query=2", "&time=1&time=2", "&limit=1&limit=2", "&limit=2&limit=1", "&stats=all", "&stats=true", "&stats=false", "&stats=all&stats=", "&Limit=1", "&unknown=1",
		"&timeout=1s", "&timeout=1s&timeout=x", "&timeout=1h", "&timeout=10", "&timeout=0.5", "&lookback_delta=1ms", "&lookback_delta=60", "&lookback_delta=1h", "&lookback_delta=0", "&lookback_delta=-5m", "&lookback_delta=1m&lookback_delta=x", "&limit=0", "&limit=%31", "&limit=1%00",
		"&step=1", "&start=1", "&match[]=x"} {
		out = append(out, get(query+"g"+params), get(ranged+"g"+params), post("query", "time="+at+"&query=g"+params))
	}
	for _, params := range []string{"", "&limit=", "&limit=0", "&limit=2&limit=1", "&start=", "&end=", "&start=1&start=x", "&match[]=", "&match[]=k", "&match[]=g&match[]=g", "&match=k", "&match%5B%5D=k", "&match[0]=k"} {
		out = append(out, get("series?match[]=g"+params), get("labels?match[]=g"+params), get("label/a/values?match[]=g"+params), post("series", "match[]=g"+params), post("labels", "match[]=g"+params), get("labels?x=1"+params))
	}
	broken := func(e exchange) exchange {
		e.ours = http.StatusBadRequest
		return e
	}
	for _, params := range []string{"&limit=1;", "&%zz", "&limit=%", "&a;b=1"} {
		out = append(out, broken(get(query+"g"+params)), broken(get(ranged+"g"+params)), broken(post("query", "time="+at+"&query=g"+params)), get("series?match[]=g"+params), broken(post("labels", "match[]=g"+params)))
	}
	out = append(out,
		post("query?query=1&time="+at, "query=2"), post("query?time=1", "query=time()&time=2"), post("query?query=vector(1)&time="+at, ""), post("query?limit=1&time="+at, "query=g&limit=2"),
		exchange{method: "GET", target: query + "1", body: "query=2", header: form}, post("query", "query=1&query=2&time="+at), broken(post("query", "time="+at+"&query=1%")), broken(post("query", "time="+at+"&query=1;x=2")),
		exchange{method: "POST", target: "query", body: "query=1&time=" + at, header: []string{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}},
		exchange{method: "POST", target: "query", body: "query=1&time=" + at, header: []string{"Content-Type", "APPLICATION/X-WWW-FORM-URLENCODED"}},
		exchange{method: "POST", target: "query", body: "query=1&time=" + at, header: []string{"Content-Type", "application/x-www-form-urlencoded;;"}, ours: 400},
		exchange{method: "POST", target: "query", body: "query=1&time=" + at, header: []string{"Content-Type", "nonsense/"}, ours: 400},
	)
	for _, q := range []string{`sum(g) by(a)`, `{"näme with dots.and/more"}`, `g[5m] offset -1h @ end()`, `limitk(1, g)`, `info(g)`, `sum(rate(g[5m])) > bool 3 or vector(1)`, `g offset (1h + 5m)`, `"text"`, `1 # comment`, `histogram_quantiles(nh, "q", 0.5)`, `g anchored`, `rate(g[5m] smoothed)`,
		`g + fill(0) k`, strings.Repeat("(", 20) + "g" + strings.Repeat(")", 20), `count_values("x", g)`, `label_replace(g, "a", "$1", "b", "(.*)")`, `-g ^ 2`, `g == on() group_left(x) k`, `absent(g{a=~"\\d+"})`, "g{a='x',b=`y`}", ``, `  `, `)`, `g{`, `nofunc(g)`} {
		out = append(out, get("format_query?query="+url.QueryEscape(q)), get("parse_query?query="+url.QueryEscape(q)), post("format_query", "query="+url.QueryEscape(q)), post("parse_query", "query="+url.QueryEscape(q)))
	}
	return out
}

// compareStatus compares what clients read of the status: the names, as the values are of the process.
func (o *oracle) compareStatus(ctx context.Context, t *testing.T) {
	for target, optional := range map[string][]string{
		"status/buildinfo": {"application", "features"}, // ours has more, as Grafana Mimir
		"status/config":    nil,
		"status/tsdb":      nil,
		"status/flags":     nil,
	} {
		want, err := exchange{method: "GET", target: target}.send(ctx, o.base+"/api/v1/")
		must(t, err)
		got, err := exchange{method: "GET", target: target}.send(ctx, o.n.URL("/prometheus/api/v1/"))
		must(t, err)
		if got.status != want.status {
			t.Errorf("%s: answered %s, want %s", target, got, want)
			continue
		}
		if target == "status/flags" { // ours has none
			continue
		}
		if g, w := namesIn(t, got.body, optional), namesIn(t, want.body, optional); !slices.Equal(g, w) {
			t.Errorf("%s: names %q, want %q", target, g, w)
		}
	}
}

func namesIn(t *testing.T, body string, without []string) []string {
	var v struct{ Data map[string]any }
	must(t, json.Unmarshal([]byte(body), &v))
	for _, k := range without {
		delete(v.Data, k)
	}
	return slices.Sorted(maps.Keys(v.Data))
}

// strictExpressions use what Prometheus has behind flags, each alone.
func strictExpressions() []string {
	out := []string{`limitk(1, g)`, `limit_ratio(0.5, g)`, `sum(limitk by (a) (1, g))`, `rate(g[5m] anchored)`, `rate(g[5m] smoothed)`, `g smoothed`, `g anchored`, `g[5m + 5m]`, `g[step()]`, `g offset (1h + 5m)`, `g[5m] offset -(1h)`, `g offset step()`, `rate(g[max_of(5m, step())])`,
		`g + fill(0) k`, `g + on (a) fill_left(0) k`, `g + ignoring (a) fill_right(0) fill_left(1) k`, `sum_over_time(g[1h:5m * 2])`, `info(g, {zone="eu"})`, `histogram_quantiles(nh, "q", 0.5, 0.9)`, `g </ 5`, `nh >/ 5`, `start()`, `step() + 1`, `range()`, `end()`, `1 + step()`}
	for _, name := range slices.Sorted(maps.Keys(parser.Functions)) {
		f := parser.Functions[name]
		if !f.Experimental || name == "info" { // whose arguments are of another kind
			continue
		}
		var args []string
		for _, kind := range f.ArgTypes {
			args = append(args, map[parser.ValueType]string{parser.ValueTypeVector: "g", parser.ValueTypeMatrix: "g[5m]", parser.ValueTypeScalar: "1", parser.ValueTypeString: `"a"`}[kind])
		}
		out = append(out, name+"("+strings.Join(args, ", ")+")")
	}
	return out
}

// TestWhatIsNotAllowedIsRefusedAsByPrometheus asks for all that is experimental, of a tenant that is allowed nothing and of a
// Prometheus without flags. What Prometheus has behind a flag, ours refuses in words of its own: it names the tenant's
// limit instead of a flag that no tenant can set. All else is answered equally.
func TestWhatIsNotAllowedIsRefusedAsByPrometheus(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Dir: t.TempDir(), Receiver: true})
	harness.Need(t, err)
	t.Cleanup(func() { must(t, p.Stop()) })
	refused := 0
	for _, q := range strictExpressions() {
		for _, target := range []string{"query?time=1000&query=", "query_range?start=1000&end=1060&step=60&query=", "format_query?query=", "parse_query?query=", "query_exemplars?query="} {
			e := exchange{method: "GET", target: target + url.QueryEscape(q)}
			want, err := e.send(ctx, "http://"+p.Address+"/api/v1/")
			must(t, err)
			got, err := e.send(ctx, n.URL("/prometheus/api/v1/"))
			must(t, err)
			if strings.Contains(refusal(want).Error, "experimental and") || strings.HasSuffix(refusal(want).Error, `" is not enabled`) {
				refused++
				if r := refusal(got); got.status != want.status || r.ErrorType != refusal(want).ErrorType || !strings.Contains(r.Error, "is experimental and not enabled; an administrator can add it to the tenant's enabled_promql_experimental_functions") ||
					strings.HasPrefix(r.Error, "invalid parameter") != strings.HasPrefix(refusal(want).Error, "invalid parameter") {
					t.Errorf("%s of %s answered %s, want %s", e.target, q, got, want)
				}
				continue
			}
			if g, w := comparable(got.body), comparable(want.body); got.status != want.status || g != w {
				t.Errorf("%s of %s\nanswered %d %.600s\nwant     %d %.600s", e.target, q, got.status, g, want.status, w)
			}
		}
	}
	if t.Logf("%d requests are refused", refused); refused < 50 {
		t.Error("too few were refused")
	}
}

// describedPages are what targets say of their metrics: of some, not the same.
func describedPages() []string {
	pages := make([]string, 2)
	for i := range pages {
		for k := range 6 {
			pages[i] += fmt.Sprintf("# HELP both_%d Help \"%d\\\\n\" ü.\n# TYPE both_%d gauge\nboth_%d 1\n", k, k, k, k)
		}
		pages[i] += fmt.Sprintf("# HELP differs_total Of target %d.\n# TYPE differs_total counter\ndiffers_total 1\n# HELP kind Of one kind.\n# TYPE kind %s\nkind{quantile=\"1\"} 1\n# TYPE helpless gauge\nhelpless 1\nbare 1\n", i, []string{"gauge", "untyped"}[i])
		pages[i] += fmt.Sprintf("# HELP hist A histogram.\n# TYPE hist histogram\nhist_bucket{le=\"+Inf\"} 1\nhist_sum 1\nhist_count 1\n# HELP only_%d Here.\n# TYPE only_%d summary\nonly_%d{quantile=\"0.5\"} 1\nonly_%d_sum 1\nonly_%d_count 1\n", i, i, i, i, i)
	}
	return pages
}

// TestMetadataIsThatOfThePrometheusThatSendsIt compares what both know of metrics: a Prometheus that scrapes, and
// the tenant that it writes to. Which metrics or entries a limit leaves is open, as is their order.
func TestMetadataIsThatOfThePrometheusThatSendsIt(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	n := everything(ctx, t)
	var targets []string
	for _, page := range describedPages() {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = io.WriteString(w, page)
		}))
		t.Cleanup(s.Close)
		targets = append(targets, strings.TrimPrefix(s.URL, "http://"))
	}
	p, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{Dir: t.TempDir(), Targets: targets, PushURL: n.URL("/api/v1/push"), Tenant: "full"})
	harness.Need(t, err)
	t.Cleanup(func() { must(t, p.Stop()) })
	theirs, ours := "http://"+p.Address, n.URL("/prometheus")
	within(ctx, t, "have the same metadata", func() error {
		want, got := metadataOf(ctx, t, theirs, ""), metadataOf(ctx, t, ours, "full")
		if len(want["differs_total"]) != 2 || len(want["only_0"]) != 1 {
			return fmt.Errorf("not all was scraped: %q", want)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
	all := metadataOf(ctx, t, theirs, "")
	for _, params := range []string{"", "limit=0", "limit=1", "limit=3", "limit=1000", "limit=-1", "limit=-7", "limit=", "limit_per_metric=1", "limit_per_metric=0", "limit_per_metric=-1", "limit_per_metric=2&limit=4", "metric=differs_total", "metric=differs_total&limit_per_metric=1",
		"metric=nothing", "metric=", "metric=both_1&metric=both_2", "metric=hist", "metric=hist_bucket", "metric=only_0&limit=0", "metric=both_1&limit=1", "limit=1.5", "limit=1&limit=2"} {
		e := exchange{method: "GET", target: "metadata?" + params}
		want, err := e.send(ctx, theirs+"/api/v1/")
		must(t, err)
		got, err := e.send(ctx, ours+"/api/v1/")
		must(t, err)
		if got.status != want.status || refusal(got) != refusal(want) {
			t.Errorf("%s answered %s, want %s", params, got, want)
			continue
		}
		g, w := describedIn(t, got), describedIn(t, want)
		if len(g) != len(w) {
			t.Errorf("%s: %d metrics %q, want %d %q", params, len(g), g, len(w), w)
		}
		for name, entries := range g {
			if other, ok := w[name]; ok && len(other) != len(entries) {
				t.Errorf("%s: %s has %q, want %q", params, name, entries, other)
			}
			for _, entry := range entries {
				if !slices.Contains(all[name], entry) {
					t.Errorf("%s: %s has %q, of which Prometheus does not know", params, name, entry)
				}
			}
		}
	}
}

// describedIn is what an answer says, as metadataOf has it.
func describedIn(t *testing.T, r reply) map[string][]string {
	t.Helper()
	var v struct {
		Data map[string][]struct{ Type, Help, Unit string }
	}
	must(t, json.Unmarshal([]byte(r.body), &v))
	out := map[string][]string{}
	for name, entries := range v.Data {
		out[name] = []string{}
		for _, e := range entries {
			out[name] = append(out[name], e.Type+"|"+e.Help+"|"+e.Unit)
		}
	}
	return out
}

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// badCall is a request that Prometheus refuses, or takes where one might not expect it.
type badCall struct {
	method, target, contentType, body string
	// ours is what we answer where that is not what Prometheus does: a status and a part of the text.
	ours      string
	ourStatus int
}

// badGet and badPost make requests.
func badGet(target string) badCall { return badCall{method: "GET", target: target} }

func badPost(path, form string) badCall {
	return badCall{method: "POST", target: path, contentType: "application/x-www-form-urlencoded", body: form}
}

func (b badCall) says(status int, text string) badCall {
	b.ourStatus, b.ours = status, text
	return b
}

// badCalls are wrong in all the ways of one parameter, and in some of several, to see which is named.
func badCalls() []badCall {
	ranged := "query_range?query=g&start=1&end=2&step=1"
	with := func(base string, kv ...string) badCall {
		path, query, _ := strings.Cut(base, "?")
		form, _ := url.ParseQuery(query)
		for i := 0; i < len(kv); i += 2 {
			form.Set(kv[i], kv[i+1])
		}
		return badGet(path + "?" + form.Encode())
	}
	out := []badCall{
		badGet("query"), badGet("query?query="), badGet("query?query=g{"), badGet("query?query=g[5m"), badGet("query?query=sum(g)by"), badGet("query?query=%22"), badGet("query?query=g%20offset"),
		badGet("query?query=rate(g)"), badGet("query?query=nofunc(g)"), badGet("query?query=g+%2B+on(a)+1"), badGet("query?query={}"), badGet(`query?query={a=~".*"}`), badGet("query?query=g[5m]+1"),
		badGet("query_range?query=g[5m]&start=1&end=2&step=1"), badGet("query_range?query=%22x%22&start=1&end=2&step=1"), badGet("query_range?query=g&start=1&end=2"), badGet("query_range?query=g&start=1&step=1"),
		badGet("query_range?query=g&end=1&step=1"), badGet("query_range?query=g"), badGet("query_range"), badGet("query_range?start=2&end=1&step=0&limit=x"), badGet("query_range?start=2&end=1&step=0"), badGet("query_range?start=1&end=2&step=0&query=)"),
		badGet("query_range?query=g&start=1&end=1e9&step=1"), badGet("query_range?query=)&start=1&end=1e9&step=1"),
		badGet("query?query=)&limit=x&time=x&timeout=x&lookback_delta=x"), badGet("query?query=)&time=x&timeout=x&lookback_delta=x"), badGet("query?query=)&timeout=x&lookback_delta=x"), badGet("query?query=)&lookback_delta=x"),
		badGet("series"), badGet("series?limit=x"), badGet("series?start=x"), badGet("series?match[]=)&limit=x"), badGet("series?match[]=)&start=x"), badGet("series?match[]="), badGet("series?match[]={}"), badGet(`series?match[]={a=""}`),
		badGet("series?match[]=g&match[]=)"), badGet("series?match[]=rate(g[5m])"), badGet("series?match[]=g[5m]"), badGet("series?match[]=g+offset+5m"), badGet("series?match[]=g%2Bg"),
		badGet("labels?match[]=)"), badGet("labels?match[]={}"), badGet("labels?match[]=)&limit=x"), badGet("labels?match[]=)&end=x&start=y"), badGet("labels?limit=-1"), badGet("labels?match[]=g[5m]"),
		badGet("label/a/values?match[]=)"), badGet("label/a/values?match[]={}"), badGet("label/a/values?limit=x"), badGet("label/a/values?start=x"), badGet("label/%FF/values"), badGet("label//values").says(404, ""), badGet("label/%FF/values?limit=x"),
		badGet("query_exemplars"), badGet("query_exemplars?query="), badGet("query_exemplars?query=)"), badGet("query_exemplars?query=g&start=x"), badGet("query_exemplars?query=g&end=x"), badGet("query_exemplars?query=)&start=2&end=1"), badGet("query_exemplars?query=1"), badGet("query_exemplars?query=rate(g[5m])"),
		badGet("format_query"), badGet("format_query?query=)"), badGet("format_query?query=g"), badGet("parse_query"), badGet("parse_query?query=)"), badGet("parse_query?query=sum(g)"),
		badGet("metadata?limit=x"), badGet("metadata?limit_per_metric=x"), badGet("metadata?limit=x&limit_per_metric=x"),
		badPost("query", ""), badPost("query", "query=)"), badPost("query_range", "query=g"), badPost("query?query=g&time=x", "time=1"), badPost("query?query=g&time=1", "time=x"), badPost("series?match[]=)", "match[]=g"), badPost("labels", "match[]=)"),
		{method: "POST", target: "query", contentType: "text/plain", body: "query=g"}, {method: "POST", target: "query", contentType: "application/json", body: `{"query":"g"}`}, {method: "POST", target: "query", body: "query=g"},
		{method: "POST", target: "query?query=1", contentType: "multipart/form-data; boundary=b", body: "--b\r\nContent-Disposition: form-data; name=\"time\"\r\n\r\nx\r\n--b--\r\n"},
		{method: "PUT", target: "query?query=1"}, {method: "DELETE", target: "query?query=1"}, {method: "PATCH", target: "labels"}, badCall{method: "POST", target: "label/a/values"}.says(200, `["x","y","z"]`), {method: "POST", target: "metadata"},
		{method: "GET", target: "read"}, {method: "PUT", target: "series?match[]=g"},
	}
	for _, v := range []string{"x", "-1", "1.5", "1e3", "99999999999999999999", "", "%00", " 1", "0x10", "+3"} {
		out = append(out, with("query?query=g", "limit", v), with(ranged, "limit", v), with("labels", "limit", v), with("series?match[]=nothing", "limit", v), with("label/nothing/values", "limit", v))
	}
	for _, v := range []string{"x", "2026-13-01T00:00:00Z", "2026-01-01", "1 ", "0x10", "1_000", "-1", "1e9", "2026-01-01T00:00:00+02:00", "1970-01-01T00:00:00.123456789Z", "-292273086-05-16T16:47:06Z", "+292277025-08-18T07:12:54.999999999Z"} {
		if at := with("query?query=time()", "time", v); strings.Contains(v, "29227") { // Prometheus then answers for the year 2185
			out = append(out, at.says(400, ""))
		} else {
			out = append(out, at)
		}
		out = append(out, with(ranged, "start", v), with("query_range?query=nothing&start=0&end=0&step=1000000", "end", v), with("labels?match[]=nothing", "start", v),
			with("series?match[]=nothing", "end", v), with("label/nothing/values", "start", v), with("query_exemplars?query=nothing", "start", v))
	}
	for _, v := range []string{"x", "0", "-1", "1h-", "1x", "h", "1e30", "-1e30", "9223372037", "Inf", "1h30m", "0s", "300y", "1.5h", "0x10", " 5"} {
		out = append(out, with("query_range?query=nothing&start=1&end=2", "step", v), with("query?query=nothing", "lookback_delta", v))
		if v != "0" && v != "-1" && v != "0s" {
			out = append(out, with("query?query=nothing", "timeout", v))
		}
	}
	return out
}

// TestBadRequestsAreRefusedInTheWordsOfPrometheus compares what is said of bad requests.
func TestBadRequestsAreRefusedInTheWordsOfPrometheus(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	o := newOracle(ctx, t)
	for _, c := range badCalls() {
		header := []string{"X-Scope-OrgID", "full"}
		if c.contentType != "" {
			header = append(header, "Content-Type", c.contentType)
		}
		want := call(ctx, t, c.method, o.base+"/api/v1/"+c.target, []byte(c.body), header...)
		got := call(ctx, t, c.method, o.n.URL("/prometheus/api/v1/")+c.target, []byte(c.body), header...)
		what := fmt.Sprintf("%s %s %q", c.method, c.target, c.body)
		if c.ourStatus != 0 {
			wants(t, what, got, c.ourStatus, c.ours)
			continue
		}
		g, w := refusal(got), refusal(want)
		if got.status != want.status || g != w {
			t.Errorf("%s\nanswered %s\nwant     %s", what, got, want)
		}
		if want.status == 405 && got.header.Get("Allow") == "" {
			t.Errorf("%s: no header says what is allowed", what)
		}
	}
}

// refused is the error of an answer.
type refusedAs struct{ Status, ErrorType, Error string }

func refusal(r reply) (out refusedAs) {
	_ = json.Unmarshal([]byte(r.body), &out) // what is no JSON has no error
	return out
}

// TestListsAreThoseOfAPrometheusBesideUs compares labels, values and series.
func TestListsAreThoseOfAPrometheusBesideUs(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	o := newOracle(ctx, t)
	g := oracleGrammar{rand.New(rand.NewPCG(1, 3))}
	for range 400 {
		path := g.pick("labels", "series", "label/a/values", "label/__name__/values", "label/nothing/values", "label/la bel/values", "label/U__la_20_bel/values", "label/U__a/values", "label/le/values")
		form := url.Values{}
		for range g.IntN(4) {
			form.Add("match[]", g.selector())
		}
		if path == "series" && len(form) == 0 {
			form.Add("match[]", g.selector())
		}
		if g.chance(2) {
			form.Set("limit", g.pick("0", "1", "3", "5", "100000"))
		}
		if g.chance(3) {
			form.Set("start", seconds(o.start-3_600_000))
			form.Set("end", seconds(o.start+oracleSpan+3_600_000))
		}
		must(t, o.compareLists(ctx, path, form))
	}
}

func (o *oracle) compareLists(ctx context.Context, path string, form url.Values) error {
	return o.compareListsAt(ctx, path, form, o.n.URL("/prometheus"))
}

// compareListsAt is compareLists of the tenants of another server.
func (o *oracle) compareListsAt(ctx context.Context, path string, form url.Values, base string) error {
	type list struct {
		refusedAs
		Data            []any
		Warnings, Infos []string
	}
	ask := func(base, tenant string) (out list, err error) {
		r, err := try(ctx, http.MethodGet, base+"/api/v1/"+(&url.URL{Path: path}).EscapedPath()+"?"+form.Encode(), nil, "X-Scope-OrgID", tenant)
		if err != nil {
			return out, err
		}
		if err := json.Unmarshal([]byte(r.body), &out); err != nil {
			return out, fmt.Errorf("%s: %w", r, err)
		}
		return out, nil
	}
	want, err := ask(o.base, "")
	if err != nil {
		return err
	}
	texts := func(l list) []string {
		var out []string
		for _, x := range l.Data {
			b, _ := json.Marshal(x) // it was JSON
			out = append(out, string(b))
		}
		if path == "series" {
			slices.Sort(out)
		}
		return out
	}
	for _, tenant := range o.tenants {
		got, err := ask(base, tenant)
		if err != nil {
			return err
		}
		g, w := texts(got), texts(want)
		if path == "series" && len(want.Warnings) > 0 { // which are cut off is open
			g, w = []string{fmt.Sprint(len(g))}, []string{fmt.Sprint(len(w))}
		}
		if got.refusedAs != want.refusedAs || !slices.Equal(g, w) || !slices.Equal(got.Warnings, want.Warnings) || !slices.Equal(got.Infos, want.Infos) {
			return fmt.Errorf("tenant %s: %s?%s answered\n%.1500v\nwant\n%.1500v", tenant, path, form.Encode(), got, want)
		}
	}
	return nil
}

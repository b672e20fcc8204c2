package api

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// guarded is a word that stands in everything that a label policy hides.
const guarded = "hidden"

// twoTeams is metadata of metrics of both teams.
type twoTeams struct{}

func (twoTeams) Metadata(context.Context, string, int, int) (map[string][]metadata.Metadata, error) {
	return map[string][]metadata.Metadata{"mine_total": {{Help: "of us"}}, "both_total": {{Help: "of us all"}}, "hidden_total": {{Help: guarded}}}, nil
}

// withTwoTeams is a process with series, exemplars and metadata of two teams.
func withTwoTeams(t *testing.T) *API {
	t.Helper()
	deps := everything(t, new(fakes))
	deps.Federation = 4
	db, ok := deps.Read.Storage.(*teststorage.TestStorage)
	if !ok {
		t.Fatalf("%T", deps.Read.Storage)
	}
	now := time.Now().UnixMilli()
	app := db.Appender(t.Context())
	for _, ls := range []labels.Labels{
		labels.FromStrings("__name__", "mine_total", "team", "a", "job", "x"),
		labels.FromStrings("__name__", "both_total", "team", "a", "job", "y"),
		labels.FromStrings("__name__", "both_total", "team", "b", "hidden_label", "hidden-1"),
		labels.FromStrings("__name__", "hidden_total", "team", "b", "job", "hidden-2"),
		labels.FromStrings("__name__", "none_total", "job", "hidden-3"),
	} {
		ref, err := app.Append(0, ls, now-1000, 4711)
		if err != nil {
			t.Fatal(err)
		}
		trace := "ours"
		if ls.Get("team") != "a" {
			trace = guarded
		}
		if _, err := app.AppendExemplar(ref, ls, exemplar.Exemplar{Labels: labels.FromStrings("trace", trace), Value: 1, Ts: now - 1000, HasTs: true}); err != nil {
			t.Logf("exemplar not stored: %v", err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	deps.Read.Metadata = twoTeams{}
	return newAPI(t, defaults(t), deps)
}

// attempts are the parameters by which somebody would try to see more.
func attempts(reads prom.Reads) []url.Values {
	var out []url.Values
	around := url.Values{"start": {"0"}, "end": {"4000000000"}, "step": {"1000000"}}
	add := func(name string, values ...string) {
		v := maps.Clone(around)
		v[name] = values
		out = append(out, v)
	}
	switch reads {
	case prom.ByQuery:
		for _, q := range []string{
			`{__name__=~".+"}`, `hidden_total`, `both_total`, `both_total{team="b"}`, `both_total{team=~".*"}`, `sum by (team, hidden_label, job) ({__name__=~".+"})`,
			`rate({__name__=~".+"}[5m])`, `both_total or hidden_total or none_total`, `count_values("v", hidden_total)`, `label_replace(both_total, "x", "$1", "hidden_label", "(.*)")`,
			`max_over_time(both_total[1h:1m])`, `both_total @ end()`, `both_total offset -1s`, `topk(9, {job=~".*"})`, `{"hidden_total"}`, `absent(hidden_total{job="x"})`, `count(hidden_total) + 4000`,
		} {
			add("query", q)
		}
		add("query", `mine_total`, `hidden_total`) // twice
	case prom.ByMatch, prom.ByMatchMay:
		add("limit", "0")
		for _, m := range [][]string{{`{__name__=~".+"}`}, {`hidden_total`}, {`{team="b"}`}, {`mine_total`, `hidden_total`}, {`{team=~"a|b"}`, `{team=""}`, `none_total`}} {
			add("match[]", m...)
		}
	}
	return out
}

// send sends one attempt in each way that the route takes.
func send(a *API, rt *Route, path string, form url.Values, policy string) []*httptest.ResponseRecorder {
	var out []*httptest.ResponseRecorder
	for method := range strings.SplitSeq(rt.Methods, ",") {
		ways := []func() *http.Request{func() *http.Request { return httptest.NewRequest(method, path+"?"+form.Encode(), http.NoBody) }}
		if method == http.MethodPost {
			ways = append(ways, func() *http.Request {
				r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				return r
			}, func() *http.Request { // half in the form and half in the address
				r := httptest.NewRequest(method, path+"?"+form.Encode(), strings.NewReader(form.Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				return r
			})
		}
		for _, way := range ways {
			r := way()
			r.Header.Set("X-Scope-OrgID", "t1")
			if policy != "" {
				r.Header.Set(tenant.PolicyHeader, policy)
			}
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			out = append(out, w)
		}
	}
	return out
}

// TestLabelPoliciesNeverLeak tries every route of the table that acts for a tenant.
func TestLabelPoliciesNeverLeak(t *testing.T) {
	a := withTwoTeams(t)
	policy := "t1:" + url.QueryEscape(`{team="a"}`)
	seen := map[prom.Reads]int{}
	open := 0 // answers that show something hidden without a policy
	for _, rt := range a.Mounted() {
		if rt.Tenancy == NoTenant {
			continue
		}
		reads := rt.reads
		seen[reads]++
		paths := []string{target(rt)}
		if strings.Contains(rt.Path, "/label/") {
			paths = nil
			for _, name := range []string{"__name__", "team", "job", "hidden_label"} {
				paths = append(paths, strings.Replace(rt.Path, "{name}", name, 1))
			}
		}
		switch reads {
		case prom.Unselected:
			for _, w := range send(a, &rt, paths[0], url.Values{}, policy) {
				if w.Code != http.StatusForbidden {
					t.Errorf("%s cannot be held to series and answers %d: %s", rt.Path, w.Code, w.Body)
				}
			}
		case prom.ByQuery, prom.ByMatch, prom.ByMatchMay:
			for _, path := range paths {
				for _, form := range attempts(reads) {
					for _, w := range send(a, &rt, path, form, policy) {
						if body := w.Body.String(); strings.Contains(body, guarded) && !strings.Contains(form.Encode(), guarded) || strings.Contains(body, `"b"`) || strings.Contains(body, "hidden-") || strings.Contains(body, "4711") && strings.Contains(form.Get("query"), "count_values") || strings.Contains(body, `"4001"`) || w.Code >= 500 {
							t.Errorf("%s with %v leaks: %d %s", path, form, w.Code, body)
						}
					}
					for _, w := range send(a, &rt, path, form, "") {
						if strings.Contains(w.Body.String(), guarded) {
							open++
						}
					}
				}
			}
		}
	}
	for _, reads := range []prom.Reads{prom.Unselected, prom.ByQuery, prom.ByMatch, prom.ByMatchMay, prom.ByMatchers, prom.NoSeries} {
		if seen[reads] == 0 {
			t.Errorf("no route names series by %d", reads)
		}
	}
	if open < 20 {
		t.Errorf("without a policy only %d answers show what is hidden: the attempts prove nothing", open)
	}
	// What may be seen is seen.
	w := get(a, "GET", "/prometheus/api/v1/query?query="+url.QueryEscape(`count({__name__=~".+"})`), "X-Scope-OrgID", "t1", tenant.PolicyHeader, policy)
	if !strings.Contains(w.Body.String(), `"2"`) {
		t.Errorf("own series: %s", w.Body)
	}
	if w := get(a, "GET", "/prometheus/api/v1/metadata", "X-Scope-OrgID", "t1", tenant.PolicyHeader, policy); !strings.Contains(w.Body.String(), "mine_total") || strings.Contains(w.Body.String(), guarded) {
		t.Errorf("own metadata: %s", w.Body)
	}
}

func TestRemoteReadIsHeldToLabelPolicies(t *testing.T) {
	a := withTwoTeams(t)
	for _, types := range [][]prompb.ReadRequest_ResponseType{nil, {prompb.ReadRequest_STREAMED_XOR_CHUNKS}} {
		req := prompb.ReadRequest{AcceptedResponseTypes: types, Queries: []*prompb.Query{{EndTimestampMs: 1 << 50, Matchers: []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "__name__", Value: ".+"}}}}}
		plain, err := req.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		for policy, leaks := range map[string]bool{"": true, "t1:" + url.QueryEscape(`{team="a"}`): false} {
			r := httptest.NewRequest("POST", "/prometheus/api/v1/read", bytes.NewReader(s2.EncodeSnappy(nil, plain)))
			r.Header.Set("X-Scope-OrgID", "t1")
			if policy != "" {
				r.Header.Set(tenant.PolicyHeader, policy)
			}
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			body, _ := io.ReadAll(w.Body)
			if len(types) == 0 {
				if body, err = s2.Decode(nil, body); err != nil {
					t.Fatal(err)
				}
			}
			if w.Code != 200 || bytes.Contains(body, []byte(guarded)) != leaks || !bytes.Contains(body, []byte("mine_total")) {
				t.Errorf("policy %q: %d %q", policy, w.Code, body)
			}
		}
	}
}

func TestLabelPoliciesUniteAndIntersect(t *testing.T) {
	a := withTwoTeams(t)
	item := func(selectors ...string) string {
		return "t1:" + strings.Join(slices.Collect(func(yield func(string) bool) {
			for _, s := range selectors {
				if !yield(url.QueryEscape(s)) {
					return
				}
			}
		}), "|")
	}
	count := func(org string, policies ...string) (int, string) {
		r := httptest.NewRequest("GET", "/prometheus/api/v1/query?query="+url.QueryEscape(`count({__name__=~".+"})`), http.NoBody)
		r.Header.Set("X-Scope-OrgID", org)
		for _, p := range policies {
			r.Header.Add(tenant.PolicyHeader, p)
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for _, c := range []struct {
		name, org string
		policies  []string
		status    int
		want      string
	}{
		{"either", "t1", []string{item(`{team="a"}`, `{team="b"}`)}, 200, `"4"`},
		{"either, one an expression", "t1", []string{item(`{team="a",job=~".*"}`, `{team=~"b|c",job=~".*"}`)}, 200, `"4"`},
		{"both", "t1", []string{item(`{team="a"}`), item(`{job="x"}`)}, 200, `"1"`},
		{"by name", "t1", []string{item(`{__name__=~"m.*"}`)}, 200, `"1"`},
		{"alternatives of different labels", "t1", []string{item(`{team="a"}`, `{job="x"}`)}, 403, "differ"},
		{"rubbish", "t1", []string{item(`{team=`)}, 403, "cannot be read"},
		{"no selector", "t1", []string{"t1:"}, 403, "cannot be read"},
		{"of another tenant", "t1", []string{"t2:" + url.QueryEscape(`{team="a"}`)}, 200, `"5"`},
		{"of one of two tenants", "t1|t2", []string{item(`{team="a"}`)}, 403, "differ"},
	} {
		if status, body := count(c.org, c.policies...); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s", c.name, status, body)
		}
	}
}

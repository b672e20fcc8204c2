package limits

import (
	"bytes"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
)

const blocking = `
overrides:
  team-a:
    blocked_requests:
      - {path: /prometheus/api/v1/series, method: POST}
      - path: /prometheus/api/v1/labels
        query_params:
          match[]: {value: 'a|b', is_regexp: true}
          limit: {value: "0"}
`

func TestRequestsAreBlockedByAllThatARuleNames(t *testing.T) {
	o, _ := started(t, blocking)
	rules := BlockedRequests.Of(o.For("team-a")).List()
	for _, c := range []struct {
		method, path, query string
		want                bool
	}{
		{"POST", "/prometheus/api/v1/series", "", true}, {"GET", "/prometheus/api/v1/series", "", false}, {"POST", "/prometheus/api/v1/series/", "", false},
		{"GET", "/prometheus/api/v1/labels", "match[]=b&limit=0", true}, {"POST", "/prometheus/api/v1/labels", "match[]=x&match[]=a&limit=0", true},
		{"GET", "/prometheus/api/v1/labels", "match[]=ab&limit=0", false}, {"GET", "/prometheus/api/v1/labels", "match[]=a", false}, {"GET", "/prometheus/api/v1/query", "match[]=a&limit=0", false},
	} {
		params, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		got := false
		for i := range rules {
			got = got || rules[i].Matches(c.method, c.path, params)
		}
		if got != c.want {
			t.Errorf("%s %s?%s is blocked: %v", c.method, c.path, c.query, got)
		}
	}
	var page bytes.Buffer
	if err := o.WriteRuntime(&page, "diff"); err != nil {
		t.Fatal(err)
	}
	again, _ := started(t, page.String())
	if v := BlockedRequests.Of(again.For("team-a")); !same(BlockedRequests.Of(o.For("team-a")), v) {
		t.Errorf("reads back as %v:\n%s", v, page.String())
	}
}

func TestRulesOfRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"[{}]":          "would be all requests",
		"[{paths: /a}]": `did you mean "path"`,
		"[{query_params: {a: {value: '(', is_regexp: true}}}]":  "missing closing",
		"[{query_params: {a: {value: b, is_regexp: perhaps}}}]": "neither true nor false",
		"[{query_params: {a: {valu: b}}}]":                      "unknown key",
	} {
		file := filepath.Join(t.TempDir(), "runtime.yaml")
		write(t, file, "overrides:\n  a:\n    blocked_requests: "+text+"\n")
		o := NewOverrides(&Defaults{}, RuntimeConfig{Files: []string{file}, Period: time.Second}, Deps{Reg: prometheus.NewRegistry()})
		if services.StartAndAwaitRunning(t.Context(), o) == nil {
			t.Fatalf("started with %s", text)
		}
		if err := o.FailureCase(); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "blocked_requests[0]") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

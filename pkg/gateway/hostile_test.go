package gateway

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// TestWhatIsAllowedIsWhatIsServed holds the table against the multiplexer that requests reach next: a
// path that both know must be the same row for both.
func TestWhatIsAllowedIsWhatIsServed(t *testing.T) {
	routes := append(table1(),
		Route{Methods: "GET", Path: "/x/{a}", Action: "aps:A"}, Route{Methods: "GET", Path: "/x/lit", Action: "aps:B"},
		Route{Methods: "GET", Path: "/x/{a}/end", Action: "aps:C"}, Route{Methods: "GET", Path: "/x/lit/{b}", Action: "aps:D"},
		Route{Methods: "GET", Path: "/y/{rest...}", Action: "aps:E"}, Route{Methods: "GET", Path: "/y/z/{q}", Action: "aps:F"})
	tab := newTable(routes)
	mux := http.NewServeMux()
	served := ""
	seen := map[string]bool{}
	for _, rt := range routes {
		if !seen[rt.Path] && rt.Path != "/x/{a}/end" { // which the multiplexer would not have beside the other
			mux.HandleFunc(rt.Path, func(http.ResponseWriter, *http.Request) { served = rt.Path })
		}
		seen[rt.Path] = true
	}
	pieces := []string{"x", "y", "z", "lit", "l%69t", "a%2Fb", "..", ".", "%2e%2e", "", "workspaces", "%77orkspaces", "ws-1", "ready", "api", "v1", "tags", "end", "config"}
	r := rand.New(rand.NewPCG(1, 2))
	both := 0
	for range 50_000 {
		path := ""
		for range 1 + r.IntN(4) {
			path += "/" + pieces[r.IntN(len(pieces))]
		}
		req, err := http.NewRequest(http.MethodGet, "http://h"+path, http.NoBody)
		if err != nil {
			continue
		}
		rt, _ := tab.find("GET", path)
		served = ""
		mux.ServeHTTP(httptest.NewRecorder(), req)
		if rt != nil && served != "" {
			both++
			if rt.Path != served && rt.Path != "/x/{a}/end" {
				t.Errorf("%s is allowed as %s and served as %s", path, rt.Path, served)
			}
		}
	}
	if both < 1000 {
		t.Errorf("only %d paths were known to both", both)
	}
}

func TestNothingThatTheGatewaySaysCanBeTakenAway(t *testing.T) {
	var seen http.Header
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header }))
	t.Cleanup(behind.Close)
	to, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(accounts, `"aps:Get*"], Resource: "arn:aws:aps:*:*:workspace/ws-1"}`, `"aps:Get*"], Resource: "*", Condition: {StringEquals: {"amphora:LabelSelector": "{a=\"x\"}"}}}`, 1)
	g := openBefore(t, &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) }}, nil, text)
	r := httptest.NewRequest("GET", "/workspaces/ws-1/api/v1/query?query=up", http.NoBody)
	if err := (sigv4.Signer{AccessKey: "AKIDREADER01", Secret: credentials("AKIDREADER01"), Region: "us-east-1", Service: "aps"}).Sign(r, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Connection", "close, X-Scope-OrgID, "+tenant.PolicyHeader+", X-Amphora-Caller")
	r.Header.Set("Forwarded", "for=9.9.9.9")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	if w.Code != 200 || seen.Get("X-Scope-OrgID") != "ws-1" || seen.Get(tenant.PolicyHeader) == "" || seen.Get("X-Amphora-Caller") == "" || seen.Get("Forwarded") != "" {
		t.Errorf("%d %v", w.Code, seen)
	}
}

func TestSecretsOfPresignedAddressesStayHere(t *testing.T) {
	for query, want := range map[string]string{
		"query=up&X-Amz-Signature=a&X%2dAmz-Security-Token=b&x=%41": "query=up&x=%41",
		"query=a%2Bb":                  "query=a%2Bb",
		"":                             "",
		"match[]=X-Amz-x&%zz=1&X-Amz-": "match[]=X-Amz-x&%zz=1",
	} {
		if got := withoutSignature(query); got != want {
			t.Errorf("%q becomes %q, want %q", query, got, want)
		}
	}
}

func TestNobodyIsServedWithoutATenant(t *testing.T) {
	d := open(t, nil)
	w, _ := d.signed("AKIDROOT0001", "GET", "/prometheus/api/v1/query", "")
	if w.Code != 401 || !strings.Contains(w.Body.String(), "no org id") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestALengthAloneTakesNoMemory sends headers of a large body, of a known key, and nothing else.
func TestALengthAloneTakesNoMemory(t *testing.T) {
	bodies := memory.New(memory.Limits{Go: 256 << 20}, memory.Deps{}).Account(memory.Bodies)
	d := open(t, func(_ *Config, deps *Deps) { deps.Bodies, deps.MaxBodyBytes = bodies, 60<<20 })
	r := httptest.NewRequest("POST", "/workspaces/ws-1/api/v1/remote_write", strings.NewReader("short"))
	if err := (sigv4.Signer{AccessKey: "AKIDWRITER01", Secret: "x", Region: "us-east-1", Service: "aps"}).Sign(r, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.ContentLength = 50 << 20
	most := int64(0)
	r.Body = watchedBody{r.Body, func() { most = max(most, bodies.Held()) }}
	w, _ := d.do(r)
	if w.Code != 403 || most == 0 || most > 4<<20 {
		t.Errorf("%d, %d bytes were charged", w.Code, most)
	}
}

// watchedBody calls read at each reading.
type watchedBody struct {
	io.ReadCloser
	read func()
}

func (b watchedBody) Read(p []byte) (int, error) {
	b.read()
	return b.ReadCloser.Read(p)
}

package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
)

// serving is a service in another process.
func serving(t *testing.T, name string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprint(w, name, " ", r.Header.Get("X-Scope-OrgID"), " ", r.RequestURI, " ", string(body))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestServicesElsewhereTakeTurnsAndMayBeAway(t *testing.T) {
	a, b, gone := serving(t, "a"), serving(t, "b"), serving(t, "gone")
	gone.Close()
	u, err := NewUpstreams(UpstreamConfig{Addresses: []string{"distributor=" + a.URL, "distributor=" + gone.URL, "distributor=" + b.URL, "ruler=" + gone.URL}}, UpstreamDeps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	door := open(t, func(_ *Config, d *Deps) {
		d.Upstreams = u
		for i := range d.Routes {
			switch d.Routes[i].Path {
			case "/api/v1/push":
				d.Routes[i].Service = "distributor"
			case "/prometheus/api/v1/query":
				d.Routes[i].Service = "ruler"
			}
		}
	})
	seen := map[string]int{}
	for range 12 {
		w := door.try("AKIDWRITER01", "POST", "/workspaces/ws-1/api/v1/remote_write", "body")
		name, rest, _ := strings.Cut(w.Body.String(), " ")
		if w.Code != 200 || rest != "ws-1 /api/v1/push body" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		seen[name]++
	}
	if seen["a"] < 3 || seen["b"] < 3 {
		t.Errorf("turns: %v", seen)
	}
	if w := door.try("AKIDREADER01", "GET", "/workspaces/ws-1/api/v1/query", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("nobody there: %d %s", w.Code, w.Body)
	}
	if u.Of("querier") != nil {
		t.Error("a service that nobody named has a handler")
	}
	for _, bad := range []string{"x", "a=b", "a=ftp://h", "a=http://h/path"} {
		if err := (&UpstreamConfig{Addresses: []string{bad}}).Validate(); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestInstancesThatAreNotReadyAreLeftOut(t *testing.T) {
	var away atomic.Bool
	instance := func(name string, away *atomic.Bool) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ready" && away != nil && away.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.WriteString(w, name)
		}))
		t.Cleanup(s.Close)
		return s
	}
	a, b := instance("a", nil), instance("b", &away)
	to := func(s *httptest.Server) *url.URL {
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	var hosts atomic.Pointer[[]string]
	hosts.Store(&[]string{to(a).Hostname()})
	u, err := NewUpstreams(UpstreamConfig{Addresses: []string{
		"distributor=" + a.URL, "distributor=" + b.URL, "ruler=ring+http://rulers:" + to(a).Port(), "querier=dns+http://localhost:" + to(b).Port(),
	}}, UpstreamDeps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Members: func(_ context.Context, ring string) ([]string, error) {
		if ring != "rulers" {
			t.Errorf("asked for ring %q", ring)
		}
		return *hosts.Load(), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := (&UpstreamConfig{Addresses: []string{"x=ring+http://rulers:1", "y=http://z"}}).Rings(); len(got) != 1 || got[0] != "rulers" {
		t.Errorf("rings: %q", got)
	}
	if err := services.StartAndAwaitRunning(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.StopAndAwaitTerminated(context.Background(), u) })
	answers := func(service string) map[string]int {
		out := map[string]int{}
		for range 10 {
			w := httptest.NewRecorder()
			u.Of(service).ServeHTTP(w, httptest.NewRequest("GET", "/x", http.NoBody))
			out[w.Body.String()]++
		}
		return out
	}
	if got := answers("distributor"); got["a"] != 5 || got["b"] != 5 {
		t.Errorf("in turn: %v", got)
	}
	if got := answers("ruler"); got["a"] != 10 {
		t.Errorf("of the ring: %v", got)
	}
	if got := answers("querier"); got["b"] != 10 {
		t.Errorf("by name: %v", got)
	}
	away.Store(true)
	hosts.Store(&[]string{})
	deadline := time.Now().Add(30 * time.Second)
	for answers("distributor")["b"] > 0 || answers("ruler")["a"] > 0 {
		if time.Now().After(deadline) {
			t.Fatal("an instance that is not ready is asked")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if got := answers("querier"); got["b"] != 10 {
		t.Errorf("not ready, and the only one: %v", got)
	}
}

// TestBodiesStreamBothWays reads an answer while the request is still being sent.
func TestBodiesStreamBothWays(t *testing.T) {
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		b := make([]byte, 1)
		for {
			if _, err := r.Body.Read(b); err != nil {
				return
			}
			_, _ = w.Write(b)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	t.Cleanup(behind.Close)
	u, err := NewUpstreams(UpstreamConfig{Addresses: []string{"distributor=" + behind.URL}}, UpstreamDeps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, func(_ *Config, deps *Deps) {
		deps.Upstreams = u
		for i := range deps.Routes {
			if deps.Routes[i].Path == "/api/v1/push" {
				deps.Routes[i].Service = "distributor"
			}
		}
	})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		d.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	out, in := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), "POST", front.URL+"/api/v1/push", out)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("AKIDWRITER01", credentials("AKIDWRITER01"))
	r.Header.Set("X-Scope-OrgID", "ws-1")
	first := make(chan error, 1)
	go func() { _, err := in.Write([]byte("x")); first <- err }()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b := make([]byte, 1)
	for range 3 {
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "x" {
			t.Fatalf("%q %v", b, err)
		}
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		go func() { _, err := in.Write([]byte("x")); first <- err }()
	}
	_ = in.Close()
}

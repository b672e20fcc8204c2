package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
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
	if u.Of("querier", true) != nil {
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
			u.Of(service, true).ServeHTTP(w, httptest.NewRequest("GET", "/x", http.NoBody))
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

// TestInstancesAreCalledByTheProtocolThatTheySpeak has each instance under an address with TLS and one without, as
// while a cluster is moved from one to the other: requests get through, and pushes are refused for another try at most.
func TestInstancesAreCalledByTheProtocolThatTheySpeak(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%t %s %s", r.TLS != nil, r.Proto, b)
	}
	plain, secure := httptest.NewServer(http.HandlerFunc(answer)), httptest.NewUnstartedServer(http.HandlerFunc(answer))
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	u, err := NewUpstreams(UpstreamConfig{Addresses: []string{
		"distributor=" + plain.URL, "distributor=" + strings.Replace(plain.URL, "http:", "https:", 1),
		"distributor=" + secure.URL, "distributor=" + strings.Replace(secure.URL, "https:", "http:", 1),
	}}, UpstreamDeps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Dial: func(protocols ...string) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, network, addr string) (net.Conn, error) {
			raw, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			c := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: protocols})
			if err := c.HandshakeContext(ctx); err != nil {
				_ = raw.Close()
				return nil, &net.OpError{Op: "dial", Net: network, Err: err}
			}
			return c, nil
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	try := func(kind, body string) (int, string) {
		r := httptest.NewRequest("POST", "/x", strings.NewReader(body))
		if body == "" {
			r.Body = http.NoBody
		}
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		u.Of("distributor", true).ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	seen := map[string]int{}
	for range 8 { // nobody was asked yet
		code, text := try("text/plain", "")
		if code != 200 {
			t.Fatalf("%d %s", code, text)
		}
		seen[text]++
	}
	if seen["false HTTP/1.1 "] == 0 || seen["true HTTP/1.1 "] == 0 || len(seen) != 2 {
		t.Errorf("seen: %v", seen)
	}
	// Once they were asked, those that cannot be used are left out, also for bodies, which cannot be sent twice.
	if err := u.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fit, tired := u.pools["distributor"].count(); fit != 2 || tired != 2 {
		t.Errorf("%d instances are ready, %d are not; want two each", fit, tired)
	}
	for range 8 {
		if code, text := try("text/plain", "body"); code != 200 || !strings.HasSuffix(text, "HTTP/1.1 body") {
			t.Errorf("%d %s", code, text)
		}
	}
	alone := u.pools["distributor"]
	for _, x := range *alone.found.Load() { // as if nobody had found out yet that the instance with TLS is ready
		x.unready.Store(true)
	}
	for range 8 {
		if code, text := try("text/plain", "body"); code != 200 {
			t.Errorf("while none is known to be ready: %d %s", code, text)
		}
	}
	held := func() (int, string) { // as a body is whose signature was checked
		r := httptest.NewRequest("POST", "/x", http.NoBody)
		r.Body, r.ContentLength = inMemory{bytes.NewReader([]byte("body"))}, 4
		w := httptest.NewRecorder()
		u.Of("distributor", false).ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for range 8 {
		for _, x := range *alone.found.Load() { // as if all had begun to speak TLS, or to be away, this moment
			x.unready.Store(false)
			x.deaf.Store(false)
			x.restless.Store(0)
		}
		if code, text := held(); code != 200 || !strings.HasSuffix(text, " body") {
			t.Errorf("a body that is in memory: %d %s", code, text)
		}
	}
	alone.configured = alone.configured[3:] // the one that speaks TLS, by its address without
	alone.found.Store(nil)
	if code, text := try("text/plain", "body"); code != 503 {
		t.Errorf("without TLS to one that has it: %d %s", code, text)
	}
	at, err := url.Parse(secure.URL)
	if err != nil {
		t.Fatal(err)
	}
	alone.configured = []*url.URL{at}
	alone.found.Store(nil)
	if code, text := try("application/grpc", "body"); code != 200 || text != "true HTTP/2.0 body" {
		t.Errorf("a call: %d %s", code, text)
	}
}

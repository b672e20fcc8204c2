package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// hosts answers instead of processes, by the host of the request.
type hosts map[string]func(*http.Request) (*http.Response, error)

func (h hosts) RoundTrip(r *http.Request) (*http.Response, error) { return h[r.URL.Host](r) }

// says is an instance that answers with its name and the body that it got.
func says(name string, status int, header ...string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		body := []byte(nil)
		if r.Body != nil {
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				return nil, err
			}
		}
		w := httptest.NewRecorder()
		for _, name := range header {
			w.Header().Set(name, "close")
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "%s got %d", name, len(body))
		resp := w.Result()
		resp.Close = resp.Header.Get("Connection") == "close"
		return resp, nil
	}
}

// fails is an instance that takes the request, unless it cannot be reached, and then its connection ends.
func fails(err error) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if r.Body != nil && !unsent(err) {
			_, _ = io.ReadAll(r.Body)
		}
		return nil, err
	}
}

// between returns the upstreams of a service "querier" with an instance for each host, which answer in the order
// of their names.
func between(t *testing.T, h hosts) *Upstreams {
	t.Helper()
	var addresses []string
	for _, name := range []string{"a", "b", "c"} {
		if h[name] != nil {
			addresses = append(addresses, "querier=http://"+name)
		}
	}
	u, err := NewUpstreams(UpstreamConfig{Addresses: addresses}, UpstreamDeps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Wrap: func(http.RoundTripper) http.RoundTripper { return h }})
	if err != nil {
		t.Fatal(err)
	}
	p := u.pools["querier"]
	p.look(t.Context())
	p.turn.Store(uint64(len(addresses)) - 1) // the first is next
	return u
}

func TestReadsThatNobodyAnsweredAreSentOnceMore(t *testing.T) {
	ended, refused := errors.New("EOF"), &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	large := strings.Repeat("x", keptBytes+1)
	for name, c := range map[string]struct {
		hosts  hosts
		writes bool
		begins bool // none is known to be ready
		body   string
		want   string
		status int
		again  float64
	}{
		"an instance ends":                                        {hosts: hosts{"a": fails(ended), "b": says("b", 200)}, body: "query", want: "b got 5", status: 200, again: 1},
		"an instance stops":                                       {hosts: hosts{"a": says("a", 503, "Connection"), "b": says("b", 200)}, body: "query", want: "b got 5", status: 200, again: 1},
		"an instance is gone":                                     {hosts: hosts{"a": fails(refused), "b": says("b", 200)}, body: "query", want: "b got 5", status: 200},
		"without a body":                                          {hosts: hosts{"a": fails(ended), "b": says("b", 200)}, want: "b got 0", status: 200, again: 1},
		"the only instance ends, others may be behind":            {hosts: hosts{"a": fails(ended)}, body: "query", want: "querier cannot be reached", status: 503, again: 1},
		"the only instance stops":                                 {hosts: hosts{"a": says("a", 503, "Connection")}, body: "query", want: "a got 5", status: 503, again: 1},
		"one ends, the next is gone":                              {hosts: hosts{"a": fails(ended), "b": fails(refused), "c": says("c", 200)}, body: "query", want: "c got 5", status: 200, again: 1},
		"what ends two instances does not get to more":            {hosts: hosts{"a": fails(ended), "b": fails(ended), "c": says("c", 200)}, body: "query", want: "querier cannot be reached", status: 503, again: 1},
		"an instance that only says 503 has its reason":           {hosts: hosts{"a": says("a", 503), "b": says("b", 200)}, body: "query", want: "a got 5", status: 503},
		"an instance that begins says 503":                        {hosts: hosts{"a": says("a", 503), "b": says("b", 200)}, begins: true, body: "query", want: "b got 5", status: 200, again: 1},
		"an instance that begins has the reason of the next, too": {hosts: hosts{"a": says("a", 503), "b": says("b", 503), "c": says("c", 200)}, begins: true, body: "query", want: "b got 5", status: 503, again: 1},
		"no read, and the instance begins":                        {hosts: hosts{"a": says("a", 503), "b": says("b", 200)}, writes: true, begins: true, body: "push", want: "a got 4", status: 503},
		"too large to be kept":                                    {hosts: hosts{"a": fails(ended), "b": says("b", 200)}, body: large, want: "querier cannot be reached", status: 503},
		"no read":                                                 {hosts: hosts{"a": fails(ended), "b": says("b", 200)}, writes: true, body: "push", want: "querier cannot be reached", status: 503},
		"no read, and the instance stops":                         {hosts: hosts{"a": says("a", 503, "Connection"), "b": says("b", 200)}, writes: true, body: "push", want: "a got 4", status: 503},
		"no read, and the instance is gone":                       {hosts: hosts{"a": fails(refused), "b": says("b", 200)}, writes: true, body: "push", want: "b got 4", status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := between(t, c.hosts)
			for _, x := range *u.pools["querier"].found.Load() {
				x.unready.Store(c.begins)
			}
			w := httptest.NewRecorder()
			u.Of("querier", !c.writes).ServeHTTP(w, httptest.NewRequest("POST", "/x", strings.NewReader(c.body)))
			if w.Code != c.status || strings.TrimSpace(w.Body.String()) != c.want {
				t.Errorf("%d %s; want %d %s", w.Code, w.Body, c.status, c.want)
			}
			if got := testutil.ToFloat64(u.again.WithLabelValues("querier")); got != c.again {
				t.Errorf("%g retries are counted, want %g", got, c.again)
			}
		})
	}
}

// TestReadsLeaveAnInstanceThatHangs has one that takes requests and says nothing, not even whether it is ready.
func TestReadsLeaveAnInstanceThatHangs(t *testing.T) {
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprint("reads ", reads), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			took := make(chan struct{}, 1)
			u := between(t, hosts{"b": says("b", 200), "a": func(r *http.Request) (*http.Response, error) {
				if r.URL.Path == "/ready" {
					return nil, context.DeadlineExceeded
				}
				took <- struct{}{}
				<-r.Context().Done()
				return nil, context.Cause(r.Context())
			}})
			w := httptest.NewRecorder()
			var wg sync.WaitGroup
			wg.Go(func() {
				u.Of("querier", reads).ServeHTTP(w, httptest.NewRequest("POST", "/x", strings.NewReader("query")).WithContext(ctx))
			})
			<-took
			p := u.pools["querier"]
			for range silentProbes {
				p.probe(ctx)
			}
			if fit, tired := p.count(); fit != 1 || tired != 1 {
				t.Errorf("%d instances are fit, %d are not", fit, tired)
			}
			if !reads {
				cancel() // who waits for a write waits
			}
			wg.Wait()
			if got := fmt.Sprint(w.Code, " ", w.Body); reads && got != "200 b got 5" || !reads && w.Code != 499 {
				t.Errorf("answered %s", got)
			}
		})
	}
}

// TestAKeptConnectionThatEndedCostsNoRead asks twice by one connection, which the instance closes instead of its
// second answer.
func TestAKeptConnectionThatEndedCostsNoRead(t *testing.T) {
	seen := map[string]int{} // requests by connection
	var mu sync.Mutex
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.RemoteAddr]++
		second := seen[r.RemoteAddr] == 2
		mu.Unlock()
		if second {
			panic(http.ErrAbortHandler)
		}
		body, _ := io.ReadAll(r.Body)
		if _, sent := r.Header["X-Idempotency-Key"]; sent {
			t.Error("the instance sees a header that is for the gateway's own transport")
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(behind.Close)
	u, err := NewUpstreams(UpstreamConfig{Addresses: []string{"querier=" + behind.URL}}, UpstreamDeps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		w := httptest.NewRecorder()
		u.Of("querier", true).ServeHTTP(w, httptest.NewRequest("POST", "/x", strings.NewReader("query")))
		if w.Code != 200 || w.Body.String() != "query" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if got := testutil.ToFloat64(u.again.WithLabelValues("querier")); got != 0 {
		t.Errorf("%g reads were sent to another instance", got)
	}
}

package gateway

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// instance is a service in another process.
func instance(t *testing.T, name string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprint(w, name, " ", r.Header.Get("X-Scope-OrgID"), " ", r.RequestURI, " ", string(body))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestServicesElsewhereTakeTurnsAndMayBeAway(t *testing.T) {
	a, b, gone := instance(t, "a"), instance(t, "b"), instance(t, "gone")
	gone.Close()
	u, err := NewUpstreams(UpstreamConfig{Addresses: []string{"distributor=" + a.URL, "distributor=" + gone.URL, "distributor=" + b.URL, "ruler=" + gone.URL}}, slog.New(slog.DiscardHandler))
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

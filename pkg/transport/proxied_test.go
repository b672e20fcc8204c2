package transport

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// speaking asks a listener for a page after a header of the PROXY protocol, and returns the first line of the body.
func speaking(t *testing.T, at, header string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", at, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(c, "%sGET / HTTP/1.1\r\nHost: h\r\n\r\n", header); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error()
	}
	body, _ := io.ReadAll(resp.Body)
	host, _, _ := net.SplitHostPort(string(body))
	return host
}

func TestOnlyTrustedNetworksConnectForOthers(t *testing.T) {
	const header = "PROXY TCP4 203.0.113.7 192.0.2.1 4000 80\r\n"
	for network, want := range map[string][2]string{"127.0.0.0/8": {"203.0.113.7", "127.0.0.1"}, "10.0.0.0/8": {"127.0.0.1", "127.0.0.1"}} {
		var cfg Config
		cfg.Declare(config.NewSet())
		cfg.HTTPPort, cfg.GRPCPort, cfg.ShutdownTimeout = 0, 0, 5*time.Second
		cfg.ProxyProtocol, cfg.ProxyNetworks = true, []string{network}
		reg := prometheus.NewRegistry()
		s, err := NewServer(cfg, ServerDeps{Registerer: reg, Gatherer: reg, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		who := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })
		s.Handle(who)
		also, err := s.Also("127.0.0.1", 0, who)
		if err != nil {
			t.Fatal(err)
		}
		startService(t, s)
		if got := speaking(t, s.HTTPAddr().String(), header); got != want[0] {
			t.Errorf("%s: a request comes from %q, want %q", network, got, want[0])
		}
		for _, at := range []string{s.HTTPAddr().String(), also.String()} {
			if got := speaking(t, at, ""); got != want[1] {
				t.Errorf("%s: a request without a header comes from %q", network, got)
			}
		}
		if got := speaking(t, also.String(), header); (got == "203.0.113.7") != (network == "127.0.0.0/8") {
			t.Errorf("%s: a request to the other listener comes from %q", network, got)
		}
	}
	for _, wrong := range [][]string{nil, {"x"}, {"10.0.0.0/99"}} {
		if _, err := newProxied(&Config{ProxyProtocol: true, ProxyNetworks: wrong}); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

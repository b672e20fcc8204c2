package transport

import (
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// callerWith returns a client that calls with cfg.
func callerWith(t *testing.T, cfg ClientConfig, reg *prometheus.Registry) *http.Client {
	t.Helper()
	c, err := NewCallers(cfg, CallersDeps{Name: "tests", Registerer: reg, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	by := c.Transport()
	by.DisableKeepAlives = true // every request shows the files as they are
	t.Cleanup(by.CloseIdleConnections)
	return &http.Client{Transport: by}
}

// TestOnlyProcessesWithACertificateAreServed: requests of others are refused, in the handshake or, where probes come
// without certificates, with 403.
func TestOnlyProcessesWithACertificateAreServed(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ours")
	cert, key := ca.issue(t, "server", 2)
	clientCert, clientKey := ca.issue(t, "client", 3)
	theirs := newAuthority(t, t.TempDir(), "theirs")
	otherCert, otherKey := theirs.issue(t, "client", 3)
	caFile := filepath.Join(dir, "ours-ca.pem")
	member := ClientConfig{TLSCA: caFile, TLSCert: clientCert, TLSKey: clientKey}
	nobody := ClientConfig{TLSCA: caFile}
	other := ClientConfig{TLSCA: caFile, TLSCert: otherCert, TLSKey: otherKey}
	for _, probes := range []bool{false, true} {
		s, _ := startServer(t, Config{HTTPTLS: TLSConfig{CertFile: cert, KeyFile: key, ClientCAFile: caFile}, HTTPProbes: probes}, func(s *Server) {
			s.Handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "served "+r.URL.Path) }))
		})
		for _, c := range []struct {
			who    string
			cfg    ClientConfig
			method string
			path   string
			status int // 0: no connection
		}{
			{"a member", member, "GET", "/api/v1/push", 200},
			{"a member", member, "GET", "/ready", 200},
			{"nobody", nobody, "GET", "/api/v1/push", 403},
			{"nobody", nobody, "GET", "/metrics", 403},
			{"nobody", nobody, "GET", "//ready", 403},
			{"nobody", nobody, "GET", "/ready/../config", 403},
			{"nobody", nobody, "POST", "/ready", 403},
			{"nobody", nobody, "GET", "/ready", 200},
			{"nobody", nobody, "GET", "/-/ready", 200},
			{"nobody", nobody, "HEAD", "/-/healthy", 200},
			{"another's", other, "GET", "/ready", 0},
			{"one that checks another name", ClientConfig{TLSCA: caFile, TLSCert: clientCert, TLSKey: clientKey, TLSName: "elsewhere"}, "GET", "/ready", 0},
			{"one that does not believe the server", ClientConfig{TLSCert: clientCert, TLSKey: clientKey, TLSCA: filepath.Join(theirs.dir, "theirs-ca.pem")}, "GET", "/ready", 0},
		} {
			want := c.status
			if !probes && c.who == "nobody" {
				want = 0
			}
			req, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+s.HTTPAddr().String()+c.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			resp, err := callerWith(t, c.cfg, prometheus.NewRegistry()).Do(req)
			if err == nil {
				got = resp.StatusCode
				_ = resp.Body.Close()
			}
			if got != want {
				t.Errorf("%s, %s %s, probes %t: %d (%v), want %d", c.who, c.method, c.path, probes, got, err, want)
			}
		}
	}
}

// TestAFailedHandshakeSaysThatNothingWasSent, so that another instance can be tried.
func TestAFailedHandshakeSaysThatNothingWasSent(t *testing.T) {
	noLeaks(t)
	plain, _ := startServer(t, Config{}, func(s *Server) { s.Handle(http.NotFoundHandler()) })
	resp, err := callerWith(t, ClientConfig{}, prometheus.NewRegistry()).Get("https://" + plain.HTTPAddr().String() + "/")
	if err == nil {
		_ = resp.Body.Close()
	}
	if dial, ok := errors.AsType[*net.OpError](err); !ok || dial.Op != "dial" {
		t.Errorf("%v, want an error of dial", err)
	}
}

// TestCallersUseFilesThatChange replaces the authority, the certificates of both sides, and leaves a broken file.
func TestCallersUseFilesThatChange(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ours")
	cert, key := ca.issue(t, "server", 2)
	clientCert, clientKey := ca.issue(t, "client", 3)
	caFile := filepath.Join(dir, "ours-ca.pem")
	s, _ := startServer(t, Config{HTTPTLS: TLSConfig{CertFile: cert, KeyFile: key, ClientCAFile: caFile}}, func(s *Server) {
		s.Handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.TLS.VerifiedChains[0][0].SerialNumber.String())
		}))
	})
	reg := prometheus.NewRegistry()
	c := callerWith(t, ClientConfig{TLSCA: caFile, TLSCert: clientCert, TLSKey: clientKey}, reg)
	shown := func() string {
		resp, err := c.Get("https://" + s.HTTPAddr().String() + "/")
		if err != nil {
			return err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	if got := shown(); got != "3" {
		t.Fatalf("shown: %s", got)
	}
	ca.write(t, "client.pem", "NOTHING", nil)
	eventually(t, "the broken file is seen", func() bool {
		if got := shown(); got != "3" {
			t.Fatalf("with a broken file: %s", got)
		}
		return counter(t, reg, "amphora_http_client_tls_reloads_total") >= 1
	})
	next := newAuthority(t, dir, "ours") // in the place of the one before
	next.issue(t, "server", 4)
	next.issue(t, "client", 5)
	eventually(t, "both sides use what is there now", func() bool { return shown() == "5" })
}

func TestUpstreamsTakeTheTLSOfCallsWhenTheyHaveNone(t *testing.T) {
	calls := ClientConfig{TLSEnabled: true, TLSCert: "c.pem", TLSKey: "c.key", TLSCA: "ca.pem", TLSName: "amphora", TLS: TLSPolicy{MinVersion: tls13}}
	off := calls
	off.TLSEnabled = false
	for name, c := range map[string]struct {
		own  UpstreamTLS
		from ClientConfig
		want ClientConfig
	}{
		"none":           {UpstreamTLS{}, calls, ClientConfig{TLSCert: "c.pem", TLSKey: "c.key", TLSCA: "ca.pem", TLSName: "amphora", TLS: TLSPolicy{MinVersion: tls13}}},
		"calls without":  {UpstreamTLS{}, off, ClientConfig{}},
		"a name":         {UpstreamTLS{Name: "inner"}, calls, ClientConfig{TLSCert: "c.pem", TLSKey: "c.key", TLSCA: "ca.pem", TLSName: "inner", TLS: TLSPolicy{MinVersion: tls13}}},
		"all":            {UpstreamTLS{Cert: "u.pem", Key: "u.key", CA: "u-ca.pem"}, calls, ClientConfig{TLSCert: "u.pem", TLSKey: "u.key", TLSCA: "u-ca.pem"}},
		"an authority":   {UpstreamTLS{CA: "u-ca.pem"}, calls, ClientConfig{TLSCA: "u-ca.pem"}},
		"another policy": {UpstreamTLS{Policy: TLSPolicy{MinVersion: tls12}}, off, ClientConfig{TLS: TLSPolicy{MinVersion: tls12}}},
	} {
		got := c.own.Fill(c.from)
		if got.TLSCert != c.want.TLSCert || got.TLSKey != c.want.TLSKey || got.TLSCA != c.want.TLSCA || got.TLSName != c.want.TLSName || got.TLS.MinVersion != c.want.TLS.MinVersion {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	for _, c := range []struct {
		args  []string
		named string
	}{
		{[]string{"-gateway.tls-cert-path=a"}, "gateway.tls_cert_path"},
		{[]string{"-gateway.tls-min-version=VersionTLS11"}, "gateway.tls_min_version"},
		{[]string{"-server.http-tls-probes-without-certificate"}, "server.http_tls_config.probes_without_certificate"},
		{[]string{"-server.http-tls-probes-without-certificate", "-server.http-tls-cert-path=a", "-server.http-tls-ca-path=b", "-server.http-tls-client-auth=VerifyClientCertIfGiven"}, "probes_without_certificate"},
	} {
		set := config.NewSet()
		set.Mount("gateway", &UpstreamTLS{})
		set.Mount("server", &Config{})
		if _, err := config.Load(set, c.args, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), c.named) {
			t.Errorf("%q: %v, want an error that names %s", c.args, err, c.named)
		}
	}
}

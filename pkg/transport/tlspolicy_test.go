package transport

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// TestOnlyTheAllowedTLSIsSpoken: on every listener the oldest version and the cipher suites of the settings
// hold, and the clients of other processes keep to theirs.
func TestOnlyTheAllowedTLSIsSpoken(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, t.TempDir(), "ours")
	cert, key := ca.issue(t, "server", 2)
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	files := TLSConfig{CertFile: cert, KeyFile: key}
	const suite, other = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
	for name, tc := range map[string]struct {
		policy  TLSPolicy
		most    uint16
		offered uint16
		spoken  bool
	}{
		"as it is":            {TLSPolicy{}, tls.VersionTLS12, suite, true},
		"too old":             {TLSPolicy{}, tls.VersionTLS11, 0, false},
		"1.3 only, asks 1.2":  {TLSPolicy{MinVersion: tls13}, tls.VersionTLS12, suite, false},
		"1.3 only":            {TLSPolicy{MinVersion: tls13}, tls.VersionTLS13, 0, true},
		"one suite":           {TLSPolicy{CipherSuites: []string{tls.CipherSuiteName(suite)}}, tls.VersionTLS12, suite, true},
		"one suite, not this": {TLSPolicy{CipherSuites: []string{tls.CipherSuiteName(suite)}}, tls.VersionTLS12, other, false},
	} {
		s, _ := startServer(t, Config{HTTPTLS: files, GRPCTLS: files, TLS: tc.policy}, func(s *Server) { s.Handle(http.NotFoundHandler()) })
		for listener, at := range map[string]string{"http": s.HTTPAddr().String(), "grpc": s.GRPCAddr().String()} {
			client := &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS10, MaxVersion: tc.most}
			if tc.offered != 0 {
				client.CipherSuites = []uint16{tc.offered}
			}
			conn, err := tls.Dial("tcp", at, client)
			if (err == nil) != tc.spoken {
				t.Errorf("%s, %s: %v, want a connection: %v", name, listener, err, tc.spoken)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
	}
	for _, c := range []TLSPolicy{{MinVersion: "VersionTLS10"}, {CipherSuites: []string{"TLS_RSA_WITH_RC4_128_SHA"}}} {
		if _, err := NewReplicas(ClientConfig{TLSEnabled: true, TLS: c}, ClientDeps{PushTimeout: 1, Registerer: prometheus.NewRegistry(), Log: quiet()}); errs.KindOf(err) != errs.Invalid {
			t.Errorf("a client of %+v: %v, want Invalid", c, err)
		}
	}
}

// TestInsecureTLSCannotBeSet: what is broken has no name in the settings, and the error says what has.
func TestInsecureTLSCannotBeSet(t *testing.T) {
	for flag, want := range map[string]string{
		"-server.tls-min-version=VersionTLS10":                        "VersionTLS12 or VersionTLS13",
		"-server.tls-min-version=1.2":                                 "VersionTLS12 or VersionTLS13",
		"-server.tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA":          "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
		"-server.tls-cipher-suites=TLS_AES_128_GCM_SHA256":            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
		"-ingester.client.tls-min-version=VersionTLS11":               "VersionTLS12 or VersionTLS13",
		"-ingester.client.tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
	} {
		set := config.NewSet()
		set.Mount("server", new(Config))
		set.Mount("ingester_client", new(ClientConfig))
		_, err := config.Load(set, []string{flag}, func(string) string { return "" })
		name, _, _ := strings.Cut(strings.TrimPrefix(flag, "-"), "=")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want an error that names it and %s", flag, err, want)
		}
	}
}

// TestExpiryOfFilesIsShown: until when the certificate of a listener is valid, also after the files changed.
func TestExpiryOfFilesIsShown(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ours")
	cert, key := ca.issue(t, "server", 2)
	_, reg := startServer(t, Config{HTTPTLS: TLSConfig{CertFile: cert, KeyFile: key, ClientCAFile: filepath.Join(dir, "ours-ca.pem")}}, func(s *Server) { s.Handle(http.NotFoundHandler()) })
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "amphora_server_tls_certificate_expiry_timestamp_seconds" {
			for _, m := range f.Metric {
				shown[m.Label[0].GetValue()] = m.Gauge.GetValue()
			}
		}
	}
	if want := float64(pair.Leaf.NotAfter.Unix()); len(shown) != 1 || shown["http"] != want {
		t.Errorf("shown: %v, want http until %v", shown, want)
	}
}

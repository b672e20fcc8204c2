package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// startServer runs a server with defaults, free ports on loopback and what change sets.
func startServer(t *testing.T, tlsOf Config, prepare func(*Server)) (*Server, *prometheus.Registry) {
	t.Helper()
	var cfg Config
	cfg.Declare(config.NewSet())
	cfg.HTTPPort, cfg.GRPCPort, cfg.ShutdownTimeout = 0, 0, 5*time.Second
	cfg.HTTPTLS, cfg.GRPCTLS, cfg.TLS, cfg.Cluster = tlsOf.HTTPTLS, tlsOf.GRPCTLS, tlsOf.TLS, tlsOf.Cluster
	cfg.HTTPProbes = tlsOf.HTTPProbes
	reg := prometheus.NewRegistry()
	s, err := NewServer(cfg, ServerDeps{Registerer: reg, Gatherer: reg, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	prepare(s)
	startService(t, s)
	return s, reg
}

func get(t *testing.T, c *http.Client, url string) (status int, proto, body string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Proto, string(b)
}

func TestServerSpeaksHTTP1AndCleartextHTTP2(t *testing.T) {
	noLeaks(t)
	s, _ := startServer(t, Config{}, func(s *Server) {
		s.Handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.URL.Path) }))
	})
	for _, want := range []string{"HTTP/1.1", "HTTP/2.0"} {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(want == "HTTP/1.1")
		tr.Protocols.SetUnencryptedHTTP2(want == "HTTP/2.0")
		status, proto, body := get(t, &http.Client{Transport: tr}, "http://"+s.HTTPAddr().String()+"/x")
		if status != 200 || proto != want || body != "hello /x" {
			t.Errorf("%d, %s, %q; want 200 over %s", status, proto, body, want)
		}
		tr.CloseIdleConnections()
	}
}

func TestPanicsAroundHandlersAreToldAndCutTheAnswer(t *testing.T) {
	var said bytes.Buffer
	panics := prometheus.NewCounter(prometheus.CounterOpts{Name: "panics"})
	for _, c := range []struct {
		with any
		want float64
		says string
	}{{http.ErrAbortHandler, 0, ""}, {"no such label", 1, "no such label"}} {
		s := httptest.NewServer(guard{slog.New(slog.NewTextHandler(&said, nil)), panics}.http(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half of ")
			panic(c.with)
		})))
		resp, err := http.Get(s.URL)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		s.Close() // when it returns, all is said
		if err == nil {
			t.Errorf("%v: the answer looks whole", c.with)
		}
		var m dto.Metric
		if err := panics.Write(&m); err != nil {
			t.Fatal(err)
		}
		if got := m.GetCounter().GetValue(); got != c.want || strings.Contains(said.String(), "panicked") != (c.says != "") || !strings.Contains(said.String(), c.says) {
			t.Errorf("%v: %v panics counted; said %q", c.with, got, said.String())
		}
	}
}

func TestStopLetsRequestsUnderWayEnd(t *testing.T) {
	noLeaks(t)
	started, release := make(chan struct{}), make(chan struct{})
	srv := &memoryServer{}
	var cfg Config
	cfg.Declare(config.NewSet())
	cfg.HTTPPort, cfg.GRPCPort = 0, 0
	reg := prometheus.NewRegistry()
	s, err := NewServer(cfg, ServerDeps{Registerer: reg, Gatherer: reg, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	s.Handle(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-release
		_, _ = io.WriteString(w, "done")
	}))
	w := NewIngesterWrite(srv, reg, quiet())
	ingesterpb.RegisterIngesterWriteServer(s.GRPC(), w)
	s.OnDrain(w.Drain)
	if err := services.StartAndAwaitRunning(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	pool, _ := startReplicas(t, 10*time.Second)
	if res := push(replicaFor(t, pool, s.GRPCAddr().String()), scrape(0, 1, true)); res.Outcome != frame.Stored {
		t.Fatalf("%+v", res)
	}
	body := make(chan string, 1)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	go func() {
		resp, err := (&http.Client{Transport: tr}).Get("http://" + s.HTTPAddr().String())
		if err != nil {
			body <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		body <- string(b)
	}()
	<-started
	s.StopAsync()
	eventually(t, "the frame stream ends", func() bool { return srv.closed.Load() == 1 })
	close(release)
	if got := <-body; got != "done" {
		t.Errorf("request under way got %q", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.AwaitTerminated(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	if counter(t, reg, "amphora_tcp_connections") != 0 {
		t.Error("connections are open after the stop")
	}
}

// authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{dir: dir}
	a.key = newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write(t, name+"-ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issue writes a certificate with the serial number and its key.
func (a *authority) issue(t *testing.T, name string, serial int64) (cert, key string) {
	t.Helper()
	k := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return a.write(t, name+".pem", "CERTIFICATE", der), a.write(t, name+"-key.pem", "EC PRIVATE KEY", keyDER)
}

func TestMutualTLSBetweenProcesses(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ours")
	cert, key := ca.issue(t, "server", 2)
	clientCert, clientKey := ca.issue(t, "client", 3)
	caFile := filepath.Join(dir, "ours-ca.pem")
	both := TLSConfig{CertFile: cert, KeyFile: key, ClientCAFile: caFile}
	s, reg := startServer(t, Config{GRPCTLS: both}, func(s *Server) {
		w := NewIngesterWrite(&memoryServer{}, prometheus.NewRegistry(), quiet())
		ingesterpb.RegisterIngesterWriteServer(s.GRPC(), w)
		s.OnDrain(w.Drain)
	})
	for name, c := range map[string]struct {
		cfg  ClientConfig
		want frame.Outcome
	}{
		"with certificate": {ClientConfig{TLSEnabled: true, TLSCA: caFile, TLSCert: clientCert, TLSKey: clientKey}, frame.Stored},
		"without":          {ClientConfig{TLSEnabled: true, TLSCA: caFile}, frame.Failed},
		"in clear":         {ClientConfig{}, frame.Failed},
	} {
		pool, err := NewReplicas(c.cfg, ClientDeps{PushTimeout: 10 * time.Second, Registerer: prometheus.NewRegistry(), Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		startService(t, pool)
		if res := push(replicaFor(t, pool, s.GRPCAddr().String()), scrape(0, 1, true)); res.Outcome != c.want {
			t.Errorf("%s: %+v, want outcome %d", name, res, c.want)
		}
	}
	if counter(t, reg, "amphora_grpc_panics_total") != 0 {
		t.Error("a handler panicked")
	}
}

func TestChangedCertificatesAreServedAndBrokenOnesAreNot(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ours")
	cert, key := ca.issue(t, "server", 2)
	s, reg := startServer(t, Config{HTTPTLS: TLSConfig{CertFile: cert, KeyFile: key}}, func(s *Server) {
		s.Handle(http.NotFoundHandler())
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	handshake := func() (serial int64, proto string) {
		conn, err := tls.Dial("tcp", s.HTTPAddr().String(), &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		state := conn.ConnectionState()
		return state.PeerCertificates[0].SerialNumber.Int64(), state.NegotiatedProtocol
	}
	if serial, proto := handshake(); serial != 2 || proto != "h2" {
		t.Fatalf("serial %d, protocol %q; want 2 and h2", serial, proto)
	}
	good, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cert, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broken file is seen", func() bool {
		if serial, _ := handshake(); serial != 2 {
			t.Fatalf("serial %d while the file is broken", serial)
		}
		return counter(t, reg, "amphora_server_tls_reloads_total") >= 1
	})
	if err := os.WriteFile(cert, good, 0o600); err != nil {
		t.Fatal(err)
	}
	ca.issue(t, "server", 77)
	eventually(t, "the new certificate is served", func() bool {
		serial, _ := handshake()
		return serial == 77
	})
}

func TestUnusableTLSSettingsAreRefused(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ours")
	cert, key := ca.issue(t, "server", 2)
	empty := ca.write(t, "empty.pem", "NOTHING", nil)
	for name, c := range map[string]TLSConfig{
		"key is missing":     {CertFile: cert},
		"certificate absent": {CertFile: filepath.Join(dir, "none"), KeyFile: key},
		"CA without cert":    {ClientCAFile: filepath.Join(dir, "ours-ca.pem")},
		"CA file empty":      {CertFile: cert, KeyFile: key, ClientCAFile: empty},
		"auth without CA":    {CertFile: cert, KeyFile: key, ClientAuth: requireClient},
		"auth unknown":       {CertFile: cert, KeyFile: key, ClientCAFile: filepath.Join(dir, "ours-ca.pem"), ClientAuth: "Sometimes"},
	} {
		reg := prometheus.NewRegistry()
		_, err := NewServer(Config{HTTPAddress: "127.0.0.1", GRPCAddress: "127.0.0.1", GRPCTLS: c}, ServerDeps{Registerer: reg, Gatherer: reg, Log: quiet()})
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "server.grpc_tls_config") {
			t.Errorf("%s: %v, want Invalid that names the setting", name, err)
		}
	}
}

func TestExposureNeedsAuthentication(t *testing.T) {
	mtls := TLSConfig{CertFile: "c", KeyFile: "k", ClientCAFile: "ca"}
	optional := mtls
	optional.ClientAuth = verifyIfGiven
	for name, c := range map[string]struct {
		cfg          Config
		unsafe, auth bool
		refused      string
	}{
		"loopback":              {cfg: Config{HTTPAddress: "127.0.0.1", GRPCAddress: "::1"}},
		"mapped loopback":       {cfg: Config{HTTPAddress: "::ffff:127.0.0.1", GRPCAddress: "127.9.9.9"}},
		"localhost":             {cfg: Config{HTTPAddress: "localhost", GRPCAddress: "localhost"}},
		"every interface":       {cfg: Config{HTTPAddress: "", GRPCAddress: "127.0.0.1"}, refused: "server.http_listen_address"},
		"gRPC on all":           {cfg: Config{HTTPAddress: "127.0.0.1", GRPCAddress: "0.0.0.0"}, refused: "server.grpc_listen_address"},
		"a name":                {cfg: Config{HTTPAddress: "127.0.0.1.example.org", GRPCAddress: "127.0.0.1"}, refused: "server.http_listen_address"},
		"authentication":        {cfg: Config{GRPCAddress: "127.0.0.1"}, auth: true},
		"gRPC of a gateway":     {cfg: Config{}, auth: true, refused: "server.grpc_listen_address"},
		"unsafe":                {cfg: Config{}, unsafe: true},
		"client certificates":   {cfg: Config{HTTPTLS: mtls, GRPCTLS: mtls}},
		"optional certificates": {cfg: Config{HTTPTLS: optional, GRPCTLS: mtls}, refused: "server.http_listen_address"},
	} {
		err := CheckExposure(c.cfg, Exposure{c.unsafe}, c.auth)
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.refused != "" && (errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.refused) || !strings.Contains(err.Error(), "auth.unsafe_listen_without_authentication")):
			t.Errorf("%s: %v, want Invalid that names %s and the remedy", name, err, c.refused)
		}
	}
}

func TestSettingsHaveTheNamesOperatorsKnow(t *testing.T) {
	set := config.NewSet()
	var cfg Config
	var client ClientConfig
	var exposure Exposure
	set.Mount("server", &cfg)
	set.Mount("ingester_client", &client)
	set.Mount("common.client_cluster_validation", &client.Cluster)
	set.Mount("auth", &exposure)
	flags := make(map[string]string)
	for _, f := range set.Fields() {
		flags[f.Path] = f.Flag
	}
	for path, flag := range map[string]string{
		"server.http_listen_port":                             "server.http-listen-port",
		"server.http_tls_config.cert_file":                    "server.http-tls-cert-path",
		"server.grpc_tls_config.client_ca_file":               "server.grpc-tls-ca-path",
		"server.graceful_shutdown_timeout":                    "server.graceful-shutdown-timeout",
		"server.cluster_validation.label":                     "server.cluster-validation.label",
		"server.cluster_validation.additional_labels":         "server.cluster-validation.additional-labels",
		"server.cluster_validation.grpc.enabled":              "server.cluster-validation.grpc.enabled",
		"server.cluster_validation.grpc.soft_validation":      "server.cluster-validation.grpc.soft-validation",
		"server.cluster_validation.http.enabled":              "server.cluster-validation.http.enabled",
		"server.cluster_validation.http.soft_validation":      "server.cluster-validation.http.soft-validation",
		"server.cluster_validation.http.excluded_paths":       "server.cluster-validation.http.excluded-paths",
		"server.cluster_validation.http.excluded_user_agents": "server.cluster-validation.http.excluded-user-agents",
		"common.client_cluster_validation.label":              "common.client-cluster-validation.label",
		"ingester_client.tls_ca_path":                         "ingester.client.tls-ca-path",
		"auth.unsafe_listen_without_authentication":           "auth.unsafe-listen-without-authentication",
	} {
		if flags[path] != flag {
			t.Errorf("%s: flag %q, want %q", path, flags[path], flag)
		}
	}
	if err := CheckExposure(cfg, exposure, false); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

// TestAnAnswerHasItsTimeFromWhenItBegins takes longer than the time of an answer to find it out.
func TestAnAnswerHasItsTimeFromWhenItBegins(t *testing.T) {
	t.Parallel()
	const most = 3 * time.Second
	text := strings.Repeat("0123456789abcdef", 1<<16)
	s := httptest.NewUnstartedServer(timely(most, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(most + 100*time.Millisecond):
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, text[:10])
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		_, _ = io.WriteString(w, text[10:])
	})))
	s.Config.WriteTimeout = most
	s.Start()
	defer s.Close()
	if status, _, body := get(t, s.Client(), s.URL); status != http.StatusOK || body != text {
		t.Errorf("status %d, %d bytes of %d", status, len(body), len(text))
	}
}

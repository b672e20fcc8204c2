package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// UpstreamTLS is how a gateway calls upstreams with https and proves to them who it is; app mounts it as gateway.
type UpstreamTLS struct {
	Cert, Key string
	CA        string
	Name      string
	Policy    TLSPolicy
}

// Declare implements config.Declarer.
func (c *UpstreamTLS) Declare(s *config.Set) {
	s.String(&c.Cert, "tls-cert-path", "", "Client certificate that a gateway shows to https upstreams, read again when it changes. Empty, with tls_ca_path: that of ingester_client, if calls to other processes use TLS.").Named("gateway.tls-cert-path")
	s.String(&c.Key, "tls-key-path", "", "Key of the client certificate.").Named("gateway.tls-key-path")
	s.String(&c.CA, "tls-ca-path", "", "CA certificates that certificates of https upstreams are checked against. Empty: those of ingester_client, if calls to other processes use TLS, else those of the system.").Named("gateway.tls-ca-path")
	s.String(&c.Name, "tls-server-name", "", "Name expected in certificates of https upstreams. Empty: ingester_client.tls_server_name, if its certificates are used, else their address.").Named("gateway.tls-server-name").Expert()
	s.Mount("", &clientRows{&c.Policy, "gateway."})
}

// Validate implements config.Validator.
func (c *UpstreamTLS) Validate() error {
	if (c.Cert == "") != (c.Key == "") {
		return config.Wrong("tls_cert_path", "is %q and tls_key_path %q: both are needed, or none", c.Cert, c.Key)
	}
	return nil
}

// Fill takes what is not set from the TLS of calls between processes.
func (c *UpstreamTLS) Fill(client ClientConfig) ClientConfig {
	out := ClientConfig{TLSCert: c.Cert, TLSKey: c.Key, TLSCA: c.CA, TLSName: c.Name, TLS: c.Policy}
	if c.Cert == "" && c.CA == "" && client.TLSEnabled {
		out.TLSCert, out.TLSKey, out.TLSCA = client.TLSCert, client.TLSKey, client.TLSCA
		if c.Name == "" {
			out.TLSName = client.TLSName
		}
		if c.Policy.MinVersion == "" && len(c.Policy.CipherSuites) == 0 {
			out.TLS = client.TLS
		}
	}
	return out
}

// Callers opens TLS connections for calls over HTTP to other processes, with the files as they are then.
type Callers struct {
	reloading
	cfg ClientConfig
}

// CallersDeps is what NewCallers needs beside settings. Name is that of the kind of calls in metrics.
type CallersDeps struct {
	Name       string
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

// NewCallers returns what connects as cfg says. Errors: Invalid.
func NewCallers(cfg ClientConfig, deps CallersDeps) (*Callers, error) {
	reloads := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"client": deps.Name}, deps.Registerer)).NewCounterVec(prometheus.CounterOpts{
		Name: "amphora_http_client_tls_reloads_total",
		Help: "Attempts of clients of other processes to load changed certificate files; with outcome failure the ones before stay in use.",
	}, []string{"outcome"})
	c := &Callers{cfg: cfg}
	c.reloading = reloading{files: [3]string{cfg.TLSCert, cfg.TLSKey, cfg.TLSCA}, load: c.read, reloads: reloads, log: deps.Log}
	return c, c.begin()
}

func (c *Callers) read() (*tls.Config, error) {
	out := &tls.Config{ServerName: c.cfg.TLSName}
	if err := c.cfg.TLS.apply(out); err != nil {
		return nil, err
	}
	if c.cfg.TLSCert != "" || c.cfg.TLSKey != "" {
		cert, err := tls.LoadX509KeyPair(c.cfg.TLSCert, c.cfg.TLSKey)
		if err != nil {
			return nil, errs.New(errs.Invalid, "load client certificate %q with key %q: %w", c.cfg.TLSCert, c.cfg.TLSKey, err)
		}
		// Servers name the authorities they believe, and Go would show nothing to one that lists others. Shown, it
		// is refused with a reason.
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	if c.cfg.TLSCA != "" {
		var err error
		if out.RootCAs, err = readPool(c.cfg.TLSCA); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const (
	callDialTimeout      = 3 * time.Second
	callHandshakeTimeout = 3 * time.Second
)

// Dialer returns what connects for a transport that speaks the given protocols. An error of it is a
// *net.OpError of dial, also if the handshake failed: nothing has been sent then.
func (c *Callers) Dialer(protocols ...string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := &net.Dialer{Timeout: callDialTimeout}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dial.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		cfg := c.latest().Clone()
		cfg.NextProtos = protocols
		if cfg.ServerName == "" {
			if cfg.ServerName, _, err = net.SplitHostPort(addr); err != nil {
				return nil, errors.Join(err, raw.Close())
			}
		}
		out := tls.Client(raw, cfg)
		ctx, cancel := context.WithTimeout(ctx, callHandshakeTimeout)
		defer cancel()
		if err := out.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Addr: raw.RemoteAddr(), Err: err}
		}
		return out, nil
	}
}

// Transport returns one for requests to other processes, by TLS where their addresses begin with https.
func (c *Callers) Transport() *http.Transport {
	return &http.Transport{
		DialContext: (&net.Dialer{Timeout: callDialTimeout}).DialContext, DialTLSContext: c.Dialer("http/1.1"),
		MaxIdleConnsPerHost: 10, IdleConnTimeout: 90 * time.Second, ExpectContinueTimeout: time.Second,
	}
}

// noStrangers refuses requests of clients without a certificate, except the questions of probes, of which the
// answers tell nothing of tenants.
func noStrangers(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 || isProbe(r) {
			h.ServeHTTP(w, r)
			return
		}
		http.Error(w, "a client certificate is needed here (server.http_tls_config)", http.StatusForbidden)
	})
}

func isProbe(r *http.Request) bool {
	switch r.URL.Path {
	case "/ready", "/-/ready", "/-/healthy":
		return r.Method == http.MethodGet || r.Method == http.MethodHead
	}
	return false
}

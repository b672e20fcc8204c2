package transport

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	requireClient = "RequireAndVerifyClientCert"
	verifyIfGiven = "VerifyClientCertIfGiven"
)

// secured is how one listener is to be secured.
type secured struct {
	listener  string // for metrics
	cfg       TLSConfig
	policy    TLSPolicy
	issuer    Issuer // nil: there are files only
	protocols []string
	probes    bool // requests are asked for certificates, as probes need none
}

// certificates is the TLS of a listener, from its files.
type certificates struct {
	secured
	reloading
	base tls.Config // what policy asks for
}

// newTLS returns the configuration for a listener, nil if it has no certificate and nobody issues any.
// Errors: Invalid.
func newTLS(s secured, m *serverMetrics, log *slog.Logger) (*tls.Config, error) {
	if s.cfg == (TLSConfig{}) && s.issuer == nil {
		return nil, nil
	}
	c := &certificates{secured: s}
	if err := s.policy.apply(&c.base); err != nil {
		return nil, err
	}
	c.base.NextProtos = s.protocols
	c.reloading = reloading{files: [3]string{s.cfg.CertFile, s.cfg.KeyFile, s.cfg.ClientCAFile}, load: c.read, reloads: m.tlsReloads, log: log}
	if err := c.begin(); err != nil {
		return nil, err
	}
	if s.cfg.CertFile != "" {
		m.watchExpiry(s.listener, func() time.Time { return c.latest().Certificates[0].Leaf.NotAfter })
	}
	return &tls.Config{
		MinVersion: c.base.MinVersion, NextProtos: s.protocols,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if s.issuer != nil && isChallenge(h) {
				return challengeConfig(s.issuer, h)
			}
			return c.latest(), nil
		},
	}, nil
}

func (c *certificates) read() (*tls.Config, error) {
	out := c.base.Clone()
	if c.issuer == nil || c.cfg.CertFile != "" || c.cfg.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(c.cfg.CertFile, c.cfg.KeyFile)
		if err != nil {
			return nil, errs.New(errs.Invalid, "load certificate %q with key %q: %w", c.cfg.CertFile, c.cfg.KeyFile, err)
		}
		out.Certificates = []tls.Certificate{cert}
	}
	if c.issuer != nil {
		out.GetCertificate = issuedFirst(c.issuer, len(out.Certificates) > 0)
	}
	switch c.cfg.ClientAuth {
	case "", requireClient:
		out.ClientAuth = tls.RequireAndVerifyClientCert
	case verifyIfGiven:
		out.ClientAuth = tls.VerifyClientCertIfGiven
	default:
		return nil, errs.New(errs.Invalid, "client auth type %q is not one of %s, %s", c.cfg.ClientAuth, requireClient, verifyIfGiven)
	}
	if c.cfg.ClientCAFile == "" {
		if c.cfg.ClientAuth != "" {
			return nil, errs.New(errs.Invalid, "client auth type %s needs a client CA file", c.cfg.ClientAuth)
		}
		out.ClientAuth = tls.NoClientCert
		return out, nil
	}
	if c.probes && out.ClientAuth == tls.RequireAndVerifyClientCert {
		out.ClientAuth = tls.VerifyClientCertIfGiven // noStrangers refuses all but probes
	}
	var err error
	out.ClientCAs, err = readPool(c.cfg.ClientCAFile)
	return out, err
}

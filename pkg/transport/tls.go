package transport

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	requireClient = "RequireAndVerifyClientCert"
	verifyIfGiven = "VerifyClientCertIfGiven"
	// tlsCheckEvery is how old the knowledge of certificate files may be at a handshake.
	tlsCheckEvery = time.Second
)

// secured is how one listener is to be secured.
type secured struct {
	listener  string // for metrics
	cfg       TLSConfig
	policy    TLSPolicy
	issuer    Issuer // nil: there are files only
	protocols []string
}

// certificates keeps a listener's TLS configuration equal to its files.
type certificates struct {
	secured
	base    tls.Config // what policy asks for
	reloads *prometheus.CounterVec
	log     *slog.Logger

	mu      sync.Mutex // guards what follows
	current *tls.Config
	stamps  [3]stamp
	checked time.Time
}

// stamp is what a file looks like without reading it.
type stamp struct {
	modified time.Time
	size     int64
}

// newTLS returns the configuration for a listener, nil if it has no certificate and nobody issues any.
// Errors: Invalid.
func newTLS(s secured, m *serverMetrics, log *slog.Logger) (*tls.Config, error) {
	if s.cfg == (TLSConfig{}) && s.issuer == nil {
		return nil, nil
	}
	c := &certificates{secured: s, reloads: m.tlsReloads, log: log, stamps: fileStamps(s.cfg), checked: time.Now()}
	if err := s.policy.apply(&c.base); err != nil {
		return nil, err
	}
	c.base.NextProtos = s.protocols
	var err error
	if c.current, err = c.load(); err != nil {
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

func fileStamps(cfg TLSConfig) (out [3]stamp) {
	for i, name := range []string{cfg.CertFile, cfg.KeyFile, cfg.ClientCAFile} {
		if info, err := os.Stat(name); err == nil {
			out[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return out
}

// latest returns the configuration of the files as they are, or as they last were valid.
func (c *certificates) latest() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < tlsCheckEvery {
		return c.current
	}
	c.checked = time.Now()
	stamps := fileStamps(c.cfg)
	if stamps == c.stamps {
		return c.current
	}
	next, err := c.load()
	if err != nil {
		// The stamps stay, so that the next handshake after a second tries again.
		c.reloads.WithLabelValues("failure").Inc()
		c.log.Warn("changed certificate files are not valid, the ones before stay in use", "cert", c.cfg.CertFile, "err", err)
		return c.current
	}
	c.reloads.WithLabelValues("success").Inc()
	c.log.Info("certificate files reloaded", "cert", c.cfg.CertFile)
	c.current, c.stamps = next, stamps
	return next
}

func (c *certificates) load() (*tls.Config, error) {
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
	pem, err := os.ReadFile(c.cfg.ClientCAFile)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, fmt.Errorf("read client CA file: %w", err))
	}
	out.ClientCAs = x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "client CA file %q holds no certificate", c.cfg.ClientCAFile)
	}
	return out, nil
}

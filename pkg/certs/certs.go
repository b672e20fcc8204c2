// Package certs owns the listener certificates that a CA issues over ACME (RFC 8555): which names may
// be certified, when a certificate is obtained or renewed, and by which of several processes.
package certs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/acme"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// callTimeout bounds one request to the CA.
	callTimeout = 30 * time.Second
	// loadTimeout bounds how long the start waits for certificates got before.
	loadTimeout = 10 * time.Second
	// mostRest is how long a process trusts that nobody replaced a certificate that is still good.
	mostRest = time.Hour
	// leastRest bounds how often a host is looked after.
	leastRest = time.Second
	// lookEvery bounds how often handshakes make a process look for a challenge of another.
	lookEvery = time.Second
	// challengeTimeout bounds that look, so how long such a handshake waits.
	challengeTimeout = 5 * time.Second
)

// Sealer protects what is stored. The context is not part of the sealed text and must be the same to open it.
type Sealer interface {
	SealCertificate(context string, text []byte) ([]byte, error)
	OpenCertificate(context string, sealed []byte) ([]byte, error)
}

// Deps is what a Manager needs beside its settings.
type Deps struct {
	Log *slog.Logger
	Reg prometheus.Registerer
	// Store is shared by all processes that show the same names.
	Store *docstore.Store
	// Sealer seals private keys. Nil: they are stored as they are, and the store alone protects them.
	Sealer Sealer
}

// Manager gets and renews the certificates of the configured names. Of all processes with the same
// store one asks the CA at a time, and all of them answer its challenges. It is a service; handshakes
// may be served before it runs. No handshake makes it call the CA.
type Manager struct {
	services.Service
	cfg   Config
	deps  Deps
	m     metrics
	ca    *http.Client
	dir   string // of the documents of this CA
	id    string // of this process among those that share the store
	hosts map[string]*host
	order []*host

	// Replaced by tests.
	now    func() time.Time
	spread time.Duration // until all processes have seen that there is a challenge

	mu     sync.Mutex // guards client
	client *acme.Client
}

// host is one name to be certified.
type host struct {
	name string
	held atomic.Pointer[tls.Certificate] // with its leaf parsed; nil: none yet

	next time.Time // to be looked after; of run alone

	mu        sync.Mutex       // guards what follows
	challenge *tls.Certificate // of an attempt of this process
	found     *tls.Certificate // of an attempt of another, when it was last looked for
	looked    time.Time
}

// New returns a Manager that has to be started. cfg must be enabled. Errors: Invalid.
func New(cfg Config, deps Deps) (*Manager, error) {
	roots, err := trusted(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(cfg.Directory))
	m := &Manager{
		cfg: cfg, deps: deps, m: newMetrics(deps.Reg, cfg.Hosts), id: rand.Text(), now: time.Now, spread: 2 * lookEvery,
		dir: "certificates/" + hex.EncodeToString(sum[:8]) + "/", hosts: map[string]*host{},
		ca: &http.Client{Timeout: callTimeout, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxIdleConns: 2, IdleConnTimeout: callTimeout,
		}},
	}
	for _, name := range cfg.Hosts {
		if m.hosts[name] == nil {
			h := &host{name: name}
			m.hosts[name] = h
			m.order = append(m.order, h)
		}
	}
	m.Service = services.NewBasicService(m.starting, m.run, m.stopping)
	return m, nil
}

func trusted(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read server.acme.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "server.acme.ca_file %q holds no certificate", file)
	}
	return pool, nil
}

// Certificate returns what there is to show to a client that asks for name, nil if nothing, and whether it
// has not expired. A client that asks for no name may have that of the first.
func (m *Manager) Certificate(name string) (c *tls.Certificate, valid bool) {
	h := m.host(name)
	if h == nil {
		return nil, false
	}
	c = h.held.Load()
	return c, c != nil && m.valid(c)
}

func (m *Manager) valid(c *tls.Certificate) bool { return m.now().Before(c.Leaf.NotAfter) }

// host is nil for a name that is not certified.
func (m *Manager) host(name string) *host {
	if name == "" {
		return m.order[0]
	}
	return m.hosts[strings.ToLower(strings.TrimSuffix(name, "."))]
}

// Challenge returns what to show a CA that checks whether we are who answers for name, whichever process
// asked it for a certificate. Errors: NotFound.
func (m *Manager) Challenge(ctx context.Context, name string) (*tls.Certificate, error) {
	h := m.host(name)
	if h == nil || name == "" {
		return nil, errs.New(errs.NotFound, "no certificate is got for %q", name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.challenge != nil {
		return h.challenge, nil
	}
	if h.looked.IsZero() || time.Since(h.looked) >= lookEvery {
		h.looked = time.Now()
		ctx, cancel := context.WithTimeout(ctx, challengeTimeout)
		defer cancel()
		var err error
		if h.found, err = m.read(ctx, h.key("challenge")); err != nil {
			m.deps.Log.Debug("no challenge for a name", "host", name, "err", err)
		}
	}
	if h.found == nil || !m.valid(h.found) {
		return nil, errs.New(errs.NotFound, "%s has no challenge", name)
	}
	return h.found, nil
}

func (h *host) key(kind string) string { return h.name + "/" + kind }

// starting reads the certificates that were got before, so that they are shown from the first handshake on.
func (m *Manager) starting(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	for _, h := range m.order {
		m.load(ctx, h)
	}
	return nil
}

func (m *Manager) run(ctx context.Context) error {
	for {
		rest := mostRest
		for _, h := range m.order {
			if time.Until(h.next) <= 0 && ctx.Err() == nil {
				h.next = time.Now().Add(min(mostRest, max(m.tend(ctx, h), leastRest)))
			}
			rest = min(rest, time.Until(h.next))
		}
		if sleep(ctx, rest) != nil {
			return nil
		}
	}
}

func (m *Manager) stopping(error) error {
	m.ca.CloseIdleConnections()
	return nil
}

// tend gets h a certificate if it is time, and returns when to look again.
func (m *Manager) tend(ctx context.Context, h *host) time.Duration {
	m.load(ctx, h)
	if rest := m.untilDue(h); rest > 0 {
		return rest
	}
	c, wait, err := m.claim(ctx, h)
	if err != nil {
		m.warn(ctx, h, err, wait)
		return wait
	}
	if c == nil {
		return wait
	}
	m.load(ctx, h) // who had the claim before may have got one
	if rest := m.untilDue(h); rest > 0 {
		m.release(ctx, h, c, 0, 0)
		return rest
	}
	err = m.obtain(ctx, h)
	if err != nil && ctx.Err() != nil { // told to stop: others may go on at once
		m.release(ctx, h, c, c.Failures, 0)
		return 0
	}
	if err != nil {
		m.forget()
		wait = afterFailure(c.Failures, err)
		m.release(ctx, h, c, c.Failures+1, wait)
		m.m.orders.WithLabelValues("failure").Inc()
		m.warn(ctx, h, err, wait)
		return wait
	}
	m.m.orders.WithLabelValues("success").Inc()
	expires := h.held.Load().Leaf.NotAfter
	m.deps.Log.Info("certificate got from the CA", "host", h.name, "expires", expires)
	calm := min(mostCalm, max(0, expires.Sub(m.now())/restPart))
	m.release(ctx, h, c, 0, calm)
	return max(calm, m.untilDue(h))
}

// warn says that there is no certificate, or that the one there is was not renewed.
func (m *Manager) warn(ctx context.Context, h *host, err error, wait time.Duration) {
	if ctx.Err() != nil {
		return
	}
	c := h.held.Load()
	switch {
	case c == nil:
		m.deps.Log.Error("no certificate could be got from the CA", "host", h.name, "err", err, "next_attempt_in", wait)
	case !m.valid(c):
		m.deps.Log.Error("certificate has expired and could not be renewed", "host", h.name, "expired", c.Leaf.NotAfter, "err", err, "next_attempt_in", wait)
	default:
		m.deps.Log.Warn("certificate could not be renewed", "host", h.name, "expires", c.Leaf.NotAfter, "err", err, "next_attempt_in", wait)
	}
}

// untilDue is how long the certificate of h is good enough; 0 if it is not.
func (m *Manager) untilDue(h *host) time.Duration {
	c := h.held.Load()
	if c == nil {
		return 0
	}
	const part = 3
	before := min(m.cfg.RenewBefore, c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)/part)
	return max(0, c.Leaf.NotAfter.Add(-before).Sub(m.now()))
}

// hold shows c from now on.
func (m *Manager) hold(h *host, c *tls.Certificate) {
	h.held.Store(c)
	m.m.expiry.WithLabelValues(h.name).Set(float64(c.Leaf.NotAfter.Unix()))
}

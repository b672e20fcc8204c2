package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// obtainTimeout bounds an attempt. It is shorter than the claim.
	obtainTimeout = 3 * time.Minute
	// callRetries bounds how often a request is made again that the CA could not answer.
	callRetries = 3
	alpn01      = "tls-alpn-01"
)

// obtain gets a certificate for h, shows it and stores it for the other processes.
func (m *Manager) obtain(ctx context.Context, h *host) error {
	ctx, cancel := context.WithTimeout(ctx, obtainTimeout)
	defer cancel()
	ca, err := m.account(ctx)
	if err != nil {
		return fmt.Errorf("account at the CA: %w", err)
	}
	order, err := ca.AuthorizeOrder(ctx, acme.DomainIDs(h.name))
	if err != nil {
		return fmt.Errorf("order: %w", err)
	}
	for _, url := range order.AuthzURLs {
		if err := m.prove(ctx, ca, h, url); err != nil {
			return err
		}
	}
	if order, err = ca.WaitOrder(ctx, order.URI); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{h.name}}, key)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	chain, err := finalize(ctx, ca, order, csr)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c := &tls.Certificate{Certificate: chain, PrivateKey: key}
	if err := m.check(h, c); err != nil {
		return err
	}
	m.hold(h, c)
	if err := m.write(ctx, h.key("certificate"), c); err != nil {
		// It is shown here at least. Others get one of their own when their turn comes.
		m.deps.Log.Warn("certificate cannot be stored for other processes", "host", h.name, "err", err)
	}
	return nil
}

// finalize returns the chain. Not every CA says in its answer where the order is that it issues later, which
// the library needs.
func finalize(ctx context.Context, ca *acme.Client, order *acme.Order, csr []byte) ([][]byte, error) {
	chain, _, err := ca.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err == nil {
		return chain, nil
	}
	if o, later := ca.WaitOrder(ctx, order.URI); later == nil && o.Status == acme.StatusValid {
		return ca.FetchCert(ctx, o.CertURL, true)
	}
	return nil, err
}

// check refuses a chain that clients would refuse, and parses its leaf.
func (m *Manager) check(h *host, c *tls.Certificate) error {
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return errs.New(errs.Invalid, "the CA issued what is no certificate: %w", err)
	}
	c.Leaf = leaf
	key, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	switch {
	case !ok || !key.PublicKey.Equal(leaf.PublicKey):
		return errs.New(errs.Invalid, "the CA issued a certificate of another key")
	case leaf.VerifyHostname(h.name) != nil:
		return errs.New(errs.Invalid, "the CA issued a certificate for %v, not for %s", leaf.DNSNames, h.name)
	case !m.valid(c):
		return errs.New(errs.Invalid, "the CA issued a certificate that expired at %s", leaf.NotAfter)
	}
	return nil
}

// prove shows the CA that we answer for h, on whichever process its connection ends.
func (m *Manager) prove(ctx context.Context, ca *acme.Client, h *host, url string) error {
	z, err := ca.GetAuthorization(ctx, url)
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	if z.Status == acme.StatusValid {
		return nil
	}
	var todo *acme.Challenge
	for _, c := range z.Challenges {
		if c.Type == alpn01 {
			todo = c
		}
	}
	if todo == nil {
		return errs.New(errs.Unprocessable, "the CA does not take TLS-ALPN-01 as a proof for %s", h.name)
	}
	c, err := ca.TLSALPN01ChallengeCert(todo.Token, h.name)
	if err != nil {
		return fmt.Errorf("challenge: %w", err)
	}
	if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
		return fmt.Errorf("challenge: %w", err)
	}
	if err := m.write(ctx, h.key("challenge"), &c); err != nil {
		return fmt.Errorf("store the challenge: %w", err)
	}
	h.setChallenge(&c)
	defer h.setChallenge(nil)
	if err := sleep(ctx, m.spread); err != nil {
		return err
	}
	if _, err = ca.Accept(ctx, todo); err != nil {
		return fmt.Errorf("challenge: %w", err)
	}
	if _, err = ca.WaitAuthorization(ctx, z.URI); err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	return nil
}

func (h *host) setChallenge(c *tls.Certificate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.challenge = c
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// account returns a client with the account at the CA that all processes share, which is made when there is none.
func (m *Manager) account(ctx context.Context) (*acme.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		return m.client, nil
	}
	key, err := m.accountKey(ctx)
	if err != nil {
		return nil, err
	}
	ca := &acme.Client{Key: key, HTTPClient: m.ca, DirectoryURL: m.cfg.Directory, UserAgent: "amphora", RetryBackoff: again}
	a := &acme.Account{}
	if m.cfg.Email != "" {
		a.Contact = []string{"mailto:" + m.cfg.Email}
	}
	if m.cfg.ExternalID != "" {
		secret, err := m.cfg.externalKey()
		if err != nil {
			return nil, errs.New(errs.Invalid, "server.acme.external_account_key: %w", err)
		}
		a.ExternalAccountBinding = &acme.ExternalAccountBinding{KID: m.cfg.ExternalID, Key: secret}
	}
	if _, err = ca.Register(ctx, a, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, err
	}
	m.client = ca
	return ca, nil
}

// forget makes the next attempt begin with the account, which the CA may have closed.
func (m *Manager) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.client = nil
}

// again waits longer each time, as often as the bound allows.
func again(n int, _ *http.Request, _ *http.Response) time.Duration {
	if n > callRetries {
		return 0
	}
	return time.Second << n
}

func (m *Manager) accountKey(ctx context.Context) (*ecdsa.PrivateKey, error) {
	const key = "account"
	text, err := m.fetch(ctx, key)
	if err == nil {
		var k *ecdsa.PrivateKey
		if k, err = decodeKey(text); err == nil {
			return k, nil
		}
	}
	if kind := errs.KindOf(err); kind == errs.Unavailable {
		return nil, err
	} else if kind != errs.NotFound {
		m.deps.Log.Warn("stored account at the CA cannot be used, a new one is made", "err", err)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if text, err = encodeKey(k); err != nil {
		return nil, err
	}
	return k, m.put(ctx, key, text)
}

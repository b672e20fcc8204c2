// Package acmetest is an ACME CA (RFC 8555) for tests that validates control of a name by TLS-ALPN-01
// (RFC 8737), as public CAs do. Only tests import it.
package acmetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// CA issues certificates for names that are answered for at the addresses it is told.
type CA struct {
	Roots  *x509.CertPool // of what it issues
	File   string         // with the certificate of its own listener
	server *httptest.Server
	key    *ecdsa.PrivateKey
	root   *x509.Certificate

	mu       sync.Mutex // guards what follows
	down     bool
	from, to time.Duration
	at       map[string][]string
	nonces   map[string]bool
	accounts []crypto.PublicKey
	orders   []*order
	requests int
}

type order struct {
	name, token, status string
	chain               []byte
}

// New starts a CA that ends with t.
func New(t testing.TB) *CA {
	t.Helper()
	c := &CA{at: map[string][]string{}, nonces: map[string]bool{}, from: -time.Minute, to: 90 * 24 * time.Hour}
	var err error
	if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "acmetest"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &c.key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	if c.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	c.Roots = x509.NewCertPool()
	c.Roots.AddCert(c.root)
	c.server = httptest.NewTLSServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.server.Close)
	c.File = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.File, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// URL is that of the directory.
func (c *CA) URL() string { return c.server.URL + "/directory" }

// At says where name is answered for. Each address must pass the check.
func (c *CA) At(name string, addresses ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[name] = addresses
}

// Down makes the CA refuse every request, or answer again.
func (c *CA) Down(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// Life is from when until when what is issued next is valid, from the time of issue on.
func (c *CA) Life(from, to time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from, c.to = from, to
}

// Orders returns the names that were ordered, and how many of the orders led to a certificate.
func (c *CA) Orders() (names []string, issued int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.orders {
		names = append(names, o.name)
		if o.status == acme.StatusValid {
			issued++
		}
	}
	return names, issued
}

// Requests is how many requests there were.
func (c *CA) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}

func (c *CA) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	if c.down {
		refuse(w, http.StatusForbidden, "unauthorized", "the CA is away")
		return
	}
	nonce := rand.Text()
	c.nonces[nonce] = true
	w.Header().Set("Replay-Nonce", nonce)
	at := c.server.URL
	switch r.URL.Path {
	case "/directory":
		answer(w, http.StatusOK, map[string]any{"newNonce": at + "/nonce", "newAccount": at + "/account", "newOrder": at + "/order",
			"meta": map[string]any{"termsOfService": at + "/terms"}})
		return
	case "/nonce":
		return
	}
	var m message
	if err := m.read(c, r); err != nil {
		refuse(w, http.StatusBadRequest, "malformed", err.Error())
		return
	}
	switch {
	case r.URL.Path == "/account":
		c.register(w, &m)
	case r.URL.Path == "/order":
		c.newOrder(w, &m)
	default:
		c.serveOrder(w, r, &m)
	}
}

// register answers newAccount.
func (c *CA) register(w http.ResponseWriter, m *message) {
	var in struct{ TermsOfServiceAgreed bool }
	if err := json.Unmarshal(m.payload, &in); err != nil || !in.TermsOfServiceAgreed || m.account >= 0 {
		refuse(w, http.StatusForbidden, "userActionRequired", "the terms of service are not agreed to")
		return
	}
	code, i := http.StatusOK, slices.IndexFunc(c.accounts, func(k crypto.PublicKey) bool { return sameKey(k, m.key) })
	if i < 0 {
		code, i = http.StatusCreated, len(c.accounts)
		c.accounts = append(c.accounts, m.key)
	}
	w.Header().Set("Location", fmt.Sprintf("%s/account/%d", c.server.URL, i))
	answer(w, code, map[string]any{"status": acme.StatusValid})
}

func (c *CA) newOrder(w http.ResponseWriter, m *message) {
	var in struct {
		Identifiers []struct{ Type, Value string }
	}
	if err := json.Unmarshal(m.payload, &in); err != nil || len(in.Identifiers) != 1 || in.Identifiers[0].Type != "dns" {
		refuse(w, http.StatusBadRequest, "malformed", "an order is for one name")
		return
	}
	c.orders = append(c.orders, &order{name: in.Identifiers[0].Value, token: rand.Text(), status: acme.StatusPending})
	c.show(w, http.StatusCreated, len(c.orders)-1)
}

func (c *CA) show(w http.ResponseWriter, code, i int) {
	o, at := c.orders[i], fmt.Sprintf("%s/%d/", c.server.URL, i)
	w.Header().Set("Location", at+"order")
	answer(w, code, map[string]any{"status": o.status, "identifiers": []any{map[string]string{"type": "dns", "value": o.name}},
		"authorizations": []string{at + "authorization"}, "finalize": at + "finalize", "certificate": at + "certificate"})
}

// serveOrder answers for what belongs to one order.
func (c *CA) serveOrder(w http.ResponseWriter, r *http.Request, m *message) {
	var i int
	var what string
	if _, err := fmt.Sscanf(strings.ReplaceAll(r.URL.Path, "/", " "), "%d %s", &i, &what); err != nil || i >= len(c.orders) {
		refuse(w, http.StatusNotFound, "malformed", "no such order")
		return
	}
	o := c.orders[i]
	switch what {
	case "order":
		c.show(w, http.StatusOK, i)
	case "challenge":
		o.status = acme.StatusReady
		if err := check(o, c.at[o.name], m.key); err != nil {
			o.status = acme.StatusInvalid
		}
		answer(w, http.StatusOK, c.challenge(i))
	case "authorization":
		status := acme.StatusValid
		if o.status == acme.StatusPending || o.status == acme.StatusInvalid {
			status = o.status
		}
		answer(w, http.StatusOK, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": o.name}, "challenges": []any{c.challenge(i)}})
	case "finalize":
		if err := c.issue(o, m.payload); err != nil {
			refuse(w, http.StatusForbidden, "badCSR", err.Error())
			return
		}
		c.show(w, http.StatusOK, i)
	case "certificate":
		_, _ = w.Write(o.chain)
	}
}

func (c *CA) challenge(i int) map[string]any {
	status := map[string]string{acme.StatusPending: acme.StatusPending, acme.StatusInvalid: acme.StatusInvalid}[c.orders[i].status]
	if status == "" {
		status = acme.StatusValid
	}
	return map[string]any{"type": "tls-alpn-01", "url": fmt.Sprintf("%s/%d/challenge", c.server.URL, i), "token": c.orders[i].token, "status": status}
}

// check asks every address for the certificate that proves that it belongs to who has the key.
func check(o *order, addresses []string, key crypto.PublicKey) error {
	thumbprint, err := acme.JWKThumbprint(key)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(o.token + "." + thumbprint))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return err
	}
	for _, at := range addresses {
		d := &net.Dialer{Timeout: 10 * time.Second}
		conn, err := tls.DialWithDialer(d, "tcp", at, &tls.Config{ServerName: o.name, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		s := conn.ConnectionState()
		_ = conn.Close()
		leaf := s.PeerCertificates[0]
		proven := slices.ContainsFunc(leaf.Extensions, func(e pkix.Extension) bool {
			return e.Id.String() == "1.3.6.1.5.5.7.1.31" && e.Critical && string(e.Value) == string(want)
		})
		if !proven || s.NegotiatedProtocol != acme.ALPNProto || !slices.Equal(leaf.DNSNames, []string{o.name}) {
			return fmt.Errorf("%s does not answer for %s", at, o.name)
		}
	}
	if len(addresses) == 0 {
		return fmt.Errorf("%s is nowhere", o.name)
	}
	return nil
}

func (c *CA) issue(o *order, payload []byte) error {
	var in struct{ CSR string }
	if err := json.Unmarshal(payload, &in); err != nil {
		return err
	}
	der, err := base64.RawURLEncoding.DecodeString(in.CSR)
	if err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	if o.status != acme.StatusReady || !slices.Equal(csr.DNSNames, []string{o.name}) {
		return fmt.Errorf("an order for %s that is %s, a request for %v", o.name, o.status, csr.DNSNames)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{SerialNumber: serial, DNSNames: csr.DNSNames, NotBefore: time.Now().Add(c.from), NotAfter: time.Now().Add(c.to),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leaf, err := x509.CreateCertificate(rand.Reader, tmpl, c.root, csr.PublicKey, c.key)
	if err != nil {
		return err
	}
	for _, der := range [][]byte{leaf, c.root.Raw} {
		o.chain = append(o.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	o.status = acme.StatusValid
	return nil
}

func answer(w http.ResponseWriter, code int, v any) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, code int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	answer(w, code, map[string]string{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail})
}

package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// claimLasts is for how long one process may be the one that asks the CA for a name, without saying
	// that it has done. It is longer than obtainTimeout.
	claimLasts = 4 * time.Minute
	// othersTurn is when to look what the process has done that has the claim.
	othersTurn = 5 * time.Second
	// firstRetry is doubled with each failure. With it and lastRetry no more attempts are made than the five
	// failures in an hour for a name that public CAs take.
	firstRetry = 2 * time.Minute
	lastRetry  = 6 * time.Hour
	// restPart and mostCalm are how long nobody asks again after a certificate was got, even if it is one that
	// should be renewed already: a part of its life, at most so long.
	restPart = 3
	mostCalm = time.Hour
)

// envelope is a stored document with private keys.
type envelope struct {
	Sealed bool   `json:"sealed"`
	Data   []byte `json:"data"`
}

// put stores text, whatever was there.
func (m *Manager) put(ctx context.Context, key string, text []byte) error {
	e := envelope{Data: text, Sealed: m.deps.Sealer != nil}
	if e.Sealed {
		var err error
		if e.Data, err = m.deps.Sealer.SealCertificate(m.dir+key, text); err != nil {
			return err
		}
	}
	data, err := json.Marshal(e)
	if err == nil {
		_, err = m.deps.Store.Overwrite(ctx, m.dir+key, data)
	}
	return err
}

// fetch undoes put. What is not sealed is not believed where things are: whoever writes to the store could
// have us show a certificate of his own. Errors: NotFound, Invalid for what cannot be opened.
func (m *Manager) fetch(ctx context.Context, key string) ([]byte, error) {
	d, err := m.deps.Store.Get(ctx, m.dir+key)
	if err != nil {
		return nil, err
	}
	var e envelope
	if err := json.Unmarshal(d.Data, &e); err != nil {
		return nil, errs.New(errs.Invalid, "read %s: %w", key, err)
	}
	if e.Sealed != (m.deps.Sealer != nil) {
		return nil, errs.New(errs.Invalid, "%s is sealed: %t, which it must be with an operator's key and only then", key, e.Sealed)
	}
	if !e.Sealed {
		return e.Data, nil
	}
	return m.deps.Sealer.OpenCertificate(m.dir+key, e.Data)
}

// load takes over the stored certificate of h, if it lasts longer than the one held.
func (m *Manager) load(ctx context.Context, h *host) {
	c, err := m.read(ctx, h.key("certificate"))
	switch {
	case errs.KindOf(err) == errs.NotFound:
	case err != nil:
		if ctx.Err() == nil {
			m.deps.Log.Warn("stored certificate cannot be read", "host", h.name, "err", err)
		}
	case c.Leaf.VerifyHostname(h.name) != nil:
		m.deps.Log.Warn("stored certificate is for another name", "host", h.name)
	default:
		if held := h.held.Load(); held == nil || c.Leaf.NotAfter.After(held.Leaf.NotAfter) {
			m.hold(h, c)
		}
	}
}

// read returns a stored key with its chain.
func (m *Manager) read(ctx context.Context, key string) (*tls.Certificate, error) {
	text, err := m.fetch(ctx, key)
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read %s: %w", key, err)
	}
	return &c, nil
}

// write stores a key with its chain.
func (m *Manager) write(ctx context.Context, key string, c *tls.Certificate) error {
	signer, ok := c.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return errs.New(errs.Internal, "key of %s is a %T", key, c.PrivateKey)
	}
	text, err := encodeKey(signer)
	if err != nil {
		return err
	}
	for _, der := range c.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return m.put(ctx, key, text)
}

func encodeKey(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func decodeKey(text []byte) (*ecdsa.PrivateKey, error) {
	b, _ := pem.Decode(bytes.TrimSpace(text))
	if b == nil {
		return nil, errs.New(errs.Invalid, "there is no key")
	}
	return x509.ParseECPrivateKey(b.Bytes)
}

// claim says who asks the CA for a name, and until when nobody else does.
type claim struct {
	Holder   string    `json:"holder,omitempty"`
	Until    time.Time `json:"until"`
	Failures int       `json:"failures"` // one after the other

	version docstore.Version
}

// claim makes this process the one that asks the CA for h. It returns nil, with the time to look again, if
// it is another's turn or too early after a failure, be that of another process or of one that has died.
func (m *Manager) claim(ctx context.Context, h *host) (*claim, time.Duration, error) {
	key := m.dir + h.key("claim")
	var was claim
	d, err := m.deps.Store.Get(ctx, key)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return nil, othersTurn, err
	}
	if err == nil && json.Unmarshal(d.Data, &was) != nil {
		was = claim{}
	}
	now := m.now()
	if wait := was.Until.Sub(now); wait > 0 && wait <= lastRetry+claimLasts { // beyond it is of a wrong clock
		if was.Holder != "" {
			wait = min(wait, othersTurn)
		}
		return nil, wait, nil
	}
	next := &claim{Holder: m.id, Until: now.Add(claimLasts), Failures: was.Failures}
	if err := m.putClaim(ctx, key, next, d.Version); err != nil {
		if errs.KindOf(err) == errs.Conflict {
			return nil, othersTurn, nil
		}
		return nil, othersTurn, err
	}
	return next, 0, nil
}

func (m *Manager) putClaim(ctx context.Context, key string, c *claim, expect docstore.Version) error {
	data, err := json.Marshal(c)
	if err == nil {
		c.version, err = m.deps.Store.Put(ctx, key, data, expect)
	}
	return err
}

// afterFailure is how long nobody tries again after so many failures before the one that is given.
func afterFailure(failures int, failed error) time.Duration {
	wait := min(lastRetry, firstRetry<<min(failures, 10))
	if asked, ok := acme.RateLimit(failed); ok {
		wait = min(lastRetry, max(wait, asked))
	}
	return wait
}

// release ends the claim after failures in a row and keeps everybody from asking the CA for wait.
func (m *Manager) release(ctx context.Context, h *host, c *claim, failures int, wait time.Duration) {
	end := &claim{Until: m.now().Add(wait), Failures: failures}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), challengeTimeout) // the process may be stopping
	defer cancel()
	if err := m.putClaim(ctx, m.dir+h.key("claim"), end, c.version); err != nil {
		m.deps.Log.Warn("end of an attempt to get a certificate is not known to other processes, which wait until it is over", "host", h.name, "err", err)
	}
}

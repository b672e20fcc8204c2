package acmetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
)

// maxMessageBytes bounds a request.
const maxMessageBytes = 1 << 20

// message is a request to the CA, whose signature and nonce are checked.
type message struct {
	key     crypto.PublicKey
	account int // negative for a key without one
	payload []byte
}

func (m *message) read(c *CA, r *http.Request) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxMessageBytes))
	if err != nil {
		return err
	}
	var jws struct{ Protected, Payload, Signature string }
	if err := json.Unmarshal(data, &jws); err != nil {
		return err
	}
	head, err := base64.RawURLEncoding.DecodeString(jws.Protected)
	if err != nil {
		return err
	}
	var h struct {
		Alg, KID, Nonce, URL string
		JWK                  *struct{ X, Y string }
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return err
	}
	if !c.nonces[h.Nonce] || h.URL != c.server.URL+r.URL.Path || h.Alg != "ES256" {
		return fmt.Errorf("wrong nonce, URL %q or algorithm %q", h.URL, h.Alg)
	}
	delete(c.nonces, h.Nonce)
	m.account = -1
	if h.JWK != nil {
		if m.key, err = parseKey(h.JWK.X, h.JWK.Y); err != nil {
			return err
		}
	} else {
		if _, err := fmt.Sscanf(h.KID, c.server.URL+"/account/%d", &m.account); err != nil || m.account >= len(c.accounts) {
			return fmt.Errorf("no account %q", h.KID)
		}
		m.key = c.accounts[m.account]
	}
	key, ok := m.key.(*ecdsa.PublicKey)
	signature, err := base64.RawURLEncoding.DecodeString(jws.Signature)
	if err != nil || len(signature) != 64 || !ok {
		return errors.New("no signature")
	}
	sum := sha256.Sum256([]byte(jws.Protected + "." + jws.Payload))
	if !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return errors.New("wrong signature")
	}
	m.payload, err = base64.RawURLEncoding.DecodeString(jws.Payload)
	return err
}

func parseKey(x, y string) (*ecdsa.PublicKey, error) {
	raw := []byte{4} // an uncompressed point
	for _, s := range []string{x, y} {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			return nil, err
		}
		raw = append(raw, b...)
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(*ecdsa.PublicKey)
	return ok && k.Equal(b)
}

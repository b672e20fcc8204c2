package transport

import (
	"context"
	"crypto/tls"
	"net/http"
)

// Issuer has certificates that a CA issues, and answers its TLS-ALPN-01 challenges (RFC 8737). Its methods
// are called in handshakes, so that they must not wait for the CA.
type Issuer interface {
	// Certificate returns what was issued for name, nil if nothing was, and whether it has not expired.
	Certificate(name string) (c *tls.Certificate, valid bool)
	// Challenge returns what is to be shown to the CA for name.
	Challenge(ctx context.Context, name string) (*tls.Certificate, error)
}

// challengeProtocol is what a CA speaks that checks who answers for a name.
const challengeProtocol = "acme-tls/1"

func isChallenge(h *tls.ClientHelloInfo) bool {
	return len(h.SupportedProtos) == 1 && h.SupportedProtos[0] == challengeProtocol
}

// challengeConfig is for one handshake with a CA, which shows no certificate of its own even where clients
// must. Nothing else may come of it: it cannot be resumed, and noChallenges refuses requests.
func challengeConfig(issuer Issuer, h *tls.ClientHelloInfo) (*tls.Config, error) {
	c, err := issuer.Challenge(h.Context(), h.ServerName)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{challengeProtocol}, Certificates: []tls.Certificate{*c}, SessionTicketsDisabled: true}, nil
}

// issuedFirst prefers what was issued, as long as it is valid, to files. Without any the handshake fails.
func issuedFirst(issuer Issuer, files bool) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, valid := issuer.Certificate(h.ServerName)
		if !valid && files {
			return nil, nil
		}
		return c, nil
	}
}

// noChallenges cuts connections that were made as those of a CA and then carry requests: nobody has asked
// them for a certificate.
func noChallenges(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && r.TLS.NegotiatedProtocol == challengeProtocol {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

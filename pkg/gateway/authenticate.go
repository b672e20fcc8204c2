package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
	"github.com/amphora-metrics/amphora/pkg/identity"
	"github.com/amphora-metrics/amphora/pkg/memory"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// The schemes by which callers say who they are.
const (
	schemeNone        = "none"
	schemeSigned      = "sigv4"
	schemeBasic       = "basic"
	schemeBearer      = "bearer"
	schemeToken       = "token" // raw, without a scheme
	schemeCertificate = "certificate"
)

// schemeOf reads how the caller says who it is.
func schemeOf(r *sigv4.Request, hasCertificate bool) string {
	auth := r.Header.Get("Authorization")
	kind, _, spaced := strings.Cut(auth, " ")
	switch {
	case sigv4.Signed(r):
		return schemeSigned
	case auth == "" && hasCertificate:
		return schemeCertificate
	case auth == "":
		return schemeNone
	case strings.EqualFold(kind, "Basic") && spaced:
		return schemeBasic
	case strings.EqualFold(kind, "Bearer") && spaced:
		return schemeBearer
	case !spaced:
		return schemeToken
	}
	return schemeNone
}

// authenticate finds out who calls, and holds the body if that needs it.
func (g *Gateway) authenticate(w http.ResponseWriter, r *http.Request, c *call) error {
	if !g.cfg.Enabled {
		c.principal = &iam.Principal{Account: g.cfg.OperatorAccount, ARN: "arn:aws:iam::" + g.cfg.OperatorAccount + ":root", ID: g.cfg.OperatorAccount, Type: iam.TypeRoot, Root: true}
		return nil
	}
	c.scheme = schemeOf(c.signed, r.TLS != nil && len(r.TLS.VerifiedChains) > 0)
	var err error
	switch {
	case c.scheme == schemeSigned:
		var key identity.Key
		if key, err = g.checkSignature(w, r, c, g.verifier); err == nil {
			c.principal = key.Principal
		}
	case c.scheme == schemeNone, !g.takes(c):
		return refuse(http.StatusForbidden, sigv4.MissingToken, "Missing Authentication Token")
	default:
		err = g.checkSecret(r, c)
	}
	g.countLogin(c, err)
	return err
}

// wrong counts err against who sent it, if it is about the credentials.
func (g *Gateway) wrong(c *call, id string, err error) {
	if no := asRefusal(err); no.status == http.StatusForbidden {
		g.guesses.failed(c.client.address, id, g.now())
	}
}

// takes says whether the scheme is good for the path.
func (g *Gateway) takes(c *call) bool {
	switch c.target.flavour {
	case amazon, operation:
		return g.cfg.OtherSchemes || c.scheme == schemeCertificate
	case alibaba:
		return true
	}
	return c.scheme != schemeToken
}

// checkSecret looks up a caller that sent its secret.
func (g *Gateway) checkSecret(r *http.Request, c *call) (err error) {
	auth := r.Header.Get("Authorization")
	id, secret, isBasic := r.BasicAuth()
	if c.scheme == schemeBasic && !isBasic {
		return refuse(http.StatusBadRequest, sigv4.IncompleteSignature, "Authorization header is not valid HTTP Basic")
	}
	if err := g.guesses.check(c.client.address, id, g.now()); err != nil {
		return err
	}
	switch c.scheme {
	case schemeBasic:
		c.principal, err = g.deps.Identities.Basic(r.Context(), id, secret)
	case schemeBearer:
		_, token, _ := strings.Cut(auth, " ")
		c.principal, err = g.deps.Identities.Token(r.Context(), strings.TrimSpace(token))
	case schemeToken:
		c.principal, err = g.deps.Identities.Token(r.Context(), auth)
	case schemeCertificate:
		c.principal, err = g.deps.Identities.Certificate(r.Context(), certificateNames(r))
	}
	if err != nil {
		g.wrong(c, id, err)
	}
	return err
}

// certificateNames are the names of the client in its certificate.
func certificateNames(r *http.Request) []string {
	leaf := r.TLS.VerifiedChains[0][0]
	var names []string
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	names = append(names, leaf.DNSNames...)
	if leaf.Subject.CommonName != "" {
		names = append(names, leaf.Subject.CommonName)
	}
	return names
}

// checkSignature verifies a signed request. The key is looked up before the body is read.
func (g *Gateway) checkSignature(w http.ResponseWriter, r *http.Request, c *call, v *sigv4.Verifier) (identity.Key, error) {
	claim, err := v.Parse(c.signed, g.now())
	if err != nil {
		return identity.Key{}, err
	}
	if err := g.guesses.check(c.client.address, claim.AccessKey, g.now()); err != nil {
		return identity.Key{}, err
	}
	key, err := g.deps.Identities.Key(r.Context(), claim.AccessKey, claim.SessionToken)
	if err != nil {
		v.Spend(claim)
		g.wrong(c, claim.AccessKey, err)
		return identity.Key{}, err
	}
	hash, size := "", int64(0)
	if claim.NeedsBody() {
		if c.held == nil {
			if c.held, err = g.hold(w, r, g.deps.MaxBodyBytes); err != nil {
				return identity.Key{}, err
			}
		}
		hash, size = sigv4.PayloadHash(c.held.bytes()), int64(len(c.held.bytes()))
	}
	if err := v.Verify(claim, c.signed, sigv4.Key{Secret: key.Secret}, hash, size); err != nil {
		g.wrong(c, claim.AccessKey, err)
		return identity.Key{}, err
	}
	return key, nil
}

// heldBody is a body in memory.
type heldBody struct {
	buf  bytes.Buffer
	loan memory.Loan
}

func (h *heldBody) bytes() []byte { return h.buf.Bytes() }

// free gives the memory back; after it nobody may read the body.
func (h *heldBody) free() {
	if h != nil {
		h.loan.Return()
	}
}

const (
	// holdStep is how much of a body is charged for at once when its length is not known.
	holdStep = 64 << 10
	// holdAtOnce is how much room a body gets because its header says that it is so long. More there is
	// only for what has arrived: until the body is here nobody knows whether its sender knows the secret.
	holdAtOnce = 1 << 20
)

// hold reads the whole body, of most bytes at most. Errors: BodyTooLarge, Unavailable when memory is short, Invalid.
func (g *Gateway) hold(w http.ResponseWriter, r *http.Request, most int64) (*heldBody, error) {
	h := &heldBody{loan: g.deps.Bodies.Loan()}
	if r.Body == nil || r.ContentLength == 0 {
		return h, nil
	}
	if r.ContentLength > most {
		return h, errs.New(errs.BodyTooLarge, "request body is larger than %d bytes", most)
	}
	charged := min(max(r.ContentLength, 0), holdAtOnce)
	if charged > 0 {
		if err := h.loan.Use(charged); err != nil {
			return h, errs.Wrap(errs.Unavailable, err)
		}
		h.buf.Grow(int(charged) + bytes.MinRead)
	}
	body := http.MaxBytesReader(w, r.Body, most)
	for {
		_, err := io.CopyN(&h.buf, body, holdStep)
		if more := int64(h.buf.Len()) - charged; more > 0 {
			if short := h.loan.Use(more); short != nil {
				return h, errs.Wrap(errs.Unavailable, short)
			}
			charged += more
		}
		switch tooBig, isTooBig := errors.AsType[*http.MaxBytesError](err); {
		case errors.Is(err, io.EOF):
			return h, nil
		case isTooBig:
			return h, errs.New(errs.BodyTooLarge, "request body is larger than %d bytes", tooBig.Limit)
		case err != nil:
			return h, errs.New(errs.Invalid, "read the request body: %w", err)
		}
	}
}

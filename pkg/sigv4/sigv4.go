// Package sigv4 owns the verification of AWS Signature Version 4, in headers and in presigned URLs:
// whether the sender of a request knows the secret of the access key that it names. It does no I/O:
// keys, clock and body are passed in. What an access key may do is decided elsewhere.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// Algorithm begins an Authorization header of this scheme.
	Algorithm = "AWS4-HMAC-SHA256"
	// DefaultSkew is how far the clock of a signer may be off.
	DefaultSkew = 15 * time.Minute

	terminator      = "aws4_request"
	basicFormat     = "20060102T150405Z"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	// maxExpires is the longest validity of a presigned URL, a week; defaultExpires that of one that does not say.
	maxExpires, defaultExpires = 7 * 24 * time.Hour, 15 * time.Minute
)

// Config is what a Verifier accepts.
type Config struct {
	Regions  []string      // empty: any
	Services []string      // empty: any
	Skew     time.Duration // 0: DefaultSkew
	// Hosts are names under which clients know this server, tried after the one in the request, for
	// proxies that change it.
	Hosts []string
	// UnsignedPayload accepts bodies that the signature leaves out, over TLS and if the request says so
	// in a signed header.
	UnsignedPayload bool
	// RawPaths refuses signatures over a path whose dots and double slashes the client resolved.
	RawPaths bool
	// Explain adds the canonical request that was expected to errors about signatures. It shows
	// headers of the request, but no session token.
	Explain bool
}

// Request is an HTTP request as it was received, before anything was decoded or rewritten.
type Request struct {
	Method string
	URI    string // path and query as on the wire
	Host   string
	Header http.Header
	TLS    bool
	// ContentLength is −1 if the body came in chunks; then the length of what was read counts.
	ContentLength    int64
	TransferEncoding []string
}

// FromHTTP returns what r was before a handler changed it. It keeps r's headers and does not change them.
func FromHTTP(r *http.Request) *Request {
	uri := r.RequestURI
	if uri == "" {
		uri = r.URL.RequestURI()
	}
	if rest, ok := strings.CutPrefix(uri, "http://"+r.Host); ok { // as proxies are asked
		uri = rest
	} else if rest, ok := strings.CutPrefix(uri, "https://"+r.Host); ok {
		uri = rest
	}
	return &Request{
		Method: r.Method, URI: uri, Host: r.Host, Header: r.Header, TLS: r.TLS != nil,
		ContentLength: r.ContentLength, TransferEncoding: r.TransferEncoding,
	}
}

// Claim is what a request says about its signature, checked for form and time but not yet for truth.
type Claim struct {
	AccessKey    string
	Date         time.Time // when it was signed
	Region       string
	Service      string
	SessionToken string // of temporary keys, else empty
	Presigned    bool

	day, stamp string
	signed     []string
	signature  string
	payload    string // the hash that the client signed, UNSIGNED-PAYLOAD, or empty: that of the body
}

// NeedsBody says whether Verify must be given the hash of the body.
func (c *Claim) NeedsBody() bool { return c.payload != unsignedPayload }

// Verifier checks signatures. It may be used by several goroutines.
type Verifier struct {
	cfg  Config
	keys *keyCache
}

// New returns a verifier with an empty cache of signing keys.
func New(cfg Config) *Verifier {
	if cfg.Skew <= 0 {
		cfg.Skew = DefaultSkew
	}
	return &Verifier{cfg: cfg, keys: newKeyCache()}
}

// Signed says whether r carries a signature of this scheme, right or wrong, in a header or in its query.
func Signed(r *Request) bool {
	if a := r.Header.Get("Authorization"); a != "" {
		return strings.HasPrefix(a, "AWS4-")
	}
	_, query, _ := strings.Cut(r.URI, "?")
	return strings.Contains(query, "X-Amz-Algorithm=")
}

// Parse reads the claim of r and checks its form, its scope and its time. Errors are of type *Error.
func (v *Verifier) Parse(r *Request, now time.Time) (*Claim, error) {
	_, query, _ := strings.Cut(r.URI, "?")
	auth, params := r.Header.Values("Authorization"), presignParams(query)
	var (
		c   *Claim
		err error
	)
	switch {
	case len(auth) > 1:
		return nil, incomplete("There is more than one Authorization header")
	case len(auth) == 1 && params != nil:
		return nil, incomplete("The request is signed both in its header and in its query")
	case len(auth) == 1:
		c, err = parseHeader(r, auth[0])
	case params != nil:
		c, err = parseQuery(params)
	default:
		return nil, &Error{Code: MissingToken, Status: http.StatusForbidden, Message: "Missing Authentication Token"}
	}
	if err != nil {
		return nil, err
	}
	if err := v.checkScope(c); err != nil {
		return nil, err
	}
	if err := v.checkTime(c, params, now); err != nil {
		return nil, err
	}
	return c, v.checkPayload(c, r)
}

// checkScope needs the day, the region and the service of the credential to be ours.
func (v *Verifier) checkScope(c *Claim) error {
	if c.day != c.stamp[:8] {
		return invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.", c.day, c.stamp[:8], c.stamp)
	}
	if len(v.cfg.Regions) > 0 && !slices.Contains(v.cfg.Regions, c.Region) {
		return invalid("Credential should be scoped to a valid region.")
	}
	if len(v.cfg.Services) > 0 && !slices.Contains(v.cfg.Services, c.Service) {
		return invalid("Credential should be scoped to correct service: '%s'.", v.cfg.Services[0])
	}
	return nil
}

func (v *Verifier) checkTime(c *Claim, params map[string]string, now time.Time) error {
	earliest, latest := c.Date.Add(-v.cfg.Skew), c.Date.Add(v.cfg.Skew)
	if c.Presigned {
		expires, err := expiry(params["X-Amz-Expires"])
		if err != nil {
			return err
		}
		latest = c.Date.Add(expires)
	}
	at := now.UTC().Format(basicFormat)
	if now.Before(earliest) {
		return &Error{Code: InvalidSignature, Status: http.StatusForbidden, Skewed: true,
			Message: "Signature not yet current: " + c.stamp + " is still later than " + now.Add(v.cfg.Skew).UTC().Format(basicFormat) + " (" + at + " + " + v.cfg.Skew.String() + ".)"}
	}
	if now.After(latest) {
		return &Error{Code: InvalidSignature, Status: http.StatusForbidden, Skewed: true,
			Message: "Signature expired: " + c.stamp + " is now earlier than " + now.Add(-latest.Sub(c.Date)).UTC().Format(basicFormat) + " (" + at + " - " + latest.Sub(c.Date).String() + ".)"}
	}
	return nil
}

// checkPayload settles which hash of the body the signature stands for.
func (v *Verifier) checkPayload(c *Claim, r *Request) error {
	said := r.Header.Get("X-Amz-Content-Sha256")
	if said == "" || !slices.Contains(c.signed, "x-amz-content-sha256") {
		return nil // not part of the signature: awscurl sends it unsigned, and the real hash counts
	}
	switch {
	case said == unsignedPayload:
		if !v.cfg.UnsignedPayload || !r.TLS {
			return invalid("Unsigned payloads are not accepted here.")
		}
	case strings.HasPrefix(said, "STREAMING-"):
		return invalid("Payloads signed in chunks are not accepted here.")
	case !isHex(said, 2*sha256.Size):
		return invalid("The value of x-amz-content-sha256 is no SHA-256 hash.")
	}
	c.payload = said
	return nil
}

// Key is the secret half of an access key.
type Key struct{ Secret string }

// PayloadHash returns the hash of body for Verify.
func PayloadHash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// Verify says whether c's signature was made with key for r and a body of bodyBytes with the given
// hash. Errors are of type *Error. The comparison takes the same time wherever signatures differ.
func (v *Verifier) Verify(c *Claim, r *Request, key Key, payloadHash string, bodyBytes int64) error {
	if c.payload != "" && c.NeedsBody() && subtle.ConstantTimeCompare([]byte(c.payload), []byte(payloadHash)) != 1 {
		return &Error{Code: InvalidSignature, Status: http.StatusForbidden, Message: "The provided 'x-amz-content-sha256' header does not match what was computed."}
	}
	if c.payload != "" {
		payloadHash = c.payload
	}
	path, query, _ := strings.Cut(r.URI, "?")
	queries, err := canonicalQueries(query, c.Presigned)
	if err != nil {
		return err
	}
	signing := v.keys.of(c, key.Secret)
	want, _ := hex.DecodeString(c.signature)
	first := ""
	for _, host := range v.hosts(r.Host) {
		headers := canonicalHeaders(r, c.signed, host, bodyBytes)
		for _, p := range v.canonicalPaths(path) {
			for _, q := range queries {
				canonical := strings.Join([]string{r.Method, p, q, headers, strings.Join(c.signed, ";"), payloadHash}, "\n")
				if first == "" {
					first = canonical
				}
				if hmac.Equal(want, c.sign(signing, canonical)) {
					return nil
				}
			}
		}
	}
	return v.mismatch(r, c, first)
}

// sign returns the signature of a canonical request.
func (c *Claim) sign(signing []byte, canonical string) []byte {
	sum := sha256.Sum256([]byte(canonical))
	return mac(signing, Algorithm+"\n"+c.stamp+"\n"+c.day+"/"+c.Region+"/"+c.Service+"/"+terminator+"\n"+hex.EncodeToString(sum[:]))
}

// Spend takes the time that a check of c would take, for access keys that do not exist.
func (v *Verifier) Spend(c *Claim) { _ = derive("AWS4-no-such-key", c.day, c.Region, c.Service) }

// hosts are the names to try, each once.
func (v *Verifier) hosts(received string) []string {
	out := []string{received}
	for _, h := range append([]string{strings.ToLower(received)}, v.cfg.Hosts...) {
		if !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

func (v *Verifier) mismatch(r *Request, c *Claim, canonical string) error {
	text := "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	if v.cfg.Explain {
		if token := r.Header.Get("X-Amz-Security-Token"); token != "" {
			canonical = strings.ReplaceAll(canonical, token, "***")
		}
		if c.Presigned && c.SessionToken != "" {
			canonical = strings.ReplaceAll(canonical, encode(c.SessionToken, false), "***")
		}
		text += "\n\nThe Canonical String for this request should have been\n'" + canonical + "'\n"
	}
	return &Error{Code: InvalidSignature, Status: http.StatusForbidden, Message: text}
}

package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // of the signatures
	_ "crypto/sha512" // of the signatures
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// maxTokenBytes is STS's bound for tokens of providers.
	maxTokenBytes = 20_000
	jwtLeeway     = time.Minute
	// jwksFresh is how old keys may get; jwksRetry how often an unknown key may make us ask again.
	jwksFresh, jwksRetry = 10 * time.Minute, 30 * time.Second
	jwksTimeout          = 5 * time.Second
	maxJWKSBytes         = 1 << 20
	minRSABits           = 2048
)

// Vouched is somebody that a provider vouches for.
type Vouched struct {
	Subject, Audience, Issuer string
	// Federated is the ARN of the provider, as trust policies name it.
	Federated string
	// Account is that of the provider.
	Account string

	entry  *providerEntry
	claims claims
	issued time.Time
}

// claims are of a token.
type claims map[string]any

// strings returns the values of a claim; a dot leads into an object.
func (c claims) strings(name string) []string {
	v, ok := c[name]
	if head, rest, nested := strings.Cut(name, "."); !ok && nested {
		if inner, isObject := c[head].(map[string]any); isObject {
			return claims(inner).strings(rest)
		}
	}
	switch v := v.(type) {
	case string:
		return []string{v}
	case bool, float64:
		return []string{fmt.Sprint(v)}
	case []any:
		var out []string
		for _, item := range v {
			if s, ok := item.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

func (c claims) has(name, pattern string) bool {
	return slices.ContainsFunc(c.strings(name), func(s string) bool {
		ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(s, "/", "\x00"))
		return err == nil && ok
	})
}

func (c claims) time(name string) (time.Time, bool) {
	n, ok := c[name].(float64)
	return time.Unix(int64(n), 0), ok
}

// Values implements iam.Keys: <issuer without scheme>:<claim>.
func (v *Vouched) Values(key string) ([]string, bool) {
	prefix := strings.ToLower(trimScheme(v.Issuer)) + ":"
	name, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return nil, false
	}
	for claim := range v.claims {
		if strings.EqualFold(claim, name) {
			values := v.claims.strings(claim)
			return values, len(values) > 0
		}
	}
	return nil, false
}

func trimScheme(issuer string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(issuer, "https://"), "http://"), "/")
}

// isJWT says whether a token has the form of one.
func isJWT(token string) bool {
	return strings.Count(token, ".") == 2 && strings.HasPrefix(token, "eyJ")
}

// verifyJWT checks issuer, signature, times and audience. Errors: Unauthenticated; Unavailable if the keys
// of the issuer cannot be read.
func (x *Identities) verifyJWT(ctx context.Context, d *directory, token string) (*Vouched, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxTokenBytes {
		return nil, errUnknown()
	}
	var head struct{ Alg, Kid string }
	c := claims{}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || decodePart(parts[0], &head) != nil || decodePart(parts[1], &c) != nil {
		return nil, errUnknown()
	}
	issuer, _ := c["iss"].(string)
	entry := d.providers[issuer]
	if entry == nil {
		return nil, errUnknown()
	}
	keys, err := x.jwks.of(ctx, entry.provider, head.Kid)
	if err != nil {
		return nil, err
	}
	signed := parts[0] + "." + parts[1]
	if !slices.ContainsFunc(keys, func(k jwk) bool { return k.verifies(head.Alg, head.Kid, signed, signature) }) {
		return nil, errUnknown()
	}
	now := x.now()
	expires, ok := c.time("exp")
	if !ok {
		return nil, errUnknown()
	}
	if now.After(expires.Add(jwtLeeway)) {
		return nil, ErrExpired
	}
	if begins, ok := c.time("nbf"); ok && now.Add(jwtLeeway).Before(begins) {
		return nil, errUnknown()
	}
	audiences := c.strings("aud")
	i := slices.IndexFunc(audiences, func(a string) bool { return slices.Contains(entry.provider.Audiences, a) })
	if i < 0 {
		return nil, errUnknown()
	}
	v := &Vouched{Issuer: issuer, Audience: audiences[i], Account: entry.account.ID, entry: entry, claims: c}
	v.Federated = "arn:aws:iam::" + entry.account.ID + ":oidc-provider/" + trimScheme(issuer)
	v.issued, _ = c.time("iat")
	if subject, ok := c["sub"].(string); ok {
		v.Subject = subject
	}
	return v, nil
}

func decodePart(part string, to any) error {
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// jwk is a public key of a provider.
type jwk struct {
	Kty, Kid, Alg, Use, Crv, N, E, X, Y string

	public crypto.PublicKey
}

// parseJWKS reads a key set; keys of kinds that are not used are left out. Errors: Invalid.
func parseJWKS(data []byte) ([]jwk, error) {
	var set struct{ Keys []jwk }
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errs.New(errs.Invalid, "key set: %w", err)
	}
	var out []jwk
	for _, k := range set.Keys {
		if k.Use != "" && k.Use != "sig" {
			continue
		}
		if public, err := k.parse(); err == nil {
			k.public = public
			out = append(out, k)
		}
	}
	if len(out) == 0 {
		return nil, errs.New(errs.Invalid, "key set has no RSA or EC key for signatures")
	}
	return out, nil
}

func (k *jwk) parse() (crypto.PublicKey, error) {
	number := func(s string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			return new(big.Int)
		}
		return new(big.Int).SetBytes(b)
	}
	switch k.Kty {
	case "RSA":
		n, e := number(k.N), number(k.E)
		if n.BitLen() < minRSABits || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return nil, errors.New("RSA key is too small")
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	case "EC":
		curve, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()}[k.Crv]
		if !ok {
			return nil, errors.New("curve is not known")
		}
		size := (curve.Params().BitSize + 7) / 8
		point := append([]byte{4}, append(number(k.X).FillBytes(make([]byte, max(size, len(number(k.X).Bytes())))), number(k.Y).FillBytes(make([]byte, max(size, len(number(k.Y).Bytes()))))...)...)
		return ecdsa.ParseUncompressedPublicKey(curve, point)
	}
	return nil, errors.New("kind of key is not known")
}

// verifies says whether k signed text. The algorithm must fit the kind of the key.
func (k *jwk) verifies(alg, kid, text string, signature []byte) bool {
	if kid != "" && k.Kid != "" && kid != k.Kid || k.Alg != "" && k.Alg != alg || len(alg) != 5 {
		return false
	}
	hash, ok := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	if !ok {
		return false
	}
	h := hash.New()
	_, _ = io.WriteString(h, text) // a hash does not fail
	sum := h.Sum(nil)
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		switch alg[:2] {
		case "RS":
			return rsa.VerifyPKCS1v15(public, hash, sum, signature) == nil
		case "PS":
			return rsa.VerifyPSS(public, hash, sum, signature, nil) == nil
		}
	case *ecdsa.PublicKey:
		half := (public.Curve.Params().BitSize + 7) / 8
		want := map[string]int{"ES256": 32, "ES384": 48}[alg]
		if want != half || len(signature) != 2*half {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
		return ecdsa.Verify(public, sum, r, s)
	}
	return false
}

// jwksCache keeps the key sets of providers. A set that cannot be read again stays in use.
type jwksCache struct {
	client *http.Client
	now    func() time.Time

	mu   sync.Mutex // guards sets; held while one is read, so that it is read once
	sets map[string]jwkSet
}

type jwkSet struct {
	keys  []jwk
	tried time.Time
}

// of returns the keys of p. If kid is not among them they are read again, but not all the time.
func (c *jwksCache) of(ctx context.Context, p *Provider, kid string) ([]jwk, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := c.sets[p.Issuer]
	known := slices.ContainsFunc(set.keys, func(k jwk) bool { return kid == "" || k.Kid == kid })
	age := c.now().Sub(set.tried)
	if known && age < jwksFresh || !set.tried.IsZero() && age < jwksRetry {
		if len(set.keys) == 0 {
			return nil, errs.New(errs.Unavailable, "keys of the OIDC provider %s cannot be read", p.Issuer)
		}
		return set.keys, nil
	}
	set.tried = c.now()
	keys, err := c.read(ctx, p)
	if err == nil {
		set.keys = keys
	}
	c.sets[p.Issuer] = set
	if len(set.keys) == 0 {
		return nil, errs.New(errs.Unavailable, "keys of the OIDC provider %s cannot be read: %w", p.Issuer, err)
	}
	return set.keys, nil
}

func (c *jwksCache) read(ctx context.Context, p *Provider) ([]jwk, error) {
	if p.JWKSFile != "" {
		data, err := os.ReadFile(p.JWKSFile)
		if err != nil {
			return nil, err
		}
		return parseJWKS(data)
	}
	ctx, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	url := p.JWKSURL
	if url == "" {
		data, err := c.fetch(ctx, strings.TrimSuffix(p.Issuer, "/")+"/.well-known/openid-configuration")
		if err != nil {
			return nil, err
		}
		var doc struct {
			URL string `json:"jwks_uri"`
		}
		if err := json.Unmarshal(data, &doc); err != nil || doc.URL == "" {
			return nil, errors.New("the provider's configuration names no jwks_uri")
		}
		url = doc.URL
	}
	data, err := c.fetch(ctx, url)
	if err != nil {
		return nil, err
	}
	return parseJWKS(data)
}

func (c *jwksCache) fetch(ctx context.Context, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d", url, resp.StatusCode)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxJWKSBytes))
}

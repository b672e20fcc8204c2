package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

const operatorKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// bag is the keys of a request.
type bag map[string][]string

func (b bag) Values(key string) ([]string, bool) { v, ok := b[key]; return v, ok }

// clock is a time that a test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func withKey(t *testing.T, text string, c *clock) *Identities {
	t.Helper()
	file := filepath.Join(t.TempDir(), "identities.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	x, err := New(t.Context(), Config{File: file, Key: operatorKey, Refresh: time.Minute}, Deps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

const readerARN = "arn:aws:iam::123456789012:role/reader"

func TestSessionsHoldWithoutSharedState(t *testing.T) {
	c := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	one, other := withKey(t, example, c), withKey(t, example, c)
	ctx := t.Context()
	alice, err := one.Key(ctx, "AKIDALICE001", "")
	if err != nil {
		t.Fatal(err)
	}
	cred, err := one.Assume(ctx, alice.Principal, Assumption{RoleARN: readerARN, Name: "sess", Keys: bag{}})
	if err != nil {
		t.Fatal(err)
	}
	if cred.ARN != "arn:aws:sts::123456789012:assumed-role/reader/sess" || !strings.HasPrefix(cred.AccessKey, "ASIA") || cred.Expires.Sub(c.at) != time.Hour {
		t.Errorf("%+v", cred)
	}
	k, err := other.Key(ctx, cred.AccessKey, cred.Token)
	if err != nil || k.Secret != cred.Secret || k.Principal.ARN != cred.ARN || k.Principal.RoleARN != readerARN {
		t.Fatalf("on another replica: %+v, %v", k, err)
	}
	for name, token := range map[string]string{"no token": "", "rubbish": "x", "changed token": "A" + cred.Token[1:], "cut token": cred.Token[:len(cred.Token)-8]} {
		if _, err := other.Key(ctx, cred.AccessKey, token); errs.KindOf(err) != errs.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := other.Key(ctx, "ASIAAAAAAAAAAAAAAAAA", cred.Token); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("token of another key: %v", err)
	}
	revoked := withKey(t, strings.Replace(example, "- name: reader\n", "- name: reader\n        not_before: 2026-01-01T00:00:10Z\n", 1), c)
	if _, err := revoked.Key(ctx, cred.AccessKey, cred.Token); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("revoked: %v", err)
	}
	c.at = c.at.Add(time.Hour)
	if _, err := other.Key(ctx, cred.AccessKey, cred.Token); !IsExpired(err) {
		t.Errorf("expired: %v", err)
	}
}

func TestRolesAreTakenByThoseTheyTrust(t *testing.T) {
	c := &clock{time.Now()}
	x := withKey(t, example, c)
	mallory := &iam.Principal{Account: "123456789012", ARN: "arn:aws:iam::123456789012:user/mallory"}
	root := &iam.Principal{Account: "999999999999", ARN: "arn:aws:iam::999999999999:root", Root: true}
	alice := &iam.Principal{Account: "123456789012", ARN: "arn:aws:iam::123456789012:user/team/alice"}
	for name, try := range map[string]struct {
		who  *iam.Principal
		a    Assumption
		want errs.Kind
	}{
		"who is not named":    {mallory, Assumption{RoleARN: readerARN, Name: "ss"}, errs.Denied},
		"root of another":     {root, Assumption{RoleARN: readerARN, Name: "ss"}, errs.Denied},
		"unknown role":        {alice, Assumption{RoleARN: readerARN + "x", Name: "ss"}, errs.Denied},
		"tags without rights": {alice, Assumption{RoleARN: readerARN, Name: "ss", Tags: map[string]string{"a": "b"}}, errs.Denied},
		"bad name":            {alice, Assumption{RoleARN: readerARN, Name: "s s"}, errs.Invalid},
		"too long":            {alice, Assumption{RoleARN: readerARN, Name: "ss", Duration: 2 * time.Hour}, errs.Invalid},
		"bad policy":          {alice, Assumption{RoleARN: readerARN, Name: "ss", Policies: []string{"{}"}}, errs.Invalid},
		"large policy":        {alice, Assumption{RoleARN: readerARN, Name: "ss", Policies: []string{iam.Managed("AdministratorAccess") + strings.Repeat(" ", 5000)}}, errs.BodyTooLarge},
	} {
		try.a.Keys = bag{}
		if _, err := x.Assume(t.Context(), try.who, try.a); err == nil || errs.KindOf(err) != try.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// provider is an OIDC provider of a test.
type provider struct {
	*httptest.Server
	key   *ecdsa.PrivateKey
	reads int
	away  bool
}

func newProvider(t *testing.T) *provider {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.reads++
		if p.away {
			http.Error(w, "away", http.StatusBadGateway)
			return
		}
		raw, err := p.key.PublicKey.Bytes()
		if err != nil {
			t.Error(err)
		}
		encode := base64.RawURLEncoding.EncodeToString
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "EC", "crv": "P-256", "kid": "k1", "x": encode(raw[1:33]), "y": encode(raw[33:])}}})
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) token(t *testing.T, header string, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(header)) + "." + encode(body)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, p.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	fill := func(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) }
	return text + "." + encode(append(fill(r), fill(s)...))
}

const federated = `
accounts:
  - id: "123456789012"
    oidc_providers:
      - {issuer: "https://issuer.example/realm", audiences: [sts.amazonaws.com], jwks_url: "%s", roles: [{claim: groups, value: "team-*", role: pod}]}
    roles:
      - name: pod
        policies: [AmazonPrometheusRemoteWriteAccess]
        trust:
          Version: "2012-10-17"
          Statement:
            Effect: Allow
            Action: sts:AssumeRoleWithWebIdentity
            Principal: {Federated: "arn:aws:iam::123456789012:oidc-provider/issuer.example/realm"}
            Condition: {StringEquals: {"issuer.example/realm:sub": "system:serviceaccount:ns:sa"}}
`

func TestTokensOfProvidersAreVerified(t *testing.T) {
	p := newProvider(t)
	c := &clock{time.Now()}
	x := withKey(t, fmt.Sprintf(federated, p.URL), c)
	ctx := t.Context()
	claims := func(change func(map[string]any)) map[string]any {
		m := map[string]any{"iss": "https://issuer.example/realm", "aud": []string{"other", "sts.amazonaws.com"}, "sub": "system:serviceaccount:ns:sa", "exp": c.at.Add(time.Hour).Unix(), "iat": c.at.Unix(), "groups": []string{"a", "team-b"}}
		change(m)
		return m
	}
	const header = `{"alg":"ES256","kid":"k1"}`
	good := p.token(t, header, claims(func(map[string]any) {}))
	v, err := x.WebIdentity(ctx, good)
	if err != nil {
		t.Fatal(err)
	}
	who := &iam.Principal{Account: v.Account, Federated: v.Federated}
	if _, err := x.Assume(ctx, who, Assumption{RoleARN: "arn:aws:iam::123456789012:role/pod", Name: "pod", Web: true, Keys: v}); err != nil {
		t.Errorf("assume: %v", err)
	}
	if principal, err := x.Token(ctx, good); err != nil || principal.RoleARN != "arn:aws:iam::123456789012:role/pod" || principal.Name != "system-serviceaccount-ns-sa" {
		t.Errorf("bearer: %+v, %v", principal, err)
	}
	other, err := x.WebIdentity(ctx, p.token(t, header, claims(func(m map[string]any) { m["sub"] = "other" })))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Assume(ctx, who, Assumption{RoleARN: "arn:aws:iam::123456789012:role/pod", Name: "pod", Web: true, Keys: other}); errs.KindOf(err) != errs.Denied {
		t.Errorf("another subject: %v", err)
	}
	for name, token := range map[string]string{
		"expired":        p.token(t, header, claims(func(m map[string]any) { m["exp"] = c.at.Add(-2 * time.Minute).Unix() })),
		"no end":         p.token(t, header, claims(func(m map[string]any) { delete(m, "exp") })),
		"not yet":        p.token(t, header, claims(func(m map[string]any) { m["nbf"] = c.at.Add(2 * time.Minute).Unix() })),
		"other audience": p.token(t, header, claims(func(m map[string]any) { m["aud"] = "x" })),
		"other issuer":   p.token(t, header, claims(func(m map[string]any) { m["iss"] = "x" })),
		"no algorithm":   p.token(t, `{"alg":"none","kid":"k1"}`, claims(func(map[string]any) {})),
		"hmac":           p.token(t, `{"alg":"HS256","kid":"k1"}`, claims(func(map[string]any) {})),
		"unknown key":    p.token(t, `{"alg":"ES256","kid":"k2"}`, claims(func(map[string]any) {})),
		"changed":        good[:len(good)-4] + "AAAA",
		"rubbish":        "eyJ.a.b",
	} {
		if _, err := x.Token(ctx, token); errs.KindOf(err) != errs.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p.reads > 2 {
		t.Errorf("the provider was asked %d times", p.reads)
	}
	p.away = true
	c.at = c.at.Add(20 * time.Minute)
	if _, err := x.WebIdentity(ctx, good); err != nil {
		t.Errorf("keys known before are lost while the provider is away: %v", err)
	}
	fresh := withKey(t, fmt.Sprintf(federated, p.URL), c)
	if _, err := fresh.WebIdentity(ctx, good); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("the provider is away from the start: %v", err)
	}
}

func TestSealedTextOpensForItsPurposeOnly(t *testing.T) {
	k, err := ParseKeyring("# keys\n" + operatorKey + "\n")
	if err != nil {
		t.Fatal(err)
	}
	sealed := k.seal("a", "here", []byte("text"))
	if text, err := k.open("a", "here", sealed); err != nil || string(text) != "text" {
		t.Fatal(err)
	}
	next, err := ParseKeyring(strings.Repeat("ab", 32) + "\n" + operatorKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.open("a", "here", sealed); err != nil {
		t.Errorf("after a change of keys: %v", err)
	}
	if _, err := k.open("a", "here", next.seal("a", "here", []byte("x"))); errs.KindOf(err) != errs.Invalid {
		t.Errorf("by a key that is not known: %v", err)
	}
	for i := range sealed {
		damaged := append([]byte{}, sealed...)
		damaged[i] ^= 1
		if _, err := k.open("a", "here", damaged); err == nil {
			t.Errorf("byte %d changed, and it opens", i)
		}
	}
	for _, try := range [][2]string{{"b", "here"}, {"a", "there"}} {
		if _, err := k.open(try[0], try[1], sealed); err == nil {
			t.Errorf("it opens for %v", try)
		}
	}
	for _, text := range []string{"", "zz", "00"} {
		if _, err := ParseKeyring(text); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzJWT(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`), "ES256", []byte("sig"))
	f.Fuzz(func(_ *testing.T, set []byte, alg string, signature []byte) {
		keys, err := parseJWKS(set)
		if err != nil {
			return
		}
		for _, k := range keys {
			_ = k.verifies(alg, "", "text", signature)
		}
	})
}

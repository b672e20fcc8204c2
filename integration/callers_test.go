package integration

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// toolBinary is cmd/amphoratool, built once.
var toolBinary = sync.OnceValues(func() (string, error) {
	root, err := harness.Root()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "amphoratool-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "amphoratool")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/amphoratool")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/amphoratool: %w\n%s", err, out)
	}
	return path, nil
})

// admin runs amphoratool against a node with the root credential that the node wrote.
type admin struct {
	t          *testing.T
	node       *harness.Node
	credential string
}

// run returns what the tool prints; it must succeed unless a complaint is wanted.
func (a *admin) run(ctx context.Context, complaint, stdin string, args ...string) string {
	a.t.Helper()
	path, err := toolBinary()
	must(a.t, err)
	all := []string{args[0], "-address", a.node.URL(""), "-credentials", a.credential}
	cmd := exec.CommandContext(ctx, path, append(all, args[1:]...)...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if (err == nil) != (complaint == "") || !strings.Contains(string(out), complaint) {
		a.t.Errorf("amphoratool %q: %v, want %q:\n%s", args, err, complaint, out)
	}
	return string(out)
}

// key makes an access key or a token of a user.
func (a *admin) key(ctx context.Context, args ...string) map[string]string {
	a.t.Helper()
	out := map[string]string{}
	must(a.t, json.Unmarshal([]byte(a.run(ctx, "", "", args...)), &out))
	return out
}

// sent sends a request and reads its answer.
func sent(r *http.Request) (reply, error) {
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return reply{status: res.StatusCode, header: res.Header, body: string(text)}, err
}

// becomes waits until a request gets a status, as a change takes a while to be known.
func becomes(ctx context.Context, t *testing.T, what string, status int, send func(context.Context) (reply, error)) {
	t.Helper()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		r, err := send(ctx)
		if err == nil && r.status != status {
			err = fmt.Errorf("%s: %s, want %d", what, r, status)
		}
		return err
	}))
}

// signedBy sends a signed GET.
func signedBy(url string, s sigv4.Signer) func(context.Context) (reply, error) {
	return func(ctx context.Context) (reply, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return reply{}, err
		}
		if err := s.Sign(r, nil, time.Now()); err != nil {
			return reply{}, err
		}
		return sent(r)
	}
}

// with sends a GET with headers.
func with(url string, header ...string) func(context.Context) (reply, error) {
	return func(ctx context.Context) (reply, error) { return try(ctx, http.MethodGet, url, nil, header...) }
}

// TestAnOperatorAdministersCallers begins with nothing but the root credential of the first start.
func TestAnOperatorAdministersCallers(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	a := &admin{t: t, credential: filepath.Join(t.TempDir(), "root-credential")}
	a.node = everything(ctx, t, append(busyFlags(), "-auth.enabled", "-auth.root-credential-file="+a.credential, "-auth.identity-refresh=1s", "-auth.workspace-api-rate=0", "-audit.upload-interval=1s")...)
	n := a.node
	if info, err := os.Stat(a.credential); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("root credential: %v %v", info, err)
	}
	query := func(ws string) string { return n.URL("/workspaces/" + ws + "/api/v1/query?query=1") }
	root := rootSigner(t, a.credential)
	made, err := clientOf(n, root).CreateWorkspace(ctx, &amp.CreateWorkspaceInput{})
	must(t, err)
	other, err := clientOf(n, root).CreateWorkspace(ctx, &amp.CreateWorkspaceInput{})
	must(t, err)
	ws := *made.WorkspaceId

	a.run(ctx, "", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:QueryMetrics","aps:GetLabels"],"Resource":"*"}]}`, "iam", "put", "policies", "read-it", "-")
	a.run(ctx, "", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:GetLabels","Resource":"*"}]}`, "iam", "put", "policies", "labels-only", "-")
	a.run(ctx, "400", `{"Statement":[{"Effect":"Perhaps"}]}`, "iam", "put", "policies", "wrong", "-")
	a.run(ctx, "", "", "iam", "-policy", "read-it", "put", "users", "grafana")
	first, second := a.key(ctx, "iam", "key", "create", "grafana"), a.key(ctx, "iam", "key", "create", "grafana")
	a.run(ctx, "400", "", "iam", "key", "create", "grafana") // two are enough to change one
	signer := sigv4.Signer{AccessKey: first["access_key"], Secret: first["secret_key"], Region: "us-east-1", Service: "aps"}
	becomes(ctx, t, "a new key", 200, signedBy(query(ws), signer))
	a.run(ctx, "", "", "iam", "key", "disable", "grafana", first["access_key"])
	becomes(ctx, t, "a disabled key", 403, signedBy(query(ws), signer))
	a.run(ctx, "", "", "iam", "key", "enable", "grafana", first["access_key"])
	becomes(ctx, t, "an enabled key", 200, signedBy(query(ws), signer))
	a.run(ctx, "", "", "iam", "key", "delete", "grafana", second["access_key"])
	if out := a.run(ctx, "", "", "iam", "show"); strings.Contains(out, first["secret_key"]) || !strings.Contains(out, first["access_key"]) || strings.Contains(out, second["access_key"]) {
		t.Errorf("shown:\n%s", out)
	}

	native := n.URL("/prometheus/api/v1/query?query=1")
	token := a.schemes(ctx, ws, *other.WorkspaceId, signer)
	id := a.key(ctx, "iam", "token", "create", "grafana")
	becomes(ctx, t, "a new token", 200, with(native, "Authorization", "Bearer "+id["token"], "X-Scope-OrgID", ws))
	a.run(ctx, "", "", "iam", "token", "delete", "grafana", id["id"])
	becomes(ctx, t, "a deleted token", 401, with(native, "Authorization", "Bearer "+id["token"], "X-Scope-OrgID", ws))

	must(t, n.Restart())
	must(t, n.WaitReady(ctx))
	becomes(ctx, t, "the key after a restart", 200, signedBy(query(ws), signer))
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		out := a.run(ctx, "", "", "audit", "-from", "1h")
		for _, want := range []string{"CreateWorkspace", "ManageIdentities", "user/grafana"} {
			if want != "user/grafana" && !strings.Contains(out, want) {
				return fmt.Errorf("the audit has no %s:\n%s", want, out)
			}
		}
		if strings.Contains(out, signer.Secret) || strings.Contains(out, token) {
			t.Errorf("secrets in the audit:\n%s", out)
		}
		return nil
	}))
}

// schemes tries every way to say who calls but signatures, and returns a token of a workspace.
func (a *admin) schemes(ctx context.Context, ws, other string, signer sigv4.Signer) string {
	t, n := a.t, a.node
	t.Helper()
	token := a.key(ctx, "iam", "-workspace", ws, "token", "create", "grafana")["token"]
	scoped := a.key(ctx, "iam", "-scope", "labels-only", "token", "create", "grafana")["token"]
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(signer.AccessKey+":"+signer.Secret))
	native := n.URL("/prometheus/api/v1/query?query=1")
	instance := func(rest string) string { return n.URL("/instances/" + ws + "/api/v1/" + rest) }
	root := rootSigner(t, a.credential)
	for name, c := range map[string]struct{ auth, want string }{ // what the console lists for who signs in with a token
		"a token bound to a workspace":         {"Bearer " + token, ws},
		"one that may not query it":            {"Bearer " + a.key(ctx, "iam", "-scope", "labels-only", "-workspace", ws, "token", "create", "grafana")["token"], ""},
		"somebody who may not list workspaces": {basic, ""},
		"somebody who may":                     {"Basic " + base64.StdEncoding.EncodeToString([]byte(root.AccessKey+":"+root.Secret)), other},
		"nobody":                               {"", ""},
	} {
		r := call(ctx, t, "GET", n.URL("/api/v1/workspaces"), nil, "Authorization", c.auth)
		if good := r.status == 200; good != (c.want != "") || good && !strings.Contains(r.body, ws) || strings.Contains(r.body, other) != (c.want == other) {
			t.Errorf("workspaces of %s: %s", name, r)
		}
	}
	for name, c := range map[string]struct {
		url, auth, tenant string
		status            int
	}{
		"a token bound to its workspace":          {native, "Bearer " + token, "", 200},
		"and beyond":                              {native, "Bearer " + token, other, 403},
		"a token of a scope":                      {n.URL("/prometheus/api/v1/labels"), "Bearer " + scoped, ws, 200},
		"and beyond it":                           {native, "Bearer " + scoped, ws, 403},
		"a wrong token":                           {native, "Bearer x" + token, ws, 401},
		"HTTP Basic and a tenant":                 {native, basic, ws, 200},
		"Alibaba's first way":                     {instance("query?query=1"), token, "", 200},
		"with a wrong token":                      {instance("query?query=1"), "x" + token, "", 401},
		"Alibaba's second way":                    {n.URL("/api/v1/prometheus/k/1/" + ws + "/cn-hangzhou/api/v1/query?query=1"), basic, "", 200},
		"without permission":                      {instance("series?match[]=x"), basic, "", 403},
		"with nothing":                            {instance("query?query=1"), "", "", 401},
		"a timeout in milliseconds":               {instance("query?query=1&timeout=1000"), token, "", 200},
		"one of a thousandth of a second":         {instance("query_range?query=rate(a%5B1s%5D)&start=0&end=1&step=1&timeout=0"), token, "", 503},
		"a secret where signatures are wanted":    {n.URL("/workspaces/" + ws + "/api/v1/query?query=1"), basic, "", 403},
		"a raw token where there are no such":     {native, token, ws, 401},
		"the workspace of the path is what holds": {instance("query?query=1"), token, other, 200},
	} {
		header := []string{"Authorization", c.auth}
		if c.tenant != "" {
			header = append(header, "X-Scope-OrgID", c.tenant)
		}
		if r := call(ctx, t, "GET", c.url, nil, header...); r.status != c.status {
			t.Errorf("%s: %s, want %d", name, r, c.status)
		}
	}
	return token
}

// rootSigner reads a credential file.
func rootSigner(t *testing.T, file string) sigv4.Signer {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	s := sigv4.Signer{Region: "us-east-1", Service: "aps"}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(name) {
		case "aws_access_key_id":
			s.AccessKey = strings.TrimSpace(value)
		case "aws_secret_access_key":
			s.Secret = strings.TrimSpace(value)
		}
	}
	return s
}

// clientOf is Amazon's SDK with keys.
func clientOf(n *harness.Node, s sigv4.Signer) *amp.Client {
	return amp.New(amp.Options{Region: "us-east-1", BaseEndpoint: aws.String(n.URL("")), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.Secret, s.SessionToken)})
}

// issuer is an OIDC provider.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	i := &issuer{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{"kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

// token signs claims.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		data, err := json.Marshal(v)
		must(t, err)
		return base64.RawURLEncoding.EncodeToString(data)
	}
	claims["iss"], claims["iat"] = i.URL, time.Now().Unix()
	if claims["exp"] == nil {
		claims["exp"] = time.Now().Add(time.Hour).Unix()
	}
	text := part(map[string]string{"alg": "RS256", "kid": "one"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	must(t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

const sessionIdentities = `
accounts:
  - id: "000000000000"
    oidc_providers:
      - {issuer: "ISSUER", audiences: [sts.amazonaws.com], roles: [{claim: groups, value: sre, role: reader}]}
    roles:
      - name: reader
        policies: [AmazonPrometheusQueryAccess]
        trust:
          Version: "2012-10-17"
          Statement:
            - {Effect: Allow, Action: "sts:AssumeRole", Principal: {AWS: "arn:aws:iam::000000000000:user/owner"}, Condition: {StringEquals: {"sts:ExternalId": sesame}}}
            - {Effect: Allow, Action: "sts:AssumeRoleWithWebIdentity", Principal: {Federated: "arn:aws:iam::000000000000:oidc-provider/HOST"}, Condition: {StringEquals: {"HOST:sub": "system:serviceaccount:apps:grafana"}}}
    users:
      - name: owner
        policies: [AmazonPrometheusFullAccess, AdministratorAccess]
        certificates: [prometheus.example]
        keys: [{id: AKIDOWNER001, secret: owner-secret-owner}]
      - name: writer
        policies: [AmazonPrometheusRemoteWriteAccess]
        keys: [{id: AKIDWRITER01, secret: writer-secret-writer}]
`

// TestSessionsComeFromTheTokenService uses Amazon's SDK for roles, and tokens of a provider.
func TestSessionsComeFromTheTokenService(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	provider := newIssuer(t)
	text := strings.NewReplacer("ISSUER", provider.URL, "HOST", strings.TrimPrefix(provider.URL, "http://")).Replace(sessionIdentities)
	n := guarded(ctx, t, text, "-audit.upload-interval=1s")
	id := workspaceOf(ctx, t, n, "a")
	url := n.URL("/workspaces/" + id + "/api/v1/query?query=1")
	service := func(user string) *sts.Client {
		key := keyOf(user)
		return sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: aws.String(n.URL("")), Credentials: credentials.NewStaticCredentialsProvider(key.AccessKey, key.Secret, "")})
	}
	who, err := service("WRITER").GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	must(t, err)
	if *who.Arn != "arn:aws:iam::000000000000:user/writer" || *who.Account != "000000000000" {
		t.Errorf("%s of %s", *who.Arn, *who.Account)
	}
	own, err := service("OWNER").GetSessionToken(ctx, &sts.GetSessionTokenInput{DurationSeconds: aws.Int32(900)})
	must(t, err)
	temporary := sigv4.Signer{AccessKey: *own.Credentials.AccessKeyId, Secret: *own.Credentials.SecretAccessKey, SessionToken: *own.Credentials.SessionToken, Region: "us-east-1", Service: "aps"}
	if r, err := signedBy(n.URL("/workspaces/"+id), temporary)(ctx); err != nil || r.status != 200 || time.Until(*own.Credentials.Expiration) > 15*time.Minute {
		t.Errorf("a session of a user: %s %v, until %s", r, err, own.Credentials.Expiration)
	}
	again := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: aws.String(n.URL("")), Credentials: credentials.NewStaticCredentialsProvider(temporary.AccessKey, temporary.Secret, temporary.SessionToken)})
	if _, err := again.GetSessionToken(ctx, &sts.GetSessionTokenInput{}); err == nil || !strings.Contains(err.Error(), "AccessDenied: Cannot call GetSessionToken with session credentials") {
		t.Errorf("a session of a session: %v", err)
	}
	role := "arn:aws:iam::000000000000:role/reader"
	got, err := stscreds.NewAssumeRoleProvider(service("OWNER"), role, func(o *stscreds.AssumeRoleOptions) { o.ExternalID, o.RoleSessionName = aws.String("sesame"), "night" }).Retrieve(ctx)
	must(t, err)
	session := sigv4.Signer{AccessKey: got.AccessKeyID, Secret: got.SecretAccessKey, SessionToken: got.SessionToken, Region: "us-east-1", Service: "aps"}
	if r, err := signedBy(url, session)(ctx); err != nil || r.status != 200 {
		t.Errorf("a session: %s %v", r, err)
	}
	wrong := session
	wrong.SessionToken = got.SessionToken[:len(got.SessionToken)-8] + "AAAAAAA="
	if r, _ := signedBy(url, wrong)(ctx); r.status != 403 || r.header.Get("X-Amzn-Errortype") != "UnrecognizedClientException" {
		t.Errorf("another token: %s", r)
	}
	if r, _ := signedBy(n.URL("/workspaces/"+id), session)(ctx); r.status != 403 || !strings.Contains(r.body, "assumed-role/reader/night") {
		t.Errorf("what the role may not: %s", r)
	}
	for user, secret := range map[string]string{"OWNER": "wrong", "WRITER": "sesame"} {
		if _, err := service(user).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("xx"), ExternalId: &secret}); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s with %s: %v", user, secret, err)
		}
	}

	account := provider.token(t, map[string]any{"aud": "sts.amazonaws.com", "sub": "system:serviceaccount:apps:grafana"})
	web, err := service("WRITER").AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: &role, RoleSessionName: aws.String("pod"), WebIdentityToken: &account})
	must(t, err)
	session = sigv4.Signer{AccessKey: *web.Credentials.AccessKeyId, Secret: *web.Credentials.SecretAccessKey, SessionToken: *web.Credentials.SessionToken, Region: "us-east-1", Service: "aps"}
	if r, err := signedBy(url, session)(ctx); err != nil || r.status != 200 {
		t.Errorf("a session of a service account: %s %v", r, err)
	}
	for name, token := range map[string]string{
		"another subject":  provider.token(t, map[string]any{"aud": "sts.amazonaws.com", "sub": "system:serviceaccount:apps:other"}),
		"another audience": provider.token(t, map[string]any{"aud": "x", "sub": "system:serviceaccount:apps:grafana"}),
		"an old one":       provider.token(t, map[string]any{"aud": "sts.amazonaws.com", "sub": "system:serviceaccount:apps:grafana", "exp": 1}),
		"another issuer":   newIssuer(t).token(t, map[string]any{"aud": "sts.amazonaws.com", "sub": "system:serviceaccount:apps:grafana"}),
	} {
		if _, err := service("WRITER").AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: &role, RoleSessionName: aws.String("pod"), WebIdentityToken: &token}); err == nil {
			t.Errorf("%s is good for a session", name)
		}
	}
	bearer := provider.token(t, map[string]any{"aud": "sts.amazonaws.com", "sub": "ann", "groups": []string{"x", "sre"}})
	if r := call(ctx, t, "GET", n.URL("/prometheus/api/v1/query?query=1"), nil, "Authorization", "Bearer "+bearer, "X-Scope-OrgID", id); r.status != 200 {
		t.Errorf("a token of the provider as bearer: %s", r)
	}
	none := provider.token(t, map[string]any{"aud": "sts.amazonaws.com", "sub": "bob", "groups": []string{"x"}})
	if r := call(ctx, t, "GET", n.URL("/prometheus/api/v1/query?query=1"), nil, "Authorization", "Bearer "+none, "X-Scope-OrgID", id); r.status != 401 {
		t.Errorf("of nobody with a role: %s", r)
	}
	recorded(ctx, t, n, got.SecretAccessKey, got.SessionToken, bearer, account, temporary.Secret, temporary.SessionToken)
}

// recorded waits until the calls of the token service are in the audit, whose chain must be whole.
func recorded(ctx context.Context, t *testing.T, n *harness.Node, secrets ...string) {
	t.Helper()
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		r, err := signedBy(n.URL("/api/v1/audit?limit=1000"), keyOf("OWNER"))(ctx)
		if err != nil {
			return err
		}
		for _, want := range []string{`"eventName":"GetCallerIdentity"`, `"eventName":"AssumeRole"`, `"eventName":"AssumeRoleWithWebIdentity"`, `"eventName":"GetSessionToken"`, `"eventName":"CreateWorkspace"`, `"errorCode":"AccessDenied"`, `"roleSessionName":"night"`} {
			if !strings.Contains(r.body, want) {
				return fmt.Errorf("the audit has no %s: %.2000s", want, r.body)
			}
		}
		for _, s := range secrets {
			if strings.Contains(r.body, s) {
				t.Error("the audit holds secrets")
			}
		}
		var whole struct{ Damaged []string }
		if err := json.Unmarshal([]byte(r.body), &whole); err != nil || len(whole.Damaged) > 0 {
			t.Errorf("damaged: %v %v", whole.Damaged, err)
		}
		return nil
	}))
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a := &authority{t: t, dir: t.TempDir(), key: key, cert: &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	must(t, err)
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	next := path + ".new"
	must(a.t, os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	must(a.t, os.Rename(next, path))
	return path
}

// issue writes a certificate of a name, and its key.
func (a *authority) issue(file, name string, serial int64) (cert, key string) {
	a.t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}, a.cert, &own.PublicKey, a.key)
	must(a.t, err)
	text, err := x509.MarshalPKCS8PrivateKey(own)
	must(a.t, err)
	return a.write(file+".pem", "CERTIFICATE", der), a.write(file+".key", "PRIVATE KEY", text)
}

// client is one that shows a certificate, or none, on a new connection each time.
func (a *authority) client(cert, key string) *http.Client {
	a.t.Helper()
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(a.dir, "ca.pem"))
	must(a.t, err)
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		must(a.t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
}

// TestCertificatesSayWhoCalls is about TLS: certificates of clients, one of the server that changes, HTTP/2.
func TestCertificatesSayWhoCalls(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 2*time.Minute)
	ca := newAuthority(t)
	cert, key := ca.issue("server", "localhost", 10)
	file := filepath.Join(t.TempDir(), "identities.yaml")
	must(t, os.WriteFile(file, []byte(strings.NewReplacer("ISSUER", "https://none.example", "HOST", "none.example").Replace(sessionIdentities)), 0o600))
	c, err := harness.NewCluster(ctx, harness.Options{Binary: binary(ctx, t), Dir: t.TempDir(), Log: harness.TestLog(t), Files: true, Nodes: harness.OneProcess(), Replicas: 1,
		Flags: append(busyFlags(), "-auth.enabled", "-auth.identity-file="+file, "-server.http-tls-cert-path="+cert, "-server.http-tls-key-path="+key,
			"-server.http-tls-ca-path="+filepath.Join(ca.dir, "ca.pem"), "-server.http-tls-client-auth=VerifyClientCertIfGiven")})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log ends:\n%s", c.Nodes()[0].Tail())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	base := strings.Replace(c.Nodes()[0].URL(""), "http:", "https:", 1)
	get := func(client *http.Client, path string, header ...string) (reply, *http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, http.NoBody)
		must(t, err)
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		res, err := client.Do(r)
		if err != nil {
			return reply{}, nil, err
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		return reply{status: res.StatusCode, header: res.Header, body: string(text)}, res, err
	}
	plain := ca.client("", "")
	must(t, harness.Poll(ctx, func(context.Context) error {
		r, _, err := get(plain, "/ready")
		if err == nil && r.status != 200 {
			err = errors.New(r.String())
		}
		return err
	}))
	known := ca.client(ca.issue("client", "prometheus.example", 11))
	r, res, err := get(known, "/prometheus/api/v1/query?query=1", "X-Scope-OrgID", "team")
	if err != nil || r.status != 200 || res.ProtoMajor != 2 {
		t.Errorf("a known certificate: %s %v", r, err)
	}
	if r, _, err := get(known, "/workspaces"); err != nil || r.status != 200 {
		t.Errorf("workspaces with a certificate: %s %v", r, err)
	}
	if r, _, err := get(ca.client(ca.issue("stranger", "stranger.example", 12)), "/prometheus/api/v1/query?query=1", "X-Scope-OrgID", "team"); err != nil || r.status != 401 {
		t.Errorf("a certificate of nobody: %s %v", r, err)
	}
	if r, _, err := get(plain, "/prometheus/api/v1/query?query=1", "X-Scope-OrgID", "team"); err != nil || r.status != 401 {
		t.Errorf("no certificate: %s %v", r, err)
	}
	if r, _, err := get(ca.clientOf(newAuthority(t)), "/prometheus/api/v1/query?query=1", "X-Scope-OrgID", "team"); err == nil && r.status == 200 {
		t.Errorf("a certificate of another authority: %s", r)
	}
	ca.issue("server", "localhost", 20) // written over the one before
	must(t, harness.Poll(ctx, func(context.Context) error {
		_, res, err := get(plain, "/ready")
		if err == nil && res.TLS.PeerCertificates[0].SerialNumber.Cmp(big.NewInt(20)) != 0 {
			err = errors.New("the certificate of the server is the one before")
		}
		return err
	}))
	if bytes.Contains([]byte(c.Nodes()[0].Tail()), []byte("owner-secret-owner")) {
		t.Error("a secret in the log")
	}
}

// clientOf trusts a's servers and shows a certificate of another authority.
func (a *authority) clientOf(other *authority) *http.Client {
	cert, key := other.issue("client", "prometheus.example", 30)
	return a.client(cert, key)
}

// Package client owns how amphoratool calls a server: the flags for address, tenant and credentials,
// and requests whose answers are bounded.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// maxAnswerBytes bounds an answer that is held in memory.
const maxAnswerBytes = 512 << 20

// Client calls an Amphora, or a Mimir. Declare its flags, then call Open.
type Client struct {
	Address, Tenant string

	user, key, token        string
	ca, cert, certKey, name string
	insecure                bool
	headers                 map[string]string
	region, credentials     string
	timeout                 time.Duration
	http                    *http.Client
	signer                  *sigv4.Signer
}

// Declare adds the flags, with the names and environment variables that mimirtool gives them. Every
// variable may also begin with AMPHORA_, which wins.
func (c *Client) Declare(f cli.Flagger, e *cli.Env) {
	flag := func(name, help, variable, fallback string, into *string) {
		cl := f.Flag(name, help+" ($AMPHORA_"+variable+")")
		if v := e.First("AMPHORA_"+variable, "MIMIR_"+variable); v != "" {
			fallback = v
		}
		if fallback != "" {
			cl = cl.Default(fallback)
		}
		cl.StringVar(into)
	}
	// What is secret is no default, which would stand in the help.
	secret := func(name, help, variable string, into *string) {
		*into = e.First("AMPHORA_"+variable, "MIMIR_"+variable)
		f.Flag(name, help+" ($AMPHORA_"+variable+")").StringVar(into)
	}
	flag("address", "Where Amphora listens.", "ADDRESS", "http://127.0.0.1:8080", &c.Address)
	flag("id", "Tenant, or user of Basic authentication if --user is not given.", "TENANT_ID", "", &c.Tenant)
	flag("user", "User of Basic authentication.", "API_USER", "", &c.user)
	secret("key", "Password of Basic authentication: a token of the gateway.", "API_KEY", &c.key)
	secret("auth-token", "Bearer token.", "AUTH_TOKEN", &c.token)
	flag("tls-ca-path", "File with the authorities of the server's certificate.", "TLS_CA_PATH", "", &c.ca)
	flag("tls-cert-path", "File with a client certificate.", "TLS_CERT_PATH", "", &c.cert)
	flag("tls-key-path", "File with the key of the client certificate.", "TLS_KEY_PATH", "", &c.certKey)
	flag("tls-server-name", "Name that the server's certificate must have.", "TLS_SERVER_NAME", "", &c.name)
	f.Flag("tls-insecure-skip-verify", "Take any certificate of the server. ($AMPHORA_TLS_INSECURE_SKIP_VERIFY)").
		Default(strconv.FormatBool(e.First("AMPHORA_TLS_INSECURE_SKIP_VERIFY", "MIMIR_TLS_INSECURE_SKIP_VERIFY") == "true")).BoolVar(&c.insecure)
	c.headers = map[string]string{}
	for line := range strings.Lines(e.First("AMPHORA_EXTRA_HEADERS", "MIMIR_EXTRA_HEADERS")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			c.headers[name] = value
		}
	}
	f.Flag("extra-headers", "A header of every call, name=value; may repeat. ($AMPHORA_EXTRA_HEADERS, one a line)").StringMapVar(&c.headers)
	flag("sigv4-region", "Sign calls with Signature Version 4 for this region, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the file of --credentials.", "SIGV4_REGION", "", &c.region)
	flag("credentials", "File with aws_access_key_id and aws_secret_access_key.", "CREDENTIALS", "./data/root-credential", &c.credentials)
	f.Flag("timeout", "How long one call may take.").Default("1m").DurationVar(&c.timeout)
}

// Prefix declares the prefix of the paths of Prometheus's API. mimirtool has it with some commands only.
func Prefix(f cli.Flagger, e *cli.Env, into *string) {
	prefix := e.First("AMPHORA_HTTP_PREFIX", "MIMIR_HTTP_PREFIX")
	if prefix == "" {
		prefix = "/prometheus"
	}
	f.Flag("mimir-http-prefix", "Prefix of the paths of Prometheus's API. ($AMPHORA_HTTP_PREFIX)").Default(prefix).StringVar(into)
}

// Sign makes every call signed, for the region if the flag names none.
func (c *Client) Sign(region string) {
	if c.region == "" {
		c.region = region
	}
}

// Open reads keys and certificates. It is called once, before the first call.
func (c *Client) Open() error {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{InsecureSkipVerify: c.insecure, ServerName: c.name, MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return fmt.Errorf("read the authorities: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate", c.ca)
		}
	}
	if c.cert != "" || c.certKey != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.certKey)
		if err != nil {
			return fmt.Errorf("read the client certificate: %w", err)
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	if c.region != "" {
		s, err := Signer(c.credentials, c.region)
		if err != nil {
			return err
		}
		c.signer = &s
	}
	if c.key != "" && c.token != "" {
		return errors.New("--key and --auth-token exclude each other")
	}
	c.http = &http.Client{Transport: t}
	return nil
}

// StatusError is an answer that is not a success.
type StatusError struct {
	Status int
	Text   string
}

// Error is part of error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Status, http.StatusText(e.Status), e.Text)
}

// NotFound says whether the server answered that what was asked for does not exist.
func NotFound(err error) bool {
	var s *StatusError
	return errors.As(err, &s) && s.Status == http.StatusNotFound
}

// Call is what is asked of a server.
type Call struct {
	Method, Path string // Path with its query, escaped
	Body         []byte
	Stream       io.Reader // instead of Body; what is signed cannot be a stream
	Size         int64     // of Stream
	Type         string    // of the body
	Header       map[string]string
}

// Do returns the body of an answer that is a success. Errors: *StatusError.
func (c *Client) Do(ctx context.Context, call Call) ([]byte, error) {
	body, _, err := c.Typed(ctx, call)
	return body, err
}

// Typed returns the body of an answer that is a success, and its content type. Errors: *StatusError.
func (c *Client) Typed(ctx context.Context, call Call) (body []byte, kind string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.open(ctx, call)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, "", fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > maxAnswerBytes {
		return nil, "", fmt.Errorf("the answer is larger than %d bytes", maxAnswerBytes)
	}
	return body, resp.Header.Get("Content-Type"), nil
}

// Get returns the body of what lies under path.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	return c.Do(ctx, Call{Method: http.MethodGet, Path: path})
}

// Stream returns the body of an answer that is a success, to be read and closed by the caller while
// ctx lives. Errors: *StatusError.
func (c *Client) Stream(ctx context.Context, call Call) (io.ReadCloser, error) {
	resp, err := c.open(ctx, call)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// open returns an answer that is a success, whose body is the caller's to close. Errors: *StatusError.
func (c *Client) open(ctx context.Context, call Call) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, call.Method, strings.TrimSuffix(c.Address, "/")+call.Path, call.reader())
	if err != nil {
		return nil, err
	}
	if call.Stream != nil {
		r.ContentLength = call.Size
	}
	if err := c.dress(r, call); err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < http.StatusMultipleChoices {
		return resp, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what is left of the reason is better than none
	_ = resp.Body.Close()
	return nil, &StatusError{resp.StatusCode, strings.TrimSpace(string(text))}
}

func (call *Call) reader() io.Reader {
	if call.Stream != nil {
		return call.Stream
	}
	return bytes.NewReader(call.Body)
}

// dress adds the headers of a call, the tenant and who calls.
func (c *Client) dress(r *http.Request, call Call) error {
	r.Header.Set("User-Agent", "amphoratool")
	if call.Type != "" {
		r.Header.Set("Content-Type", call.Type)
	}
	for name, value := range call.Header {
		r.Header.Set(name, value)
	}
	for name, value := range c.headers {
		r.Header.Set(name, value)
	}
	switch {
	case c.key != "" && c.user != "":
		r.SetBasicAuth(c.user, c.key)
	case c.key != "":
		r.SetBasicAuth(c.Tenant, c.key)
	case c.token != "":
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.Tenant != "" {
		r.Header.Set("X-Scope-OrgID", c.Tenant)
	}
	if c.signer == nil {
		return nil
	}
	if call.Stream != nil {
		return errors.New("a stream cannot be signed; use a token")
	}
	return c.signer.Sign(r, call.Body, time.Now())
}

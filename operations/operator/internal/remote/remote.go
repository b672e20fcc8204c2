// Package remote owns calls to a cluster's gateway: the tenant they are for, how they are signed, and how a refusal is
// reported.
package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// Answers are read up to maxAnswer; of refusals maxMessage bytes are told.
const (
	maxAnswer  = 16 << 20
	maxMessage = 1024
)

// Credentials are what the gateway is shown: an access key, a token, or nothing.
type Credentials struct {
	AccessKey, Secret, Region string
	Token                     string
}

// FromSecret reads the data of a Secret: accessKeyId and secretAccessKey (and region), token, or the root-credential of the chart.
func FromSecret(data map[string][]byte) (Credentials, error) {
	c := Credentials{
		AccessKey: string(data["accessKeyId"]), Secret: string(data["secretAccessKey"]),
		Token: strings.TrimSpace(string(data["token"])), Region: string(data["region"]),
	}
	for line := range strings.Lines(string(data["root-credential"])) {
		name, value, _ := strings.Cut(line, "=")
		switch value = strings.TrimSpace(value); strings.TrimSpace(name) {
		case "aws_access_key_id":
			c.AccessKey = value
		case "aws_secret_access_key":
			c.Secret = value
		}
	}
	if c.Token == "" && (c.AccessKey == "" || c.Secret == "") {
		return c, errors.New("it holds neither accessKeyId and secretAccessKey, nor token, nor root-credential")
	}
	return c, nil
}

// Refusal is an answer that says that the request is wrong; the same request will be refused again.
type Refusal struct {
	Status  int
	Message string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%d: %s", r.Status, r.Message) }

// Status is that of the refusal in err, or 0.
func Status(err error) int {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Status
	}
	return 0
}

// Gateway is that of one cluster.
type Gateway struct {
	Base        string // without a slash at the end
	Credentials Credentials
	HTTP        *http.Client
}

// Request is one call. Without a Tenant it is about the cluster.
type Request struct {
	Method, Path, Tenant string
	ContentType          string
	Body                 []byte
}

// Do returns the body of an answer of 2xx. Errors: *Refusal for the other answers below 500 but 429, which says to try again.
func (g *Gateway) Do(ctx context.Context, r Request) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, g.Base+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if r.Tenant != "" {
		req.Header.Set("X-Scope-OrgID", r.Tenant)
	}
	if r.ContentType != "" {
		req.Header.Set("Content-Type", r.ContentType)
	}
	switch c := g.Credentials; {
	case c.Token != "":
		req.Header.Set("Authorization", "Bearer "+c.Token)
	case c.AccessKey != "":
		signer := sigv4.Signer{AccessKey: c.AccessKey, Secret: c.Secret, Region: c.Region, Service: "aps"}
		if err := signer.Sign(req, r.Body, time.Now()); err != nil {
			return nil, fmt.Errorf("sign request: %w", err)
		}
	}
	res, err := g.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call the cluster: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was read
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read answer: %w", r.Method, r.Path, err)
	}
	if res.StatusCode < 300 {
		return body, nil
	}
	refusal := &Refusal{res.StatusCode, strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), maxMessage)]), "?"))}
	if res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests {
		return nil, fmt.Errorf("%s %s: %s", r.Method, r.Path, refusal) // not as a refusal: it may go away
	}
	return nil, refusal
}

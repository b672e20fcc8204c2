package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// client calls an Amphora, signing what it sends.
type client struct {
	address, region, credentials string
	timeout                      time.Duration
}

// declare adds the flags that every command which calls has.
func (c *client) declare(f *flag.FlagSet) {
	f.StringVar(&c.address, "address", "http://127.0.0.1:8080", "where Amphora listens")
	f.StringVar(&c.region, "region", "us-east-1", "region to sign for: the first of auth.regions")
	f.StringVar(&c.credentials, "credentials", "./data/root-credential", "file with aws_access_key_id and aws_secret_access_key, used unless AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set")
	f.DurationVar(&c.timeout, "timeout", time.Minute, "how long a call may take")
}

// signer reads the access key.
func (c *client) signer() (sigv4.Signer, error) {
	s := sigv4.Signer{
		AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), Secret: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN"),
		Region: c.region, Service: "aps",
	}
	if s.AccessKey != "" {
		return s, nil
	}
	data, err := os.ReadFile(c.credentials)
	if err != nil {
		return s, fmt.Errorf("read the access key, as AWS_ACCESS_KEY_ID is not set: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, "=")
		switch value = strings.TrimSpace(value); strings.TrimSpace(name) {
		case "aws_access_key_id":
			s.AccessKey = value
		case "aws_secret_access_key":
			s.Secret = value
		case "aws_session_token":
			s.SessionToken = value
		}
	}
	if s.AccessKey == "" || s.Secret == "" {
		return s, fmt.Errorf("%s holds no access key", c.credentials)
	}
	return s, nil
}

// call returns the body of an answer that is not an error.
func (c *client) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	s, err := c.signer()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.address, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	if err := s.Sign(r, body, time.Now()); err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(answer)))
	}
	return answer, nil
}

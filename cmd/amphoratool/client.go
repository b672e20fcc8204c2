package main

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	tool "github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
)

// client calls an Amphora, signing what it sends.
type client struct {
	address, region, credentials string
	timeout                      time.Duration
}

// declare adds the flags that every command which calls has. Their defaults are the variables that other
// commands read.
func (c *client) declare(f *flag.FlagSet, e *cli.Env) {
	address := cmp.Or(e.Getenv("AMPHORA_ADDRESS"), e.Getenv("MIMIR_ADDRESS"), "http://127.0.0.1:8080")
	f.StringVar(&c.address, "address", address, "where Amphora listens; AMPHORA_ADDRESS")
	f.StringVar(&c.region, "region", "us-east-1", "region to sign for: the first of auth.regions")
	f.StringVar(&c.credentials, "credentials", cmp.Or(e.Getenv("AMPHORA_CREDENTIALS"), "./data/root-credential"), "file with aws_access_key_id and aws_secret_access_key, used unless AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set")
	f.DurationVar(&c.timeout, "timeout", time.Minute, "how long a call may take")
}

// call returns the body of an answer that is not an error.
func (c *client) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	s, err := tool.Signer(c.credentials, c.region)
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

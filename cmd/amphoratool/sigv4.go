package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// maxLineBytes bounds one line of what is verified; it holds a whole request.
const maxLineBytes = 64 << 20

// signedRequest is one line of the input.
type signedRequest struct {
	Name         string          `json:"name"`
	Request      string          `json:"request"` // raw HTTP
	AccessKey    string          `json:"access_key"`
	SecretKey    string          `json:"secret_key"`
	SessionToken string          `json:"session_token"`
	Region       string          `json:"region"`
	Service      string          `json:"service"`
	Now          json.RawMessage `json:"now"`       // a time, or seconds; nothing: now
	Normalize    *bool           `json:"normalize"` // false: signers leave dots and double slashes in the path
}

// verdict is one line of the output.
type verdict struct {
	Name   string `json:"name"`
	Valid  bool   `json:"valid"`
	Reason string `json:"reason"`
}

func sigv4Command(_ context.Context, e *cli.Env, args []string) error {
	if len(args) == 0 || args[0] != "verify" {
		return errors.New("usage: amphoratool sigv4 verify [-explain] < requests.jsonl\n\n" +
			"Each line is {name, request, access_key, secret_key, session_token, region, service, now, normalize}, where request is\n" +
			"raw HTTP; for each, {name, valid, reason} is printed. The check is the one that the gateway makes")
	}
	flags := flag.NewFlagSet("sigv4 verify", flag.ContinueOnError)
	flags.SetOutput(e.Err)
	explain := flags.Bool("explain", false, "say which canonical request was expected")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	in := bufio.NewScanner(e.In)
	in.Buffer(make([]byte, 64<<10), maxLineBytes)
	out := json.NewEncoder(e.Out)
	out.SetEscapeHTML(false)
	for n := 1; in.Scan(); n++ {
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue
		}
		var x signedRequest
		v := verdict{Valid: true}
		err := json.Unmarshal(in.Bytes(), &x)
		if err == nil {
			v.Name = x.Name
			err = x.verify(*explain)
		} else {
			err = fmt.Errorf("line %d is not the JSON that is asked for: %w", n, err)
		}
		if err != nil {
			v.Valid, v.Reason = false, err.Error()
		}
		if err := out.Encode(v); err != nil {
			return fmt.Errorf("write a verdict: %w", err)
		}
	}
	return in.Err()
}

// verify checks one request as the gateway does: claim, key, session token, signature.
func (x *signedRequest) verify(explain bool) error {
	now, err := parseNow(x.Now)
	if err != nil {
		return err
	}
	r, body, err := sigv4.ReadRaw(x.Request)
	if err != nil {
		return err
	}
	cfg := sigv4.Config{Explain: explain, RawPaths: x.Normalize != nil && !*x.Normalize}
	if x.Region != "" {
		cfg.Regions = []string{x.Region}
	}
	if x.Service != "" {
		cfg.Services = []string{x.Service}
	}
	v := sigv4.New(cfg)
	c, err := v.Parse(r, now)
	if err != nil {
		return err
	}
	if c.AccessKey != x.AccessKey || c.SessionToken != x.SessionToken {
		return errors.New("the security token included in the request is invalid")
	}
	return v.Verify(c, r, sigv4.Key{Secret: x.SecretKey}, sigv4.PayloadHash(body), int64(len(body)))
}

func parseNow(raw json.RawMessage) (time.Time, error) {
	text := strings.Trim(string(raw), `"`)
	if text == "" || text == "null" {
		return time.Now(), nil
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return time.UnixMilli(int64(n * 1000)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "20060102T150405Z", "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("now is %q, which is no time", text)
}

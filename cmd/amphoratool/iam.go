package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
)

const iamUsage = `usage: amphoratool iam [flags] <verb> ...

  accounts                                 the ids of stored accounts
  show                                     the stored part of the account, without secrets
  account                                  make the account, or give it another root key, which is printed once
  put <kind> <name> [file|-]               make or change a users, groups, roles, policies or providers entry, from YAML or JSON
  delete <kind> <name>                     take it out
  key create <user>                        a new access key, printed once
  key disable|enable|delete <user> <id>
  token create <user>                      a new token, printed once
  token disable|enable|delete <user> <id>
  mfa create <user> [name]                 a new MFA device, for an authenticator app; its secret is printed once
  mfa enable <user> <name> <code> <code>   with two codes of it that follow each other
  mfa delete <user> <name>

For example: amphoratool iam -policy AmazonPrometheusQueryAccess put users grafana
`

// many is a flag that may repeat.
type many []string

func (m *many) String() string     { return strings.Join(*m, ",") }
func (m *many) Set(s string) error { *m = append(*m, s); return nil }

// iamCall is an administration call as its flags say it.
type iamCall struct {
	client
	account                string
	policies, groups       many
	workspace, description string
	scopes                 many
	expires                time.Duration
}

func iamCommand(ctx context.Context, e *cli.Env, args []string) error {
	var c iamCall
	f := flag.NewFlagSet("iam", flag.ContinueOnError)
	f.SetOutput(e.Err)
	f.Usage = func() { _, _ = io.WriteString(e.Err, iamUsage); f.PrintDefaults() }
	c.declare(f, e)
	f.StringVar(&c.account, "account", "000000000000", "account to administer")
	f.Var(&c.policies, "policy", "name of a policy to attach; may repeat")
	f.Var(&c.groups, "group", "group of a user; may repeat")
	f.StringVar(&c.workspace, "workspace", "", "the only workspace a token is good for")
	f.StringVar(&c.description, "description", "", "what a token is for")
	f.Var(&c.scopes, "scope", "policy a token is held to; may repeat")
	f.DurationVar(&c.expires, "expires", 0, "how long a token is good; 0: until it is deleted")
	if err := f.Parse(args); err != nil {
		return err
	}
	method, path, body, err := c.plan(e.In, f.Args())
	if err != nil {
		f.Usage()
		return err
	}
	answer, err := c.call(ctx, method, "/api/v1/iam/accounts"+path, body)
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, answer, "", "  ") != nil {
		pretty.Write(answer)
	}
	_, err = fmt.Fprintln(e.Out, strings.TrimSpace(pretty.String()))
	return err
}

// plan says which call the verb is.
func (c *iamCall) plan(in io.Reader, args []string) (method, path string, body []byte, err error) {
	if len(args) == 0 {
		return "", "", nil, errors.New("which verb?")
	}
	verb, rest := args[0], args[1:]
	account := "/" + url.PathEscape(c.account)
	entry := func(parts ...string) string {
		out := account
		for _, p := range parts {
			out += "/" + url.PathEscape(p)
		}
		return out
	}
	switch {
	case verb == "accounts" && len(rest) == 0:
		return "GET", "", nil, nil
	case verb == "show" && len(rest) == 0:
		return "GET", account, nil, nil
	case verb == "account" && len(rest) == 0:
		return "PUT", account, nil, nil
	case verb == "put" && (len(rest) == 2 || len(rest) == 3):
		body, err = c.document(in, rest)
		return "PUT", entry(rest[0], rest[1]), body, err
	case verb == "delete" && len(rest) == 2:
		return "DELETE", entry(rest[0], rest[1]), nil, nil
	case (verb == "key" || verb == "token") && len(rest) == 2 && rest[0] == "create":
		return "POST", entry("users", rest[1], verb+"s"), c.token(verb), nil
	case (verb == "key" || verb == "token") && len(rest) == 3:
		path := entry("users", rest[1], verb+"s", rest[2])
		switch rest[0] {
		case "delete":
			return "DELETE", path, nil, nil
		case "disable", "enable":
			return "PUT", path, fmt.Appendf(nil, `{"inactive":%t}`, rest[0] == "disable"), nil
		}
	}
	if verb == "mfa" {
		return c.device(entry, args)
	}
	return "", "", nil, fmt.Errorf("iam %s cannot be understood", strings.Join(args, " "))
}

// device says which call a verb about MFA devices is.
func (c *iamCall) device(entry func(parts ...string) string, args []string) (method, path string, body []byte, err error) {
	rest := args[1:]
	switch {
	case len(rest) == 2 && rest[0] == "create":
		return "POST", entry("users", rest[1], "mfa"), nil, nil
	case len(rest) == 3 && rest[0] == "create":
		body, err = json.Marshal(map[string]string{"name": rest[2]})
		return "POST", entry("users", rest[1], "mfa"), body, err
	case len(rest) == 5 && rest[0] == "enable":
		body, err = json.Marshal(map[string][]string{"codes": rest[3:]})
		return "PUT", entry("users", rest[1], "mfa", rest[2]), body, err
	case len(rest) == 3 && rest[0] == "delete":
		return "DELETE", entry("users", rest[1], "mfa", rest[2]), nil, nil
	}
	return "", "", nil, fmt.Errorf("iam %s cannot be understood", strings.Join(args, " "))
}

// token is what a new one is to be.
func (c *iamCall) token(verb string) []byte {
	if verb != "token" {
		return nil
	}
	out := map[string]any{"description": c.description, "workspace": c.workspace, "scopes": []string(c.scopes)}
	if c.expires > 0 {
		out["expires"] = time.Now().Add(c.expires).UTC()
	}
	data, err := json.Marshal(out)
	if err != nil {
		panic("BUG: strings cannot be encoded: " + err.Error())
	}
	return data
}

// document reads an entry and adds what the flags say.
func (c *iamCall) document(in io.Reader, args []string) ([]byte, error) {
	var text []byte
	var err error
	if len(args) == 3 && args[2] == "-" {
		text, err = io.ReadAll(in)
	} else if len(args) == 3 {
		text, err = os.ReadFile(args[2])
	}
	if err != nil {
		return nil, fmt.Errorf("read the entry: %w", err)
	}
	entry := map[string]any{}
	if err := yaml.Unmarshal(text, &entry); err != nil { // JSON is YAML
		return nil, fmt.Errorf("read the entry: %w", err)
	}
	if entry == nil {
		entry = map[string]any{}
	}
	if _, isDocument := entry["Statement"]; isDocument && args[0] == "policies" {
		entry = map[string]any{"document": entry}
	}
	if len(c.policies) > 0 {
		entry["policies"] = []string(c.policies)
	}
	if len(c.groups) > 0 {
		entry["groups"] = []string(c.groups)
	}
	return json.Marshal(entry)
}

package identity

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const example = `
accounts:
  - id: "123456789012"
    policies:
      - name: mine
        document: {Statement: {Effect: Allow, Action: "aps:*", Resource: "*"}}
    groups: [{name: readers, policies: [AmazonPrometheusQueryAccess]}]
    users:
      - name: alice
        path: /team/
        groups: [readers]
        policies: [mine]
        keys:
          - {id: AKIDALICE001, secret: alice-secret-alice-1}
          - {id: AKIDALICE002, secret: alice-secret-alice-2, inactive: true}
        tokens:
          - {id: t1, secret: alice-token-alice-1}
          - {id: t2, secret: alice-token-alice-2, expires: 2020-01-01T00:00:00Z}
        certificates: [alice.example.com]
    roles:
      - name: reader
        trust: {Statement: {Effect: Allow, Principal: {AWS: "arn:aws:iam::123456789012:user/team/alice"}, Action: "sts:AssumeRole"}}
`

func load(t *testing.T, text string) (*Identities, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "identities.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return New(t.Context(), Config{File: file, Refresh: time.Minute}, Deps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry()})
}

func TestCallersAreFoundByWhatTheyKnow(t *testing.T) {
	x, err := load(t, example)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	k, err := x.Key(ctx, "AKIDALICE001", "")
	if err != nil || k.Secret != "alice-secret-alice-1" || k.Principal.ARN != "arn:aws:iam::123456789012:user/team/alice" || len(k.Principal.Policies) != 2 {
		t.Errorf("key: %+v, %v", k, err)
	}
	if p, err := x.Basic(ctx, "AKIDALICE001", "alice-secret-alice-1"); err != nil || p.Name != "alice" {
		t.Errorf("basic: %v", err)
	}
	if p, err := x.Token(ctx, "alice-token-alice-1"); err != nil || p.AccessKey != "t1" {
		t.Errorf("token: %v", err)
	}
	if _, err := x.Certificate(ctx, []string{"other", "alice.example.com"}); err != nil {
		t.Errorf("certificate: %v", err)
	}
	for name, try := range map[string]func() error{
		"inactive key":   func() error { _, err := x.Key(ctx, "AKIDALICE002", ""); return err },
		"key with token": func() error { _, err := x.Key(ctx, "AKIDALICE001", "t"); return err },
		"unknown key":    func() error { _, err := x.Key(ctx, "AKIDNOBODY01", ""); return err },
		"wrong secret":   func() error { _, err := x.Basic(ctx, "AKIDALICE001", "x"); return err },
		"no key":         func() error { _, err := x.Basic(ctx, "AKIDNOBODY01", ""); return err },
		"expired token":  func() error { _, err := x.Token(ctx, "alice-token-alice-2"); return err },
		"wrong token":    func() error { _, err := x.Token(ctx, "x"); return err },
		"certificate":    func() error { _, err := x.Certificate(ctx, []string{"x"}); return err },
	} {
		if err := try(); errs.KindOf(err) != errs.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAChangedFileIsRead(t *testing.T) {
	x, err := load(t, example)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(x.cfg.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("accounts: [{}]")
	if err := x.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Key(t.Context(), "AKIDALICE001", ""); err != nil {
		t.Errorf("a file that is wrong takes the good one away: %v", err)
	}
	write(strings.ReplaceAll(example, "AKIDALICE001", "AKIDALICE009"))
	if err := x.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Key(t.Context(), "AKIDALICE009", ""); err != nil {
		t.Error(err)
	}
	if _, err := x.Key(t.Context(), "AKIDALICE001", ""); err == nil {
		t.Error("the key that was taken out is good still")
	}
}

func TestWrongFilesAreRefusedWithoutTellingSecrets(t *testing.T) {
	for name, text := range map[string]string{
		"unknown key":    strings.Replace(example, "secret: alice-secret-alice-1", "secrets: alice-secret-alice-1", 1),
		"wrong type":     strings.Replace(example, "secret: alice-secret-alice-1", "secret: [alice-secret-alice-1]", 1),
		"account id":     strings.Replace(example, "123456789012\"", "12\"", 1),
		"short secret":   strings.Replace(example, "alice-secret-alice-1", "alice", 1),
		"unknown policy": strings.Replace(example, "[mine]", "[yours]", 1),
		"unknown group":  strings.Replace(example, "[readers]", "[writers]", 1),
		"same key":       strings.Replace(example, "AKIDALICE002", "AKIDALICE001", 1),
		"bad policy":     strings.Replace(example, "Effect: Allow, Action: \"aps:*\"", "Effect: Maybe, Action: \"aps:*\"", 1),
		"too many keys":  strings.Replace(example, "        tokens:", "          - {id: AKIDALICE003, secret: alice-secret-alice-3}\n        tokens:", 1),
	} {
		_, err := load(t, text)
		if errs.KindOf(err) != errs.Invalid || strings.Contains(fmt.Sprint(err), "alice-secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseAccounts(f *testing.F) {
	f.Add([]byte(example))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if accounts, err := parseAccounts(data); err == nil {
			_, _ = newDirectory(accounts)
		}
	})
}

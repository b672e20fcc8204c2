package identity

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// turned is how the services of these tests wrap: nobody else turns keys around.
func turned(q []byte) (string, error) {
	var in struct{ Operation, Context, Data string }
	if err := json.Unmarshal(q, &in); err != nil {
		return "", err
	}
	data, err := base64.StdEncoding.DecodeString(in.Data)
	if err != nil || in.Context != hookContext || in.Operation != "wrap" && in.Operation != "unwrap" {
		return "", fmt.Errorf("asked for %q in %q: %w", in.Operation, in.Context, err)
	}
	slices.Reverse(data)
	return `{"data":"` + base64.StdEncoding.EncodeToString(data) + `"}`, nil
}

// TestHookProgram is no test: it is the program that one of them starts.
func TestHookProgram(t *testing.T) {
	how := os.Getenv("AMPHORA_TEST_HOOK")
	if how == "" {
		t.Skip("only another test starts this")
	}
	in, err := io.ReadAll(os.Stdin)
	out, bad := turned(in)
	if err != nil || bad != nil || how == "broken" {
		fmt.Fprintln(os.Stderr, "the vault is sealed", err, bad)
		os.Exit(3)
	}
	fmt.Println(out)
	os.Exit(0)
}

// service is a key management service that can be away.
type service struct {
	*httptest.Server
	away  atomic.Bool
	asked atomic.Int64
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		in, _ := io.ReadAll(r.Body)
		out, err := turned(in)
		if err != nil || s.away.Load() || r.Header.Get("Authorization") != "Bearer open sesame" || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, out)
	}))
	t.Cleanup(s.Close)
	return s
}

func hooked(t *testing.T, store *docstore.Store, file string, h HookConfig) (*Identities, error) {
	t.Helper()
	return New(t.Context(), Config{KeyFile: file, RootFile: filepath.Join(t.TempDir(), "root"), Refresh: time.Minute, Hook: h},
		Deps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Store: store, Operator: "123456789012"})
}

func documents(t *testing.T) *docstore.Store {
	t.Helper()
	b, _ := shelf(t)
	return docstore.New(b, "test", prometheus.NewRegistry())
}

func TestTheKeyOnDiskIsWrappedByTheKeyManagementService(t *testing.T) {
	s := newService(t)
	t.Setenv("AMPHORA_TEST_HOOK", "works")
	for name, h := range map[string]HookConfig{
		"http":    {URL: s.URL, Token: "open sesame"},
		"program": {Command: []string{os.Args[0], "-test.run=^TestHookProgram$"}},
	} {
		t.Run(name, func(t *testing.T) {
			store, file := documents(t), filepath.Join(t.TempDir(), "keys")
			x, err := hooked(t, store, file, h)
			if err != nil || x.keys.Load() == nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil || !strings.HasPrefix(string(text), wrappedPrefix) || strings.Contains(string(text), base64.StdEncoding.EncodeToString(x.keys.Load().keys[0])) {
				t.Errorf("the file holds %q %v", text, err)
			}
			other, err := hooked(t, store, file, h)
			if err != nil || string(other.keys.Load().keys[0]) != string(x.keys.Load().keys[0]) {
				t.Fatalf("another process: %v", err)
			}
			if _, err := other.Stored(t.Context(), "123456789012"); err != nil {
				t.Errorf("what the first one stored: %v", err)
			}
			if _, err := hooked(t, store, file, HookConfig{}); errs.KindOf(err) != errs.Invalid || err == nil {
				t.Errorf("without the service: %v", err)
			}
		})
	}
}

func TestWithoutTheKeyManagementServiceCallersWaitAndWhoIsKnownStaysKnown(t *testing.T) {
	s, store, file := newService(t), documents(t), filepath.Join(t.TempDir(), "keys")
	h := HookConfig{URL: s.URL, Token: "open sesame"}
	x, err := hooked(t, store, file, h)
	if err != nil {
		t.Fatal(err)
	}
	s.away.Store(true)
	late, err := hooked(t, store, file, h)
	if err != nil {
		t.Fatalf("a process that starts meanwhile: %v", err)
	}
	if _, err := late.Key(t.Context(), "AKIDNOBODY01", ""); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("asked before the key is there: %v", err)
	}
	asked := s.asked.Load()
	if err := x.update(t.Context()); err != nil || s.asked.Load() != asked {
		t.Errorf("one that runs: %v, asked %d times", err, s.asked.Load()-asked)
	}
	// A new key is put before the old one, while the service is away.
	fresh := make([]byte, operatorKeyBytes)
	fresh[0] = 7
	text, _ := turned([]byte(`{"operation":"wrap","context":"` + hookContext + `","data":"` + base64.StdEncoding.EncodeToString(fresh) + `"}`))
	var wrapped hookAnswer
	if err := json.Unmarshal([]byte(text), &wrapped); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(wrappedPrefix+wrapped.Data+"\n"+string(old)), 0o600); err != nil {
		t.Fatal(err)
	}
	signed := x.SignAudit("digest")
	if err := x.update(t.Context()); err != nil || len(x.keys.Load().keys) != 1 {
		t.Errorf("the new key cannot be unwrapped: %v, %d keys", err, len(x.keys.Load().keys))
	}
	s.away.Store(false)
	for name, p := range map[string]*Identities{"late": late, "rotated": x} {
		if err := p.update(t.Context()); err != nil || len(p.keys.Load().keys) != 2 || p.keys.Load().keys[0][0] != 7 {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := p.Stored(t.Context(), "123456789012"); err != nil {
			t.Errorf("%s: what the old key sealed: %v", name, err)
		}
		if !p.VerifyAudit("digest", signed) || !p.VerifyAudit("digest", p.SignAudit("digest")) || p.VerifyAudit("other", signed) || string(p.SignAudit("digest")) == string(signed) {
			t.Errorf("%s: signatures of both keys", name)
		}
	}
}

func TestWhatAKeyManagementServiceMayAnswerWrong(t *testing.T) {
	var reply atomic.Pointer[string]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *reply.Load() == "redirect" {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		_, _ = io.WriteString(w, *reply.Load())
	}))
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(wrappedPrefix+"AAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{}", `{"data":"!"}`, `{"data":1}`, "redirect", `{"data":"` + strings.Repeat("A", maxHookBytes) + `"}`} {
		reply.Store(&text)
		x, err := hooked(t, documents(t), file, HookConfig{URL: s.URL})
		if err != nil || x.keys.Load() != nil {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	short := `{"data":"AAAA"}`
	reply.Store(&short)
	if _, err := hooked(t, documents(t), file, HookConfig{URL: s.URL}); errs.KindOf(err) != errs.Invalid || err == nil {
		t.Errorf("a key that is too short: %v", err)
	}
	t.Setenv("AMPHORA_TEST_HOOK", "broken")
	h := newHook(&Config{Hook: HookConfig{Command: []string{os.Args[0], "-test.run=^TestHookProgram$"}}})
	if _, err := h.ask(t.Context(), "unwrap", []byte("x")); errs.KindOf(err) != errs.Unavailable || !strings.Contains(fmt.Sprint(err), "the vault is sealed") {
		t.Errorf("a program that fails: %v", err)
	}
}

func TestAHookGoesNowhereUnprotected(t *testing.T) {
	for text, good := range map[string]bool{
		"https://kms.example/amphora": true, "http://127.0.0.1:8200/x": true, "http://localhost/x": true, "http://[::1]:1/": true,
		"http://kms.example/": false, "ftp://localhost/": false, "/x": false, "https://": false,
	} {
		if err := (&HookConfig{URL: text}).validate(); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := (&HookConfig{URL: "https://a/", Command: []string{"b"}}).validate(); err == nil {
		t.Error("two hooks are allowed")
	}
}

package identity

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// away is a bucket that can be switched off.
type away struct {
	bucket.Conditional
	off  bool
	gone bool // objects cannot be read
}

func (a *away) Read(ctx context.Context, name string) (bucket.Object, error) {
	if a.gone {
		return bucket.Object{}, errors.New("gone")
	}
	return a.Conditional.Read(ctx, name)
}

func (a *away) List(ctx context.Context, prefix string) ([]bucket.Object, error) {
	if a.off {
		return nil, errors.New("away")
	}
	return a.Conditional.List(ctx, prefix)
}

// shelf is a directory of documents.
func shelf(t *testing.T) (*away, string) {
	t.Helper()
	dir := t.TempDir()
	cfg := bucket.Config{Backend: bucket.Filesystem}
	cfg.Filesystem.Dir = dir
	b, err := bucket.OpenConditional(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return &away{Conditional: b}, dir
}

func onShelf(t *testing.T, b *away, c *clock, dir string) (*Identities, error) {
	t.Helper()
	return New(t.Context(), Config{Key: operatorKey, Refresh: time.Minute, RootFile: filepath.Join(dir, "root")}, Deps{
		Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Now: c.now, Operator: "000000000000",
		Store: docstore.New(b, "test", prometheus.NewRegistry()),
	})
}

// ask makes a call of the administration API.
func ask(t *testing.T, x *Identities, method, path, body string) (map[string]any, error) {
	t.Helper()
	mux := http.NewServeMux()
	var err error
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { err = x.Admin(w, r) })
	for _, p := range []string{"/accounts", "/accounts/{account}", "/accounts/{account}/{kind}/{name}", "/accounts/{account}/{kind}/{name}/{of}", "/accounts/{account}/{kind}/{name}/{of}/{id}"} {
		mux.Handle(p, handler)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	out := map[string]any{}
	if err == nil {
		if problem := json.Unmarshal(w.Body.Bytes(), &out); problem != nil {
			t.Fatalf("%s %s: %v: %s", method, path, problem, w.Body)
		}
	}
	return out, err
}

func TestTheFirstStartTellsARootCredentialOnce(t *testing.T) {
	b, _ := shelf(t)
	c := &clock{time.Now()}
	home, other := t.TempDir(), t.TempDir()
	x, err := onShelf(t, b, c, home)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(home, "root"))
	if err != nil {
		t.Fatal(err)
	}
	var id, secret string
	for line := range strings.Lines(string(text)) {
		if _, v, ok := strings.Cut(strings.TrimSpace(line), "aws_access_key_id = "); ok {
			id = v
		}
		if _, v, ok := strings.Cut(strings.TrimSpace(line), "aws_secret_access_key = "); ok {
			secret = v
		}
	}
	if p, err := x.Basic(t.Context(), id, secret); err != nil || !p.Root {
		t.Errorf("%+v, %v", p, err)
	}
	if info, err := os.Stat(filepath.Join(home, "root")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	again, err := onShelf(t, b, c, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(other, "root")); !os.IsNotExist(err) {
		t.Errorf("a second process told another credential: %v", err)
	}
	if _, err := again.Basic(t.Context(), id, secret); err != nil {
		t.Errorf("on another replica: %v", err)
	}
}

func TestAdministrationReachesOtherReplicas(t *testing.T) {
	b, dir := shelf(t)
	c := &clock{time.Now()}
	x, err := onShelf(t, b, c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := onShelf(t, b, c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	must := func(method, path, body string) map[string]any {
		t.Helper()
		out, err := ask(t, x, method, path, body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return out
	}
	const account = "/accounts/000000000000"
	must("PUT", account+"/policies/mine", `{"document":{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:*","Resource":"*"}}}`)
	must("PUT", account+"/groups/team", `{"policies":["mine"]}`)
	must("PUT", account+"/users/alice", `{"groups":["team"],"policies":["AmazonPrometheusQueryAccess"]}`)
	key := must("POST", account+"/users/alice/keys", "")
	id, secret := key["access_key"].(string), key["secret_key"].(string)
	token := must("POST", account+"/users/alice/tokens", `{"workspace":"ws-1","scopes":["AmazonPrometheusQueryAccess"]}`)
	if p, err := other.Basic(t.Context(), id, secret); err != nil || p.Name != "alice" || len(p.Policies) != 2 {
		t.Fatalf("new key on another replica: %+v, %v", p, err)
	}
	if p, err := other.Token(t.Context(), token["token"].(string)); err != nil || p.Workspace != "ws-1" || len(p.Sessions) != 1 {
		t.Errorf("new token on another replica: %+v, %v", p, err)
	}
	must("PUT", account+"/users/alice", `{"groups":[]}`)
	if _, err := x.Basic(t.Context(), id, secret); err != nil {
		t.Errorf("the key is lost with a change of the user: %v", err)
	}
	shown, err := json.Marshal(must("GET", account, ""))
	if err != nil || strings.Contains(string(shown), secret) || strings.Contains(string(shown), digest(token["token"].(string))) || !strings.Contains(string(shown), id) {
		t.Errorf("%s, %v", shown, err)
	}
	must("PUT", account+"/users/alice/keys/"+id, `{"inactive":true}`)
	c.at = c.at.Add(time.Minute)
	if err := other.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Basic(t.Context(), id, secret); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("switched off: %v", err)
	}
	must("DELETE", account+"/users/alice/keys/"+id, "")
	must("DELETE", account+"/users/alice", "")
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, _ error) error {
		if data, err := os.ReadFile(path); err == nil && !e.IsDir() && (strings.Contains(string(data), secret) || strings.Contains(string(data), "alice")) {
			t.Errorf("%s is not encrypted", path)
		}
		return nil
	})
}

func TestWhatWouldBreakTheDirectoryIsRefused(t *testing.T) {
	b, _ := shelf(t)
	x, err := onShelf(t, b, &clock{time.Now()}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const account = "/accounts/000000000000"
	for _, c := range []struct {
		method, path, body string
		want               errs.Kind
	}{
		{"PUT", account + "/users/bob", `{"groups":["nobody"]}`, errs.Invalid},
		{"PUT", account + "/users/bob", `{"strange":1}`, errs.Invalid},
		{"PUT", account + "/users/b%20b", `{}`, errs.Invalid},
		{"PUT", account + "/policies/p", `{"document":"{}"}`, errs.Invalid},
		{"PUT", account + "/things/p", `{}`, errs.NotFound},
		{"DELETE", account + "/users/bob", ``, errs.NotFound},
		{"POST", account + "/users/bob/keys", ``, errs.NotFound},
		{"PUT", "/accounts/12", ``, errs.Invalid},
		{"GET", "/accounts/111111111111", ``, errs.NotFound},
	} {
		if _, err := ask(t, x, c.method, c.path, c.body); err == nil || errs.KindOf(err) != c.want {
			t.Errorf("%s %s %s: %v", c.method, c.path, c.body, err)
		}
	}
	if _, err := ask(t, x, "PUT", "/accounts/111111111111", ""); err != nil {
		t.Errorf("an account cannot be made: %v", err)
	}
}

func TestAStoreThatIsAwayMakesNobodyWrong(t *testing.T) {
	b, _ := shelf(t)
	c := &clock{time.Now()}
	b.off = true
	x, err := onShelf(t, b, c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Key(t.Context(), "AKIDALICE001", ""); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("never read: %v", err)
	}
	b.off = false
	if err := x.tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Key(t.Context(), "AKIDALICE001", ""); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("read: %v", err)
	}
	b.off = true
	c.at = c.at.Add(time.Minute)
	if _, err := x.Key(t.Context(), "AKIDALICE001", ""); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("away again, and somebody who may be known elsewhere: %v", err)
	}
}

// TestWhoLooksAtIdentitiesHidesNoChange: what was changed elsewhere, such as a key that was deleted, holds here after the
// next refresh also if somebody lists identities, or fails to change them, before that.
func TestWhoLooksAtIdentitiesHidesNoChange(t *testing.T) {
	looks := map[string]func(*testing.T, *Identities){
		"an account": func(t *testing.T, x *Identities) {
			if _, err := x.Stored(t.Context(), "000000000000"); err != nil {
				t.Error(err)
			}
		},
		"accounts": func(t *testing.T, x *Identities) {
			if _, err := x.Accounts(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"a change that is refused": func(t *testing.T, x *Identities) {
			if _, err := ask(t, x, "DELETE", accountPath+"/users/nobody", ""); err == nil {
				t.Error("nobody is deleted")
			}
		},
	}
	for name, look := range looks {
		t.Run(name, func(t *testing.T) {
			one, other, _, _, _ := twoReplicas(t)
			if _, err := ask(t, one, "PUT", accountPath+"/users/ann", "{}"); err != nil {
				t.Fatal(err)
			}
			made, err := ask(t, one, "POST", accountPath+"/users/ann/keys", "")
			if err != nil {
				t.Fatal(err)
			}
			id, _ := made["access_key"].(string)
			known := func() bool {
				if err := other.update(t.Context()); err != nil {
					t.Fatal(err)
				}
				d, err := other.look()
				if err != nil {
					t.Fatal(err)
				}
				_, ok := d.keys[id]
				return ok
			}
			look(t, other)
			if !known() {
				t.Error("a new key is not known")
			}
			if _, err := ask(t, one, "DELETE", accountPath+"/users/ann/keys/"+id, ""); err != nil {
				t.Fatal(err)
			}
			look(t, other)
			if known() {
				t.Error("a deleted key is known")
			}
		})
	}
}

package vault

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/config"
)

const token = "s.the-token-of-this-test"

// fake is a Vault with one secret, which takes each way to log in.
func fake(t *testing.T) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	login := func(want map[string]string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var got map[string]string
			data, _ := io.ReadAll(r.Body)
			_ = json.Unmarshal(data, &got)
			for k, v := range want {
				if got[k] != v || len(got) != len(want) {
					w.WriteHeader(http.StatusBadRequest)
					_, _ = io.WriteString(w, `{"errors":["invalid credentials"]}`)
					return
				}
			}
			_, _ = io.WriteString(w, `{"auth":{"client_token":"`+token+`"}}`)
		}
	}
	mux.Handle("POST /v1/auth/approle/login", login(map[string]string{"role_id": "role", "secret_id": "sid-secret"}))
	mux.Handle("POST /v1/auth/kubernetes/login", login(map[string]string{"role": "amphora", "jwt": "the.jwt"}))
	mux.Handle("POST /v1/auth/userpass/login/amp", login(map[string]string{"password": "pw-secret"}))
	mux.HandleFunc("GET /v1/kv/data/{path...}", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("X-Vault-Token") != token:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":["permission denied"]}`)
		case r.PathValue("path") == "team/s3":
			_, _ = io.WriteString(w, `{"data":{"data":{"value":"from-vault","access":"key-from-vault","number":5},"metadata":{"version":3}}}`)
		case r.PathValue("path") == "moved":
			http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusTemporaryRedirect)
		case r.PathValue("path") == "large":
			_, _ = io.WriteString(w, strings.Repeat(" ", maxBytes+1))
		case r.PathValue("path") == "broken":
			_, _ = io.WriteString(w, `{"data":{"data":{"value":`)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errors":[]}`)
		}
	})
	return mux
}

// settings are those of a process with two secrets.
type settings struct {
	vault         Config
	first, second config.Secret
	plain         string
}

func (c *settings) Declare(s *config.Set) {
	s.Mount("vault", &c.vault)
	s.Resolve(c.vault.Resolve)
	s.Secret(&c.first, "first", "A secret.")
	s.Secret(&c.second, "second", "Another one.")
	s.String(&c.plain, "plain", "", "No secret.")
}

func load(flags ...string) (settings, error) {
	var c settings
	set := config.NewSet()
	set.Mount("", &c)
	_, err := config.Load(set, flags, func(string) string { return "" })
	return c, err
}

// at are the settings that lead to a Vault.
func at(url string, more ...string) []string {
	return append([]string{"-vault.enabled", "-vault.url=" + url, "-vault.mount-path=kv"}, more...)
}

// TestSecretsComeFromVault by each way to log in; what is no secret, or none of Vault's, stays as it is.
func TestSecretsComeFromVault(t *testing.T) {
	plain, tls := httptest.NewServer(fake(t)), httptest.NewTLSServer(fake(t))
	t.Cleanup(plain.Close)
	t.Cleanup(tls.Close)
	dir := t.TempDir()
	jwt, ca := filepath.Join(dir, "jwt"), filepath.Join(dir, "ca.pem")
	for name, data := range map[string][]byte{jwt: []byte("the.jwt\n"), ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, flags := range map[string][]string{
		"token":      at(plain.URL, "-vault.auth.type=token", "-vault.auth.token.token="+token),
		"approle":    at(plain.URL, "-vault.auth.type=approle", "-vault.auth.approle.role-id=role", "-vault.auth.approle.secret-id=sid-secret"),
		"kubernetes": at(plain.URL, "-vault.auth.type=kubernetes", "-vault.auth.kubernetes.role-name=amphora", "-vault.auth.kubernetes.service-account-token-path="+jwt),
		"userpass":   at(plain.URL, "-vault.auth.type=userpass", "-vault.auth.userpass.username=amp", "-vault.auth.userpass.password=pw-secret"),
		"over TLS":   at(tls.URL, "-vault.ca-path="+ca, "-vault.auth.type=token", "-vault.auth.token.token="+token),
	} {
		c, err := load(append(flags, "-first=vault:team/s3", "-second=vault:team/s3#access", "-plain=vault:team/s3")...)
		if err != nil || c.first.Reveal() != "from-vault" || c.second.Reveal() != "key-from-vault" || c.plain != "vault:team/s3" {
			t.Errorf("%s: %q, %q, %q, %v", name, c.first.Reveal(), c.second.Reveal(), c.plain, err)
		}
	}
	if c, err := load("-first=as-it-is"); err != nil || c.first.Reveal() != "as-it-is" {
		t.Errorf("without Vault: %q, %v", c.first.Reveal(), err)
	}
}

// TestWhatVaultRefusesStopsTheStart: the error names the setting and the path, and shows no secret.
func TestWhatVaultRefusesStopsTheStart(t *testing.T) {
	srv := httptest.NewServer(fake(t))
	t.Cleanup(srv.Close)
	good := func(more ...string) []string {
		return at(srv.URL, append([]string{"-vault.auth.type=token", "-vault.auth.token.token=" + token}, more...)...)
	}
	for name, tc := range map[string]struct {
		flags []string
		want  string
	}{
		"switched off":     {[]string{"-first=vault:team/s3"}, "vault.enabled"},
		"wrong token":      {at(srv.URL, "-vault.auth.type=token", "-vault.auth.token.token=s.other-secret", "-first=vault:team/s3"), "permission denied"},
		"wrong secret id":  {at(srv.URL, "-vault.auth.type=approle", "-vault.auth.approle.role-id=role", "-vault.auth.approle.secret-id=other-secret", "-first=vault:team/s3"), "invalid credentials"},
		"no such secret":   {good("-first=vault:team/none"), "first: read team/none"},
		"no such key":      {good("-first=vault:team/s3#none"), "under the key none"},
		"no text":          {good("-first=vault:team/s3#number"), "under the key number"},
		"out of the mount": {good("-first=vault:../sys/seal"), "no path"},
		"redirected":       {good("-first=vault:moved"), "307"},
		"too large":        {good("-first=vault:large"), "larger than"},
		"broken":           {good("-first=vault:broken"), "cannot be read"},
		"in clear":         {at("http://vault.example", "-vault.auth.type=token", "-vault.auth.token.token="+token, "-first=vault:team/s3"), "no https"},
		"no way to log in": {at(srv.URL, "-first=vault:team/s3"), "auth.type"},
		"nobody there":     {at("http://127.0.0.1:1", "-vault.auth.type=approle", "-vault.auth.approle.role-id=role", "-vault.auth.approle.secret-id=sid-secret", "-first=vault:team/s3"), "log in to Vault by approle"},
	} {
		_, err := load(tc.flags...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tc.want)
			continue
		}
		for _, secret := range []string{token, "other-secret", "sid-secret", "from-vault"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error shows a secret: %v", name, err)
			}
		}
	}
}

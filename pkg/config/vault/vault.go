// Package vault owns reading secrets from HashiCorp Vault before a process starts: the settings that
// locate it, how the process authenticates, and how other settings refer to a secret.
package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

const (
	// Prefix begins a setting whose value is in Vault: vault:path#key.
	Prefix = "vault:"
	// usualKey is the key of a secret that names none.
	usualKey = "value"
	// maxBytes bounds an answer and a token.
	maxBytes = 1 << 20
	// timeout bounds all that is asked before a process starts.
	timeout = 30 * time.Second
	// maxReasonBytes bounds what of Vault's own words is told.
	maxReasonBytes = 300
)

// The ways to prove who the process is.
const (
	byToken      = "token"
	byAppRole    = "approle"
	byKubernetes = "kubernetes"
	byPassword   = "userpass"
)

// Config is where Vault is; app mounts it as vault. Names are Mimir's.
type Config struct {
	Enabled   bool
	URL       string
	MountPath string
	CAFile    string

	Type                                  string
	Token                                 config.Secret
	RoleID, AppRoleMount                  string
	SecretID                              config.Secret
	Role, ServiceAccountToken, Kubernetes string
	Username, UserMount                   string
	Password                              config.Secret
}

// Declare implements config.Declarer.
func (c *Config) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", false, "Read secrets from Vault: a setting that is a secret may be vault:path#key, the value of key (usually value) in the secret at path, of version 2 of Vault's key-value engine. They are read once, when the process starts.").Expert()
	s.String(&c.URL, "url", "", "Address of Vault. Without https it must be on this machine.").Expert()
	s.String(&c.MountPath, "mount-path", "", "Path at which the key-value engine is mounted.").Expert()
	s.String(&c.CAFile, "ca-path", "", "File with CA certificates to verify Vault's certificate. Empty: those of the system.").Expert()
	s.String(&c.Type, "auth.type", "", "How the process authenticates to Vault.").OneOf("", byToken, byAppRole, byKubernetes, byPassword).Expert()
	s.Secret(&c.Token, "auth.token.token", "Token for auth.type token.").Expert()
	s.String(&c.RoleID, "auth.approle.role-id", "", "Id of the role for auth.type approle.").Expert()
	s.Secret(&c.SecretID, "auth.approle.secret-id", "Secret id of the role.").Expert()
	s.String(&c.AppRoleMount, "auth.approle.mount-path", "approle", "Path at which the auth method is mounted.").Expert()
	s.String(&c.Role, "auth.kubernetes.role-name", "", "Role in Vault for auth.type kubernetes.").Expert()
	s.String(&c.ServiceAccountToken, "auth.kubernetes.service-account-token-path", "/var/run/secrets/kubernetes.io/serviceaccount/token", "File with the token of the service account.").Expert()
	s.String(&c.Kubernetes, "auth.kubernetes.mount-path", "kubernetes", "Path at which the auth method is mounted.").Expert()
	s.String(&c.Username, "auth.userpass.username", "", "User for auth.type userpass.").Expert()
	s.Secret(&c.Password, "auth.userpass.password", "Password of the user.").Expert()
	s.String(&c.UserMount, "auth.userpass.mount-path", "userpass", "Path at which the auth method is mounted.").Expert()
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if !c.Enabled {
		return nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		return config.Wrong("url", "is no URL with http or https and a host")
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return config.Wrong("url", "has no https, but leads to another machine: secrets would go over the network as they are")
	}
	if strings.Trim(c.MountPath, "/") == "" {
		return config.Wrong("mount_path", "is empty")
	}
	for name, needed := range map[string]map[string]string{
		byToken:      {"auth.token.token": c.Token.Reveal()},
		byAppRole:    {"auth.approle.role_id": c.RoleID, "auth.approle.secret_id": c.SecretID.Reveal(), "auth.approle.mount_path": c.AppRoleMount},
		byKubernetes: {"auth.kubernetes.role_name": c.Role, "auth.kubernetes.service_account_token_path": c.ServiceAccountToken, "auth.kubernetes.mount_path": c.Kubernetes},
		byPassword:   {"auth.userpass.username": c.Username, "auth.userpass.password": c.Password.Reveal(), "auth.userpass.mount_path": c.UserMount},
		"":           {"auth.type": ""},
	} {
		for setting, value := range needed {
			if name == c.Type && value == "" {
				return config.Wrong(setting, "is empty")
			}
		}
	}
	return nil
}

// Resolve replaces the secrets of s that are in Vault. Its errors name settings and paths, never what they hold.
func (c *Config) Resolve(s *config.Set) error {
	var wanted []*config.Field
	for _, f := range s.Fields() {
		if f.Secret && strings.HasPrefix(f.Value(), Prefix) && !strings.HasPrefix(f.Path, "vault.") {
			wanted = append(wanted, f)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if !c.Enabled {
		return fmt.Errorf("%s is in Vault, but vault.enabled is false", wanted[0].Path)
	}
	if err := c.Validate(); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	v, err := c.login(ctx)
	if err != nil {
		return err
	}
	defer v.http.CloseIdleConnections()
	for _, f := range wanted {
		text, err := v.read(ctx, strings.TrimPrefix(f.Value(), Prefix))
		if err == nil && f.Set(text) != nil {
			err = errors.New("the value there is not accepted")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return nil
}

// client asks one Vault.
type client struct {
	http  *http.Client
	base  string
	mount string
	token string
}

// login proves who the process is.
func (c *Config) login(ctx context.Context) (*client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("vault.ca_path: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("vault.ca_path: %q holds no certificate", c.CAFile)
		}
	}
	v := &client{base: strings.TrimSuffix(c.URL, "/") + "/v1/", mount: strings.Trim(c.MountPath, "/"), token: c.Token.Reveal(), http: &http.Client{
		Transport: transport,
		// The token must not follow to where somebody else says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if c.Type == byToken {
		return v, nil
	}
	path, body := "", map[string]string{}
	switch c.Type {
	case byAppRole:
		path, body = c.AppRoleMount+"/login", map[string]string{"role_id": c.RoleID, "secret_id": c.SecretID.Reveal()}
	case byKubernetes:
		jwt, err := os.ReadFile(c.ServiceAccountToken)
		if err != nil {
			return nil, fmt.Errorf("vault.auth.kubernetes.service_account_token_path: %w", err)
		}
		path, body = c.Kubernetes+"/login", map[string]string{"role": c.Role, "jwt": strings.TrimSpace(string(jwt))}
	case byPassword:
		path, body = c.UserMount+"/login/"+url.PathEscape(c.Username), map[string]string{"password": c.Password.Reveal()}
	}
	var out struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	v.token = ""
	if err := v.call(ctx, http.MethodPost, "auth/"+strings.Trim(path, "/"), body, &out); err != nil {
		return nil, fmt.Errorf("log in to Vault by %s: %w", c.Type, err)
	}
	if v.token = out.Auth.Token; v.token == "" {
		return nil, fmt.Errorf("log in to Vault by %s: the answer has no token", c.Type)
	}
	return v, nil
}

// read returns the value of path#key.
func (v *client) read(ctx context.Context, ref string) (string, error) {
	path, key, ok := strings.Cut(ref, "#")
	if !ok {
		key = usualKey
	}
	var segments []string
	for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if segment == "" || segment == "." || segment == ".." {
			return "", fmt.Errorf("%q is no path of a secret", path)
		}
		segments = append(segments, url.PathEscape(segment))
	}
	var out struct {
		Data struct {
			Data map[string]any `json:"data"`
		} `json:"data"`
	}
	if err := v.call(ctx, http.MethodGet, v.mount+"/data/"+strings.Join(segments, "/"), nil, &out); err != nil {
		return "", fmt.Errorf("read %s from Vault: %w", path, err)
	}
	text, isText := out.Data.Data[key].(string)
	if !isText || text == "" {
		return "", fmt.Errorf("the secret %s in Vault has no text under the key %s", path, key)
	}
	return text, nil
}

// call asks once; who starts the process tries again.
func (v *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return errors.New("what is to be sent cannot be encoded")
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, v.base+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("X-Vault-Request", "true")
	if v.token != "" {
		r.Header.Set("X-Vault-Token", v.token)
	}
	res, err := v.http.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxBytes+1))
	switch {
	case err != nil:
		return err
	case len(data) > maxBytes:
		return fmt.Errorf("the answer is larger than %d bytes", maxBytes)
	case res.StatusCode != http.StatusOK:
		var said struct {
			Errors []string `json:"errors"`
		}
		_ = json.Unmarshal(data, &said) // then it says nothing
		reason := strings.Join(said.Errors, ", ")
		return fmt.Errorf("the answer is %s: %s", res.Status, reason[:min(len(reason), maxReasonBytes)])
	}
	if json.Unmarshal(data, out) != nil { // whose error might quote it
		return errors.New("the answer cannot be read")
	}
	return nil
}

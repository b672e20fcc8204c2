package limits

import (
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// AlertmanagerClient is where the rulers send a tenant's alerts, and as whom. Without addresses it is not
// set.
type AlertmanagerClient struct{ values []clientValue }

type clientValue struct{ key, text string }

// The keys of a client. Those of oauth2 stand below that key.
const (
	ClientURL           = "alertmanager_url"
	ClientProxy         = "proxy_url"
	ClientUser          = "basic_auth_username"
	ClientPassword      = "basic_auth_password"
	ClientCA            = "tls_ca_path"
	ClientCert          = "tls_cert_path"
	ClientKey           = "tls_key_path"
	ClientServerName    = "tls_server_name"
	ClientAnyServer     = "tls_insecure_skip_verify"
	ClientOAuthID       = "oauth2.client_id"
	ClientOAuthSecret   = "oauth2.client_secret" //nolint:gosec // The name of a setting.
	ClientOAuthTokenURL = "oauth2.token_url"
	ClientOAuthScopes   = "oauth2.scopes"
)

// clientKeys are all of them, in the order in which they are written.
func clientKeys() []string {
	return []string{ClientURL, ClientProxy, ClientUser, ClientPassword, ClientCA, ClientCert, ClientKey, ClientServerName, ClientAnyServer,
		ClientOAuthID, ClientOAuthSecret, ClientOAuthTokenURL, ClientOAuthScopes}
}

// NewAlertmanagerClient returns a client with values by their keys.
func NewAlertmanagerClient(values map[string]string) *AlertmanagerClient {
	out := &AlertmanagerClient{}
	for _, key := range clientKeys() {
		if text := values[key]; text != "" {
			out.values = append(out.values, clientValue{key, text})
		}
	}
	return out
}

// Text is the value of a key, empty if it is not set.
func (c *AlertmanagerClient) Text(key string) string {
	for _, v := range c.values {
		if v.key == key {
			return v.text
		}
	}
	return ""
}

// List is the value of a key that takes several, separated by commas.
func (c *AlertmanagerClient) List(key string) []string {
	var out []string
	for text := range strings.SplitSeq(c.Text(key), ",") {
		if text = strings.TrimSpace(text); text != "" {
			out = append(out, text)
		}
	}
	return out
}

// Same says whether two clients are the same.
func (c *AlertmanagerClient) Same(o *AlertmanagerClient) bool {
	return slices.Equal(c.values, o.values)
}

// hidden stands in the place of secrets.
const hidden = "********"

// Shown is the client as it may be shown to anybody.
func (c *AlertmanagerClient) Shown() Structured {
	out := &AlertmanagerClient{slices.Clone(c.values)}
	for i, v := range out.values {
		switch v.key {
		case ClientPassword, ClientOAuthSecret:
			out.values[i].text = hidden
		case ClientURL, ClientProxy:
			out.values[i].text = withoutPasswords(v.text)
		}
	}
	return out
}

// withoutPasswords hides the passwords of addresses that are separated by commas.
func withoutPasswords(list string) string {
	var out []string
	for text := range strings.SplitSeq(list, ",") {
		if u, err := url.Parse(strings.TrimSpace(text)); err == nil && u.User != nil {
			text = u.Redacted()
		}
		out = append(out, text)
	}
	return strings.Join(out, ",")
}

// Node is part of Structured.
func (c *AlertmanagerClient) Node() *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	below := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	for _, v := range c.values {
		if rest, ok := strings.CutPrefix(v.key, "oauth2."); ok {
			below.Content = append(below.Content, node(rest), node(v.text))
		} else {
			out.Content = append(out.Content, node(v.key), node(v.text))
		}
	}
	if len(below.Content) > 0 {
		out.Content = append(out.Content, node("oauth2"), below)
	}
	return out
}

// readAlertmanagerClient reads a mapping of settings.
func readAlertmanagerClient(doc *strict.Doc, n *yaml.Node, path string) (*AlertmanagerClient, bool) {
	values, ok := map[string]string{}, true
	take := func(prefix string, e strict.Entry) {
		key := prefix + e.Key
		if !slices.Contains(clientKeys(), key) {
			doc.Problems.Add(doc.Where(e.Line), "%s: %q is none of %s", path, key, strings.Join(clientKeys(), ", "))
			ok = false
			return
		}
		text, good := doc.Text(e.Value, path+"."+key, "text")
		values[key], ok = text, ok && good
		for at := range strings.SplitSeq(text, ",") {
			if key != ClientURL && key != ClientProxy && key != ClientOAuthTokenURL || at == "" {
				continue
			}
			if u, err := url.Parse(strings.TrimSpace(at)); err != nil || u.Host == "" {
				doc.Problems.Add(doc.Where(e.Line), "%s.%s: it is no URL with a scheme and a host", path, key)
				ok = false
			}
		}
		if key == ClientAnyServer && text != "true" && text != "false" {
			doc.Problems.Add(doc.Where(e.Line), "%s.%s: %q is neither true nor false", path, key, text)
			ok = false
		}
	}
	for _, e := range doc.Entries(n, path) {
		if e.Key != "oauth2" {
			take("", e)
			continue
		}
		for _, o := range doc.Entries(e.Value, path+".oauth2") {
			take("oauth2.", o)
		}
	}
	out := NewAlertmanagerClient(values)
	if len(out.values) > 0 && out.Text(ClientURL) == "" {
		doc.Problems.Add(doc.Where(n.Line), "%s: it has no %s", path, ClientURL)
		ok = false
	}
	return out, ok
}

package limits

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTheClientOfAlertmanagersIsReadStrictlyAndShownWithoutSecrets(t *testing.T) {
	text := "limits:\n  ruler_alertmanager_client_config: {alertmanager_url: 'http://u:pass1@am:9093,dns+https://b', basic_auth_username: me, basic_auth_password: pass2, oauth2: {client_id: c, client_secret: pass3, token_url: 'http://t/x', scopes: 'a,b'}}\n"
	d, _, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	v := d.view(0)
	c := RulerAlertmanagerClient.Of(v)
	if urls := c.List(ClientURL); len(urls) != 2 || urls[1] != "dns+https://b" || c.Text(ClientPassword) != "pass2" || c.Text(ClientOAuthSecret) != "pass3" || len(c.List(ClientOAuthScopes)) != 2 {
		t.Errorf("%+v", c)
	}
	out, err := json.Marshal(v)
	if err != nil || !strings.Contains(string(out), "am:9093") || strings.Contains(string(out), "pass1") || strings.Contains(string(out), "pass2") || strings.Contains(string(out), "pass3") {
		t.Errorf("%v: %s", err, out)
	}
	for text, want := range map[string]string{
		"{basic_auth_username: me}":                                   "it has no alertmanager_url",
		"{alertmanager_url: nowhere}":                                 "no URL with a scheme and a host",
		"{alertmanager_url: 'http://a', tls_insecure_skip_verify: 1}": "neither true nor false",
		"{alertmanager_url: 'http://a', password: x}":                 `"password" is none of`,
	} {
		if _, _, err := load(t, "limits:\n  ruler_alertmanager_client_config: "+text+"\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

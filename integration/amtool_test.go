package integration

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAmtoolAndGrafanaUseTheAlertmanager runs amtool against a tenant, and sends what mimirtool and
// Grafana send.
func TestAmtoolAndGrafanaUseTheAlertmanager(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	path, err := harness.Tool("amtool")
	harness.Need(t, err)
	path, err = filepath.Abs(path)
	must(t, err)
	n := everything(ctx, t)
	hook := newReceiver(t)
	web := filepath.Join(t.TempDir(), "tenant.yaml")
	must(t, os.WriteFile(web, []byte("http_headers:\n  X-Scope-OrgID:\n    values: [team]\n"), 0o600))
	amtool := func(want string, args ...string) string {
		t.Helper()
		out, status := run(ctx, t, path, append([]string{"--alertmanager.url=" + n.URL("/alertmanager"), "--http.config.file=" + web}, args...)...)
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("amtool %s ended with %d, want %q:\n%s", strings.Join(args, " "), status, want, out)
		}
		return strings.TrimSpace(out)
	}
	// mimirtool alertmanager load, get and delete.
	loaded := "template_files:\n    team.tmpl: '{{ define \"x\" }}y{{ end }}'\nalertmanager_config: |\n    templates: [team.tmpl]\n    route:\n        receiver: r\n        group_by: [alertname]\n        group_wait: 200ms\n" +
		"    receivers:\n        - name: r\n          webhook_configs:\n            - url: " + hook.url + "\n"
	tool := func(method, body string) reply {
		return call(ctx, t, method, n.URL("/api/v1/alerts"), []byte(body), "X-Scope-OrgID", "team", "User-Agent", "mimirtool/3.0.3")
	}
	if r := tool("POST", loaded); r.status != http.StatusCreated {
		t.Fatalf("load: %s", r)
	}
	if r := tool("GET", ""); r.status != http.StatusOK || r.body != loaded {
		t.Errorf("get: %s", r)
	}
	amtool("", "alert", "add", "Noisy", "severity=page", "--annotation=summary=much")
	amtool("Noisy", "alert", "query", "severity=page")
	hook.once(ctx, t, "Noisy")
	id := amtool("-", "silence", "add", "alertname=Noisy", "-d", "1h", "-c", "deploy", "-a", "me")
	amtool(id, "silence", "query")
	if out := amtool("", "alert", "query", "-a"); strings.Contains(out, "much") {
		t.Errorf("the alert is silenced and shown as active:\n%s", out)
	}
	amtool("Noisy", "alert", "query", "-s")
	amtool("", "silence", "expire", id)
	amtool("receiver: r", "config", "show")
	amtool("ready", "cluster", "show")
	amtool("r", "config", "routes", "test", "alertname=Noisy")
	grafana(ctx, t, n, id)
	if r := tool("DELETE", ""); r.status != http.StatusOK {
		t.Errorf("delete: %s", r)
	}
	if r := tool("GET", ""); r.status != http.StatusNotFound {
		t.Errorf("get what was deleted: %s", r)
	}
}

// grafana sends what Grafana's Alertmanager data source asks, and a browser the page.
func grafana(ctx context.Context, t *testing.T, n *harness.Node, silence string) {
	t.Helper()
	for path, want := range map[string]string{
		"/alertmanager/api/v2/status": `"versionInfo"`, "/alertmanager/api/v2/alerts/groups": `"receiver":{"name":"r"}`, "/alertmanager/api/v2/silences": silence,
		"/alertmanager/api/v2/silence/" + silence: `"expired"`, "/alertmanager/api/v2/receivers": `"name":"r"`, "/alertmanager/api/v2/alerts?active=true&silenced=false": "Noisy",
		"/alertmanager": "Noisy", "/multitenant_alertmanager/status": "team", "/multitenant_alertmanager/configs": "team:", "/multitenant_alertmanager/ring": "ACTIVE",
		"/api/v1/status/buildinfo": `"alertmanager_config_api":"true"`,
	} {
		r := call(ctx, t, http.MethodGet, n.URL(path), nil, "X-Scope-OrgID", "team")
		if r.status != http.StatusOK || !strings.Contains(r.body, want) {
			t.Errorf("%s, want %s: %s", path, want, r)
		}
		if r := call(ctx, t, http.MethodGet, n.URL(path), nil, "X-Scope-OrgID", "other"); strings.HasPrefix(path, "/alertmanager/") && strings.Contains(r.body, "Noisy") {
			t.Errorf("%s shows another tenant's alerts: %s", path, r)
		}
	}
	r := call(ctx, t, http.MethodGet, n.URL("/alertmanager"), nil, "X-Scope-OrgID", "team")
	if csp := r.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(r.body, "<script") {
		t.Errorf("page with policy %q: %s", csp, r)
	}
	form := []byte("matchers=alertname%3D%22Noisy%22&for=1h&author=me&comment=page")
	if r := call(ctx, t, http.MethodPost, n.URL("/alertmanager"), form, "X-Scope-OrgID", "team", "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "cross-site"); r.status != http.StatusForbidden {
		t.Errorf("a form of another site: %s", r)
	}
	if r := call(ctx, t, http.MethodPost, n.URL("/alertmanager"), form, "X-Scope-OrgID", "team", "Content-Type", "application/x-www-form-urlencoded"); r.status != http.StatusOK || !strings.Contains(r.body, "page") {
		t.Errorf("silence from the page: %s", r)
	}
}

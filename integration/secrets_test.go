package integration

import (
	"context"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestNoSecretIsEverShown plants secrets in settings, in requests and in what tenants store, and
// looks for them in every page, metric, profile, error and line of the log.
func TestNoSecretIsEverShown(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 2*time.Minute)
	dir := t.TempDir()
	key := []byte("planted-key-of-thirty-two-bytes!")
	planted := map[string]string{
		"key of identities":         base64.StdEncoding.EncodeToString(key),
		"secret of the bucket":      "planted-bucket-secret",
		"password of a receiver":    "planted-receiver-password",
		"URL of a receiver":         "planted-receiver-path",
		"password of a caller":      "planted-caller-password",
		"basic header of a caller":  base64.StdEncoding.EncodeToString([]byte("someone:planted-caller-password")),
		"bearer token of a caller":  "planted-bearer-token",
		"session token of a caller": "planted-session-token",
	}
	settings := filepath.Join(dir, "amphora.yaml")
	must(t, os.WriteFile(settings, []byte("auth:\n  key: "+planted["key of identities"]+"\nblocks_storage:\n  s3:\n    secret_access_key: "+planted["secret of the bucket"]+"\n"), 0o600))
	c := oneProcess(ctx, t, harness.Options{Dir: dir, Files: true, Flags: []string{"-config.file=" + settings, "-log.level=debug"}})
	n := c.Nodes()[0]
	var seen []string
	note := func(r reply) { seen = append(seen, r.String(), r.body) }

	definition := "alertmanager_config: |\n  route: {receiver: r}\n  receivers:\n  - name: r\n    webhook_configs:\n    - url: http://127.0.0.1:9/" +
		planted["URL of a receiver"] + "\n      http_config: {basic_auth: {username: u, password: " + planted["password of a receiver"] + "}}\n"
	r := call(ctx, t, http.MethodPost, n.URL("/api/v1/alerts"), []byte(definition), "X-Scope-OrgID", "team-a")
	if r.status != http.StatusCreated {
		t.Fatalf("definition: %s", r)
	}
	note(r)
	note(call(ctx, t, http.MethodPost, n.URL("/api/v1/alerts"), []byte(definition+"    nonsense: 1\n"), "X-Scope-OrgID", "team-a")) // refused
	eventually(ctx, t, "the receiver to be tried", func() error {
		note(call(ctx, t, http.MethodPost, n.URL("/alertmanager/api/v2/alerts"), []byte(`[{"labels":{"alertname":"a"}}]`), "X-Scope-OrgID", "team-a", "Content-Type", "application/json"))
		return nil
	})
	for _, auth := range []string{"Basic " + planted["basic header of a caller"], "Bearer " + planted["bearer token of a caller"],
		"AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/aps/aws4_request, SignedHeaders=host, Signature=00"} {
		for _, path := range []string{"/prometheus/api/v1/query?query=up", "/workspaces/ws-00000000-0000-0000-0000-000000000000/api/v1/query?query=up", "/nothing", "/workspaces"} {
			note(call(ctx, t, http.MethodGet, n.URL(path), nil, "Authorization", auth, "X-Scope-OrgID", "team-a", "X-Amz-Security-Token", planted["session token of a caller"]))
		}
	}
	pause(ctx, t, 3*time.Second) // the alert goes out and fails
	for _, path := range []string{"/config", "/config?mode=diff", "/config?mode=defaults", "/runtime_config", "/services", "/metrics", "/", "/memberlist",
		"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/api/v1/status/config", "/api/v1/status/flags",
		"/api/v1/user_limits", "/alertmanager/api/v2/status", "/multitenant_alertmanager/status", "/multitenant_alertmanager/configs", "/ruler/rule_groups", "/api/v1/audit"} {
		note(call(ctx, t, http.MethodGet, n.URL(path), nil, "X-Scope-OrgID", "team-a"))
	}
	log, err := os.ReadFile(n.LogFile)
	must(t, err)
	for what, secret := range planted {
		if strings.Contains(string(log), secret) {
			i := strings.Index(string(log), secret)
			t.Errorf("the %s is in the log: %.300q", what, string(log)[max(0, i-200):])
		}
		for _, text := range seen {
			if i := strings.Index(text, secret); i >= 0 && what != "URL of a receiver" {
				t.Errorf("the %s is in an answer: %.300q", what, text[max(0, i-150):])
			}
		}
	}
	// Who put the definition reads it again as it was.
	if r := call(context.WithoutCancel(ctx), t, http.MethodGet, n.URL("/api/v1/alerts"), nil, "X-Scope-OrgID", "team-a"); !strings.Contains(r.body, planted["password of a receiver"]) {
		t.Errorf("the definition is not what was put: %s", r)
	}
	if len(log) == 0 || len(seen) < 30 {
		t.Errorf("%d bytes of log, %d answers: nothing was looked at", len(log), len(seen))
	}
}

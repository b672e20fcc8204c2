package ruler

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

// TestATenantsAlertsGoWhereItsLimitsSay: and as whom, from the next look at the rules on.
func TestATenantsAlertsGoWhereItsLimitsSay(t *testing.T) {
	var got, others atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if name, password, ok := r.BasicAuth(); ok && name == "me" && password == "secret" && r.URL.Path == "/am/api/v2/alerts" && r.Header.Get("X-Scope-OrgID") == "t" {
			got.Add(1)
		} else {
			others.Add(1)
		}
	}))
	t.Cleanup(s.Close)
	w := newWorld(t)
	w.limits = limits.RulerAlertmanagerClient.With(w.limits, limits.NewAlertmanagerClient(map[string]string{
		limits.ClientURL: s.URL + "/am", limits.ClientUser: "me", limits.ClientPassword: "secret"}))
	r := w.ruler(t, "a", func(c *Config) { c.Notifier.ResendDelay = time.Second })
	defer start(t, r)()
	put(t, r, "name: g\ninterval: 1s\nquery_offset: 0s\nrules:\n- alert: A\n  expr: vector(1)\n")
	for end := time.Now().Add(30 * time.Second); got.Load() == 0 && time.Now().Before(end); {
		<-time.After(50 * time.Millisecond)
	}
	if got.Load() == 0 || others.Load() > 0 || len(w.inbox.all()) > 0 {
		t.Errorf("%d alerts as the tenant's client, %d otherwise, %d in this process", got.Load(), others.Load(), len(w.inbox.all()))
	}
}

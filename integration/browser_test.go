package integration

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestABrowserAtTheAddressOfADataSourceComesToTheConsole: whoever types the address that data sources have gets the
// console, which asks who is there; nothing else is open because of it.
func TestABrowserAtTheAddressOfADataSourceComesToTheConsole(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the binary; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	for name, c := range map[string]struct {
		flags  []string
		prefix string
		index  int // status of the pages of the process
	}{
		"everybody is let in":   {nil, "/prometheus", http.StatusOK},
		"callers are asked":     {[]string{"-auth.enabled"}, "/prometheus", http.StatusUnauthorized},
		"another prefix":        {[]string{"-auth.enabled", "-http.prometheus-http-prefix=/metrics-api"}, "/metrics-api", http.StatusUnauthorized},
		"a prefix that is none": {[]string{"-auth.enabled", "-http.prometheus-http-prefix="}, "", http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			n := everything(ctx, t, c.flags...)
			get := func(path string) *http.Response {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL(path), nil)
				must(t, err)
				to := errors.New("elsewhere")
				client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return to }}
				res, err := client.Do(req)
				if err != nil && !errors.Is(err, to) {
					t.Fatal(err)
				}
				_ = res.Body.Close() // only its header counts
				return res
			}
			if c.prefix != "" {
				for _, path := range []string{c.prefix, c.prefix + "/"} {
					if res := get(path); res.StatusCode != http.StatusFound || res.Header.Get("Location") != "/console/" {
						t.Errorf("%s: %d to %q", path, res.StatusCode, res.Header.Get("Location"))
					}
				}
			}
			if res := get("/console/"); res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
				t.Errorf("the console: %d, %s", res.StatusCode, res.Header.Get("Content-Type"))
			}
			if res := get("/"); res.StatusCode != c.index {
				t.Errorf("the index: %d, want %d", res.StatusCode, c.index)
			}
			if res := get(c.prefix + "/api/v1/query?query=1"); res.StatusCode == http.StatusOK {
				t.Error("a query of nobody is answered")
			}
		})
	}
}

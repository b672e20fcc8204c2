package console

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func open(t *testing.T) *Console {
	t.Helper()
	c, err := New(Settings{Version: "v1", Authentication: true, Region: "eu-west-1", Service: "aps", Account: "000000000000", Prometheus: "/prometheus"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask returns the answer, with an error as api would tell it.
func ask(t *testing.T, c *Console, method, at string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, at, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if err := c.Serve(w, r); err != nil {
		w.WriteHeader(errs.KindOf(err).HTTPStatus())
	}
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryAddressOfTheConsoleIsItsPage(t *testing.T) {
	c := open(t)
	index := body(t, ask(t, c, http.MethodGet, "/console/"))
	if !strings.Contains(index, `<div id="app">`) {
		t.Fatalf("the page is %q", index)
	}
	for _, at := range []string{"/console/workspaces", "/console/w/ws-1/explore", "/console/w/ws.1/rules", "/console/index.html", "/console/no/such/page"} {
		r := ask(t, c, http.MethodGet, at)
		if r.StatusCode != http.StatusOK || body(t, r) != index {
			t.Errorf("%s answers %d, or not with the page", at, r.StatusCode)
		}
		if got := r.Header.Get("Cache-Control"); got != "no-cache" {
			t.Errorf("%s may be cached: %q; the page names the files of its version", at, got)
		}
	}
	if r := ask(t, c, http.MethodGet, "/console"); r.StatusCode != http.StatusPermanentRedirect || r.Header.Get("Location") != "/console/" {
		t.Errorf("/console answers %d to %q", r.StatusCode, r.Header.Get("Location"))
	}
}

func TestFilesThatAreNotThereAreMissingAndDirectoriesAreNotListed(t *testing.T) {
	c := open(t)
	for _, at := range []string{"/console/assets/none-12345678.js", "/console/assets/", "/console/assets", "/console/assets/../console.go"} {
		if r := ask(t, c, http.MethodGet, at); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s answers %d, want 404: a script that is a page cannot be run", at, r.StatusCode)
		}
	}
}

func TestThePageNamesOnlyFilesOfItsOwnAndNothingInline(t *testing.T) {
	c := open(t)
	index := body(t, ask(t, c, http.MethodGet, "/console/"))
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(index, -1) {
		if !strings.HasPrefix(m[1], "/console/") {
			t.Errorf("the page names %s", m[1])
		}
		if r := ask(t, c, http.MethodGet, m[1]); r.StatusCode != http.StatusOK {
			t.Errorf("%s, which the page names, answers %d", m[1], r.StatusCode)
		}
	}
	if strings.Contains(index, "<style") || regexp.MustCompile(`<script[^>]*>[^<]`).MatchString(index) || regexp.MustCompile(`\son[a-z]+=`).MatchString(index) {
		t.Errorf("something is inline, which the policy forbids:\n%s", index)
	}
}

func TestEveryAnswerHasTheHeadersThatHoldABrowser(t *testing.T) {
	c := open(t)
	for _, at := range []string{"/console", "/console/", "/console/settings.json", "/console/icon.svg", "/console/" + asset(t, c)} {
		h := ask(t, c, http.MethodGet, at).Header
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy lacks %s: %s", at, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "http") {
			t.Errorf("%s: the policy allows too much: %s", at, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: headers are %v", at, h)
		}
	}
}

func TestHashedFilesAreKeptAndOthersAskedForAgain(t *testing.T) {
	c := open(t)
	hashed := regexp.MustCompile(`-[\w-]{8}\.(js|css)$`)
	for name := range c.files {
		got := ask(t, c, http.MethodGet, "/console/"+name).Header.Get("Cache-Control")
		want := "no-cache"
		if strings.HasPrefix(name, "assets/") {
			want = "public, max-age=31536000, immutable"
			if !hashed.MatchString(name) {
				t.Errorf("%s is kept for a year, and its name has no hash", name)
			}
		}
		if got != want {
			t.Errorf("%s: Cache-Control is %q, want %q", name, got, want)
		}
	}
}

func TestHeadAnswersAsGetWithoutABody(t *testing.T) {
	c := open(t)
	for _, at := range []string{"/console/", "/console/settings.json", "/console/" + asset(t, c)} {
		get, head := ask(t, c, http.MethodGet, at), ask(t, c, http.MethodHead, at)
		if head.StatusCode != get.StatusCode || head.Header.Get("Content-Length") != get.Header.Get("Content-Length") || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("%s: HEAD has %v, GET %v", at, head.Header, get.Header)
		}
		if b := body(t, head); b != "" {
			t.Errorf("%s: HEAD has a body of %d bytes", at, len(b))
		}
	}
}

func TestWhoTakesGzipGetsTheSameFilePacked(t *testing.T) {
	c := open(t)
	at := "/console/" + asset(t, c)
	plain := body(t, ask(t, c, http.MethodGet, at))
	for accept, want := range map[string]bool{"gzip": true, "br, GZIP;q=0.5": true, "gzip; q=0": false, "br": false, "": false} {
		r := ask(t, c, http.MethodGet, at, "Accept-Encoding", accept)
		if got := r.Header.Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("Accept-Encoding %q: packed %v, want %v", accept, got, want)
		}
		got := body(t, r)
		if want {
			z, err := gzip.NewReader(strings.NewReader(got))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			got = string(b)
		}
		if got != plain || r.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("Accept-Encoding %q: another file, or no Vary", accept)
		}
	}
}

func TestSettingsTellWhatTheConsoleNeedsAndNothingElse(t *testing.T) {
	r := ask(t, open(t), http.MethodGet, "/console/settings.json")
	if r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers are %v", r.Header)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(body(t, r)), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"version", "authentication", "region", "service", "account", "tokensForWorkspaces", "defaultTenant", "prometheus", "alertmanager"} {
		if _, ok := got[name]; !ok {
			t.Errorf("settings lack %s", name)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("settings also tell %v, to everybody", got)
	}
}

// mostBytes is how much a browser may have to load, packed.
const mostBytes = 400 << 10

func TestTheConsoleIsSmallAndNamesNoOtherHost(t *testing.T) {
	sum := 0
	for name, f := range open(t).files {
		if kindOf(name) == "application/octet-stream" {
			t.Errorf("%s has no type of content", name)
		}
		packed := f.packed()
		if packed == nil {
			packed = f.plain
		}
		sum += len(packed)
		if bytes.Contains(f.plain, []byte("sourceMappingURL")) {
			t.Errorf("%s names a source map", path.Base(name))
		}
		for _, m := range regexp.MustCompile(`(?:src|href|url\(|import\()\s*[=(]?\s*["']?(https?://[^"')\s]+)`).FindAllSubmatch(f.plain, -1) {
			t.Errorf("%s loads %s", path.Base(name), m[1])
		}
	}
	if sum > mostBytes {
		t.Errorf("the files have %d bytes, packed; at most %d", sum, mostBytes)
	}
}

// asset is the name of the largest script.
func asset(t *testing.T, c *Console) string {
	t.Helper()
	best := ""
	for name, f := range c.files {
		if strings.HasSuffix(name, ".js") && (best == "" || len(f.plain) > len(c.files[best].plain)) {
			best = name
		}
	}
	if best == "" {
		t.Fatal("the console has no script: make console")
	}
	return best
}

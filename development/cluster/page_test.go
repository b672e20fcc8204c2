package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/integration/harness"
)

const self = "127.0.0.1:9900"

func ask(t *testing.T, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	cluster := &harness.Cluster{S3: &harness.S3{Process: harness.NewProcess(slog.New(slog.DiscardHandler), harness.Command{
		Name: "<s3>", Path: "/nonexistent", LogFile: t.TempDir() + "/log",
	})}}
	p := newPage(cluster, nil, slog.New(slog.DiscardHandler))
	r := httptest.NewRequest(method, "http://"+self+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	w := httptest.NewRecorder()
	p.handler(self).ServeHTTP(w, r)
	p.doing.Wait()
	return w
}

func TestOnlyThePageItselfMayPressItsButtons(t *testing.T) {
	const stop = "name=%3Cs3%3E&action=stop"
	for _, c := range []struct {
		what, method, path, body string
		header                   []string
		want                     int
	}{
		{"its own form", "POST", "/do", stop, []string{"Sec-Fetch-Site", "same-origin"}, http.StatusSeeOther},
		{"a form of another site", "POST", "/do", stop, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"a form of another origin", "POST", "/do", stop, []string{"Origin", "http://evil.example"}, http.StatusForbidden},
		{"a name that resolves to loopback", "GET", "/", "", []string{"Host", "evil.example:9900"}, http.StatusForbidden},
		{"a link", "GET", "/do?" + stop, "", nil, http.StatusMethodNotAllowed},
		{"a process that does not exist", "POST", "/do", "name=init&action=stop", nil, http.StatusBadRequest},
		{"an action that does not exist", "POST", "/do", "name=%3Cs3%3E&action=rm", nil, http.StatusBadRequest},
		{"a log outside", "GET", "/log/..%2Fetc", "", nil, http.StatusNotFound},
	} {
		if got := ask(t, c.method, c.path, c.body, c.header...).Code; got != c.want {
			t.Errorf("%s: status %d, want %d", c.what, got, c.want)
		}
	}
}

func TestThePageEscapesWhatItShows(t *testing.T) {
	w := ask(t, "GET", "/", "")
	if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "<s3>") || !strings.Contains(w.Body.String(), "&lt;s3&gt;") {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("content security policy %q", csp)
	}
}

func TestThePageIsNotServedBeyondLoopback(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":9900", "192.0.2.1:9900", "example.com:9900"} {
		if err := run(t.Context(), listen, t.TempDir(), "amphora", io.Discard); err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%s: got %v, want a refusal", listen, err)
		}
	}
}

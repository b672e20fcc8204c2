// Package admin owns the pages and calls by which operators inspect and control one process: state,
// configuration, build, profiles, tenants' usage, and the switches of the ingester.
package admin

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
)

// Handler answers a request or returns why it cannot; the error has a kind.
type Handler func(http.ResponseWriter, *http.Request) error

// secure sets the headers of everything here: nothing is cached, sniffed, framed or scripted.
func secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
}

func sendText(w http.ResponseWriter, kind, text string) {
	sendTextStatus(w, http.StatusOK, kind, text)
}

func sendTextStatus(w http.ResponseWriter, status int, kind, text string) {
	secure(w.Header())
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the client is gone if this fails
}

func sendJSON(w http.ResponseWriter, v any) error { return sendJSONStatus(w, http.StatusOK, v) }

func sendJSONStatus(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	sendTextStatus(w, status, "application/json", string(b))
	return nil
}

// sendPage renders page whole before it sends, so that a failure is not half a page.
func sendPage(w http.ResponseWriter, page *template.Template, data any) error {
	var b strings.Builder
	if err := page.Execute(&b, data); err != nil {
		return fmt.Errorf("render page %s: %w", page.Name(), err)
	}
	sendText(w, "text/html; charset=utf-8", b.String())
	return nil
}

// wantsJSON says whether the client prefers JSON to a page.
func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

const layout = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{template "title" .}} - Amphora</title><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .8rem;border-bottom:1px solid #ddd;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:1.6rem}
.bad{color:#a00}.doc{color:#555}a{color:#05a}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}th,td{border-color:#444}a{color:#8bf}.doc{color:#aaa}.bad{color:#f77}}
</style></head><body><h1>{{template "title" .}}</h1>
{{template "main" .}}
</body></html>`

// newPage builds a page out of the common layout. It panics on a faulty template, which a test
// of any page finds.
func newPage(name, title, body string) *template.Template {
	t := template.New(name).Funcs(template.FuncMap{"rfc3339": func(t time.Time) string { return t.UTC().Format(time.RFC3339) }})
	template.Must(t.Parse(layout))
	template.Must(t.New("title").Parse(title))
	template.Must(t.New("main").Parse(body))
	return t
}

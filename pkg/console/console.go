// Package console owns the web console: the embedded files built from console/, the headers they are
// served with, and what the console must know of the server before sign-in. It serves no data: the
// console calls the same APIs as every client, so policies are enforced where they always are.
package console

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// dist is what `make console` writes.
//
//go:embed dist
var dist embed.FS

// At is where the console is served.
const At = "/console"

// Settings is what the console must know before anybody has signed in. Everybody can read it, so it
// says nothing that answers and errors of the server do not say, too.
type Settings struct {
	Version string `json:"version"`
	// Authentication says whether callers must prove who they are.
	Authentication bool   `json:"authentication"`
	Region         string `json:"region"`  // to sign for
	Service        string `json:"service"` // to sign for
	// Account is the operator's; only its callers may see the process and all tenants.
	Account string `json:"account"`
	// TokensForWorkspaces says whether calls below /workspaces may carry a token.
	TokensForWorkspaces bool `json:"tokensForWorkspaces"`
	// DefaultTenant is the only tenant of paths that name no workspace; empty: a header names it.
	DefaultTenant string `json:"defaultTenant"`
	Prometheus    string `json:"prometheus"`   // prefix of the Prometheus API
	Alertmanager  string `json:"alertmanager"` // prefix of the Alertmanager API
}

// Console serves the console.
type Console struct {
	files    map[string]*file // by path below /console/
	settings []byte
}

// file is one embedded file.
type file struct {
	kind   string
	plain  []byte
	hashed bool // its name changes with its content
	packed func() []byte
}

// indexName is the page that every address of the console shows; it reads the address itself.
const indexName = "index.html"

// New returns the console of a server that is as s says.
func New(s Settings) (*Console, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the settings of the console: %w", err)
	}
	root, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, fmt.Errorf("open the files of the console: %w", err)
	}
	c := &Console{files: map[string]*file{}, settings: text}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		c.files[name] = newFile(name, data)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the files of the console: %w", err)
	}
	if c.files[indexName] == nil {
		return nil, errs.New(errs.Internal, "BUG: the console has no %s; make console", indexName)
	}
	return c, nil
}

func newFile(name string, data []byte) *file {
	f := &file{kind: kindOf(name), plain: data, hashed: strings.HasPrefix(name, "assets/")}
	f.packed = sync.OnceValue(func() []byte { return pack(data) })
	return f
}

// kindOf does not ask the system, whose tables differ.
func kindOf(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	default:
		if kind := mime.TypeByExtension(ext); kind != "" {
			return kind
		}
		return "application/octet-stream"
	}
}

// pack returns data compressed, nil if that is not worth it.
func pack(data []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil
	}
	if _, err := w.Write(data); err != nil {
		return nil
	}
	if err := w.Close(); err != nil || b.Len() >= len(data) {
		return nil
	}
	return b.Bytes()
}

// policy is what a page of the console may do: load its own files and call its own server. Nothing is
// inline, nothing comes from elsewhere, and nobody shows it in a frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; object-src 'none'"

func secure(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}

// How long browsers keep what they got: hashed names are never used again for something else.
const (
	keepForever = "public, max-age=31536000, immutable"
	askAgain    = "no-cache"
)

// Serve answers GET and HEAD of an address at or below /console. An address that is no file is one of
// the console's pages. Errors: NotFound, of a file that is not there.
func (c *Console) Serve(w http.ResponseWriter, r *http.Request) error {
	rest, below := strings.CutPrefix(r.URL.Path, At+"/")
	if !below {
		secure(w.Header())
		w.Header().Set("Location", At+"/")
		w.WriteHeader(http.StatusPermanentRedirect)
		return nil
	}
	if rest == "settings.json" {
		secure(w.Header())
		w.Header().Set("Cache-Control", "no-store")
		send(w, r, "application/json", c.settings)
		return nil
	}
	f := c.files[rest]
	if f == nil {
		if strings.HasPrefix(rest, "assets/") || rest == "assets" {
			return errs.New(errs.NotFound, "the console has no file %s", path.Base(rest))
		}
		f = c.files[indexName]
	}
	h := w.Header()
	secure(h)
	h.Set("Cache-Control", askAgain)
	if f.hashed {
		h.Set("Cache-Control", keepForever)
	}
	h.Set("Vary", "Accept-Encoding")
	body := f.plain
	if takesGzip(r) {
		if packed := f.packed(); packed != nil {
			h.Set("Content-Encoding", "gzip")
			body = packed
		}
	}
	send(w, r, f.kind, body)
	return nil
}

func send(w http.ResponseWriter, r *http.Request, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client is gone if this fails
	}
}

// takesGzip says whether the client accepts gzip. One that refuses it with q=0 is believed.
func takesGzip(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(line, ",") {
			name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
			if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
				continue
			}
			weight, isWeight := strings.CutPrefix(strings.ReplaceAll(q, " ", ""), "q=")
			n, err := strconv.ParseFloat(weight, 64)
			return !isWeight || err == nil && n > 0
		}
	}
	return false
}

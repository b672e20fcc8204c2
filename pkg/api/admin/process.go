package admin

import (
	"context"
	"net/http"
	"net/http/pprof"
	"runtime"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Link is one line of the index page.
type Link struct{ Path, Text, Doc string }

// Group is the links of one service.
type Group struct {
	Name  string
	Links []Link
}

// Index lists the pages of the process.
func Index(groups []Group) Handler {
	page := newPage("index", "Amphora", `{{range .}}<h2>{{.Name}}</h2><table>{{range .Links}}
<tr><td><a href="{{.Path}}">{{.Text}}</a></td><td class="doc">{{.Doc}}</td></tr>{{end}}</table>{{end}}`)
	return func(w http.ResponseWriter, _ *http.Request) error { return sendPage(w, page, groups) }
}

// Service is the state of one part of the process.
type Service struct {
	Name    string `json:"name"`
	State   string `json:"state"`
	Failure string `json:"failure,omitempty"` // why it failed
}

// Services lists the parts of the process and their states.
func Services(list func() []Service) Handler {
	page := newPage("services", "Services", `<table><tr><th>Service</th><th>State</th><th>Failure</th></tr>{{range .}}
<tr><td>{{.Name}}</td><td>{{.State}}</td><td class="bad">{{.Failure}}</td></tr>{{end}}</table>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		if wantsJSON(r) {
			return sendJSON(w, list())
		}
		return sendPage(w, page, list())
	}
}

// Config shows YAML in the modes "", diff and defaults; render masks secrets.
func Config(render func(mode string) ([]byte, error), modes ...string) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		mode := r.URL.Query().Get("mode")
		known := mode == ""
		for _, m := range modes {
			known = known || m == mode
		}
		if !known {
			return errs.New(errs.Invalid, "unknown mode %q", mode)
		}
		b, err := render(mode)
		if err != nil {
			return err
		}
		sendText(w, "text/plain; charset=utf-8", string(b))
		return nil
	}
}

// Ready answers 200 and ready, or 503 and why check says no.
func Ready(check func(context.Context) error) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := check(r.Context()); err != nil {
			return errs.Wrap(errs.Unavailable, err)
		}
		sendText(w, "text/plain; charset=utf-8", "ready\n")
		return nil
	}
}

// Healthy answers 200 for as long as the process can answer at all.
func Healthy() Handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		sendText(w, "text/plain; charset=utf-8", "healthy\n")
		return nil
	}
}

// BuildInfo is what the process is. Grafana reads Features to decide which of its pages work.
type BuildInfo struct {
	Application string            `json:"application"`
	Version     string            `json:"version"`
	Revision    string            `json:"revision"`
	Branch      string            `json:"branch"`
	BuildUser   string            `json:"buildUser"`
	BuildDate   string            `json:"buildDate"`
	GoVersion   string            `json:"goVersion"`
	Features    map[string]string `json:"features"` // "true" or "false" by name
}

// answer is the frame of Prometheus's status API.
type answer struct {
	Status string `json:"status"`
	Data   any    `json:"data"`
}

// Build answers the build information.
func Build(info BuildInfo) Handler {
	if info.Application == "" {
		info.Application = "Amphora"
	}
	if info.GoVersion == "" {
		info.GoVersion = runtime.Version()
	}
	if info.Features == nil {
		info.Features = map[string]string{}
	}
	return func(w http.ResponseWriter, _ *http.Request) error { return sendJSON(w, answer{"success", info}) }
}

// Empty answers success with v, for clients that ask for what does not exist here.
func Empty(v any) Handler {
	return func(w http.ResponseWriter, _ *http.Request) error { return sendJSON(w, answer{"success", v}) }
}

// Page serves a page made elsewhere, nil if there is none.
func Page(h http.Handler) Handler {
	if h == nil {
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Frame-Options", "DENY")
		h.ServeHTTP(w, r)
		return nil
	}
}

// Profile serves Go's profiles by the name in the path; no name lists them.
func Profile() Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch name := r.PathValue("profile"); name {
		case "":
			pprof.Index(w, r)
		case "cmdline":
			// The command line may hold secrets, and nobody needs it: /config shows the settings, masked.
			return errs.New(errs.NotFound, "the command line is not shown; see /config")
		case "profile":
			pprof.Profile(w, r)
		case "symbol":
			pprof.Symbol(w, r)
		case "trace":
			pprof.Trace(w, r)
		default:
			pprof.Handler(name).ServeHTTP(w, r)
		}
		return nil
	}
}

package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Alerts is what the page of a tenant's alertmanager shows.
type Alerts struct {
	Groups   []AlertGroup
	Silences []Silence
}

// AlertGroup is alerts of which a receiver is notified together.
type AlertGroup struct {
	Receiver string
	Labels   []Pair
	Alerts   []Alert
}

// Alert is one alert of a group.
type Alert struct {
	Labels, Annotations []Pair
	State               string // active, suppressed or unprocessed
	By                  []string
	Since               time.Time
	Source              string // URL
}

// Silence is one silence, expired ones included.
type Silence struct {
	ID, State, Matchers, Author, Comment string
	Begin, End                           time.Time
}

// Pair is a label or annotation.
type Pair struct{ Name, Value string }

// AlertPages serves the page of a tenant's alertmanager.
type AlertPages interface {
	// Alerts returns the alerts that match all filters. Errors: Invalid, Unavailable.
	Alerts(ctx context.Context, id tenant.ID, filters []string) (Alerts, error)
	// Silence makes a silence from now on. Errors: Invalid, Unavailable.
	Silence(ctx context.Context, id tenant.ID, matchers string, length time.Duration, author, comment string) error
	// Expire ends a silence. Errors: NotFound, Unavailable.
	Expire(ctx context.Context, id tenant.ID, silence string) error
}

// AlertPage shows a tenant's alerts in their groups, and its silences.
func AlertPage(view AlertPages) Handler {
	page := newPage("alerts", "Alerts", `<form method="get"><p>Alerts with <input name="filter" size="50" value="{{.Filter}}" placeholder='severity="page"'> <button>Show</button></p></form>
{{range .Groups}}<h2>{{range .Labels}}{{.Name}}="{{.Value}}" {{else}}All alerts {{end}}<span class="doc">to {{.Receiver}}</span></h2>
<table><tr><th>State</th><th>Since</th><th>Labels</th><th>Annotations</th><th></th></tr>{{range .Alerts}}
<tr><td{{if eq .State "active"}} class="bad"{{end}}>{{.State}}{{range .By}}<br><span class="doc">by {{.}}</span>{{end}}</td><td>{{rfc3339 .Since}}</td>
<td>{{range .Labels}}{{.Name}}="{{.Value}}"<br>{{end}}</td><td>{{range .Annotations}}{{.Name}}: {{.Value}}<br>{{end}}</td><td>{{with .Source}}<a href="{{.}}" rel="noreferrer">Source</a>{{end}}</td></tr>{{end}}</table>
{{else}}<p>No alerts.</p>{{end}}
<h2>Silences</h2><form method="post"><table><tr><th>State</th><th>Matchers</th><th>From</th><th>To</th><th>By</th><th>Comment</th><th></th></tr>{{range .Silences}}
<tr><td>{{.State}}</td><td>{{.Matchers}}</td><td>{{rfc3339 .Begin}}</td><td>{{rfc3339 .End}}</td><td>{{.Author}}</td><td>{{.Comment}}</td>
<td>{{if ne .State "expired"}}<button name="expire" value="{{.ID}}">Expire</button>{{end}}</td></tr>{{end}}</table></form>
<h2>Silence alerts</h2><form method="post"><p>with <input name="matchers" size="50" required placeholder='alertname="Down", job=~"a|b"'> for <input name="for" size="6" value="2h" required>
by <input name="author" required> because <input name="comment" size="30" required> <button>Silence</button></p></form>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		var filters []string
		for _, f := range r.URL.Query()["filter"] {
			if f != "" {
				filters = append(filters, f)
			}
		}
		all, err := view.Alerts(r.Context(), id, filters)
		if err != nil {
			return err
		}
		return sendPage(w, page, struct {
			Alerts
			Filter string
		}{all, r.URL.Query().Get("filter")})
	}
}

// ChangeSilences takes the forms of AlertPage and sends the browser back to the page.
func ChangeSilences(view AlertPages) Handler {
	origin := http.NewCrossOriginProtection()
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := origin.Check(r); err != nil {
			return errs.New(errs.Denied, "refused: %w", err)
		}
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
		if err := r.ParseForm(); err != nil {
			return errs.New(errs.Invalid, "read the form: %w", err)
		}
		if silence := r.PostForm.Get("expire"); silence != "" {
			err = view.Expire(r.Context(), id, silence)
		} else {
			length, bad := time.ParseDuration(r.PostForm.Get("for"))
			if bad != nil || length <= 0 {
				return errs.New(errs.Invalid, "for=%q is no duration such as 2h", r.PostForm.Get("for"))
			}
			err = view.Silence(r.Context(), id, r.PostForm.Get("matchers"), length, r.PostForm.Get("author"), r.PostForm.Get("comment"))
		}
		if err != nil {
			return err
		}
		secure(w.Header())
		http.Redirect(w, r, r.URL.Path, http.StatusSeeOther)
		return nil
	}
}

// AlertTenant is the alertmanager of one tenant on one replica.
type AlertTenant struct {
	Tenant   tenant.ID `json:"tenant"`
	Version  string    `json:"version"`  // of its configuration
	Fallback bool      `json:"fallback"` // it has no configuration of its own
	Settled  bool      `json:"settled"`
	Position int       `json:"position"` // 0: it sends first
	Alerts   int       `json:"alerts"`
	Silences int       `json:"silences"`
}

// AlertTenants lists the tenants of an alertmanager, as a page or as JSON.
func AlertTenants(list func(context.Context) []AlertTenant) Handler {
	page := newPage("alertmanager_status", "Alertmanagers of this process", `<table><tr><th>Tenant</th><th>Configuration</th><th>State</th><th class="n">Position</th><th class="n">Alerts</th><th class="n">Silences</th></tr>{{range .}}
<tr><td>{{.Tenant}}</td><td>{{if .Fallback}}the fallback{{else}}{{.Version}}{{end}}</td><td{{if not .Settled}} class="bad"{{end}}>{{if .Settled}}ready{{else}}looks for its state{{end}}</td><td class="n">{{.Position}}</td><td class="n">{{.Alerts}}</td><td class="n">{{.Silences}}</td></tr>{{end}}</table>
<p class="doc">The first replica, at position 0, sends; each further one waits for those before it.</p>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		all := list(r.Context())
		if all == nil {
			all = []AlertTenant{}
		}
		if wantsJSON(r) {
			return sendJSON(w, all)
		}
		return sendPage(w, page, all)
	}
}

// YAML serves a document made on request.
func YAML(render func(context.Context) ([]byte, error)) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		b, err := render(r.Context())
		if err != nil {
			return err
		}
		sendText(w, "application/yaml", string(b))
		return nil
	}
}

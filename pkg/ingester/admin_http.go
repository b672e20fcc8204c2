package ingester

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// maxAdminBody bounds the body of an administrative request.
const maxAdminBody = 4 << 10

// answerError writes err as plain text with the status of its kind.
func answerError(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(errs.HTTPStatus(err))
	fmt.Fprintln(w, err)
}

func answerMethod(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	w.WriteHeader(http.StatusMethodNotAllowed)
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// The status is sent; a client that went away needs no answer.
	_ = json.NewEncoder(w).Encode(v)
}

// FlushHandler serves /ingester/flush: parameter tenant (repeated; all if absent) and wait. Without
// wait it answers 204 at once; with it, the number of blocks once they are shipped.
func (i *Ingester) FlushHandler(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		answerError(w, errs.New(errs.Invalid, "parse form: %w", err))
		return
	}
	var tenants []tenant.ID
	for _, name := range r.Form["tenant"] {
		id, err := tenant.Parse(name)
		if err != nil {
			answerError(w, err)
			return
		}
		tenants = append(tenants, id)
	}
	wait := r.Form.Get("wait") == "true"
	blocks, err := i.Flush(r.Context(), tenants, wait)
	switch {
	case err != nil:
		answerError(w, err)
	case wait:
		answerJSON(w, struct {
			Blocks int `json:"blocks"`
		}{blocks})
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// ShutdownHandler serves POST /ingester/shutdown; it answers 204 once everything is shipped and
// the ring entry is gone.
func (i *Ingester) ShutdownHandler(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		answerMethod(w, http.MethodPost)
		return
	}
	if err := i.Shutdown(r.Context()); err != nil {
		answerError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// PrepareShutdownHandler serves /ingester/prepare-shutdown: GET answers set or unset, POST sets,
// DELETE unsets.
func (i *Ingester) PrepareShutdownHandler(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		state := "unset"
		if i.PreparedShutdown() {
			state = "set"
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, state)
		return
	case http.MethodPost, http.MethodDelete:
	default:
		answerMethod(w, "GET, POST, DELETE")
		return
	}
	if err := i.PrepareShutdown(r.Method == http.MethodPost); err != nil {
		answerError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// PrepareInstanceRingDownscaleHandler serves /ingester/prepare-instance-ring-downscale: POST makes
// the ingester read-only in the ring, DELETE writable; all answer since when it is read-only, in
// Unix seconds, 0 if it is not.
func (i *Ingester) PrepareInstanceRingDownscaleHandler(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost, http.MethodDelete:
		if err := i.SetReadOnly(r.Context(), r.Method == http.MethodPost); err != nil {
			answerError(w, err)
			return
		}
	default:
		answerMethod(w, "GET, POST, DELETE")
		return
	}
	out := struct {
		Timestamp int64 `json:"timestamp"`
	}{}
	if since := i.ReadOnlySince(); !since.IsZero() {
		out.Timestamp = since.Unix()
	}
	answerJSON(w, out)
}

// UnregisterOnShutdownHandler serves /ingester/unregister-on-shutdown: GET and PUT of
// {"unregister": bool}, DELETE back to the configured value.
func (i *Ingester) UnregisterOnShutdownHandler(w http.ResponseWriter, r *http.Request) {
	type body struct {
		Unregister *bool `json:"unregister"`
	}
	var err error
	switch r.Method {
	case http.MethodGet:
	case http.MethodPut:
		var in body
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody))
		if derr := d.Decode(&in); derr != nil {
			err = errs.New(errs.Invalid, "decode body: %w", derr)
		} else if in.Unregister == nil {
			err = errs.New(errs.Invalid, `body must be {"unregister": true} or {"unregister": false}`)
		} else {
			err = i.SetUnregisterOnShutdown(*in.Unregister)
		}
	case http.MethodDelete:
		err = i.SetUnregisterOnShutdown(i.unregister)
	default:
		answerMethod(w, "GET, PUT, DELETE")
		return
	}
	if err != nil {
		answerError(w, err)
		return
	}
	on := i.UnregistersOnShutdown()
	answerJSON(w, body{&on})
}

// TenantsHandler serves the page /ingester/tenants, as JSON if asked for.
func (i *Ingester) TenantsHandler(w http.ResponseWriter, r *http.Request) {
	i.page(w, r, tenantsPage(), i.Tenants())
}

// TenantHandler serves the page /ingester/tsdb/{tenant}, as JSON if asked for.
func (i *Ingester) TenantHandler(w http.ResponseWriter, r *http.Request) {
	id, err := tenant.Parse(r.PathValue("tenant"))
	if err != nil {
		answerError(w, err)
		return
	}
	info, err := i.Tenant(id)
	if err != nil {
		answerError(w, err)
		return
	}
	i.page(w, r, tenantPage(), info)
}

func (i *Ingester) page(w http.ResponseWriter, r *http.Request, page *template.Template, data any) {
	if r.Header.Get("Accept") == "application/json" {
		answerJSON(w, data)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := page.Execute(w, data); err != nil {
		i.log.Debug("page not sent", "err", err)
	}
}

func pageFuncs() template.FuncMap {
	return template.FuncMap{
		"at": func(t time.Time) string {
			if t.IsZero() {
				return "-"
			}
			return t.Format(time.RFC3339)
		},
		"rate": func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) },
	}
}

func tenantsPage() *template.Template {
	return template.Must(template.New("tenants").Funcs(pageFuncs()).Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Ingester: tenants</title>
<h1>Tenants with recent data</h1>
<table><tr><th>Tenant<th>Series<th>Samples/s<th>Oldest in memory<th>Newest</tr>
{{range .}}<tr><td><a href="tsdb/{{.Tenant}}">{{.Tenant}}</a><td>{{.Series}}<td>{{rate .IngestionRate}}<td>{{at .MinTime}}<td>{{at .MaxTime}}</tr>
{{end}}</table></html>
`))
}

func tenantPage() *template.Template {
	return template.Must(template.New("tenant").Funcs(pageFuncs()).Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Ingester: {{.Tenant}}</title>
<h1>Tenant {{.Tenant}}</h1>
<p>{{.Series}} series in memory, {{rate .IngestionRate}} samples/s, from {{at .MinTime}} to {{at .MaxTime}}.</p>
<h2>Local blocks</h2>
<table><tr><th>Block<th>From<th>To<th>Series<th>Samples<th>Late samples<th>Shipped</tr>
{{range .Blocks}}<tr><td>{{.ID}}<td>{{at .MinTime}}<td>{{at .MaxTime}}<td>{{.Series}}<td>{{.Samples}}<td>{{.OutOfOrder}}<td>{{at .Shipped}}</tr>
{{end}}</table></html>
`))
}

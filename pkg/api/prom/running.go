package prom

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/util/annotations"
)

// Overseer knows of the queries under way, and how queries are laid out. What it returns is for
// encoding/json. The context of each call carries the tenants, and no other tenant's queries are seen
// unless all are asked for.
type Overseer interface {
	// Running lists queries; warnings say which may be missing.
	Running(ctx context.Context, all bool) (list any, warnings annotations.Annotations, err error)
	// Stop ends a query. Errors: NotFound, Unavailable.
	Stop(ctx context.Context, id string, all bool) error
	// Explain says how a query is laid out and, if it is to be run, what that took.
	Explain(ctx context.Context, qs string, at Window, run bool) (any, error)
}

// Window is when a query is evaluated: at Start, Start+Step and so on to End; with a Step of 0 at Start.
type Window struct {
	Start, End time.Time
	Step       time.Duration
}

// Running lists the queries under way: those of the tenants of a request, or all.
func (a *API) Running(all bool) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		list, warnings, err := a.b.Overseer.Running(r.Context(), all)
		if err != nil {
			return err
		}
		return a.encoded(w, r, list, warnings)
	}
}

// StopRunning ends the query whose id the path has, of the tenants of a request or whosever it is.
func (a *API) StopRunning(all bool) func(http.ResponseWriter, *http.Request) error {
	return func(_ http.ResponseWriter, r *http.Request) error {
		return a.b.Overseer.Stop(r.Context(), r.PathValue("id"), all)
	}
}

// Explain answers with the plan of a query, which it runs with analyze=true.
func (a *API) Explain(w http.ResponseWriter, r *http.Request) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	qs := r.Form.Get("query")
	if err := a.checkSize(r.Context(), qs); err != nil {
		return err
	}
	var step time.Duration
	start, err := timeParam(r, "time", a.b.Now())
	end := start
	if r.Form.Get("step") != "" {
		start, end, step, err = gridParams(r)
	}
	if err != nil {
		return err
	}
	ctx, cancel, _, err := a.queryContext(r)
	if err != nil {
		return err
	}
	defer cancel()
	out, err := a.b.Overseer.Explain(ctx, qs, Window{start, end, step}, r.Form.Get("analyze") == "true")
	if err != nil {
		return paramError("query", err)
	}
	return a.encoded(w, r, out, nil)
}

// encoded answers with v as JSON.
func (a *API) encoded(w http.ResponseWriter, r *http.Request, v any, ws annotations.Annotations) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	a.success(w, r, ws, "", func(out *answer) { out.buf = append(out.buf, b...) })
	return nil
}

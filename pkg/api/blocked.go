package api

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// mostFormBytes bounds the form that is looked into; one that is longer, its handler refuses.
const mostFormBytes = 10 << 20

// permit refuses a request of the read API that an operator blocked for one of its tenants.
func (a *API) permit(r *http.Request, rt *Route) error {
	if rt.Service != Querier || rt.Tenancy == NoTenant || a.deps.Limits == nil {
		return nil
	}
	ids, err := tenant.Many(r.Context())
	if err != nil {
		return err
	}
	var params url.Values
	for _, id := range ids {
		list := limits.BlockedRequests.Of(a.deps.Limits(id)).List()
		for i := range list {
			if params == nil && len(list[i].Params) > 0 {
				if params, err = peekForm(r); err != nil {
					return err
				}
			}
			if list[i].Matches(r.Method, r.URL.Path, params) {
				return errs.WithID(errs.Invalid, "request-blocked", "", "the request has been blocked by the cluster administrator")
			}
		}
	}
	return nil
}

// peekForm returns the parameters of a request, whose body can still be read.
func peekForm(r *http.Request) (url.Values, error) {
	params := r.URL.Query()
	if r.Body == nil || r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return params, nil
	}
	body := r.Body
	text, err := io.ReadAll(io.LimitReader(body, mostFormBytes+1))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the form: %w", err)
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(text), body), body}
	more, err := url.ParseQuery(string(text))
	if err != nil || len(text) > mostFormBytes {
		return params, nil // its handler says what is wrong with it
	}
	for name, values := range more {
		params[name] = slices.Concat(params[name], values)
	}
	return params, nil
}

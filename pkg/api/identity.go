package api

import (
	"net/http"

	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// The actions of whoever administers callers.
const (
	ManageIdentities Action = "amphora:ManageIdentities"
	ReadAudit        Action = "amphora:ReadAudit"
)

// CallerDeps is what is known of callers; a part that is nil is not in this process.
type CallerDeps struct {
	Identities Handler // their administration
	Audit      Handler // the record of what they did
}

// reads is prom's, for the column of the table.
type reads = prom.Reads

// Reads says by what a route names the series that it reads. Who may read some series only may use the
// routes that can be held to them, and no others that act for tenants.
func (rt *Route) Reads() prom.Reads {
	switch rt.Path {
	case "/prometheus/api/v1/query", "/prometheus/api/v1/query_range", "/prometheus/api/v1/query_exemplars":
		return prom.ByQuery
	case "/prometheus/api/v1/series", "/prometheus/federate", "/prometheus/api/v1/export", "/prometheus/api/v1/export/csv", "/prometheus/api/v1/export/native":
		return prom.ByMatch
	case "/prometheus/api/v1/labels", "/prometheus/api/v1/label/{name}/values", "/prometheus/api/v1/metadata":
		return prom.ByMatchMay
	case "/prometheus/api/v1/read":
		return prom.ByMatchers
	case "/prometheus/api/v1/format_query", "/prometheus/api/v1/parse_query":
		return prom.NoSeries
	}
	if rt.Action == RemoteWrite {
		return prom.NoSeries
	}
	return prom.Unselected
}

// hold holds a request to the series that its label policy selects.
func (a *API) hold(w http.ResponseWriter, r *http.Request, rt *Route) error {
	if rt.Tenancy == NoTenant || len(r.Header.Values(tenant.PolicyHeader)) == 0 {
		return nil
	}
	ids, err := tenant.Many(r.Context())
	if err != nil {
		return err
	}
	policy, err := tenant.PolicyOf(r.Header, ids)
	if err != nil || len(policy) == 0 || rt.reads == prom.NoSeries {
		return err
	}
	if rt.reads == prom.Unselected || a.prom == nil {
		return errs.New(errs.Denied, "this call cannot be held to the series that the caller may read")
	}
	return a.prom.Hold(w, r, rt.reads, policy)
}

func (a *API) identities() Handler { return a.deps.Callers.Identities }

func (a *API) audit() Handler { return a.deps.Callers.Audit }

package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// AlertmanagerDeps is what serves the alertmanagers of tenants.
type AlertmanagerDeps struct {
	// Serve answers a request to the tenant's API from the replicas; path is below the prefix.
	Serve func(w http.ResponseWriter, r *http.Request, path string) error
	// Definition reads, writes and deletes configurations; nil: tenants may not.
	Definition Handler
	// Grafana answers the calls of a Grafana at path; nil: there are none.
	Grafana func(w http.ResponseWriter, r *http.Request, path string) error
	Ring    admin.RingView
	Pages   admin.AlertPages
	Tenants func(context.Context) []admin.AlertTenant
	// Configurations is all tenants' configurations as YAML, secrets masked.
	Configurations func(context.Context) ([]byte, error)
	// DeleteTenant removes all that a tenant has here.
	DeleteTenant func(context.Context, tenant.ID) error
}

// alertmanager returns the handler of a path of the tenant's API. One that ends in a slash gets the
// ID of a silence.
func (a *API) alertmanager(path string) Handler {
	d := a.deps.Alertmanager
	if d == nil {
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		at := path
		if strings.HasSuffix(path, "/") {
			at += url.PathEscape(r.PathValue("silence"))
		}
		return d.Serve(w, r, at)
	}
}

// alertPage returns what make makes of the alertmanager of this process.
func (a *API) alertPage(make func(*AlertmanagerDeps) Handler) Handler {
	if d := a.deps.Alertmanager; d != nil {
		return make(d)
	}
	return nil
}

// deleteAlertTenant removes the configuration and the state of the calling tenant.
func deleteAlertTenant(d *AlertmanagerDeps) Handler {
	return func(_ http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		return d.DeleteTenant(r.Context(), id)
	}
}

func (a *API) definition() Handler {
	if d := a.deps.Alertmanager; d != nil {
		return d.Definition
	}
	return nil
}

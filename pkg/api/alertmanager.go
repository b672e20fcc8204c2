package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
)

// AlertmanagerDeps is what serves the alertmanagers of tenants.
type AlertmanagerDeps struct {
	// Serve answers a request to the tenant's API from the replicas; path is below the prefix.
	Serve func(w http.ResponseWriter, r *http.Request, path string) error
	// Definition reads, writes and deletes configurations; nil: tenants may not.
	Definition Handler
	Ring       admin.RingView
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

func (a *API) definition() Handler {
	if d := a.deps.Alertmanager; d != nil {
		return d.Definition
	}
	return nil
}

func (a *API) alertmanagerRing() Handler {
	if d := a.deps.Alertmanager; d != nil {
		return admin.Ring("alertmanager_ring", "Ring of alertmanagers", d.Ring)
	}
	return nil
}

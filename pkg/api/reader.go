package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/api/prom"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// forwarded returns h, or what has the request done elsewhere.
func (a *API) forwarded(h Handler) Handler {
	if a.deps.Read == nil || a.deps.Read.Forward == nil {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		if rest, ok := strings.CutPrefix(r.URL.Path, a.cfg.PrometheusPrefix+"/"); ok && a.cfg.PrometheusPrefix != defaultPrefix {
			r = r.Clone(r.Context())
			r.URL.Path, r.URL.RawPath = defaultPrefix+"/"+rest, ""
		}
		return a.deps.Read.Forward(w, r)
	}
}

// counted returns the handler of a count of series, which goes elsewhere or has something to count.
func (a *API) counted(h func(*prom.API, http.ResponseWriter, *http.Request) error) Handler {
	if a.deps.Read == nil || a.deps.Read.Forward == nil && a.deps.Read.Series == nil {
		return nil
	}
	return a.forwarded(func(w http.ResponseWriter, r *http.Request) error { return h(a.prom, w, r) })
}

// insightful returns the handler of what is known of usage, which goes elsewhere or has both what is stored and what is asked for.
func (a *API) insightful(h func(*prom.API, http.ResponseWriter, *http.Request) error) Handler {
	if a.deps.Read == nil || a.deps.Read.Forward == nil && a.deps.Read.Usage == nil {
		return nil
	}
	return a.counted(h)
}

// overseen returns h if queries are overseen in this process.
func (a *API) overseen(h Handler) Handler {
	if a.deps.Read == nil || a.deps.Read.Overseer == nil {
		return nil
	}
	return h
}

// Reader serves what frontends forward, for the tenants of the request's context. Whoever calls it has
// checked the caller's rights.
func Reader(cfg prom.Config, b prom.Backends, reg prometheus.Registerer, log *slog.Logger) http.Handler {
	a := &API{deps: Deps{Read: &b}, prom: prom.New(cfg, b, reg), log: log, metrics: newMetrics(nil)}
	mux := http.NewServeMux()
	for _, rt := range Routes {
		if rt.Service != Querier || !strings.HasPrefix(rt.Path, defaultPrefix+"/") {
			continue
		}
		switch rt.Action {
		case QueryMetrics, GetLabels, GetSeries, GetMetricMetadata:
		default:
			continue
		}
		h := rt.bind(a)
		if h == nil {
			continue
		}
		mux.HandleFunc(rt.Path, func(rw http.ResponseWriter, r *http.Request) {
			w := &countingWriter{ResponseWriter: rw}
			if err := a.handle(h, w, r, NoTenant); err != nil {
				if cause := context.Cause(r.Context()); errs.KindOf(cause) == errs.Unprocessable {
					err = cause // it was stopped, and what it was at then tells nothing
				}
				a.fail(w, r, &rt, errs.Wrap(errs.KindOf(err), err))
			}
		})
	}
	return mux
}

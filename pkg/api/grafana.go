package api

import "net/http"

// grafanaRoutes are the calls by which a Grafana uses the alertmanager of a tenant as its remote one.
func grafanaRoutes() []Route {
	at := func(path string) func(*API) Handler {
		return func(a *API) Handler {
			d := a.deps.Alertmanager
			if d == nil || d.Grafana == nil {
				return nil
			}
			return func(w http.ResponseWriter, r *http.Request) error { return d.Grafana(w, r, path) }
		}
	}
	row := func(methods, path string, action Action, other map[string]Action, doc string) Route {
		return Route{Methods: methods, Path: path, Action: action, Other: other, Service: Alertmanager, Tenancy: OneTenant, Style: JSON, Doc: doc, bind: at(path)}
	}
	const on = " Served if `alertmanager.grafana_alertmanager_compatibility_enabled`."
	kept := map[string]Action{http.MethodPost: PutDefinition, http.MethodDelete: DeleteDefinition}
	return []Route{
		row("GET,POST,DELETE", "/api/v1/grafana/config", DescribeDefinition, kept, "The configuration that a Grafana keeps here, returned as it was sent: 201 when it is stored, 400 if it is wrong or too large, 501 for one that is promoted."+on),
		row("GET", "/api/v1/grafana/config/status", DescribeDefinition, nil, "Hash and time of the configuration that a Grafana keeps here."+on),
		row("GET,POST,DELETE", "/api/v1/grafana/state", DescribeDefinition, kept, "The state of a Grafana's own alertmanager, returned as it was sent."+on),
		row("GET", "/api/v1/grafana/full_state", DescribeDefinition, nil, "Silences and the log of notifications of the tenant's alertmanager."+on),
		row("GET", "/api/v1/grafana/receivers", ListReceivers, nil, "Receivers of the tenant's alertmanager, and how their last notifications ended."+on),
		row("POST", "/api/v1/grafana/receivers/test", PutDefinition, nil, "501: there are no receivers of Grafana's kind to test."+on),
		row("POST", "/api/v1/grafana/templates/test", PutDefinition, nil, "501: there are no templates of Grafana's kind to test."+on),
	}
}

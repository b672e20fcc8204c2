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
		row("GET,POST,DELETE", "/api/v1/grafana/config", DescribeDefinition, kept, "The configuration that a Grafana keeps here, returned as it was sent: 201 when it is stored, 400 if it is wrong or too large. Alerts are sent by one that is promoted if the tenant has no configuration of its own; 400 names what of it cannot be honoured."+on),
		row("GET", "/api/v1/grafana/config/status", DescribeDefinition, nil, "Hash and time of the configuration that a Grafana keeps here, and whether one that is promoted is in force."+on),
		row("GET,POST,DELETE", "/api/v1/grafana/state", DescribeDefinition, kept, "The state of a Grafana's own alertmanager, returned as it was sent."+on),
		row("GET", "/api/v1/grafana/full_state", DescribeDefinition, nil, "Silences and the log of notifications of the tenant's alertmanager."+on),
		row("GET", "/api/v1/grafana/receivers", ListReceivers, nil, "Receivers of the tenant's alertmanager, and how their last notifications ended."+on),
		row("POST", "/api/v1/grafana/receivers/test", PutDefinition, nil, "Sends an alert to the receivers in the request, which need not be stored: 200 if all were sent, 207 if some were not, 400 if the settings are wrong, 408 if it took too long."+on),
		row("POST", "/api/v1/grafana/templates/test", PutDefinition, nil, "What a template in the request makes of alerts, with the templates that are kept."+on),
	}
}

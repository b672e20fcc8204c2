package api

import "net/http"

// consoleRoutes are the console in the browser, and what it asks for that other clients find
// elsewhere: below /workspaces/{id}/ only the Prometheus API is reachable.
func consoleRoutes() []Route {
	bind := func(a *API) Handler { return a.deps.Console }
	stats := func(a *API) Handler { return a.userStats() }
	sent := func(a *API) Handler { return a.toConsole() }
	most := func(a *API) Handler { return a.userLimits() }
	return []Route{
		{Methods: http.MethodGet, Path: "/console", Metric: "console", Action: Open, Service: Any, Link: "Console", Doc: "The console: sends browsers to /console/.", bind: bind},
		{Methods: http.MethodGet, Path: "/console/{$}", Metric: "console", Action: Open, Service: Any, Doc: "The console. Its files are for everybody; it calls the APIs below as whoever signs in.", bind: bind},
		{Methods: http.MethodGet, Path: "/console/{path...}", Metric: "console", Action: Open, Service: Any, Doc: "Pages and files of the console.", bind: bind},
		{Methods: http.MethodGet, Path: defaultPrefix, Metric: "prometheus", Action: Open, Service: Any, Doc: "Sends browsers to the console, as Prometheus sends them to its pages.", bind: sent},
		{Methods: http.MethodGet, Path: defaultPrefix + "/{$}", Metric: "prometheus", Action: Open, Service: Any, Doc: "The same, for who types it as data sources are given it.", bind: sent},
		{Methods: http.MethodGet, Path: "/prometheus/api/v1/user_stats", Metric: "api_v1_user_stats", Action: DescribeTenant, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "The same as /api/v1/user_stats, for workspaces.", bind: stats},
		{Methods: http.MethodGet, Path: "/prometheus/api/v1/user_limits", Metric: "api_v1_user_limits", Action: DescribeTenant, Service: Any, Tenancy: OneTenant, Style: JSON, Doc: "The same as /api/v1/user_limits, for workspaces.", bind: most},
	}
}

// atPrefix says whether path is the prefix of the Prometheus API itself, where people look in a browser.
func atPrefix(path string) bool { return path == defaultPrefix || path == defaultPrefix+"/{$}" }

// toConsole sends a browser that was given the address of a data source to what is for people. It tells nothing, and the
// console asks who is there.
func (a *API) toConsole() Handler {
	if a.deps.Console == nil {
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		http.Redirect(w, r, "/console/", http.StatusFound)
		return nil
	}
}

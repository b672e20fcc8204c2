package api

import "net/http"

// consoleRoutes are the console in the browser, and what it asks for that other clients find
// elsewhere: below /workspaces/{id}/ only the Prometheus API is reachable.
func consoleRoutes() []Route {
	bind := func(a *API) Handler { return a.deps.Console }
	stats := func(a *API) Handler { return a.userStats() }
	most := func(a *API) Handler { return a.userLimits() }
	return []Route{
		{Methods: http.MethodGet, Path: "/console", Metric: "console", Action: Open, Service: Any, Link: "Console", Doc: "The console: sends browsers to /console/.", bind: bind},
		{Methods: http.MethodGet, Path: "/console/{$}", Metric: "console", Action: Open, Service: Any, Doc: "The console. Its files are for everybody; it calls the APIs below as whoever signs in.", bind: bind},
		{Methods: http.MethodGet, Path: "/console/{path...}", Metric: "console", Action: Open, Service: Any, Doc: "Pages and files of the console.", bind: bind},
		{Methods: http.MethodGet, Path: "/prometheus/api/v1/user_stats", Metric: "api_v1_user_stats", Action: DescribeTenant, Service: Querier, Tenancy: OneTenant, Style: JSON, Doc: "The same as /api/v1/user_stats, for workspaces.", bind: stats},
		{Methods: http.MethodGet, Path: "/prometheus/api/v1/user_limits", Metric: "api_v1_user_limits", Action: DescribeTenant, Service: Any, Tenancy: OneTenant, Style: JSON, Doc: "The same as /api/v1/user_limits, for workspaces.", bind: most},
	}
}

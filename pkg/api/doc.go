package api

import (
	"fmt"
	"io"
	"strings"
)

// WriteDoc writes the reference page of all routes, grouped by service.
func WriteDoc(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# HTTP API\n\nA process serves the routes of the services it runs. Routes with a tenant take it from `X-Scope-OrgID`; those for several accept\n" +
		"`a|b` with `tenant_federation.enabled`. Callers need the right to the action, see [identity](../identity.md#policies). The prefix\n" +
		"`" + defaultPrefix + "` is the setting `api.prometheus_http_prefix`.\n")
	for _, service := range everyService() {
		title := strings.ToUpper(string(service[:1])) + string(service[1:])
		if service == Any {
			title = "Every process"
		}
		fmt.Fprintf(&b, "\n## %s\n\n| method | path | action | tenant | meaning |\n|---|---|---|---|---|\n", title)
		for _, rt := range Routes {
			if rt.Service != service {
				continue
			}
			path := strings.TrimSuffix(rt.Path, "{$}")
			fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s |\n", strings.ReplaceAll(rt.Methods, ",", ", "), path, rt.actions(), rt.Tenancy, strings.ReplaceAll(rt.Doc, "|", "\\|"))
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the HTTP reference: %w", err)
	}
	return nil
}

// actions lists the actions of a route, with their methods if there are several.
func (rt *Route) actions() string {
	out := "`" + string(rt.Action) + "`"
	for m := range strings.SplitSeq(rt.Methods, ",") {
		if a, other := rt.Other[m]; other {
			out += ", " + m + " `" + string(a) + "`"
		}
	}
	return out
}

func (t Tenancy) String() string {
	switch t {
	case OneTenant:
		return "one"
	case Tenants:
		return "one or several"
	}
	return "-"
}

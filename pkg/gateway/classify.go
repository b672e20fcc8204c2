package gateway

import (
	"net/url"
	"strconv"
	"strings"
)

// target is what a request is about: the row it uses, on behalf of which workspace, and how it is
// passed on.
type target struct {
	flavour flavour
	route   *Route // nil: unknown
	values  values
	path    string // escaped, in the table's terms
	// workspace is that of the path; empty: the tenant stands in a header, or there is none.
	workspace string
}

// flavour is whose way of naming things a path has.
type flavour uint8

const (
	native    flavour = iota // Mimir's and our own
	amazon                   // /workspaces/{id}/...
	alibaba                  // an HTTP API URL of an instance
	operation                // calls of the control plane: rows of the table themselves
)

func (f flavour) String() string {
	return [...]string{"native", "workspace", "instance", "operation"}[f]
}

// classify finds what a request with the given method and escaped path is about.
func (g *Gateway) classify(method, path string) target {
	if rest, ok := strings.CutPrefix(path, "/workspaces/"); ok {
		if rt, v := g.table.find(method, path); rt != nil {
			return target{flavour: operation, route: rt, values: v, path: path, workspace: v.of("workspaceId")}
		}
		return g.inWorkspace(amazon, method, rest)
	}
	if rest, ok := strings.CutPrefix(path, "/instances/"); ok {
		return g.inWorkspace(alibaba, method, rest)
	}
	if rest, ok := strings.CutPrefix(path, "/api/v1/prometheus/"); ok {
		// key, account, instance, region: the third says which.
		if parts := strings.SplitN(rest, "/", 5); len(parts) == 5 {
			return g.inWorkspace(alibaba, method, parts[2]+"/"+parts[4])
		}
	}
	rt, v := g.table.find(method, path)
	t := target{route: rt, values: v, path: path}
	if rt != nil && rt.Style == AWS {
		t.flavour, t.workspace = operation, v.of("workspaceId")
	}
	return t
}

// inWorkspace reads id/rest, where rest is a path below a workspace.
func (g *Gateway) inWorkspace(f flavour, method, path string) target {
	id, rest, _ := strings.Cut(path, "/")
	t := target{flavour: f}
	var err error
	if t.workspace, err = url.PathUnescape(id); err != nil {
		return t
	}
	rest = "/" + strings.TrimSuffix(rest, "/")
	switch {
	case rest == "/api/v1/remote_write" || rest == "/api/v1/write" || rest == "/api/v1/push":
		t.path = "/api/v1/push"
	case rest == "/alertmanager/api/v1/rules":
		t.path = g.cfg.prefix + "/api/v1/rules"
	case strings.HasPrefix(rest, "/alertmanager/"), strings.HasPrefix(rest, "/otlp/"):
		t.path = rest
	case strings.HasPrefix(rest, "/api/v1/"), rest == "/federate":
		t.path = g.cfg.prefix + rest
	default:
		return t
	}
	t.route, t.values = g.table.find(method, t.path)
	if t.route != nil && t.route.Action == Open {
		// What anybody may ask of the process is part of a workspace here.
		own := *t.route
		own.Action = "aps:QueryMetrics"
		t.route = &own
	} else if t.route != nil && t.route.Tenants == 0 {
		t.route = nil // the process is no part of a workspace
	}
	return t
}

// millis rewrites a query or form in which timeout is a number of milliseconds, as the instances of
// Alibaba take it, to seconds. Text with a unit stays.
func millis(form url.Values) bool {
	n, err := strconv.ParseInt(form.Get("timeout"), 10, 64)
	if err != nil || n < 0 {
		return false
	}
	form.Set("timeout", strconv.FormatFloat(float64(n)/1000, 'f', -1, 64))
	return true
}

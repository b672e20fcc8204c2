package api

import (
	"net/http"

	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/api/rules"
)

// The actions on rules.
const (
	ListRules   Action = "aps:ListRules"
	ReadAlerts  Action = "aps:ListAlerts"
	ReadRules   Action = "aps:DescribeRuleGroupsNamespace"
	WriteRules  Action = "aps:PutRuleGroupsNamespace"
	DeleteRules Action = "aps:DeleteRuleGroupsNamespace"
)

// RulerDeps is what the routes of rules stand on.
type RulerDeps struct {
	Rules rules.Backends
	Ring  admin.RingView // nil: this process is alone
}

// onRules are the actions of the methods that do not put rules.
func onRules() map[string]Action {
	return map[string]Action{http.MethodGet: ReadRules, http.MethodDelete: DeleteRules}
}

// ruled binds a handler of rules.
func ruled(h func(*rules.API, http.ResponseWriter, *http.Request) error) func(*API) Handler {
	return func(a *API) Handler {
		if a.deps.Ruler == nil {
			return nil
		}
		served := rules.New(a.deps.Ruler.Rules)
		return func(w http.ResponseWriter, r *http.Request) error { return h(served, w, r) }
	}
}

// editable binds a handler of the API by which rules are changed.
func editable(h func(*rules.API, http.ResponseWriter, *http.Request) error) func(*API) Handler {
	return func(a *API) Handler {
		if a.deps.Ruler == nil || !a.deps.Ruler.Rules.Editable {
			return nil
		}
		return ruled(h)(a)
	}
}

// rulersRing shows the ring of rulers.
func rulersRing(a *API) Handler {
	if a.deps.Ruler == nil || a.deps.Ruler.Ring == nil {
		return nil
	}
	return admin.Ring("ruler_ring", "Ring of rulers", a.deps.Ruler.Ring)
}

func listRules(a *API) Handler      { return ruled((*rules.API).List)(a) }
func previewRules(a *API) Handler   { return ruled((*rules.API).Preview)(a) }
func testRules(a *API) Handler      { return ruled((*rules.API).Test)(a) }
func listAlerts(a *API) Handler     { return ruled((*rules.API).Alerts)(a) }
func ruleTenants(a *API) Handler    { return ruled((*rules.API).Tenants)(a) }
func rulesOfAll(a *API) Handler     { return ruled((*rules.API).AllGroups)(a) }
func rulesOfTenant(a *API) Handler  { return ruled((*rules.API).TenantGroups)(a) }
func rulesConfig(a *API) Handler    { return editable((*rules.API).Config)(a) }
func deleteAllRules(a *API) Handler { return editable((*rules.API).DeleteTenant)(a) }

// ActionOf is what a caller must be allowed to do to use a method of rt.
func (rt *Route) ActionOf(method string) Action {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if a, ok := rt.Other[method]; ok {
		return a
	}
	return rt.Action
}

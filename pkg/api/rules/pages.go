package rules

import (
	"net/http"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// Tenants answers operators with who has rules, as YAML.
func (a *API) Tenants(w http.ResponseWriter, r *http.Request) error {
	ids, err := a.b.Namespaces.Tenants(r.Context())
	if err != nil {
		return err
	}
	return sendYAML(w, ids)
}

// AllGroups answers operators with the rules of all tenants, as YAML.
func (a *API) AllGroups(w http.ResponseWriter, r *http.Request) error {
	ids, err := a.b.Namespaces.Tenants(r.Context())
	if err != nil {
		return err
	}
	all := map[tenant.ID]yaml.Node{}
	for _, id := range ids {
		text, err := a.b.Store.Rules(r.Context(), id, "", "")
		if err != nil {
			return err
		}
		var n yaml.Node
		if err := yaml.Unmarshal(text, &n); err != nil {
			return err
		}
		if n.Kind == yaml.DocumentNode {
			all[id] = *n.Content[0]
		}
	}
	return sendYAML(w, all)
}

// TenantGroups answers operators with the rules of one tenant, as YAML.
func (a *API) TenantGroups(w http.ResponseWriter, r *http.Request) error {
	id, err := tenant.Parse(r.PathValue("tenant"))
	if err != nil {
		return err
	}
	text, err := a.b.Store.Rules(r.Context(), id, "", "")
	if err != nil {
		return err
	}
	return sendText(w, text)
}

func sendYAML(w http.ResponseWriter, v any) error {
	out, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	return sendText(w, out)
}

func sendText(w http.ResponseWriter, out []byte) error {
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(out) // the client is gone if this fails
	return nil
}

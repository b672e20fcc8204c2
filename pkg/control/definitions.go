package control

import (
	"context"
	"net/http"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const definitionKind = "alertmanagerdefinition"

func (c *Control) definition(id string) kept {
	return kept{definitionKind, id, c.deps.DefinitionKey(tenant.ID(id)), func(_ context.Context, data []byte) error {
		return c.deps.CheckDefinition(tenant.ID(id), data)
	}}
}

// definitionChange is the part that making and replacing a definition share.
func (c *Control) definitionChange(x *call, state string, do func(ctx context.Context, k kept, in namespaceInput, hash string) error) (reply, error) {
	ctx, id := x.r.Context(), x.segment(1)
	var in namespaceInput
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if err := c.mayChange(ctx, x, id, in.Token); err != nil {
		return reply{}, err
	}
	k := c.definition(id)
	if err := c.verify(ctx, k, in.Data); err != nil {
		return reply{}, err
	}
	err := do(ctx, k, in, hashOf(id, in.Data))
	return reply{http.StatusAccepted, map[string]any{"status": status{Code: state}}}, err
}

func createDefinition(c *Control, x *call) (reply, error) {
	return c.definitionChange(x, "CREATING", func(ctx context.Context, k kept, in namespaceInput, hash string) error {
		return c.create(ctx, k, in.Data, nil, in.Token, hash)
	})
}

func putDefinition(c *Control, x *call) (reply, error) {
	return c.definitionChange(x, "UPDATING", func(ctx context.Context, k kept, in namespaceInput, hash string) error {
		return c.put(ctx, k, in.Data, in.Token, hash)
	})
}

func describeDefinition(c *Control, x *call) (reply, error) {
	ctx, id := x.r.Context(), x.segment(1)
	if _, err := c.own(ctx, x, id); err != nil {
		return reply{}, err
	}
	k := c.definition(id)
	d, m, err := c.describe(ctx, k)
	if err != nil {
		return reply{}, err
	}
	problem, err := c.problem(ctx, id, k, d.Version, func(context.Context) (docstore.Doc, error) { return d, nil })
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"alertManagerDefinition": map[string]any{
		"status": m.stateOf(problem), "data": d.Data, "createdAt": epoch(m.Created), "modifiedAt": epoch(d.Modified),
	}}}, nil
}

func deleteDefinition(c *Control, x *call) (reply, error) {
	id := x.segment(1)
	if _, err := c.own(x.r.Context(), x, id); err != nil {
		return reply{}, err
	}
	return reply{http.StatusAccepted, nil}, c.remove(x, c.definition(id), x.query.Get("clientToken"))
}

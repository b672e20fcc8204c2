package control

import (
	"context"
	"net/http"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const definitionKind = "alertmanagerdefinition"

func (c *Control) definition(id string) kept {
	return kept{id, definitionKind, id, c.deps.DefinitionKey(tenant.ID(id)), func(_ context.Context, data []byte) error {
		return c.deps.CheckDefinition(tenant.ID(id), data)
	}}
}

// definitionChange is the part that making and replacing a definition share.
func (c *Control) definitionChange(x *call, operation, state string, do func(ctx context.Context, k kept, in namespaceInput, hash string) error) (reply, error) {
	ctx, id := x.r.Context(), x.segment(1)
	var in namespaceInput
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if err := c.mayChange(ctx, x, id, in.Token); err != nil {
		return reply{}, err
	}
	k, hash := c.definition(id), hashOf(id, in.Data)
	before, err := c.answered(ctx, k, operation+k.kind, in.Token, hash)
	if err == nil && before == nil {
		if err = c.verify(ctx, k, in.Data); err == nil {
			err = do(ctx, k, in, hash)
		}
	}
	return reply{http.StatusAccepted, map[string]any{"status": status{Code: state}}}, err
}

func createDefinition(c *Control, x *call) (reply, error) {
	return c.definitionChange(x, "Create ", "CREATING", func(ctx context.Context, k kept, in namespaceInput, hash string) error {
		return c.create(ctx, k, in.Data, nil, in.Token, hash)
	})
}

func putDefinition(c *Control, x *call) (reply, error) {
	return c.definitionChange(x, "Put ", "UPDATING", func(ctx context.Context, k kept, in namespaceInput, hash string) error {
		_, err := c.put(ctx, k, in.Data, in.Token, hash)
		return err
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
	return reply{http.StatusAccepted, nil}, c.remove(x.r.Context(), c.definition(id), x.query.Get("clientToken"))
}

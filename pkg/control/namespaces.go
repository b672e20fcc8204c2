package control

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dskit/concurrency"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const namespaceKind = "rulegroupsnamespace"

// namespace is the rule file that a call names.
func (c *Control) namespace(id, name string) (kept, error) {
	if err := pattern("name", name, `.*[0-9A-Za-z][-.0-9A-Z_a-z]*.*`, 1, 128); err != nil {
		return kept{}, err
	}
	key, err := c.deps.RulesKey(tenant.ID(id), name)
	if err != nil {
		return kept{}, invalid("name", err.Error())
	}
	return c.namespaceAt(id, name, key), nil
}

// namespaceAt is the rule file whose document has key.
func (c *Control) namespaceAt(id, name, key string) kept {
	return kept{id, namespaceKind, id + "/" + name, key, func(ctx context.Context, data []byte) error {
		return c.deps.CheckRules(ctx, tenant.ID(id), name, data)
	}}
}

type namespaceInput struct {
	Name  string            `json:"name"`
	Data  []byte            `json:"data"`
	Tags  map[string]string `json:"tags"`
	Token string            `json:"clientToken"`
}

type namespaceAnswer struct {
	ARN    string            `json:"arn"`
	Name   string            `json:"name"`
	Status status            `json:"status"`
	Tags   map[string]string `json:"tags"`
}

func createNamespace(c *Control, x *call) (reply, error) {
	ctx, id := x.r.Context(), x.segment(1)
	var in namespaceInput
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if err := c.mayChange(ctx, x, id, in.Token); err != nil {
		return reply{}, err
	}
	if in.Tags == nil {
		in.Tags = map[string]string{}
	}
	if err := checkTags(in.Tags); err != nil {
		return reply{}, err
	}
	k, err := c.namespace(id, in.Name)
	if err != nil {
		return reply{}, err
	}
	hash := hashOf(id, in.Name, in.Data, in.Tags)
	before, err := c.answered(ctx, k, "Create "+k.kind, in.Token, hash)
	if err == nil && before == nil {
		if err = c.verify(ctx, k, in.Data); err == nil {
			err = c.roomForNamespace(ctx, k, id)
		}
		if err == nil {
			err = c.create(ctx, k, in.Data, in.Tags, in.Token, hash)
		}
	}
	c.rulesChanged(ctx, id, err)
	return reply{http.StatusAccepted, namespaceAnswer{c.arn(x.account, namespaceKind, k.id), in.Name, status{Code: "CREATING"}, in.Tags}}, err
}

// roomForNamespace refuses one more rule file than a workspace may have. One that is there is told of otherwise.
// Calls at the same moment may together make some more.
func (c *Control) roomForNamespace(ctx context.Context, k kept, id string) error {
	if c.cfg.MaxNamespaces <= 0 {
		return nil
	}
	folder, err := c.rulesFolder(id)
	if err != nil {
		return err
	}
	entries, err := c.texts.List(ctx, folder)
	if err != nil || len(entries) < c.cfg.MaxNamespaces || slices.ContainsFunc(entries, func(e docstore.Entry) bool { return e.Key == k.key }) {
		return err
	}
	return quota(namespaceKind, k.id, namespaceQuota, "Limit exceeded. Maximum rule groups namespaces per workspace.")
}

// mayChange checks that the workspace exists and is not being deleted.
func (c *Control) mayChange(ctx context.Context, x *call, id, clientToken string) error {
	w, err := c.own(ctx, x, id)
	if err != nil {
		return err
	}
	if w.State != active {
		return conflict(workspaceKind, id, "the workspace is being deleted")
	}
	return checkToken(clientToken)
}

func putNamespace(c *Control, x *call) (reply, error) {
	ctx, id, name := x.r.Context(), x.segment(1), x.segment(3)
	var in namespaceInput
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if err := c.mayChange(ctx, x, id, in.Token); err != nil {
		return reply{}, err
	}
	k, err := c.namespace(id, name)
	if err != nil {
		return reply{}, err
	}
	hash := hashOf(id, name, in.Data)
	n, err := c.answered(ctx, k, "Put "+k.kind, in.Token, hash)
	if err != nil {
		return reply{}, err
	}
	if n == nil {
		if _, _, err := c.describe(ctx, k); err != nil {
			return reply{}, err
		}
		if err := c.verify(ctx, k, in.Data); err != nil {
			return reply{}, err
		}
		if n, err = c.put(ctx, k, in.Data, in.Token, hash); err != nil {
			return reply{}, err
		}
	}
	c.rulesChanged(ctx, id, nil)
	return reply{http.StatusAccepted, namespaceAnswer{c.arn(x.account, namespaceKind, k.id), name, status{Code: "UPDATING"}, orNone(n.Tags)}}, nil
}

type namespaceSummary struct {
	ARN        string            `json:"arn"`
	CreatedAt  epoch             `json:"createdAt"`
	ModifiedAt epoch             `json:"modifiedAt"`
	Name       string            `json:"name"`
	Status     status            `json:"status"`
	Tags       map[string]string `json:"tags"`
}

func (c *Control) namespaceSummary(account, id, name string, modified time.Time, m *note) namespaceSummary {
	return namespaceSummary{c.arn(account, namespaceKind, id+"/"+name), epoch(m.Created), epoch(modified), name, status{Code: active}, m.Tags}
}

func describeNamespace(c *Control, x *call) (reply, error) {
	ctx, id, name := x.r.Context(), x.segment(1), x.segment(3)
	if _, err := c.own(ctx, x, id); err != nil {
		return reply{}, err
	}
	k, err := c.namespace(id, name)
	if err != nil {
		return reply{}, err
	}
	d, m, err := c.describe(ctx, k)
	if err != nil {
		return reply{}, err
	}
	problem, err := c.problem(ctx, id, k, d.Version, func(context.Context) (docstore.Doc, error) { return d, nil })
	if err != nil {
		return reply{}, err
	}
	out := struct {
		namespaceSummary
		Data []byte `json:"data"`
	}{c.namespaceSummary(x.account, id, name, d.Modified, m), d.Data}
	out.Status = m.stateOf(problem)
	return reply{http.StatusOK, map[string]any{"ruleGroupsNamespace": out}}, nil
}

func listNamespaces(c *Control, x *call) (reply, error) {
	ctx, id, prefix := x.r.Context(), x.segment(1), x.query.Get("name")
	p, err := x.page("ListRuleGroupsNamespaces", id, prefix)
	if err != nil {
		return reply{}, err
	}
	if _, err := c.own(ctx, x, id); err != nil {
		return reply{}, err
	}
	folder, err := c.rulesFolder(id)
	if err != nil {
		return reply{}, err
	}
	entries, err := c.texts.List(ctx, folder)
	if err != nil {
		return reply{}, err
	}
	all, err := c.named(ctx, entries, prefix)
	if err != nil {
		return reply{}, err
	}
	found, shown := []namespaceSummary{}, []namedRules{}
	out := map[string]any{}
	for i, e := range all {
		if !p.after(e.position()) {
			continue
		}
		if len(found) == p.size {
			out["nextToken"] = p.token(all[i-1].position())
			break
		}
		found, shown = append(found, c.namespaceSummary(x.account, id, e.name, e.Modified, e.note)), append(shown, e)
	}
	if err := c.judge(ctx, id, found, shown); err != nil {
		return reply{}, err
	}
	out["ruleGroupsNamespaces"] = found
	return reply{http.StatusOK, out}, nil
}

// namedRules is a rule file in a listing.
type namedRules struct {
	docstore.Entry
	name string
	note *note
}

func (n namedRules) position() position { return position{n.note.Created.UnixNano(), n.name} }

// named returns the rule files whose names begin with prefix, older first, as in other listings.
func (c *Control) named(ctx context.Context, entries []docstore.Entry, prefix string) ([]namedRules, error) {
	var all []namedRules
	for _, e := range entries {
		if name, ok := c.deps.RulesName(e.Key); ok && strings.HasPrefix(name, prefix) {
			all = append(all, namedRules{e, name, nil})
		}
	}
	err := concurrency.ForEachJob(ctx, len(all), readAhead, func(ctx context.Context, i int) error {
		e, ok, err := c.texts.Noted(ctx, all[i].Entry)
		if err != nil || !ok {
			return err
		}
		n := &note{}
		if err := (kept{key: e.Key}).decode(e.Note, n); err != nil {
			return err
		}
		n.fill(e.Modified)
		all[i].Entry, all[i].note = e.Entry, n
		return nil
	})
	all = slices.DeleteFunc(all, func(r namedRules) bool { return r.note == nil })
	slices.SortFunc(all, func(x, y namedRules) int { return x.position().compare(y.position()) })
	return all, err
}

// rulesFolder is where the rule files of a workspace are.
func (c *Control) rulesFolder(id string) (string, error) {
	key, err := c.deps.RulesKey(tenant.ID(id), "n")
	return strings.TrimSuffix(key, "n"), err
}

func deleteNamespace(c *Control, x *call) (reply, error) {
	id, name := x.segment(1), x.segment(3)
	if _, err := c.own(x.r.Context(), x, id); err != nil {
		return reply{}, err
	}
	k, err := c.namespace(id, name)
	if err != nil {
		return reply{}, err
	}
	err = c.remove(x.r.Context(), k, x.query.Get("clientToken"))
	c.rulesChanged(x.r.Context(), id, err)
	return reply{http.StatusAccepted, nil}, err
}

// rulesChanged tells rulers of a change, unless it failed, so that it takes effect at once.
func (c *Control) rulesChanged(ctx context.Context, id string, err error) {
	if c.deps.RulesChanged != nil && err == nil {
		c.deps.RulesChanged(ctx, tenant.ID(id))
	}
}

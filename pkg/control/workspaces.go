package control

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dskit/concurrency"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const workspaceKind = "workspace"

// workspaceIDExpr is what an id may be; one that is not names nothing.
const workspaceIDExpr = `[0-9A-Za-z][-.0-9A-Z_a-z]*`

// arn names a resource of account: kind/rest.
func (c *Control) arn(account, kind, rest string) string {
	return "arn:aws:aps:" + c.deps.Region + ":" + account + ":" + kind + "/" + rest
}

type summary struct {
	Alias     string            `json:"alias,omitempty"`
	ARN       string            `json:"arn"`
	CreatedAt epoch             `json:"createdAt"`
	Key       string            `json:"kmsKeyArn,omitempty"`
	Status    status            `json:"status"`
	Tags      map[string]string `json:"tags"`
	ID        string            `json:"workspaceId"`
}

type description struct {
	summary
	Endpoint string `json:"prometheusEndpoint"`
}

func (c *Control) summary(w *workspace) summary {
	tags := w.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	return summary{w.Alias, c.arn(w.Account, workspaceKind, w.ID), epoch(w.Created), w.Key, status{Code: w.State}, tags, w.ID}
}

// endpoint is the address that clients append api/v1/remote_write to.
func (c *Control) endpoint(r *http.Request, id string) string {
	base := strings.TrimSuffix(c.cfg.PublicURL, "/")
	if base == "" {
		base = "http://" + r.Host
		if by := r.Header.Get("X-Forwarded-Proto"); by == "https" || by == "" && r.TLS != nil { // this hop may be a gateway's
			base = "https://" + r.Host
		}
	}
	return base + "/workspaces/" + id + "/"
}

// own returns a workspace of the caller. One that is deleted is missing. Errors: NotFound.
func (c *Control) own(ctx context.Context, x *call, id string) (*workspace, error) {
	var w workspace
	v, err := c.read(ctx, workspaceKey(id), &w)
	if err != nil && errs.KindOf(err) != errs.Invalid { // an id that cannot be a key names nothing
		return nil, err
	}
	if v == "" || !w.belongs(x.account) {
		return nil, missing(workspaceKind, id)
	}
	return &w, nil
}

func (w *workspace) belongs(account string) bool {
	return w.Account == account && (w.State == active || w.State == deleting)
}

// changeWorkspace edits a workspace of the caller once for each client token: edit returns the answer.
func (c *Control) changeWorkspace(x *call, operation, clientToken, hash string, edit func(w *workspace) (any, error)) (json.RawMessage, error) {
	id := x.segment(1)
	if err := checkToken(clientToken); err != nil {
		return nil, err
	}
	if err := pattern("workspaceId", id, workspaceIDExpr, 1, 64); err != nil {
		return nil, missing(workspaceKind, id)
	}
	var out json.RawMessage
	_, err := update(x.r.Context(), c, workspaceKey(id), func(w *workspace, exists bool) (bool, error) {
		if !exists || w.Account != x.account {
			return false, missing(workspaceKind, id)
		}
		old, again, err := w.Tokens.find(clientToken, operation, hash)
		if err != nil {
			return false, conflict(workspaceKind, id, err.Error())
		}
		if again { // also of a workspace that was deleted since
			out = old
			return false, nil
		}
		if !w.belongs(x.account) {
			return false, missing(workspaceKind, id)
		}
		if w.State != active {
			return false, conflict(workspaceKind, id, "the workspace is being deleted")
		}
		a, err := edit(w)
		if err != nil {
			return false, err
		}
		if out, err = json.Marshal(a); err != nil {
			return false, err
		}
		w.Tokens.keep(clientToken, token{operation, hash, out, c.now()})
		return true, nil
	})
	return out, err
}

type createWorkspaceInput struct {
	Alias string            `json:"alias"`
	Tags  map[string]string `json:"tags"`
	Token string            `json:"clientToken"`
	Key   string            `json:"kmsKeyArn"`
}

type createdWorkspace struct {
	ARN    string            `json:"arn"`
	Key    string            `json:"kmsKeyArn,omitempty"`
	Status status            `json:"status"`
	Tags   map[string]string `json:"tags"`
	ID     string            `json:"workspaceId"`
}

func (in *createWorkspaceInput) check() error {
	if in.Alias != "" {
		if in.Alias = strings.TrimSpace(in.Alias); in.Alias == "" {
			return invalid("alias", "alias is blank")
		}
		if err := pattern("alias", in.Alias, "", 1, 100); err != nil {
			return err
		}
	}
	if in.Key != "" {
		if err := pattern("kmsKeyArn", in.Key, `arn:aws[-a-z]*:kms:[-a-z0-9]+:[0-9]{12}:key/[-a-f0-9]+`, 20, 2048); err != nil {
			return err
		}
	}
	if in.Tags == nil {
		in.Tags = map[string]string{}
	}
	if err := checkTags(in.Tags); err != nil {
		return err
	}
	return checkToken(in.Token)
}

// The codes of quotas are our own: Amazon's are those of its accounts.
const (
	workspaceQuota = "workspaces-per-account"
	namespaceQuota = "rule-groups-namespaces-per-workspace"
	limitQuota     = "limits-of-the-workspace"
)

func createWorkspace(c *Control, x *call) (reply, error) {
	var in createWorkspaceInput
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if err := in.check(); err != nil {
		return reply{}, err
	}
	out := createdWorkspace{Key: in.Key, Tags: in.Tags, Status: status{Code: "CREATING"}}
	made, ok, err := c.admit(x.r.Context(), x, &newcomer{
		operation: "CreateWorkspace", token: in.Token, hash: hashOf(in.Alias, in.Tags, in.Key),
		kind: workspaceKind, prefix: "ws-", among: func(a *account) *[]entry { return &a.Workspaces },
		most: c.cfg.MaxWorkspaces, full: quota(workspaceKind, "", workspaceQuota, "Limit exceeded. Maximum workspaces per account."),
		answer: &out, name: func(id, arn string) { out.ID, out.ARN = id, arn }, id: func() string { return out.ID },
	})
	if err != nil {
		return reply{}, err
	}
	if ok { // a call that is repeated may find that the first one did not come this far
		_, err = update(x.r.Context(), c, workspaceKey(out.ID), func(w *workspace, exists bool) (bool, error) {
			if exists {
				return false, nil
			}
			*w = workspace{ID: out.ID, Account: x.account, Alias: in.Alias, Tags: in.Tags, Key: in.Key, State: active, Created: made.At}
			return true, nil
		})
	}
	return reply{http.StatusAccepted, out}, err
}

func describeWorkspace(c *Control, x *call) (reply, error) {
	w, err := c.own(x.r.Context(), x, x.segment(1))
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{workspaceKind: description{c.summary(w), c.endpoint(x.r, w.ID)}}}, nil
}

// readAhead is how many workspaces a listing reads at the same time.
const readAhead = 16

func listWorkspaces(c *Control, x *call) (reply, error) {
	alias := strings.TrimSpace(x.query.Get("alias"))
	p, err := x.page("ListWorkspaces", alias)
	if err != nil {
		return reply{}, err
	}
	var a account
	if _, err := c.read(x.r.Context(), accountKey(x.account), &a); err != nil {
		return reply{}, err
	}
	if c.deps.Only != nil {
		if only := c.deps.Only(x.r); only != "" {
			a.Workspaces = slices.DeleteFunc(a.Workspaces, func(e entry) bool { return e.ID != only })
		}
	}
	i := slices.IndexFunc(a.Workspaces, func(e entry) bool { return p.after(e.position()) })
	if i < 0 {
		i = len(a.Workspaces)
	}
	found := []summary{}
	next := ""
	for ; i < len(a.Workspaces) && next == ""; i += readAhead {
		batch := a.Workspaces[i:min(i+readAhead, len(a.Workspaces))]
		ws := make([]*workspace, len(batch))
		err := concurrency.ForEachJob(x.r.Context(), len(batch), readAhead, func(ctx context.Context, n int) (err error) {
			ws[n], err = c.own(ctx, x, batch[n].ID)
			if errs.KindOf(err) == errs.NotFound {
				err = nil
			}
			return err
		})
		if err != nil {
			return reply{}, err
		}
		for _, w := range ws {
			if w == nil || !strings.HasPrefix(w.Alias, alias) {
				continue
			}
			if len(found) == p.size {
				next = p.token(found[len(found)-1].position())
				break
			}
			found = append(found, c.summary(w))
		}
	}
	out := map[string]any{"workspaces": found}
	if next != "" {
		out["nextToken"] = next
	}
	return reply{http.StatusOK, out}, nil
}

func updateWorkspaceAlias(c *Control, x *call) (reply, error) {
	var in struct {
		Alias *string `json:"alias"`
		Token string  `json:"clientToken"`
	}
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	alias := ""
	if in.Alias != nil {
		if alias = strings.TrimSpace(*in.Alias); alias == "" {
			return reply{}, invalid("alias", "alias is blank")
		}
		if err := pattern("alias", alias, "", 1, 100); err != nil {
			return reply{}, err
		}
	}
	_, err := c.changeWorkspace(x, "UpdateWorkspaceAlias", in.Token, hashOf(x.segment(1), alias), func(w *workspace) (any, error) {
		w.Alias = alias
		return nil, nil
	})
	return reply{http.StatusNoContent, nil}, err
}

func deleteWorkspace(c *Control, x *call) (reply, error) {
	id, clientToken := x.segment(1), x.query.Get("clientToken")
	if err := checkToken(clientToken); err != nil {
		return reply{}, err
	}
	const operation = "DeleteWorkspace"
	ctx := x.r.Context()
	var w workspace
	v, err := c.read(ctx, workspaceKey(id), &w)
	if err != nil && errs.KindOf(err) != errs.Invalid {
		return reply{}, err
	}
	if v == "" || w.Account != x.account {
		return reply{}, missing(workspaceKind, id)
	}
	_, err = update(ctx, c, workspaceKey(id), func(w *workspace, exists bool) (bool, error) {
		if !exists {
			return false, missing(workspaceKind, id)
		}
		_, again, err := w.Tokens.find(clientToken, operation, "")
		switch {
		case err != nil || again:
			return false, err
		case w.State == deleted, w.State == purged:
			return false, missing(workspaceKind, id)
		case w.State == deleting:
			return false, conflict(workspaceKind, id, "the workspace is being deleted")
		}
		w.State, w.Deleted = deleting, c.now()
		w.Tokens.keep(clientToken, token{operation, "", nil, c.now()})
		return true, nil
	})
	if err != nil {
		return reply{}, err
	}
	if err := c.withdraw(ctx, id); err != nil {
		// It is under way, and the janitor goes on with it.
		c.log.Warn("deletion of a workspace is not finished yet", "workspace", id, "err", err)
	}
	return reply{http.StatusAccepted, nil}, nil
}

// position of a resource in a listing: older first.
func (s summary) position() position { return position{time.Time(s.CreatedAt).UnixNano(), s.ID} }

func (e entry) position() position { return position{e.At.UnixNano(), e.ID} }

package control

import (
	"context"
	"encoding/json"
	"time"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// kept is a document of a workspace that other services read, a rule file or a definition. What only this API
// knows is noted beside its text.
type kept struct {
	workspace string
	kind      string // as errors name it
	id        string // as errors name it
	key       string
	check     func(ctx context.Context, data []byte) error
}

// maxFile bounds a rule file and a definition.
const maxFile = 1 << 20

// verify checks a new text of k.
func (c *Control) verify(ctx context.Context, k kept, data []byte) error {
	switch {
	case len(data) == 0:
		return invalid("data", "data is empty")
	case len(data) > maxFile:
		return invalid("data", "data is larger than 1 MB")
	}
	err := k.check(ctx, data)
	switch errs.KindOf(err) {
	case errs.Invalid, errs.Unprocessable:
		return invalid("data", err.Error())
	case errs.Quota, errs.TooLarge:
		return quota(k.kind, k.id, limitQuota, err.Error())
	}
	return err
}

// change changes k once for each client token, in one swap of its document, which holds the text, what this API notes
// of it and the tokens: so no replica that dies leaves half of a change, and of rivals one is first. edit gives the
// next text, nil if it is deleted, and may change the note. It returns the note as the answer of the call has it.
func (c *Control) change(ctx context.Context, k kept, operation, clientToken, hash string, edit func(old docstore.Text, n *note) (data []byte, err error)) (*note, error) {
	out := &note{}
	made := false
	version, err := c.texts.Change(ctx, k.key, func(old docstore.Text) (*docstore.Text, error) {
		var kept tokens
		if err := k.decode(old.Memory, &kept); err != nil {
			return nil, err
		}
		answer, again, err := kept.find(clientToken, operation, hash)
		if err != nil {
			return nil, conflict(k.kind, k.id, err.Error())
		}
		*out, made = note{}, false
		if again {
			return nil, k.decode(answer, out)
		}
		if err := k.decode(old.Note, out); err != nil {
			return nil, err
		}
		data, err := edit(old, out)
		if err != nil {
			return nil, err
		}
		made = data != nil
		now := c.now()
		next := &docstore.Text{Doc: docstore.Doc{Data: data, Modified: now}, Gone: data == nil}
		if next.Note, err = json.Marshal(out); err != nil {
			return nil, err
		}
		kept.keep(clientToken, token{operation, hash, next.Note, now})
		if kept != nil {
			next.Memory, err = json.Marshal(kept)
		}
		return next, err
	})
	if err == nil && made {
		err = c.stillThere(ctx, k, version, !out.Replaced)
	}
	return out, err
}

// stillThere refuses a change of a workspace that was deleted at the same moment, so that all that was answered is in
// what is put away for an operator to restore. A text that is new is taken away, as nobody else might. Errors: NotFound.
func (c *Control) stillThere(ctx context.Context, k kept, version docstore.Version, isNew bool) error {
	var w workspace
	if _, err := c.read(ctx, workspaceKey(k.workspace), &w); err != nil || w.State == active {
		return err
	}
	if isNew {
		if err := c.deps.Documents.Delete(ctx, k.key, version); err != nil && errs.KindOf(err) != errs.NotFound && errs.KindOf(err) != errs.Conflict {
			return err
		}
	}
	return missing(workspaceKind, k.workspace)
}

// decode reads what is stored beside the text of k.
func (k kept) decode(raw json.RawMessage, v any) error {
	if raw == nil {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return errs.New(errs.Internal, "what document %s notes cannot be read: %w", k.key, err)
	}
	return nil
}

// answered returns the note of a call that was made before with the same token, nil if it was not. It is asked before
// anything is checked, as what the first call was checked against may be another now.
func (c *Control) answered(ctx context.Context, k kept, operation, clientToken, hash string) (*note, error) {
	if clientToken == "" {
		return nil, nil
	}
	x, err := c.texts.Look(ctx, k.key)
	if err != nil {
		return nil, err
	}
	var kept tokens
	if err := k.decode(x.Memory, &kept); err != nil {
		return nil, err
	}
	answer, again, err := kept.find(clientToken, operation, hash)
	if err != nil {
		return nil, conflict(k.kind, k.id, err.Error())
	}
	if !again {
		return nil, nil
	}
	n := &note{}
	return n, k.decode(answer, n)
}

// create makes k.
func (c *Control) create(ctx context.Context, k kept, data []byte, tags map[string]string, clientToken, hash string) error {
	_, err := c.change(ctx, k, "Create "+k.kind, clientToken, hash, func(old docstore.Text, n *note) ([]byte, error) {
		if old.Exists() {
			return nil, conflict(k.kind, k.id, k.kind+" exists already: "+k.id)
		}
		*n = note{Created: c.now(), Tags: tags}
		return data, nil
	})
	return err
}

// put replaces the text of k and returns its note. Errors: NotFound.
func (c *Control) put(ctx context.Context, k kept, data []byte, clientToken, hash string) (*note, error) {
	return c.change(ctx, k, "Put "+k.kind, clientToken, hash, func(old docstore.Text, n *note) ([]byte, error) {
		if !old.Exists() {
			return nil, missing(k.kind, k.id)
		}
		n.fill(old.Modified)
		n.Replaced = true
		return data, nil
	})
}

// remove deletes k. Errors: NotFound.
func (c *Control) remove(ctx context.Context, k kept, clientToken string) error {
	if err := checkToken(clientToken); err != nil {
		return err
	}
	_, err := c.change(ctx, k, "Delete "+k.kind, clientToken, hashOf(k.id), func(old docstore.Text, _ *note) ([]byte, error) {
		if !old.Exists() {
			return nil, missing(k.kind, k.id)
		}
		return nil, nil
	})
	return err
}

// retagText lets edit change the tags of k. Errors: NotFound.
func (c *Control) retagText(ctx context.Context, k kept, edit func(tags *map[string]string) error) error {
	_, err := c.texts.Change(ctx, k.key, func(old docstore.Text) (*docstore.Text, error) {
		if !old.Exists() {
			return nil, missing(k.kind, k.id)
		}
		n := &note{}
		if err := k.decode(old.Note, n); err != nil {
			return nil, err
		}
		n.fill(old.Modified)
		if err := edit(&n.Tags); err != nil {
			return nil, err
		}
		var err error
		old.Note, err = json.Marshal(n)
		return &old, err
	})
	return err
}

// describe returns the text of k and its note. Errors: NotFound.
func (c *Control) describe(ctx context.Context, k kept) (docstore.Doc, *note, error) {
	x, err := c.texts.Look(ctx, k.key)
	if err == nil && !x.Exists() {
		err = missing(k.kind, k.id)
	}
	if err != nil {
		return x.Doc, nil, err
	}
	n := &note{}
	if err := k.decode(x.Note, n); err != nil {
		return x.Doc, nil, err
	}
	n.fill(x.Modified)
	return x.Doc, n, nil
}

// fill completes the note of a text that was made by another API.
func (n *note) fill(modified time.Time) {
	if n.Created.IsZero() || n.Created.After(modified) {
		n.Created = modified
	}
	if n.Tags == nil {
		n.Tags = map[string]string{}
	}
}

// drop deletes a document, whatever its state.
func (c *Control) drop(ctx context.Context, key string) error {
	for {
		d, err := c.deps.Documents.Get(ctx, key)
		if errs.KindOf(err) == errs.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		err = c.deps.Documents.Delete(ctx, key, d.Version)
		if k := errs.KindOf(err); err == nil || k != errs.Conflict && k != errs.NotFound {
			return err
		}
	}
}

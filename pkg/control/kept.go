package control

import (
	"context"
	"encoding/json"
	"time"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// kept is a document of a workspace that other services read, a rule file or a definition. Beside it
// lies a companion with what only this API knows. The document says whether the resource exists.
type kept struct {
	kind  string // as errors name it
	id    string // as errors name it
	key   string
	check func(ctx context.Context, data []byte) error
}

func (k kept) companion() string { return companionsPrefix + k.key + ".json" }

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

// create makes k. The companion is written first, so that a call that is repeated knows its token.
func (c *Control) create(ctx context.Context, k kept, data []byte, tags map[string]string, clientToken, hash string) error {
	operation := "Create " + k.kind
	repeated := false
	_, err := update(ctx, c, k.companion(), func(m *companion, _ bool) (bool, error) {
		_, again, err := m.Tokens.find(clientToken, operation, hash)
		if err != nil {
			return false, conflict(k.kind, k.id, err.Error())
		}
		if repeated = again; again {
			return false, nil
		}
		if _, err := c.deps.Documents.Get(ctx, k.key); errs.KindOf(err) != errs.NotFound {
			if err == nil {
				err = conflict(k.kind, k.id, k.kind+" exists already: "+k.id)
			}
			return false, err
		}
		kept := m.Tokens
		*m = companion{Created: c.now(), Tags: tags, Tokens: kept}
		m.Tokens.keep(clientToken, token{operation, hash, nil, m.Created})
		return true, nil
	})
	if err != nil {
		return err
	}
	_, err = c.deps.Documents.Put(ctx, k.key, data, "")
	if errs.KindOf(err) != errs.Conflict {
		return err
	}
	if repeated { // the first call came this far, and what it wrote may have been changed since
		return nil
	}
	return conflict(k.kind, k.id, k.kind+" exists already: "+k.id)
}

// put replaces the text of k. Errors: NotFound.
func (c *Control) put(ctx context.Context, k kept, data []byte, clientToken, hash string) error {
	operation := "Put " + k.kind
	var m companion
	if _, err := c.read(ctx, k.companion(), &m); err != nil {
		return err
	}
	_, again, err := m.Tokens.find(clientToken, operation, hash)
	if err != nil {
		return conflict(k.kind, k.id, err.Error())
	}
	if again {
		return nil
	}
	var before docstore.Doc
	_, err = c.deps.Documents.Update(ctx, k.key, func(old docstore.Doc) ([]byte, error) {
		if old.Version == "" {
			return nil, missing(k.kind, k.id)
		}
		before = old
		return data, nil
	})
	if err != nil {
		return err
	}
	_, err = update(ctx, c, k.companion(), func(m *companion, exists bool) (bool, error) {
		if !exists || m.Created.IsZero() {
			m.Created = before.Modified
		}
		m.Replaced = true
		m.Tokens.keep(clientToken, token{operation, hash, nil, c.now()})
		return true, nil
	})
	return err
}

// describe returns the text of k and its companion. Errors: NotFound.
func (c *Control) describe(ctx context.Context, k kept) (docstore.Doc, *companion, error) {
	d, err := c.deps.Documents.Get(ctx, k.key)
	if errs.KindOf(err) == errs.NotFound {
		return d, nil, missing(k.kind, k.id)
	}
	if err != nil {
		return d, nil, err
	}
	m := &companion{}
	if _, err := c.read(ctx, k.companion(), m); err != nil {
		return d, nil, err
	}
	m.fill(d.Modified)
	return d, m, nil
}

// fill completes the companion of a document that was made by another API.
func (m *companion) fill(modified time.Time) {
	if m.Created.IsZero() || m.Created.After(modified) {
		m.Created = modified
	}
	if m.Tags == nil {
		m.Tags = map[string]string{}
	}
}

// deletion is what a call is about to delete. It is kept as the answer of its client token before anything is
// deleted, and taken away afterwards: when the process dies in between, the call is made again, which ends it.
type deletion struct {
	Version docstore.Version `json:"version"`
	At      time.Time        `json:"at"`
}

// remove deletes k. Errors: NotFound, Conflict.
func (c *Control) remove(x *call, k kept, clientToken string) error {
	ctx, operation, hash := x.r.Context(), "Delete "+k.kind, hashOf(k.id)
	w, err := c.own(ctx, x, x.segment(1))
	if err != nil {
		return err
	}
	if err := checkToken(clientToken); err != nil {
		return err
	}
	begun, again, err := w.Tokens.find(clientToken, operation, hash)
	if err != nil {
		return conflict(k.kind, k.id, err.Error())
	}
	if again && begun == nil {
		return nil
	}
	keep := func(answer json.RawMessage) error {
		if clientToken == "" {
			return nil
		}
		_, err := update(ctx, c, workspaceKey(w.ID), func(w *workspace, exists bool) (bool, error) {
			w.Tokens.keep(clientToken, token{operation, hash, answer, c.now()})
			return exists, nil
		})
		return err
	}
	going := deletion{At: c.now()}
	if again {
		if err := json.Unmarshal(begun, &going); err != nil {
			return errs.New(errs.Internal, "the client token of a deletion in workspace %s cannot be read: %w", w.ID, err)
		}
		err = c.eraseAgain(ctx, k, going)
	} else {
		err = c.erase(ctx, k, func(v docstore.Version) error {
			going.Version = v
			answer, err := json.Marshal(going)
			if err != nil {
				return errs.New(errs.Internal, "encode the client token of a deletion: %w", err)
			}
			return keep(answer)
		})
	}
	if err != nil {
		return err
	}
	if err := c.dropUntil(ctx, k.companion(), going.At); err != nil {
		return err
	}
	return keep(nil)
}

// erase deletes the text of k, and says before which version it is. Errors: NotFound.
func (c *Control) erase(ctx context.Context, k kept, intend func(docstore.Version) error) error {
	for {
		d, err := c.deps.Documents.Get(ctx, k.key)
		if errs.KindOf(err) == errs.NotFound {
			return missing(k.kind, k.id)
		}
		if err != nil {
			return err
		}
		if err := intend(d.Version); err != nil {
			return err
		}
		err = c.deps.Documents.Delete(ctx, k.key, d.Version)
		switch errs.KindOf(err) {
		case errs.Conflict:
			continue // somebody changed it at the same moment
		case errs.NotFound:
			return missing(k.kind, k.id)
		}
		return err
	}
}

// eraseAgain ends what a call before began, of which nobody knows how far it came. Errors: Conflict if there
// is another text than the one that it was about to delete.
func (c *Control) eraseAgain(ctx context.Context, k kept, begun deletion) error {
	err := c.deps.Documents.Delete(ctx, k.key, begun.Version)
	switch errs.KindOf(err) {
	case errs.NotFound:
		return nil
	case errs.Conflict:
		return conflict(k.kind, k.id, k.kind+" was changed or made anew since the same call was made first: "+k.id+"; look at it, and delete it with another client token")
	}
	return err
}

// dropUntil deletes the companion of a document that was deleted, unless it is that of a successor which was
// made after at.
func (c *Control) dropUntil(ctx context.Context, key string, at time.Time) error {
	for {
		var m companion
		v, err := c.read(ctx, key, &m)
		if err != nil || v == "" || m.Created.After(at) {
			return err
		}
		err = c.deps.Documents.Delete(ctx, key, v)
		if k := errs.KindOf(err); err == nil || k != errs.Conflict && k != errs.NotFound {
			return err
		}
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

package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// withdraw takes a workspace that is being deleted out of use: its rules and its definition are moved
// to where no other service looks, so that an operator can bring them back, and the account no longer
// lists it. Each step may be made again.
func (c *Control) withdraw(ctx context.Context, id string) error {
	var w workspace
	v, err := c.read(ctx, workspaceKey(id), &w)
	if err != nil || v == "" || w.State != deleting {
		return err
	}
	if _, err := c.putAway(ctx, id); err != nil {
		return err
	}
	c.rulesChanged(ctx, id, nil)
	_, err = update(ctx, c, accountKey(w.Account), func(a *account, exists bool) (bool, error) {
		n := len(a.Workspaces)
		a.Workspaces = slices.DeleteFunc(a.Workspaces, func(e entry) bool { return e.ID == id })
		return exists && len(a.Workspaces) < n, nil
	})
	if err != nil {
		return err
	}
	_, err = update(ctx, c, workspaceKey(id), func(w *workspace, exists bool) (bool, error) {
		w.State = deleted
		return exists, nil
	})
	c.seen.forget(id)
	return err
}

// strayAge is for how long after the deletion of a workspace something may still be made in it: by a call that found it
// there, whose process then stood still, and ended before it looked again.
const strayAge = time.Hour

// sweep puts away what was made in a workspace after it was withdrawn. Nobody was told that it was made.
func (c *Control) sweep(ctx context.Context, id string) error {
	n, err := c.putAway(ctx, id)
	if err != nil || n == 0 {
		return err
	}
	c.log.Warn("what was made in a workspace while it was deleted is put away", "workspace", id, "documents", n)
	var w workspace
	if _, err := c.read(ctx, workspaceKey(id), &w); err != nil {
		return err
	}
	if w.State == active { // an operator has restored it meanwhile
		err = c.bringBack(ctx, id, func(ctx context.Context, key string, data []byte) error {
			_, err := c.deps.Documents.Put(ctx, key, data, "")
			if errs.KindOf(err) == errs.Conflict {
				return nil // it was made anew
			}
			return err
		})
	}
	c.rulesChanged(ctx, id, err)
	return err
}

// putAway moves rules and definition of a workspace to where no other service looks, and says how many documents.
func (c *Control) putAway(ctx context.Context, id string) (n int, err error) {
	folder, err := c.rulesFolder(id)
	if err != nil {
		return 0, err
	}
	for _, from := range []string{folder, c.deps.DefinitionKey(tenant.ID(id))} {
		entries, err := c.deps.Documents.List(ctx, from)
		if err != nil {
			return n, err
		}
		for _, e := range entries {
			if e.Key != from && !strings.HasSuffix(from, "/") {
				continue // a name that only begins so
			}
			if err := c.moveOne(ctx, e.Key, withdrawnPrefix+id+"/"); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// bringBack gives what was put away of a workspace to write, and then drops it.
func (c *Control) bringBack(ctx context.Context, id string, write func(ctx context.Context, key string, data []byte) error) error {
	entries, err := c.deps.Documents.List(ctx, withdrawnPrefix+id+"/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		d, err := c.deps.Documents.Get(ctx, e.Key)
		if errs.KindOf(err) == errs.NotFound {
			continue // another replica does the same
		}
		if err != nil {
			return err
		}
		if err := write(ctx, strings.TrimPrefix(e.Key, withdrawnPrefix+id+"/"), d.Data); err != nil {
			return err
		}
		if err := c.drop(ctx, e.Key); err != nil {
			return err
		}
	}
	return nil
}

// moveOne puts a document below to as it is when it goes from where it was.
func (c *Control) moveOne(ctx context.Context, key, to string) error {
	for {
		d, err := c.deps.Documents.Get(ctx, key)
		if errs.KindOf(err) == errs.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		// A copy that is there already has all that was answered before the workspace was deleted.
		if _, err := c.deps.Documents.Put(ctx, to+key, d.Data, ""); err != nil && errs.KindOf(err) != errs.Conflict {
			return err
		}
		err = c.deps.Documents.Delete(ctx, key, d.Version)
		if k := errs.KindOf(err); err == nil || k != errs.Conflict && k != errs.NotFound {
			return err
		}
	}
}

// clean goes on with deletions. Every replica does it: each step may be made again.
func (c *Control) clean(ctx context.Context) error {
	if err := c.cleanAll(ctx); err != nil {
		if ctx.Err() == nil {
			c.m.failures.Inc()
			c.log.Error("janitor of workspaces failed", "err", err)
		}
		return nil // the service goes on
	}
	c.m.lastClean.SetToCurrentTime()
	return nil
}

func (c *Control) cleanAll(ctx context.Context) error {
	entries, err := c.deps.Documents.List(ctx, workspacesPrefix)
	if err != nil {
		return err
	}
	var failed error
	for _, e := range entries {
		if c.seen.settled(e) {
			continue
		}
		id := strings.TrimSuffix(strings.TrimPrefix(e.Key, workspacesPrefix), ".json")
		if err := c.cleanOne(ctx, id, e); err != nil {
			failed = errors.Join(failed, fmt.Errorf("workspace %s: %w", id, err))
		}
	}
	return errors.Join(failed, c.cleanScrapers(ctx), c.texts.Sweep(ctx, tokenAge))
}

// cleanScrapers ends deletions of scrapers that were cut short, and forgets scrapers whose client tokens are old.
func (c *Control) cleanScrapers(ctx context.Context) error {
	entries, err := c.deps.Documents.List(ctx, scrapersPrefix)
	if err != nil {
		return err
	}
	var failed error
	for _, e := range entries {
		if c.seen.settled(e) {
			continue
		}
		var d scraperDoc
		v, err := c.read(ctx, e.Key, &d)
		switch {
		case err != nil || v == "":
		case d.State == deleting:
			err = c.forgetScraper(ctx, d.Account, d.ID)
		case d.State == deleted:
			if c.now().Sub(d.Modified) >= tokenAge {
				err = c.drop(ctx, e.Key)
			}
		default:
			c.seen.settle(e)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("scraper %s: %w", d.ID, err))
		}
	}
	return failed
}

func (c *Control) cleanOne(ctx context.Context, id string, e docstore.Entry) error {
	var w workspace
	v, err := c.read(ctx, workspaceKey(id), &w)
	if err != nil || v == "" {
		return err
	}
	switch {
	case w.State == deleting:
		return c.withdraw(ctx, id)
	case w.State == deleted && c.now().Sub(w.Deleted) >= c.cfg.PurgeAfter:
		return c.purge(ctx, id)
	case w.State == deleted && c.now().Sub(w.Deleted) < strayAge:
		return c.sweep(ctx, id)
	case w.State == active, w.State == purged:
		c.seen.settle(e)
	}
	return nil
}

// purge gives the blocks of a deleted workspace to deletion and forgets it. Only a record that it was
// there stays, so that its name is never given to data of another.
func (c *Control) purge(ctx context.Context, id string) error {
	if err := c.deps.Purge(ctx, tenant.ID(id)); err != nil {
		return err
	}
	if _, err := c.putAway(ctx, id); err != nil {
		return err
	}
	entries, err := c.deps.Documents.List(ctx, withdrawnPrefix+id+"/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.drop(ctx, e.Key); err != nil {
			return err
		}
	}
	_, err = update(ctx, c, workspaceKey(id), func(w *workspace, exists bool) (bool, error) {
		*w = workspace{ID: w.ID, Account: w.Account, State: purged, Created: w.Created, Deleted: w.Deleted}
		return exists, nil
	})
	if err == nil {
		c.m.purged.Inc()
		c.log.Info("data of a deleted workspace is given to deletion", "workspace", id)
	}
	return err
}

// Restore brings a workspace back that was deleted and not purged yet. Errors: NotFound.
func (c *Control) Restore(ctx context.Context, id string) error {
	if err := c.withdraw(ctx, id); err != nil {
		return err
	}
	var w workspace
	v, err := c.read(ctx, workspaceKey(id), &w)
	if err != nil {
		return err
	}
	if v == "" || w.State != deleted {
		return errs.New(errs.NotFound, "there is no deleted workspace %s whose data is still there", id)
	}
	err = c.bringBack(ctx, id, func(ctx context.Context, key string, data []byte) error {
		_, err := c.deps.Documents.Overwrite(ctx, key, data)
		return err
	})
	if err != nil {
		return err
	}
	_, err = update(ctx, c, accountKey(w.Account), func(a *account, _ bool) (bool, error) {
		if slices.ContainsFunc(a.Workspaces, func(e entry) bool { return e.ID == id }) {
			return false, nil
		}
		a.Workspaces = append(a.Workspaces, entry{id, w.Created})
		slices.SortStableFunc(a.Workspaces, func(x, y entry) int { return x.position().compare(y.position()) })
		return true, nil
	})
	if err != nil {
		return err
	}
	_, err = update(ctx, c, workspaceKey(id), func(w *workspace, exists bool) (bool, error) {
		w.State, w.Deleted = active, time.Time{}
		return exists, nil
	})
	c.seen.forget(id)
	c.rulesChanged(ctx, id, err)
	return err
}

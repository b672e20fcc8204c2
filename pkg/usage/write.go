package usage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dskit/concurrency"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

const (
	// Documents is where those of tenants are.
	Documents = "usage/"
	// observedKey is the document that says on which days any process noted what tenants ask for.
	observedKey = "usage_observed"

	// writers is how many documents are written at once.
	writers = 8
	// lastWrite bounds how long the stop of a process waits for the bucket.
	lastWrite = 20 * time.Second
)

func documentKey(id tenant.ID) string { return Documents + string(id) }

// run writes from time to time, the first time at once, as the day is then known to be observed.
func (t *Tracker) run(ctx context.Context) error {
	tick := time.NewTicker(t.cfg.WritePeriod)
	defer tick.Stop()
	for {
		t.observe(ctx)
		_ = t.Write(ctx) // it is told, and made again
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// last writes what is left.
func (t *Tracker) last(error) error {
	ctx, cancel := context.WithTimeout(context.Background(), lastWrite)
	defer cancel()
	_ = t.Write(ctx) // it is told
	return nil
}

// Write merges what was noted into the documents of the tenants. What cannot be written is written the next time.
func (t *Tracker) Write(ctx context.Context) error {
	t.mu.RLock()
	ids := slices.Sorted(maps.Keys(t.tenants))
	t.mu.RUnlock()
	today := dayOf(t.deps.Now())
	failures := make([]error, len(ids))
	_ = concurrency.ForEachJob(ctx, len(ids), writers, func(ctx context.Context, i int) error {
		failures[i] = t.write(ctx, ids[i], today)
		return nil
	})
	err := ctx.Err()
	failed := 0
	for _, e := range failures {
		if e != nil {
			err = e
			failed++
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		t.deps.Log.Warn("what tenants asked for is not written, it will be tried again", "tenants", failed, "err", err)
	}
	return err
}

func (t *Tracker) write(ctx context.Context, id tenant.ID, today day) error {
	n := t.of(id)
	if n == nil {
		return nil
	}
	n.mu.Lock()
	pending := n.pending
	n.pending = notes{}
	idle := pending.empty() && n.day < today
	n.gone = idle
	n.mu.Unlock()
	if idle {
		t.forget(id, n)
	}
	if pending.empty() {
		return nil
	}
	err := t.merge(ctx, id, &pending, today)
	switch {
	case err == nil:
		t.metrics.written.Inc()
		return nil
	case errors.Is(err, errDeleted):
		n.clear()
		return nil
	case ctx.Err() == nil: // or else the process stops, and writes it then
		t.metrics.failed.Inc()
	}
	n.mu.Lock()
	pending.merge(&n.pending)
	n.pending = pending
	n.pending.clean(0)
	n.mu.Unlock()
	return fmt.Errorf("tenant %s: %w", id, err)
}

// forget takes what is noted of a tenant out of the tracker; n is gone already.
func (t *Tracker) forget(id tenant.ID, n *noted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tenants[id] == n {
		delete(t.tenants, id)
	}
}

// errDeleted is why nothing is written of a tenant.
var errDeleted = errors.New("the tenant is being deleted")

// merge adds pending to the document of a tenant.
func (t *Tracker) merge(ctx context.Context, id tenant.ID, pending *notes, today day) error {
	lost := 0
	_, err := t.deps.Documents.Update(ctx, documentKey(id), func(old docstore.Doc) ([]byte, error) {
		// Who deletes a tenant marks it first, and then deletes its document: none must come back after that.
		if old.Version == "" && t.deps.Deleted != nil {
			if gone, err := t.deps.Deleted(ctx, id); err != nil || gone {
				return nil, cmp.Or(err, errDeleted)
			}
		}
		all, err := t.read(old, today)
		if err != nil {
			return nil, err
		}
		before, err := json.Marshal(all)
		if err != nil {
			return nil, err
		}
		all.merge(pending)
		lost = all.clean(t.oldest(today))
		after, err := json.Marshal(all)
		if err != nil || bytes.Equal(before, after) {
			return nil, err
		}
		return all.encode()
	})
	t.metrics.lost.Add(float64(lost))
	return err
}

// oldest is the first day that is remembered.
func (t *Tracker) oldest(today day) day { return today - t.days() + 1 }

func (t *Tracker) days() day { return day(t.cfg.Retention / (24 * time.Hour)) }

// read returns what a document says. One that is damaged says nothing, and that this may be too little.
func (t *Tracker) read(d docstore.Doc, today day) (*notes, error) {
	if d.Version == "" {
		return &notes{}, nil
	}
	n, err := decode(d.Data)
	switch {
	case errors.Is(err, errNewer):
		return nil, errs.New(errs.Unavailable, "document %s: %w", d.Key, err)
	case err != nil:
		t.deps.Log.Error("what a tenant asked for cannot be read and is noted anew", "document", d.Key, "err", err)
		return &notes{Lost: today}, nil
	}
	return n, nil
}

// observed is on which days what tenants ask for was noted, the oldest first.
type observed struct {
	Days []day `json:"days"`
}

// observe notes that this day is observed, and once a day looks for documents that nobody adds to any more.
func (t *Tracker) observe(ctx context.Context) {
	today := dayOf(t.deps.Now())
	if t.swept == today || !t.deps.Observes {
		return
	}
	_, err := t.deps.Documents.Update(ctx, observedKey, func(old docstore.Doc) ([]byte, error) {
		o := observedOf(old)
		if slices.Contains(o.Days, today) {
			return nil, nil
		}
		o.Days = slices.DeleteFunc(append(o.Days, today), func(d day) bool { return d < t.oldest(today) })
		slices.Sort(o.Days)
		return json.Marshal(o)
	})
	if err == nil {
		err = t.sweep(ctx)
	}
	if err == nil {
		t.swept = today
	} else if ctx.Err() == nil {
		t.metrics.failed.Inc()
		t.deps.Log.Warn("that it is noted what tenants ask for is not written, it will be tried again", "err", err)
	}
}

// observedOf reads the document of observed days. Of one that is damaged none is known.
func observedOf(d docstore.Doc) (o observed) {
	if d.Version != "" && json.Unmarshal(d.Data, &o) != nil {
		return observed{}
	}
	return o
}

// sweep deletes the documents of tenants that asked for nothing for as long as anything is remembered.
func (t *Tracker) sweep(ctx context.Context) error {
	entries, err := t.deps.Documents.List(ctx, Documents)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Key, Documents) || t.deps.Now().Sub(e.Modified) < t.cfg.Retention+24*time.Hour {
			continue
		}
		if err := t.deps.Documents.Delete(ctx, e.Key, e.Version); err != nil && errs.KindOf(err) != errs.NotFound && errs.KindOf(err) != errs.Conflict {
			return err
		}
	}
	return nil
}

// Forget deletes what is known of a tenant that is marked as being deleted. What other processes have not written yet
// they forget when they see the mark.
func (t *Tracker) Forget(ctx context.Context, id tenant.ID) error {
	if n := t.of(id); n != nil {
		n.clear()
	}
	return Delete(ctx, t.deps.Documents, id)
}

// Delete deletes the document of a tenant.
func Delete(ctx context.Context, docs *docstore.Store, id tenant.ID) error {
	for {
		d, err := docs.Get(ctx, documentKey(id))
		if err == nil {
			err = docs.Delete(ctx, d.Key, d.Version)
		}
		switch errs.KindOf(err) {
		case errs.Conflict:
			continue // it was added to meanwhile
		case errs.NotFound:
			return nil
		}
		return err
	}
}

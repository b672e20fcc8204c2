package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"time"

	"github.com/grafana/dskit/services"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// limitsPeriod is how long it takes at most until a process knows a changed configuration of a workspace or of
// what is logged for it.
const limitsPeriod = 30 * time.Second

// Limits is a service of every process that keeps to limits: it gives what workspaces configure to
// the process's overrides, and knows what they want to be logged.
type Limits struct {
	services.Service
	documents *docstore.Store
	check     func(name string, data []byte) error
	apply     func(name string, data []byte) error
	applyKeys bool
	log       *slog.Logger

	wishes

	seen    map[string]docstore.Version // by key
	limits  map[string]map[string]any   // by tenant
	last    string                      // what was applied
	lastErr string
}

// NewLimits returns the service. apply puts a runtime file in force over what there is; check says
// whether it can be.
func NewLimits(cfg Config, documents *docstore.Store, check, apply func(name string, data []byte) error, log *slog.Logger) *Limits {
	l := &Limits{documents: documents, check: check, apply: apply, applyKeys: cfg.ApplyKeys, log: log, seen: map[string]docstore.Version{}, limits: map[string]map[string]any{}, wishes: wishes{by: map[string]wish{}}}
	l.Service = services.NewTimerService(limitsPeriod, l.poll, l.poll, nil)
	return l
}

// poll never fails: limits that are known stay in force when documents cannot be read.
func (l *Limits) poll(ctx context.Context) error {
	err := l.refresh(ctx)
	switch {
	case err == nil:
		l.lastErr = ""
	case ctx.Err() == nil && err.Error() != l.lastErr:
		l.lastErr = err.Error()
		l.log.Error("configurations of workspaces not read, the older ones stay in force", "err", err)
	}
	return nil
}

func (l *Limits) refresh(ctx context.Context) error {
	entries, err := l.documents.List(ctx, workspacesPrefix)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Key] = true
		if l.seen[e.Key] == e.Version {
			continue
		}
		if err := l.read(ctx, e); err != nil {
			return err
		}
		l.seen[e.Key] = e.Version
	}
	for key := range l.seen {
		if !there[key] {
			delete(l.seen, key)
			delete(l.limits, workspaceOf(key))
			l.wishes.set(workspaceOf(key), nil)
		}
	}
	return l.put()
}

func workspaceOf(key string) string {
	return strings.TrimSuffix(strings.TrimPrefix(key, workspacesPrefix), ".json")
}

func (l *Limits) read(ctx context.Context, e docstore.Entry) error {
	d, err := l.documents.Get(ctx, e.Key)
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	var w workspace
	if err := json.Unmarshal(d.Data, &w); err != nil {
		return errs.New(errs.Internal, "document %s cannot be read: %w", e.Key, err)
	}
	delete(l.limits, workspaceOf(e.Key))
	l.wishes.set(workspaceOf(e.Key), &w)
	x := map[string]any{}
	if w.State == active && w.Settings != nil {
		x = w.Settings.limits()
	}
	if l.applyKeys && w.Key != "" && w.State != purged { // what is left of a deleted one is still written
		x["s3_sse_type"], x["s3_sse_kms_key_id"] = "SSE-KMS", w.Key
	}
	return l.take(w.ID, x)
}

// take remembers the limits of a workspace. One that cannot be, because another version accepted it, must
// not hold up those of all others.
func (l *Limits) take(id string, x map[string]any) error {
	if len(x) == 0 {
		return nil
	}
	data, err := overrides(map[string]map[string]any{id: x})
	if err != nil {
		return err
	}
	if err := l.check("configuration of workspace "+id, data); err != nil {
		l.log.Error("configuration of a workspace is left out", "workspace", id, "err", err)
		return nil
	}
	l.limits[id] = x
	return nil
}

// overrides is a runtime file that says these limits, by tenant.
func overrides(by map[string]map[string]any) ([]byte, error) {
	return yaml.Marshal(map[string]any{"overrides": by})
}

func (l *Limits) put() error {
	text := ""
	if len(l.limits) > 0 {
		data, err := overrides(l.limits)
		if err != nil {
			return err
		}
		text = string(data)
	}
	if text == l.last {
		return nil
	}
	if err := l.apply("configurations of workspaces", []byte(text)); err != nil {
		return err
	}
	l.last = text
	return nil
}

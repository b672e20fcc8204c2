package app

import (
	"context"
	"log/slog"
)

// eventLog marks what a part says of a tenant's rules or alerts for the place that the tenant named: warnings
// and errors of a logger that knows its tenant.
type eventLog struct {
	next   slog.Handler
	tenant string // empty: not known yet
	group  func(tenant string) string
}

// events is the log of a part whose warnings about tenants are theirs to see.
func (a *App) events() *slog.Logger {
	return slog.New(eventLog{next: a.log.Handler(), group: a.logs.LogGroup})
}

// Enabled implements slog.Handler.
func (h eventLog) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (h eventLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.next.Handle(ctx, r)
	}
	id := h.tenant
	r.Attrs(func(x slog.Attr) bool {
		if x.Key == "tenant" {
			id = x.Value.String()
		}
		return true
	})
	if id != "" {
		if group := h.group(id); group != "" {
			r = r.Clone()
			r.AddAttrs(slog.String("workspace", id), slog.String("log_group", group))
		}
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h eventLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, x := range attrs {
		if x.Key == "tenant" {
			h.tenant = x.Value.String()
		}
	}
	h.next = h.next.WithAttrs(attrs)
	return h
}

// WithGroup implements slog.Handler.
func (h eventLog) WithGroup(name string) slog.Handler {
	h.next = h.next.WithGroup(name)
	return h
}

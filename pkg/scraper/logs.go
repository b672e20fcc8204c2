package scraper

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// The parts of a scraper whose log can be asked for.
const (
	discoveryLog = "SERVICE_DISCOVERY"
	collectorLog = "COLLECTOR"
)

// logsPerSecond bounds what one part of one scraper logs.
const logsPerSecond, logsAtOnce = 5, 50

// wished is what the owner of a scraper wants to be logged.
type wished struct {
	parts []string
	group string
}

// partLog is the log of one part of a scraper: silent unless its owner asked for it.
type partLog struct {
	next  slog.Handler
	part  string
	asked *atomic.Pointer[wished]
	rate  *rate.Limiter
}

func newPartLog(log *slog.Logger, part string, asked *atomic.Pointer[wished]) *slog.Logger {
	return slog.New(partLog{log.Handler(), part, asked, rate.NewLimiter(logsPerSecond, logsAtOnce)})
}

// scrapeFailed is what the library says, for debugging, of a target that does not answer.
const scrapeFailed = "Scrape failed"

// Enabled implements slog.Handler.
func (h partLog) Enabled(context.Context, slog.Level) bool {
	return slices.Contains(h.asked.Load().parts, h.part)
}

// Handle implements slog.Handler.
func (h partLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == scrapeFailed {
		r.Level = slog.LevelWarn // it is what one asks for this log for
	}
	if !h.next.Enabled(ctx, r.Level) || !h.rate.Allow() {
		return nil
	}
	r.AddAttrs(slog.String("scraper_component", h.part), slog.String("log_group", h.asked.Load().group))
	return h.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h partLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.next = h.next.WithAttrs(attrs)
	return h
}

// WithGroup implements slog.Handler.
func (h partLog) WithGroup(name string) slog.Handler {
	h.next = h.next.WithGroup(name)
	return h
}

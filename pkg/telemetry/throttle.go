package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Throttle logs at most one line in a period, with how many were left out since the last.
type Throttle struct {
	log     *slog.Logger
	every   time.Duration
	start   time.Time
	next    atomic.Int64 // time since start from which a line is logged again
	skipped atomic.Uint64
}

// NewThrottle returns a Throttle that logs a line at most once in every period.
func NewThrottle(log *slog.Logger, every time.Duration) *Throttle {
	return &Throttle{log: log, every: every, start: time.Now()}
}

// Log writes the line, unless one was written within the period.
func (t *Throttle) Log(ctx context.Context, level slog.Level, msg string, attrs ...slog.Attr) {
	now := int64(time.Since(t.start))
	next := t.next.Load()
	if now < next || !t.next.CompareAndSwap(next, now+int64(t.every)) {
		t.skipped.Add(1)
		return
	}
	t.log.LogAttrs(ctx, level, msg, append(attrs[:len(attrs):len(attrs)], slog.Uint64("left_out", t.skipped.Swap(0)))...)
}

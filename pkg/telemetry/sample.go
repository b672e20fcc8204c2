package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Sampler logs one in so many lines of a kind that may come once a request: the first, and then
// every n-th, each with how many there were so far.
type Sampler struct {
	log   *slog.Logger
	n     uint64
	count atomic.Uint64
}

// NewSampler returns a Sampler that logs one in n lines; n below 2 logs all.
func NewSampler(log *slog.Logger, n int) *Sampler { return &Sampler{log: log, n: uint64(max(n, 1))} }

// Log writes the line if it is one that is chosen. It costs an atomic add otherwise.
func (s *Sampler) Log(ctx context.Context, level slog.Level, msg string, attrs ...slog.Attr) {
	count := s.count.Add(1)
	if (count-1)%s.n != 0 || !s.log.Enabled(ctx, level) {
		return
	}
	s.log.LogAttrs(ctx, level, msg, append(attrs[:len(attrs):len(attrs)], slog.Uint64("seen", count), slog.Uint64("logged_one_in", s.n))...)
}

// Count returns how many lines there were, logged or not.
func (s *Sampler) Count() uint64 { return s.count.Load() }

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

package compactor

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// guarded does a piece of work. A panic is its error, so that it ends neither the process nor what is done for
// other tenants; more is said of what it was. Errors: Internal for a panic, those of f.
func (c *Compactor) guarded(what string, f func() error, more ...any) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		c.metrics.panics.Inc()
		c.deps.Logger.Error(what+" panicked, the rest goes on", append(more, slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))...)
		err = errs.New(errs.Internal, "%s panicked: %v", what, p)
	}()
	return f()
}

// quiet keeps the TSDB's progress lines out of the log.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(warnings{log.Handler()}) }

type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attrs)}
}
func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }

package ingester

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-kit/log/level"
)

// goKitLogger gives dskit, which wants a go-kit logger, the process's slog logger.
type goKitLogger struct{ to *slog.Logger }

// Log writes one line; keyvals are pairs, of which "msg" and "level" have their slog meaning.
func (l goKitLogger) Log(keyvals ...any) error {
	msg, lvl := "ring entry", slog.LevelInfo
	attrs := make([]slog.Attr, 0, len(keyvals)/2)
	for k := 0; k+1 < len(keyvals); k += 2 {
		switch key, value := keyvals[k], keyvals[k+1]; {
		case key == "msg":
			msg = fmt.Sprint(value)
		case key == level.Key():
			lvl = slogLevel(value)
		default:
			attrs = append(attrs, slog.Any(fmt.Sprint(key), value))
		}
	}
	l.to.LogAttrs(context.Background(), lvl, msg, attrs...)
	return nil
}

func slogLevel(v any) slog.Level {
	switch v {
	case level.DebugValue():
		return slog.LevelDebug
	case level.WarnValue():
		return slog.LevelWarn
	case level.ErrorValue():
		return slog.LevelError
	}
	return slog.LevelInfo
}

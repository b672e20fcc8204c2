package bucket

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-kit/log/level"
)

// gokitLogger gives the drivers, which want a go-kit logger, the process's slog logger.
type gokitLogger struct{ to *slog.Logger }

// Log writes one line; keyvals are pairs of which "msg" and "level" have their slog meaning.
func (l gokitLogger) Log(keyvals ...any) error {
	msg, lvl := "object storage", slog.LevelInfo
	attrs := make([]slog.Attr, 0, len(keyvals)/2)
	for i := 0; i+1 < len(keyvals); i += 2 {
		key, value := fmt.Sprint(keyvals[i]), keyvals[i+1]
		switch {
		case key == "msg":
			msg = fmt.Sprint(value)
		case keyvals[i] == level.Key():
			lvl = levelOf(value)
		default:
			attrs = append(attrs, slog.Any(key, value))
		}
	}
	l.to.LogAttrs(context.Background(), lvl, msg, attrs...)
	return nil
}

func levelOf(v any) slog.Level {
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

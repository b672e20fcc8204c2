package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	gokit "github.com/go-kit/log"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// The forms of log lines.
const (
	FormatLogfmt = "logfmt"
	FormatJSON   = "json"
)

// NewLogger returns the log of the process, written to w, and the level, which may be changed
// while it is in use. Attributes whose type holds a config.Secret are replaced by asterisks.
func NewLogger(cfg Config, w io.Writer) (*slog.Logger, *slog.LevelVar, error) {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return nil, nil, config.Wrong("log.level", "%q is not a level", cfg.LogLevel)
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: new(redactor).replace}
	switch cfg.LogFormat {
	case FormatLogfmt:
		return slog.New(slog.NewTextHandler(w, opts)), level, nil
	case FormatJSON:
		return slog.New(slog.NewJSONHandler(w, opts)), level, nil
	}
	return nil, nil, config.Wrong("log.format", "%q is neither %s nor %s", cfg.LogFormat, FormatLogfmt, FormatJSON)
}

// redactor gives attributes the names the field is used to (ts, level in lower case) and hides
// secrets.
type redactor struct {
	types sync.Map // reflect.Type -> bool: whether it holds a secret
}

func (r *redactor) replace(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 {
		switch a.Key {
		case slog.TimeKey:
			if a.Value.Kind() == slog.KindTime {
				return slog.Time("ts", a.Value.Time().UTC())
			}
		case slog.LevelKey:
			if l, ok := a.Value.Any().(slog.Level); ok {
				return slog.String(slog.LevelKey, strings.ToLower(l.String()))
			}
		}
	}
	if a.Value.Kind() == slog.KindAny && r.holdsSecret(reflect.TypeOf(a.Value.Any())) {
		return slog.String(a.Key, config.Secret("hidden").String())
	}
	return a
}

// holdsSecret says whether values of t may hold a config.Secret. A struct's unexported fields
// count too: formatting shows them without asking their type.
func (r *redactor) holdsSecret(t reflect.Type) bool {
	if t == nil {
		return false
	}
	if holds, ok := r.types.Load(t); ok {
		return holds.(bool)
	}
	holds := holdsSecret(t, map[reflect.Type]bool{})
	r.types.Store(t, holds) // as many entries as types are logged
	return holds
}

func holdsSecret(t reflect.Type, seen map[reflect.Type]bool) bool {
	if t == reflect.TypeFor[config.Secret]() {
		return true
	}
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan:
		return holdsSecret(t.Elem(), seen)
	case reflect.Map:
		return holdsSecret(t.Key(), seen) || holdsSecret(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if holdsSecret(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

// GoKit returns l for libraries that take a go-kit logger.
func GoKit(l *slog.Logger) gokit.Logger { return &gokitLogger{l.Handler()} }

type gokitLogger struct{ h slog.Handler }

// Log is part of go-kit's log.Logger. The keys level and msg become those of the record; a time
// is left to the handler.
func (g *gokitLogger) Log(keyvals ...any) error {
	level, msg := slog.LevelInfo, ""
	for i := 0; i+1 < len(keyvals); i += 2 {
		switch keyvals[i] {
		case "level":
			level = levelOf(keyvals[i+1])
		case "msg":
			msg = fmt.Sprint(keyvals[i+1])
		}
	}
	ctx := context.Background() // go-kit has none
	if !g.h.Enabled(ctx, level) {
		return nil
	}
	rec := slog.NewRecord(time.Now(), level, msg, 0)
	for i := 0; i < len(keyvals); i += 2 {
		key, ok := keyvals[i].(string)
		if !ok {
			key = fmt.Sprint(keyvals[i])
		}
		switch {
		case key == "level" || key == "msg" || key == "ts" || key == "time":
		case i+1 == len(keyvals):
			rec.AddAttrs(slog.String(key, "(MISSING)"))
		default:
			rec.AddAttrs(slog.Any(key, resolve(keyvals[i+1])))
		}
	}
	return g.h.Handle(ctx, rec)
}

// resolve calls go-kit's lazy values.
func resolve(v any) any {
	switch v := v.(type) {
	case gokit.Valuer:
		return v()
	case func() any:
		return v()
	}
	return v
}

// levelOf reads what go-kit's level package puts under the key level. It is asked for its text:
// dskit and others have level values of their own.
func levelOf(v any) slog.Level {
	switch strings.ToLower(fmt.Sprint(v)) {
	case "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

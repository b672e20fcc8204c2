package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// wrong is an error about one setting.
type wrong struct {
	name string
	err  error
}

func (w *wrong) Error() string { return w.name + ": " + w.err.Error() }
func (w *wrong) Unwrap() error { return w.err }

// Wrong is what a Validate returns about the setting declared as name; several are joined by
// errors.Join. The reader is shown the full path and where the value came from.
func Wrong(name, format string, args ...any) error {
	return &wrong{name, fmt.Errorf(format, args...)}
}

// validate runs the checks of the mounted parts, except those of parts in which a value did not
// parse: their verdict would be about a default nobody asked for.
func (s *Set) validate(unread []*Field, problems *strict.Problems) {
	for _, c := range s.shared.checks {
		if holdsAny(c.prefix, unread) {
			continue
		}
		for _, err := range flattenErrors(c.part.Validate()) {
			where := strings.TrimSuffix(c.prefix, ".")
			if w, ok := errors.AsType[*wrong](err); ok {
				where, err = s.describe(c.prefix+strings.ReplaceAll(w.name, "-", "_")), w.err
			}
			if where == "" {
				where = "settings"
			}
			problems.Add(where, "%v", err)
		}
	}
}

func holdsAny(prefix string, fields []*Field) bool {
	for _, f := range fields {
		if strings.HasPrefix(f.Path, prefix) {
			return true
		}
	}
	return false
}

// flattenErrors returns the errors joined in err.
func flattenErrors(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range j.Unwrap() {
			out = append(out, flattenErrors(e)...)
		}
		return out
	}
	return []error{err}
}

// describe returns path and, in brackets, who set it.
func (s *Set) describe(path string) string {
	if f := s.field(path); f != nil && f.Source != "" {
		return path + " (" + f.Source + ")"
	}
	return path
}

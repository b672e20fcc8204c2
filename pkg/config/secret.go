package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// mask stands for a secret wherever one would be printed.
const mask = "********"

// Secret is a password, key or token. It prints as asterisks, in every format and encoding; only
// Reveal gives it out. (fmt does not ask the type when a secret lies in an unexported field of a
// struct, or for %p: keep secrets in exported fields.)
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns asterisks, or nothing if the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// Format prints asterisks whatever the verb: fmt shows the bare value for a verb that does not
// fit the type.
func (s Secret) Format(f fmt.State, verb rune) {
	format := "%s"
	if verb == 'q' || f.Flag('#') {
		format = "%q"
	}
	_, _ = fmt.Fprintf(f, format, s.String()) // a fmt.State does not fail
}

// MarshalJSON returns asterisks.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText returns asterisks.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML returns asterisks.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue returns asterisks.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

package errs

import "fmt"

// ID names one limit or validation for good: alerts, runbooks and log filters key on it. It
// appears in the text of an error as (err-amphora-<id>).
type ID string

// WithID returns an error of kind k whose text ends in the id and, if hint is not empty, in what
// to do: "<what happened> (err-amphora-<id>). <hint>".
func WithID(k Kind, id ID, hint, format string, args ...any) error {
	what := fmt.Errorf(format, args...)
	if hint == "" {
		return &kindError{k, fmt.Errorf("%w (err-amphora-%s)", what, id)}
	}
	return &kindError{k, fmt.Errorf("%w (err-amphora-%s). %s", what, id, hint)}
}

// Limit is WithID for a limit an administrator can raise: flag is the command line flag without
// its dash, key the name in the overrides file.
func Limit(k Kind, id ID, flag, key, format string, args ...any) error {
	return WithID(k, id, "To adjust it, set -"+flag+" or the tenant's limit "+key+", or ask your administrator.", format, args...)
}

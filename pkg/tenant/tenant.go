// Package tenant owns the tenant ID: how it is parsed and checked, how it travels in a context,
// and the list form a|b of reads over several tenants.
package tenant

import (
	"context"
	"slices"
	"strings"

	"github.com/grafana/dskit/user"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// ID is a checked tenant ID: at most 150 bytes of a-z A-Z 0-9 and !-_.*'() , and neither "." nor
// "..", so that it is safe as a directory and object name.
type ID string

// maxBytes keeps an ID usable as a file and object name; the field's limit.
const maxBytes = 150

// reserved names are directories of the bucket that hold no tenant.
var reserved = []string{".", "..", "__mimir_cluster", "__amphora_cluster"}

// Parse checks s and returns it as an ID. Errors: Invalid.
func Parse(s string) (ID, error) {
	if s == "" {
		return "", errs.New(errs.Invalid, "tenant ID is empty")
	}
	if len(s) > maxBytes {
		return "", errs.New(errs.Invalid, "tenant ID is too long: %d bytes, at most %d are allowed", len(s), maxBytes)
	}
	for i := range len(s) {
		if !allowed(s[i]) {
			return "", errs.New(errs.Invalid, "tenant ID %q contains the unsupported character %q", s, s[i])
		}
	}
	if slices.Contains(reserved, s) {
		return "", errs.New(errs.Invalid, "tenant ID %q is reserved", s)
	}
	return ID(s), nil
}

func allowed(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!-_.*'()", c) >= 0
}

// Inject returns ctx acting for id. gRPC and HTTP clients of dskit carry it to peers.
func Inject(ctx context.Context, id ID) context.Context {
	return user.InjectOrgID(ctx, string(id))
}

// InjectMany returns ctx reading for all of ids.
func InjectMany(ctx context.Context, ids []ID) context.Context {
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = string(id)
	}
	return user.InjectOrgID(ctx, strings.Join(s, "|"))
}

// FromContext returns the one tenant ctx acts for. Errors: Unauthenticated if there is none,
// Unprocessable if there are several, Invalid if the ID breaks the rules.
func FromContext(ctx context.Context) (ID, error) {
	ids, err := Many(ctx)
	if err != nil {
		return "", err
	}
	if len(ids) > 1 {
		return "", errs.New(errs.Unprocessable, "multiple tenant IDs present, but this request takes one")
	}
	return ids[0], nil
}

// Many returns the tenants ctx acts for, sorted and without repetition. Errors as FromContext.
func Many(ctx context.Context) ([]ID, error) {
	org, err := user.ExtractOrgID(ctx)
	if err != nil || org == "" {
		return nil, errs.New(errs.Unauthenticated, "no org id")
	}
	return ParseMany(org)
}

// ParseMany parses the list form a|b. Errors: Invalid.
func ParseMany(s string) ([]ID, error) {
	var ids []ID
	for part := range strings.SplitSeq(s, "|") {
		id, err := Parse(part)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

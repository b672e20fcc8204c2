// Package errs owns the kinds of failure and, in one table, how each appears to an HTTP client, a
// gRPC peer, Prometheus and an AWS SDK. It also owns the catalogue of error ids that limits and
// validations put into their texts (see ids.go), and how a panic of one goroutine becomes that of who waits for it.
package errs

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"
)

// Kind classes an error by what the caller should do about it.
type Kind uint8

// The kinds. Internal is the zero value on purpose: an error nobody classed is a bug.
const (
	Internal        Kind = iota // a bug or an unknown failure
	Invalid                     // the request can never succeed as sent
	Unauthenticated             // nobody is named, or the proof is wrong
	Denied                      // named, but not allowed
	NotFound                    // the named thing does not exist
	Conflict                    // somebody else changed it first
	Quota                       // an account allowance is used up; asking again does not help
	RateLimited                 // too fast; retry later
	BodyTooLarge                // the request body is over its size limit
	TooLarge                    // a per-query limit was reached
	Unprocessable               // well formed, but cannot be done as asked
	Accepted                    // nothing to do, and the client must not retry (HA deduplication)
	Unsupported                 // content type or encoding we do not speak
	Canceled                    // the client went away
	Timeout                     // the deadline passed
	Unavailable                 // retry, here later or elsewhere now
	Unimplemented               // a route or method that is switched off
)

type row struct {
	name      string
	http      int
	grpc      codes.Code
	prom, aws string
	retry     bool
}

// kinds is the only place where a Kind becomes a status.
var kinds = [...]row{
	Internal:        {"internal", http.StatusInternalServerError, codes.Internal, "internal", "InternalServerException", true},
	Invalid:         {"invalid", http.StatusBadRequest, codes.InvalidArgument, "bad_data", "ValidationException", false},
	Unauthenticated: {"unauthenticated", http.StatusUnauthorized, codes.Unauthenticated, "unauthorized", "AccessDeniedException", false},
	Denied:          {"denied", http.StatusForbidden, codes.PermissionDenied, "forbidden", "AccessDeniedException", false},
	NotFound:        {"not found", http.StatusNotFound, codes.NotFound, "not_found", "ResourceNotFoundException", false},
	Conflict:        {"conflict", http.StatusConflict, codes.Aborted, "conflict", "ConflictException", false},
	Quota:           {"quota", http.StatusPaymentRequired, codes.FailedPrecondition, "quota", "ServiceQuotaExceededException", false},
	RateLimited:     {"rate limited", http.StatusTooManyRequests, codes.ResourceExhausted, "too_many_requests", "ThrottlingException", true},
	BodyTooLarge:    {"body too large", http.StatusRequestEntityTooLarge, codes.ResourceExhausted, "too_large_entry", "ValidationException", false},
	TooLarge:        {"too large", http.StatusUnprocessableEntity, codes.FailedPrecondition, "execution", "ValidationException", false},
	Unprocessable:   {"unprocessable", http.StatusUnprocessableEntity, codes.FailedPrecondition, "execution", "ValidationException", false},
	Accepted:        {"accepted", http.StatusAccepted, codes.AlreadyExists, "accepted", "", false},
	Unsupported:     {"unsupported", http.StatusUnsupportedMediaType, codes.InvalidArgument, "bad_data", "ValidationException", false},
	Canceled:        {"canceled", 499, codes.Canceled, "canceled", "", false},
	Timeout:         {"timeout", http.StatusServiceUnavailable, codes.DeadlineExceeded, "timeout", "InternalServerException", true},
	Unavailable:     {"unavailable", http.StatusServiceUnavailable, codes.Unavailable, "unavailable", "InternalServerException", true},
	Unimplemented:   {"unimplemented", http.StatusNotImplemented, codes.Unimplemented, "internal", "UnknownOperationException", false},
}

// Kinds returns every kind, in declaration order; reference pages are printed from it.
func Kinds() []Kind {
	out := make([]Kind, len(kinds))
	for i := range kinds {
		out[i] = Kind(i)
	}
	return out
}

// Valid says whether k is in the table; a byte from a peer may not be.
func (k Kind) Valid() bool { return int(k) < len(kinds) }

func (k Kind) row() *row {
	if !k.Valid() {
		k = Internal
	}
	return &kinds[k]
}

func (k Kind) String() string         { return k.row().name }
func (k Kind) HTTPStatus() int        { return k.row().http }
func (k Kind) GRPCCode() codes.Code   { return k.row().grpc }
func (k Kind) PrometheusType() string { return k.row().prom }
func (k Kind) AWSType() string        { return k.row().aws }

// Retry says whether the same request may succeed later.
func (k Kind) Retry() bool { return k.row().retry }

type kindError struct {
	kind Kind
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

// New returns an error of kind k. format may wrap a cause with %w.
func New(k Kind, format string, args ...any) error {
	return &kindError{k, fmt.Errorf(format, args...)}
}

// Wrap gives err the kind k and keeps its text. It returns nil for nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kindError{k, err}
}

// KindOf returns the outermost kind in err's chain. A context error without a kind is Canceled
// or Timeout; anything else without one is Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*kindError](err); ok {
		return e.kind
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// HTTPStatus returns the status code for err.
func HTTPStatus(err error) int { return KindOf(err).HTTPStatus() }

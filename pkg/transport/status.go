package transport

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// errorDomain marks the status detail that carries one of our kinds, by name.
	errorDomain = "amphora"
	// maxStatusBytes bounds the text of an error that crosses gRPC, because it travels in headers.
	maxStatusBytes = 16 << 10
)

// toStatus gives err the form in which it crosses gRPC: the code of its kind, its text, and the
// kind as a detail. A status that gRPC itself made stays as it is.
func toStatus(err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // A stream's end is never wrapped.
		return err
	}
	kind := errs.KindOf(err)
	if _, remote := errors.AsType[*remoteError](err); kind == errs.Internal && !remote {
		if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
			return s.Err()
		}
	}
	text := strings.ToValidUTF8(err.Error(), "\uFFFD")
	if len(text) > maxStatusBytes {
		text = strings.ToValidUTF8(text[:maxStatusBytes], "")
	}
	s, detailErr := status.New(kind.GRPCCode(), text).WithDetails(&errdetails.ErrorInfo{Reason: kind.String(), Domain: errorDomain})
	if detailErr != nil {
		return status.Error(kind.GRPCCode(), text)
	}
	return s.Err()
}

// remoteError is an error that a peer returned.
type remoteError struct{ status *status.Status }

func (e *remoteError) Error() string { return e.status.Message() }

// GRPCStatus lets gRPC helpers of libraries read the status.
func (e *remoteError) GRPCStatus() *status.Status { return e.status }

// fromStatus is the inverse of toStatus: an error with the kind and the text that the peer's had.
func fromStatus(err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // A stream's end is never wrapped.
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	return errs.Wrap(statusKind(s), &remoteError{worded(s)})
}

// worded gives the end of a call whose context has ended the words of contexts. The peer, which knows the
// deadline, may be first to end the stream, and then the status has those of the protocol.
func worded(s *status.Status) *status.Status {
	if !strings.HasPrefix(s.Message(), "stream terminated by RST_STREAM") {
		return s
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		return status.New(s.Code(), context.DeadlineExceeded.Error())
	case codes.Canceled:
		return status.New(s.Code(), context.Canceled.Error())
	}
	return s
}

// statusKind reads the kind off s, or derives it from the code of a peer that names none.
func statusKind(s *status.Status) errs.Kind {
	for _, d := range s.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != errorDomain {
			continue
		}
		for _, k := range errs.Kinds() {
			if k.String() == info.GetReason() {
				return k
			}
		}
	}
	if k, ok := bareCodes()[s.Code()]; ok {
		return k
	}
	return errs.Internal
}

// bareCodes gives statuses without our detail a kind: mostly those that gRPC makes itself.
func bareCodes() map[codes.Code]errs.Kind {
	return map[codes.Code]errs.Kind{
		codes.Canceled:           errs.Canceled,
		codes.InvalidArgument:    errs.Invalid,
		codes.OutOfRange:         errs.Invalid,
		codes.DeadlineExceeded:   errs.Timeout,
		codes.NotFound:           errs.NotFound,
		codes.AlreadyExists:      errs.Conflict,
		codes.Aborted:            errs.Conflict,
		codes.PermissionDenied:   errs.Denied,
		codes.Unauthenticated:    errs.Unauthenticated,
		codes.ResourceExhausted:  errs.BodyTooLarge, // gRPC's own: a message over its size limit.
		codes.FailedPrecondition: errs.Unprocessable,
		codes.Unimplemented:      errs.Unimplemented,
		codes.Unavailable:        errs.Unavailable,
	}
}

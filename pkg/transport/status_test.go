package transport

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestACallThatEndsWithItsContextSaysSoWhoeverEndsIt(t *testing.T) {
	const reset = "stream terminated by RST_STREAM with error code: CANCEL"
	for _, c := range []struct {
		code codes.Code
		sent string
		kind errs.Kind
		text string
	}{
		{codes.DeadlineExceeded, reset, errs.Timeout, context.DeadlineExceeded.Error()},
		{codes.Canceled, reset, errs.Canceled, context.Canceled.Error()},
		{codes.DeadlineExceeded, "context deadline exceeded while waiting for connections to become ready", errs.Timeout, "context deadline exceeded while waiting for connections to become ready"},
		{codes.Unavailable, reset, errs.Unavailable, reset},
	} {
		err := fromStatus(status.Error(c.code, c.sent))
		if errs.KindOf(err) != c.kind || err.Error() != c.text {
			t.Errorf("%s %q became %s %q", c.code, c.sent, errs.KindOf(err), err)
		}
	}
	// What a peer says itself is passed on.
	if err := fromStatus(toStatus(errs.New(errs.Timeout, "query timed out in query queue"))); errs.KindOf(err) != errs.Timeout || err.Error() != "query timed out in query queue" {
		t.Errorf("a peer's timeout became %v", err)
	}
}

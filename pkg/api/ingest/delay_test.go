package ingest

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// slow is a distributor that takes its time.
type slow struct {
	takes   time.Duration
	written remotewrite.Written
	err     error
}

func (s slow) Push(context.Context, tenant.ID, *remotewrite.Request) (remotewrite.Written, error) {
	time.Sleep(s.takes)
	return s.written, s.err
}

func TestAPushTakesAsLongAsItsArtificialDelay(t *testing.T) {
	for name, c := range map[string]struct {
		slow
		took   time.Duration
		timing string
	}{
		"no delay":    {slow{takes: time.Second}, time.Second, ""},
		"quick push":  {slow{time.Second, remotewrite.Written{Delay: 3 * time.Second}, nil}, 3 * time.Second, "artificial_delay;dur=2000.0"},
		"slow push":   {slow{time.Second, remotewrite.Written{Delay: time.Second / 2}, nil}, time.Second, "artificial_delay;dur=0.0"},
		"failed push": {slow{time.Second, remotewrite.Written{Delay: 3 * time.Second}, errs.New(errs.Invalid, "bad")}, time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				rec := do(newAPI(c.slow), request(s2.EncodeSnappy(nil, []byte("x"))))
				if took := time.Since(start); took != c.took {
					t.Errorf("answered after %s, want %s", took, c.took)
				}
				if got := rec.Header().Get("Server-Timing"); got != c.timing {
					t.Errorf("Server-Timing = %q, want %q", got, c.timing)
				}
			})
		})
	}
}

func TestAnAnswerHeldBackHoldsNoBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(slow{written: remotewrite.Written{Delay: time.Minute}})
		ctx, cancel := context.WithCancel(t.Context())
		answered := make(chan *httptest.ResponseRecorder)
		go func() { answered <- do(a, request(s2.EncodeSnappy(nil, make([]byte, 1<<16))).WithContext(ctx)) }()
		synctest.Wait()
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%d bytes of body are held while the answer waits", left)
		}
		time.Sleep(time.Second)
		cancel() // nobody waits for the answer any more
		if rec := <-answered; rec.Header().Get("Server-Timing") != "artificial_delay;dur=1000.0" {
			t.Errorf("Server-Timing = %q", rec.Header().Get("Server-Timing"))
		}
	})
}

func TestRetryAfterCanBeSetAndSwitchedOff(t *testing.T) {
	body := s2.EncodeSnappy(nil, []byte("x"))
	for _, c := range []struct {
		retry RetryConfig
		want  string
	}{
		{RetryConfig{true, 2 * time.Second, 10 * time.Second}, "7"}, // attempt 3: 8 s, spread to 4..10, in the middle
		{RetryConfig{false, 2 * time.Second, 10 * time.Second}, ""},
	} {
		a := newAPI(&sink{err: errs.New(errs.RateLimited, "too fast")})
		a.cfg.Retry = c.retry
		if got := do(a, request(body, "Retry-Attempt", "3")).Header().Get("Retry-After"); got != c.want {
			t.Errorf("%+v: Retry-After = %q, want %q", c.retry, got, c.want)
		}
	}
	for _, c := range []RetryConfig{{true, time.Millisecond, time.Second}, {true, time.Minute, time.Second}} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "min_backoff") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

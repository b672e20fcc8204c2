package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"
)

// TestDrainAnswersWhatIsUnderWay: a push that began before is answered, one that begins later is
// refused in a way that senders repeat, and pages stay.
func TestDrainAnswersWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{push: func(context.Context) error {
			time.Sleep(time.Second)
			return nil
		}}
		a, err := New(defaults(t), Deps{Pusher: f, Ready: func(context.Context) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		push := func() *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "/api/v1/push", strings.NewReader(string(s2.EncodeSnappy(nil, nil))))
			r.Header.Set("X-Scope-OrgID", "t1")
			rec := httptest.NewRecorder()
			a.ServeHTTP(rec, r)
			return rec
		}
		done := make(chan int, 1)
		go func() { done <- push().Code }()
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := a.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drained with a request under way: %v", err)
		}
		if rec := push(); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" || rec.Header().Get("Connection") != "close" {
			t.Errorf("a later push: %d, %v", rec.Code, rec.Header())
		}
		if rec := get(a, http.MethodGet, "/ready"); rec.Code != http.StatusOK {
			t.Errorf("a page: %d", rec.Code)
		}
		begin := time.Now()
		if err := a.Drain(t.Context()); err != nil || time.Since(begin) != 900*time.Millisecond {
			t.Errorf("drained after %s: %v", time.Since(begin), err)
		}
		if code := <-done; code != http.StatusOK {
			t.Errorf("the push under way: %d", code)
		}
	})
}

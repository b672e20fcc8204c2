package ingest

import (
	"math"
	"net/http"
	"strconv"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	retryBaseSeconds = 6
	retryMostSeconds = 96
)

// WriteError sends err as plain text. An error that the client should send again carries a
// Retry-After that doubles with the attempts the client tells of.
func (a *API) WriteError(w http.ResponseWriter, r *http.Request, err error) {
	kind := errs.KindOf(err)
	status := kind.HTTPStatus()
	if kind == errs.Timeout {
		status = http.StatusInternalServerError // remote write knows a push that took too long as 500
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if kind.Retry() {
		h.Set("Retry-After", strconv.Itoa(retryAfter(r.Header.Get("Retry-Attempt"), a.random())))
	}
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(err.Error()), '\n')) // the client is gone if this fails
}

// retryAfter returns the seconds until the next attempt: 6 doubled for each attempt before, up to
// 96, spread by half of it in both directions and never above 96.
func retryAfter(attempt string, random float64) int {
	n, err := strconv.Atoi(attempt)
	if err != nil || n < 1 {
		n = 1
	}
	base := float64(retryBaseSeconds) * math.Exp2(float64(min(n, 10)-1))
	base = min(base, retryMostSeconds)
	low, high := base/2, min(base*3/2, retryMostSeconds)
	return int(math.Ceil(low + random*(high-low)))
}

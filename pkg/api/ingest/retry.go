package ingest

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// RetryConfig says when a refused client shall come back. It is mounted as
// "distributor.retry_after_header".
type RetryConfig struct {
	Enabled    bool
	MinBackoff time.Duration // of the first attempt
	MaxBackoff time.Duration
}

// usualRetry is what counts where nothing is set.
func usualRetry() RetryConfig { return RetryConfig{true, 6 * time.Second, 96 * time.Second} }

// Declare adds the settings to s.
func (c *RetryConfig) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "enabled", usualRetry().Enabled, "Whether answers to pushes that can be retried carry a Retry-After header.").Expert()
	s.Duration(&c.MinBackoff, "min_backoff", usualRetry().MinBackoff, "Mean of the first Retry-After, which is jittered; each further attempt doubles it.").Expert()
	s.Duration(&c.MaxBackoff, "max_backoff", usualRetry().MaxBackoff, "Longest Retry-After.").Expert()
}

// Validate is part of config.Validator.
func (c *RetryConfig) Validate() error {
	if c.MinBackoff < time.Second || c.MaxBackoff < c.MinBackoff {
		return config.Wrong("min_backoff", "is %s, it must be at least 1s and at most max_backoff, which is %s",
			config.FormatDuration(c.MinBackoff), config.FormatDuration(c.MaxBackoff))
	}
	return nil
}

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
	if kind.Retry() && a.cfg.Retry.Enabled {
		h.Set("Retry-After", strconv.Itoa(a.cfg.Retry.after(r.Header.Get("Retry-Attempt"), a.random())))
	}
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(err.Error()), '\n')) // the client is gone if this fails
}

// after returns the seconds until the next attempt: MinBackoff doubled for each attempt before, up
// to MaxBackoff, spread by half of it in both directions and never above MaxBackoff.
func (c *RetryConfig) after(attempt string, random float64) int {
	n, err := strconv.Atoi(attempt)
	if err != nil || n < 1 {
		n = 1
	}
	most := c.MaxBackoff.Seconds()
	base := c.MinBackoff.Seconds() * math.Exp2(float64(min(n, 32)-1))
	base = min(base, most)
	low, high := base/2, min(base*3/2, most)
	return int(math.Ceil(low + random*(high-low)))
}

package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// pollEvery is the pause between two looks.
const pollEvery = 50 * time.Millisecond

// bodyBytes bounds what is read of an answer.
const bodyBytes = 16 << 20

type giveup struct{ error }

func (g giveup) Unwrap() error { return g.error }

// Giveup marks err so that Poll returns it at once.
func Giveup(err error) error { return giveup{err} }

// Poll calls ok until it returns nil, an error marked by Giveup, or ctx is done; ctx must have a
// deadline. It returns the last error of ok.
func Poll(ctx context.Context, ok func(context.Context) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		return errors.New("poll without a deadline")
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := errors.New("not tried")
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), last)
		case <-timer.C:
		}
		err := ok(ctx)
		if err == nil {
			return nil
		}
		if _, final := errors.AsType[giveup](err); final {
			return err
		}
		if ctx.Err() == nil {
			last = err
		}
		timer.Reset(pollEvery)
	}
}

// Get returns the body of a 200 answer of url, at most 16 MiB of it; header is a list of name,
// value, name, value.
func Get(ctx context.Context, url string, header ...string) ([]byte, error) {
	return GetBy(ctx, http.DefaultClient, url, header...)
}

// GetBy is Get by another client than Go's own.
func GetBy(ctx context.Context, by *http.Client, url string, header ...string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := by.Do(req)
	if err != nil {
		return nil, err // names the method and the URL
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, bodyBytes))
	if err != nil {
		return nil, fmt.Errorf("get %s: read the answer: %w", url, err)
	}
	if res.StatusCode != http.StatusOK {
		return body, fmt.Errorf("get %s: status %d: %.300s", url, res.StatusCode, body)
	}
	return body, nil
}

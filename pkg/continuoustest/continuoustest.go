// Package continuoustest owns the continuous test: it writes series with known values by every
// protocol, reads them back, and counts answers that differ.
package continuoustest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Deps is what the test works with.
type Deps struct {
	Log  *slog.Logger
	Reg  prometheus.Registerer
	Done func() // called once a smoke test went well
	// Transport sends the requests; nil: Go's own.
	Transport http.RoundTripper
}

// Test is the service that writes and reads. What it knows of earlier samples it asks for when it starts.
type Test struct {
	services.Service

	cfg     Config
	deps    Deps
	metrics *metrics
	client  *client
	streams []*progress
}

// stream is the series of one protocol and kind.
type stream struct {
	protocol   string
	histograms bool
}

func (s stream) kind() string {
	if s.histograms {
		return "histogram"
	}
	return "float"
}

// expr selects the samples of a stream that have exactly the time they are asked for: the default of
// queries, to take the newest of the last five minutes, would hide what is missing.
func (s stream) expr(aggregation string) string {
	return aggregation + `(last_over_time(` + metricOf(s.histograms) + `{` + protocolLabel + `="` + s.protocol + `"}[1s]))`
}

// progress is what is known to be stored of a stream: every sample from first to last.
type progress struct {
	stream
	looked      bool // for what an earlier process wrote
	first, last time.Time
}

// New returns the test. Errors: Invalid (the configuration).
func New(cfg Config, d Deps) (*Test, error) {
	write, err := endpoint("write_endpoint", cfg.Write.Endpoint)
	if err != nil {
		return nil, err
	}
	read, err := endpoint("read_endpoint", cfg.Read.Endpoint)
	if err != nil {
		return nil, err
	}
	t := &Test{cfg: cfg, deps: d, metrics: newMetrics(d.Reg), client: &client{cfg: cfg, write: write, read: read, http: &http.Client{Transport: d.Transport}}}
	for _, p := range cfg.Write.Protocols {
		for _, histograms := range []bool{false, true} {
			if histograms && cfg.Series.WithHistograms || !histograms && cfg.Series.WithFloats {
				s := stream{p, histograms}
				t.metrics.declare(s)
				t.streams = append(t.streams, &progress{stream: s})
			}
		}
	}
	t.Service = services.NewBasicService(nil, t.run, nil)
	return t, nil
}

// run writes at each interval, and reads when it is time to.
func (t *Test) run(ctx context.Context) error {
	if t.cfg.SmokeTest {
		if err := t.once(ctx, time.Now()); err != nil {
			return err
		}
		t.deps.Log.Info("the smoke test went well")
		t.deps.Done()
		<-ctx.Done()
		return nil
	}
	var read time.Time // when it is time to
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		now := time.Now()
		for _, p := range t.streams {
			if t.look(ctx, p, now) == nil {
				_ = t.write(ctx, p, now) // logged and counted
			}
		}
		if !now.Before(read) {
			read = now.Add(t.cfg.RunInterval)
			for _, p := range t.streams {
				_ = t.check(ctx, p, now) // logged and counted
			}
		}
		timer.Reset(time.Until(t.aligned(time.Now()).Add(t.cfg.WriteInterval)))
	}
}

// once writes and reads everything once. Errors: Internal (something failed, or was wrong).
func (t *Test) once(ctx context.Context, now time.Time) error {
	var problems []error
	for _, p := range t.streams {
		err := t.look(ctx, p, now)
		if err == nil {
			err = t.write(ctx, p, now)
		}
		if err == nil {
			err = t.check(ctx, p, now)
		}
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return errs.New(errs.Internal, "the smoke test failed: %w", err)
	}
	return nil
}

// aligned is the newest time for a sample that is not after now.
func (t *Test) aligned(now time.Time) time.Time {
	return time.UnixMilli(now.UnixMilli() / t.cfg.WriteInterval.Milliseconds() * t.cfg.WriteInterval.Milliseconds())
}

// lateBy is how old a sample may be that is still written: what is much older than the newest block's
// end would be refused.
const lateBy = 30 * time.Minute

// write writes the samples that are due. What fails for the moment is tried again at the next interval;
// what is refused leaves a gap, before which nothing is read any more.
func (t *Test) write(ctx context.Context, p *progress, now time.Time) error {
	newest := t.aligned(now)
	if p.last.IsZero() || now.Sub(p.last) > lateBy {
		p.first, p.last = time.Time{}, newest.Add(-t.cfg.WriteInterval)
	}
	for at := p.last.Add(t.cfg.WriteInterval); !at.After(newest); at = at.Add(t.cfg.WriteInterval) {
		status, err := t.writeAt(ctx, p.stream, at)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			t.deps.Log.Warn("the continuous test cannot write", "protocol", p.protocol, "type", p.kind(), "status", status, "err", err)
			if final(status) {
				p.first, p.last = time.Time{}, at
			}
			return err
		}
		p.last = at
		if p.first.IsZero() {
			p.first = at
		}
		t.metrics.last.WithLabelValues(p.kind(), p.protocol).Set(float64(at.Unix()))
	}
	return nil
}

// final says whether sending the same again is of no use; 2xx is a write that was taken in part.
func final(status int) bool {
	return status/100 == 2 || status/100 == 4 && status != http.StatusTooManyRequests && status != http.StatusUnauthorized && status != http.StatusForbidden
}

// writeAt writes all series of a stream at one time, and stops at the first request that fails: so what is
// there after an interruption are the first series without a gap, which the same write completes.
func (t *Test) writeAt(ctx context.Context, s stream, at time.Time) (status int, err error) {
	for from := 1; from <= t.cfg.Series.Count; from += t.cfg.Write.BatchSize {
		began := time.Now()
		status, err = t.client.push(ctx, part{s, at, from, min(t.cfg.Series.Count, from+t.cfg.Write.BatchSize-1)})
		t.metrics.writes.WithLabelValues(s.kind(), s.protocol).Inc()
		t.metrics.writeSeconds.WithLabelValues(s.kind(), s.protocol).Observe(time.Since(began).Seconds())
		if err != nil {
			t.metrics.writesFailed.WithLabelValues(strconv.Itoa(status), s.kind(), s.protocol).Inc()
			return status, err
		}
	}
	return status, nil
}
